package actions

import (
	"errors"
	"fmt"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// maxReason is the maximum length of a snapshot's error reason in the log. The cause is often at its end, after long
// references.
const maxReason = 1000

// reasonOf describes a failure of Daytona for the log of a run that continues, without the hint for the user.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, daytona.ErrNameTaken):
		return "the snapshot name is taken"
	case errors.Is(err, daytona.ErrInProgress):
		return "Daytona is processing another snapshot of the same image"
	}
	if failed := (*daytona.SnapshotError)(nil); errors.As(err, &failed) && failed.Snapshot.Reason != "" {
		return fmt.Sprintf("snapshot %s is in state %s: %s", failed.Snapshot.Name, failed.Snapshot.State,
			safetext.Line(failed.Snapshot.Reason, maxReason))
	}
	if refused := (*httpclient.APIError)(nil); errors.As(err, &refused) {
		return refused.Op + ": " + refused.Message
	}
	return err.Error()
}

package actions

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestReasonOf(t *testing.T) {
	long := strings.Repeat("reference ", 50) + "502 Bad Gateway"
	failed := daytona.Snapshot{Name: "a", State: daytona.Failed, Reason: long + "\nwith a second line"}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&daytona.SnapshotError{Snapshot: failed}, "snapshot a is in state error: " + long},
		{fmt.Errorf("create: %w", &httpclient.APIError{Op: "create snapshot a", Message: "refused", Hint: "hint"}),
			"create snapshot a: refused"},
		{fmt.Errorf("create: %w", daytona.ErrNameTaken), "the snapshot name is taken"},
		{errors.New("other"), "other"},
	} {
		if got := reasonOf(test.err); !strings.HasPrefix(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

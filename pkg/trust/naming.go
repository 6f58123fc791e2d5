package trust

import (
	"fmt"
	"strings"

	"github.com/org/sandbox-actions/pkg/runner"
)

// NamingError reports a run that must not change which snapshot a config names.
type NamingError struct {
	Why   string
	Event runner.Event
}

func (e *NamingError) Error() string {
	return fmt.Sprintf("this run (%s) %s, so it must not change which snapshot a config names (use a workflow that is "+
		"triggered by push, schedule, release or workflow_dispatch)", e.Event.Name, e.Why)
}

// CheckNaming returns a [*NamingError] unless only people with write access can trigger the event. Pull requests are
// refused, too, because their code has not been merged.
func CheckNaming(event runner.Event) error {
	switch {
	case event.Name == "", event.Name == "repository_dispatch":
		return nil
	case event.Pull != 0 || strings.HasPrefix(event.Name, "pull_request"):
		return &NamingError{"is for a pull request", event}
	case event.Name == "workflow_run" && !event.IsExternal():
		return nil
	case event.IsPrivileged():
		return &NamingError{"can be triggered by anyone", event}
	}
	return nil
}

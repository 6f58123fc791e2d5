package trust

import (
	"fmt"

	"github.com/org/sandbox-actions/pkg/runner"
)

// Needs lists the operations of a run that need secrets or an OIDC token, which GitHub withholds from a fork's pull
// request.
type Needs struct {
	Save          bool     // save the image in Depot's registry, without a Depot token
	DopplerConfig string   // read this config, without a Doppler token; empty for none
	Push          []string // push to these references
	Daytona       bool     // create a snapshot, without a Daytona key
}

// ForkError reports an operation that a run for a fork's pull request cannot do.
type ForkError struct {
	What, Hint string
	Event      runner.Event
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("%s: this run is for %s, which gets neither secrets nor an OIDC token from GitHub; %s",
		e.What, PullRequest(e.Event), e.Hint)
}

// CheckForkPermissions returns a [*ForkError] for the first of the needs that a run for a fork's pull request cannot
// meet. Such a run can still build, on Depot (which authenticates pull requests from forks) or on a self-hosted
// BuildKit, and load and test the image.
//
// canPush reports whether a registry accepts a push with the credentials of this machine.
func CheckForkPermissions(event runner.Event, needs Needs, canPush func(reference string) (bool, error)) error {
	const hint = "remove it for forks, or do it after the pull request is merged"
	if needs.Daytona {
		return &ForkError{"a snapshot needs a Daytona API key", "create the snapshot after the pull request is merged", event}
	}
	if needs.Save {
		return &ForkError{"input save: Depot's registry does not accept images from forks", hint, event}
	}
	if needs.DopplerConfig != "" {
		return &ForkError{
			fmt.Sprintf("input doppler_config: reading %q needs a Doppler token", needs.DopplerConfig),
			hint,
			event,
		}
	}
	for _, reference := range needs.Push {
		ok, err := canPush(reference)
		if err != nil {
			return err
		}
		if !ok {
			return &ForkError{"input push: permission denied for " + reference, hint, event}
		}
	}
	return nil
}

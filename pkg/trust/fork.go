package trust

import (
	"fmt"

	"github.com/org/sandbox-actions/pkg/runner"
)

// Needs is what a run asks for that GitHub withholds from a fork's pull request: secrets and an OIDC token.
type Needs struct {
	Save          bool     // keep the image in Depot's registry, without a Depot token
	DopplerConfig string   // read this config, without a Doppler token; empty for none
	Push          []string // push to these references
	Daytona       bool     // create a snapshot, without a Daytona key
}

// ForkError reports what a run for a fork's pull request cannot do.
type ForkError struct {
	What, Hint string
	Event      runner.Event
}

func (e *ForkError) Error() string {
	return fmt.Sprintf("%s: this run is for %s, to which GitHub gives neither secrets nor an OIDC token; %s",
		e.What, PullRequest(e.Event), e.Hint)
}

// CheckForkPermissions returns a [*ForkError] for the first of the needs that a run for a fork's pull request cannot
// meet. What remains is a build on Depot, which has a way for forks, or on a BuildKit of one's own, loaded and tested
// here.
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

package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// existingSnapshots are the snapshots at Daytona that concern a new one.
type existingSnapshots struct {
	Reused      daytona.Snapshot   // active; zero if none can be reused
	Conflicting daytona.Snapshot   // has the requested name and must be deleted first; zero if the name is free
	Superseded  []daytona.Snapshot // older snapshots of the same image, to be deleted afterwards
}

// wantedSnapshot describes the snapshot that the inputs request.
type wantedSnapshot struct {
	spec       inputs.SnapshotSpec
	digest     v1.Hash
	entrypoint []string // effective
	image      v1.Config
	file       *v1.ConfigFile // with image
}

// matches reports whether a snapshot has the same image, entry point, resources and class, regardless of its region.
func (w wantedSnapshot) matches(s daytona.Snapshot) bool {
	sameClass := w.spec.SandboxClass == "" && isDefaultClass(s.SandboxClass) || s.SandboxClass == w.spec.SandboxClass
	return w.hasImage(s) && sameClass && w.hasEntrypoint(s) && s.Resources == w.spec.Resources && s.GPU == w.spec.GPU
}

// hasImage reports whether a snapshot is of the image. Until Daytona has inspected the image, only the tag that this
// action gave it contains the digest.
func (w wantedSnapshot) hasImage(s daytona.Snapshot) bool {
	if s.Digest != "" {
		return s.Digest == w.digest.String()
	}
	digest, _ := parseImageTag(s.Image)
	return digest == w.digest
}

// isDefaultClass reports whether class is the default of Daytona's configuration (daytonaio/daytona v0.190.0,
// apps/api/src/config/configuration.ts, defaultSandboxClass). Older snapshots have none.
func isDefaultClass(class string) bool { return class == "" || class == daytona.DefaultSandboxClass }

// hasEntrypoint reports whether a sandbox of the snapshot starts the wanted command. Without an entry point, it starts
// the image's ENTRYPOINT.
func (w wantedSnapshot) hasEntrypoint(s daytona.Snapshot) bool {
	started := s.Entrypoint
	if len(started) == 0 {
		started = w.image.Entrypoint
	}
	return slices.Equal(started, w.entrypoint)
}

// findExisting looks for a snapshot to reuse and waits until it is active. If it cannot be reused, findExisting returns
// the snapshots that the new one replaces.
func findExisting(
	ctx context.Context, job job, target snapshotTarget, wanted wantedSnapshot,
) (existingSnapshots, error) {
	spec := wanted.spec
	candidates, err := listCandidates(ctx, target, wanted)
	if err != nil {
		return existingSnapshots{}, err
	}
	var found existingSnapshots
	for _, c := range candidates {
		switch spec.IfExists {
		case inputs.Replace:
			found.Superseded = append(found.Superseded, c)
		case inputs.Fail:
			return existingSnapshots{}, &inputs.Error{Input: "if_exists", Value: string(spec.IfExists),
				Reason: fmt.Sprintf("snapshot %s has the same image; use it, or set if_exists: reuse or replace", c.Name)}
		default:
			reused, err := reuse(ctx, job, target.Client, wanted, c)
			if err == nil {
				return existingSnapshots{Reused: reused}, nil
			}
			if err := finalError(ctx, spec, c, err); err != nil {
				return existingSnapshots{}, err
			}
			job.Runner.Infof("Snapshot %s cannot be reused (%s); creating another", c.Name, reasonOf(err))
		}
	}
	if spec.Name != "" {
		found.Conflicting, err = conflicting(ctx, target, spec)
		found.Superseded = slices.DeleteFunc(found.Superseded, hasID(found.Conflicting.ID))
	}
	return found, err
}

// listCandidates returns the usable snapshots that match what is wanted in the target's region, the most usable first:
// the one with the requested name, or those with the prefix.
func listCandidates(
	ctx context.Context, target snapshotTarget, wanted wantedSnapshot,
) ([]daytona.Snapshot, error) {
	defer startActivity(ctx, "Daytona to list the snapshots")()
	prefix := cmp.Or(wanted.spec.Name, wanted.spec.NamePrefix)
	if target.Region == "" {
		prefix = "" // any snapshot may show the default region
	}
	list, err := target.Client.List(ctx, prefix) // newest first
	if err != nil {
		return nil, err
	}
	region := cmp.Or(target.Region, defaultRegion(list))
	candidates := slices.DeleteFunc(list, func(s daytona.Snapshot) bool {
		isNamed := s.Name == wanted.spec.Name
		switch {
		case wanted.spec.Name != "":
		case wanted.spec.Variant != "": // the prefix of a variant may begin that of another
			isNamed = isGeneratedName(wanted.spec.NamePrefix, s.Name)
		default:
			isNamed = strings.HasPrefix(s.Name, wanted.spec.NamePrefix)
		}
		return !isNamed || !isUsable(s) || !slices.Contains(s.Regions, region) || !wanted.matches(s)
	})
	slices.SortStableFunc(candidates, func(a, b daytona.Snapshot) int {
		return slices.Index(usableStates, a.State) - slices.Index(usableStates, b.State)
	})
	return candidates, nil
}

// usableStates are the states of snapshots that are active or can become active, the most usable first.
var usableStates = []daytona.State{
	daytona.Active, daytona.Pulling, daytona.Pending, daytona.Building, daytona.Inactive,
}

func isUsable(s daytona.Snapshot) bool { return slices.Contains(usableStates, s.State) }

// reuse waits until an existing snapshot is active. It activates an inactive one.
func reuse(
	ctx context.Context, job job, client daytona.Client, wanted wantedSnapshot, s daytona.Snapshot,
) (daytona.Snapshot, error) {
	switch s.State {
	case daytona.Active:
	case daytona.Inactive:
		job.Runner.Infof("Activating snapshot %s, which has the same image", s.Name)
		if err := client.Activate(ctx, s); err != nil {
			return daytona.Snapshot{}, err
		}
	default:
		job.Runner.Infof("Waiting for snapshot %s of the same image, which another run is creating", s.Name)
	}
	active, err := waitUntilActive(ctx, job, client, s, wanted.digest, nil)
	if err == nil {
		job.Runner.Infof("Reusing snapshot %s, which has the same image", s.Name)
	}
	return active, err
}

// finalError returns the error of the run if no other snapshot can take the place of s, which cannot be reused because
// of cause. Otherwise it returns nil.
func finalError(ctx context.Context, spec inputs.SnapshotSpec, s daytona.Snapshot, cause error) error {
	failed := (*daytona.SnapshotError)(nil)
	isInactive := s.State == daytona.Inactive && !errors.As(cause, &failed) // Daytona refused to activate it
	switch {
	case ctx.Err() != nil:
		return cause
	case spec.Name == "" || !isInactive:
		return nil
	case errors.Is(cause, daytona.ErrDeactivating):
		return inputs.Errorf("name", spec.Name, "is a snapshot that was deactivated less than ten minutes ago; wait ten "+
			"minutes, write another name, or set if_exists: replace")
	}
	return cause
}

// conflicting returns the snapshot that has the requested name, if it may be deleted.
func conflicting(ctx context.Context, target snapshotTarget, spec inputs.SnapshotSpec) (daytona.Snapshot, error) {
	named, found, err := target.Client.Find(ctx, spec.Name)
	if err != nil || !found {
		return daytona.Snapshot{}, err
	}
	if spec.IfExists != inputs.Replace && !isFailed(named) && named.State != daytona.Removing {
		return daytona.Snapshot{}, inputs.Errorf("name", spec.Name, "already exists as a snapshot in state %s with another "+
			"image, other resources or in another region; write another name, or set if_exists: replace", named.State)
	}
	return named, nil
}

package actions

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/trust"
)

// snapshotTarget is where a snapshot is created, and what exists there already.
type snapshotTarget struct {
	Client       daytona.Client
	Region       string           // ID; empty for the organization's default
	Existing     daytona.Snapshot // the snapshot with the requested name; zero if the name is free
	PreviousName string           // the name in Doppler when the run started
}

// preflight checks everything at Daytona and Doppler that can be checked before a build: permissions, limits, the
// region, the name.
func preflight(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler,
) (snapshotTarget, error) {
	defer startActivity(ctx, "Daytona and Doppler to answer")()
	client, err := daytonaClient(job.Env, spec.Daytona, spec.Doppler, config)
	if err != nil {
		return snapshotTarget{}, err
	}
	if err := checkPermissions(ctx, client, spec); err != nil { // first, so that a wrong key is reported once
		return snapshotTarget{}, err
	}
	if spec.UpdateDoppler && config.Client == nil {
		return snapshotTarget{}, inputs.Errorf("update_doppler", "true",
			"needs a Doppler config; set doppler_config and a token, or set update_doppler: false")
	}
	target := snapshotTarget{Client: client}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		target.Region, err = checkRegion(groupCtx, client, spec)
		return err
	})
	if spec.Name != "" {
		group.Go(func() (err error) {
			target.Existing, err = findConflicting(groupCtx, client, spec)
			return err
		})
	}
	if spec.UpdateDoppler {
		group.Go(func() (err error) {
			target.PreviousName, err = checkDopplerWrite(groupCtx, config)
			return err
		})
	}
	return target, group.Wait()
}

// daytonaClient returns a Daytona client. Secrets of the Doppler config take precedence over the environment.
func daytonaClient(
	env Env, in inputs.Daytona, doppler inputs.Doppler, config credentials.Doppler,
) (daytona.Client, error) {
	client, from, err := credentials.Daytona(credentials.DaytonaSource{
		APIKey: in.DaytonaAPIKey, OrganizationID: in.DaytonaOrganizationID, APIURL: in.DaytonaAPIURL,
		DopplerConfig: doppler.DopplerConfig, InActions: env.Runner.InActions(), Getenv: config.Over(env.Getenv),
		Mask: env.Runner.Mask,
	})
	if err == nil {
		env.Runner.Infof("Daytona API key: from %s", from)
	}
	return client, err
}

func checkPermissions(ctx context.Context, client daytona.Client, spec inputs.SnapshotSpec) error {
	key, err := client.CurrentKey(ctx)
	if err != nil {
		return err
	}
	needed := []string{daytona.WriteSnapshots}
	if spec.Keep > 0 || spec.IfExists == inputs.Replace {
		needed = append(needed, daytona.DeleteSnapshots)
	}
	if missing := key.Missing(needed...); len(missing) > 0 {
		return fmt.Errorf("the Daytona API key %q lacks the permission %s; create a key with it at "+
			"https://app.daytona.io/dashboard/keys", key.Name, strings.Join(missing, " and "))
	}
	return nil
}

// checkRegion resolves the input region to an ID and checks the resources against the limits in that region.
func checkRegion(ctx context.Context, client daytona.Client, spec inputs.SnapshotSpec) (id string, err error) {
	if spec.Region != "" {
		region, err := client.Region(ctx, spec.Region)
		if err != nil {
			return "", inputs.Wrap("region", err)
		}
		id = region.ID
	}
	limits, err := client.Limits(ctx, id)
	if err != nil {
		return "", err
	}
	return id, limits.Check(spec.Resources)
}

// findConflicting returns the snapshot with the requested name. It can be reused only if it has the same image, which
// is not known before the build.
func findConflicting(ctx context.Context, client daytona.Client, spec inputs.SnapshotSpec) (daytona.Snapshot, error) {
	existing, found, err := client.Find(ctx, spec.Name)
	if err != nil || !found {
		return daytona.Snapshot{}, err
	}
	if spec.IfExists == inputs.Fail && !isFailed(existing) {
		return daytona.Snapshot{}, inputs.Errorf("name", spec.Name, "already exists as a snapshot in state %s; "+
			"write another name, or set if_exists: reuse or replace", existing.State)
	}
	return existing, nil
}

// checkDopplerWrite checks that the config is writable and returns the snapshot name that it holds.
func checkDopplerWrite(ctx context.Context, config credentials.Doppler) (string, error) {
	err := config.Client.CheckWrite(ctx, credentials.SnapshotNameSecret, credentials.MirroredNameSecret)
	if err != nil {
		return "", inputs.Wrap("update_doppler", err)
	}
	values, err := config.Client.Raw(ctx, credentials.SnapshotNameSecret)
	return values[credentials.SnapshotNameSecret], err
}

// isDopplerOptional reports whether a snapshot can be created without Doppler.
func isDopplerOptional(job job, spec inputs.SnapshotSpec) bool {
	return !spec.UpdateDoppler && credentials.HasDaytonaKey(spec.Daytona.DaytonaAPIKey, job.Getenv, job.Runner.InActions())
}

// snapshotNeeds returns the credentials that a snapshot needs and that GitHub withholds from a fork's pull request.
func snapshotNeeds(job job, spec inputs.SnapshotSpec) trust.Needs {
	needs := buildNeeds(job, spec.BuildSpec)
	if isDopplerOptional(job, spec) {
		needs.DopplerConfig = ""
	}
	needs.Daytona = !credentials.HasDaytonaKey(spec.Daytona.DaytonaAPIKey, job.Getenv, job.Runner.InActions()) &&
		!credentials.HasDopplerToken(spec.Doppler.DopplerToken, job.Getenv)
	return needs
}

// snapshotSession holds the credentials and the image or source of a snapshot.
type snapshotSession struct {
	session
	Image existingImage // zero if the image is built
}

// prepareSnapshot reads the credentials and opens the existing image, or prepares the build.
func prepareSnapshot(ctx context.Context, job job, spec inputs.SnapshotSpec) (snapshotSession, error) {
	if spec.Image == "" {
		s, err := prepare(ctx, job, spec.BuildSpec)
		return snapshotSession{session: s}, err
	}
	doppler, err := readDoppler(ctx, job.Env, spec.Doppler, isDopplerOptional(job, spec))
	if err != nil {
		return snapshotSession{}, err
	}
	img, err := openImage(ctx, job, spec.BuildSpec, doppler, nil, spec.Image, inputs.SnapshotPlatform)
	return snapshotSession{session{Doppler: doppler}, img}, err
}

package actions

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/trust"
)

// snapshotTarget is where a snapshot is created.
type snapshotTarget struct {
	Client  daytona.Client
	Key     daytona.Key
	Region  string // ID; empty if it is the organization's default and that is unknown
	Limits  daytona.Limits
	Doppler []dopplerConfig // configs in which the name is recorded
}

// preflight checks everything at Daytona and Doppler that can be checked before a build: permissions, limits, the
// regions, the names. It returns a target for each of spec.Each.
func preflight(
	ctx context.Context, job job, spec inputs.SnapshotSpec, config credentials.Doppler,
) (_ []snapshotTarget, err error) {
	defer startActivity(ctx, "Daytona and Doppler to answer")()
	defer startPhase(ctx, "Check Daytona and Doppler").inGroup(job.Runner).end(&err)
	specs := spec.Each()
	for _, v := range specs {
		if err := checkSnapshotName(ctx, job, v); err != nil {
			return nil, err
		}
	}
	client, err := daytonaClient(job.Env, spec.Daytona, config)
	if err != nil {
		return nil, err
	}
	key, err := client.CurrentKey(ctx) // first, so that a wrong key is reported once
	if err != nil {
		return nil, err
	}
	if err := checkPermissions(key, spec); err != nil {
		return nil, err
	}
	targets := make([]snapshotTarget, len(specs))
	group, groupCtx := errgroup.WithContext(ctx)
	regions := map[string]func() (string, error){}
	for i, v := range specs {
		targets[i].Client, targets[i].Key = client, key
		if regions[v.Region] == nil {
			regions[v.Region] = sync.OnceValues(func() (string, error) { return checkRegion(groupCtx, client, v) })
		}
		region := regions[v.Region]
		group.Go(func() (err error) {
			if targets[i].Region, err = region(); err != nil {
				return wrapVariant(v, err)
			}
			targets[i].Limits, err = readLimits(groupCtx, client, v, targets[i].Region)
			return wrapVariant(v, err)
		})
		if i == 0 || config.Client != nil { // without a token, there is one notice
			group.Go(func() (err error) {
				targets[i].Doppler, err = checkDoppler(groupCtx, job, v, config)
				return err
			})
		}
		if v.Name != "" {
			group.Go(func() error { return wrapVariant(v, checkNameFree(groupCtx, client, key, v)) })
		}
	}
	return targets, group.Wait()
}

// daytonaClient returns a Daytona client. Secrets of the Doppler config take precedence over the environment.
func daytonaClient(
	env Env, in inputs.Daytona, config credentials.Doppler,
) (daytona.Client, error) {
	client, from, err := credentials.Daytona(credentials.DaytonaSource{
		APIKey: in.DaytonaAPIKey, OrganizationID: in.DaytonaOrganizationID, APIURL: in.DaytonaAPIURL,
		Doppler: config, InActions: env.Runner.InActions(), Getenv: env.Getenv, Mask: env.Runner.Mask,
	})
	if err == nil {
		client.Logf = env.Runner.Infof
		env.Runner.Infof("Daytona API key: from %s", from)
	}
	return client, err
}

const keysPage = "https://app.daytona.io/dashboard/keys"

// checkPermissions checks that the key has the permissions that the inputs need. Replacing a failed snapshot
// needs another one, see [checkNameFree].
func checkPermissions(key daytona.Key, spec inputs.SnapshotSpec) error {
	needed := []string{daytona.WriteSnapshots}
	if spec.Keep > 0 || spec.MakeRoom || spec.IfExists == inputs.Replace {
		needed = append(needed, daytona.DeleteSnapshots)
	}
	if spec.Verify == inputs.VerifyBoot || spec.Verify == inputs.VerifySuite {
		needed = append(needed, sandboxPermissions...)
	}
	if missing := key.Missing(needed...); len(missing) > 0 {
		return fmt.Errorf("the Daytona API key %q lacks the permission %s; create a key with it at %s",
			key.Name, strings.Join(missing, " and "), keysPage)
	}
	return nil
}

// checkRegion returns the ID of the input region, or that of the organization's default region if it is known.
func checkRegion(ctx context.Context, client daytona.Client, spec inputs.SnapshotSpec) (string, error) {
	if spec.Region != "" {
		region, err := client.Region(ctx, spec.Region)
		return region.ID, inputs.Wrap("region", err)
	}
	region, err := client.DefaultRegion(ctx)
	if err != nil || region != "" {
		return region, err
	}
	list, err := client.List(ctx, "")
	return defaultRegion(list), err
}

// readLimits returns the organization's limits in a region, as far as the key can read them. It checks the resources
// against them, but not the number of snapshots, because a snapshot may be reused.
func readLimits(
	ctx context.Context, client daytona.Client, spec inputs.SnapshotSpec, region string,
) (daytona.Limits, error) {
	limits, err := client.Limits(ctx, daytona.Request{Region: region, SandboxClass: spec.SandboxClass, GPU: spec.GPU})
	if err != nil {
		return daytona.Limits{}, err
	}
	return limits, limits.CheckResources(spec.Resources)
}

// checkNameFree checks that the requested name is free, or can be freed: a failed snapshot is deleted, which needs a
// permission. A usable one can be reused if it has the same image, which is not known before the build.
func checkNameFree(
	ctx context.Context, client daytona.Client, key daytona.Key, spec inputs.SnapshotSpec,
) error {
	existing, found, err := client.Find(ctx, spec.Name)
	switch {
	case err != nil || !found || existing.State == daytona.Removing:
		return err
	case isFailed(existing) && len(key.Missing(daytona.DeleteSnapshots)) > 0:
		return fmt.Errorf("the Daytona API key %q lacks the permission %s to replace the snapshot %s, which failed "+
			"(create a key with it at %s, or write another name)", key.Name, daytona.DeleteSnapshots, existing.Name, keysPage)
	case spec.IfExists == inputs.Fail && !isFailed(existing):
		return inputs.Errorf("name", spec.Name, "already exists as a snapshot in state %s; "+
			"write another name, or set if_exists: reuse or replace", existing.State)
	}
	return nil
}

// snapshotNeeds returns the credentials that a snapshot needs and that GitHub withholds from a fork's pull request.
func snapshotNeeds(job job, spec inputs.SnapshotSpec) trust.Needs {
	needs := buildNeeds(job, spec.BuildSpec)
	if snapshotDoppler(job, spec).Optional {
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

	// exclusive is locked while a variant pushes again or deletes old snapshots, which the others must not do then.
	exclusive *sync.Mutex
}

// prepareSnapshot reads the credentials and opens the existing image, or prepares the build.
func prepareSnapshot(ctx context.Context, job job, spec inputs.SnapshotSpec) (snapshotSession, error) {
	spec.Doppler = snapshotDoppler(job, spec)
	if spec.Image == "" {
		s, err := prepare(ctx, job, spec.BuildSpec)
		return snapshotSession{session: s}, err
	}
	doppler, err := readDoppler(ctx, job.Env, spec.Doppler)
	if err != nil {
		return snapshotSession{}, err
	}
	img, err := openImage(ctx, job, spec.BuildSpec, doppler, nil, spec.Image, inputs.SnapshotPlatform)
	return snapshotSession{session: session{Doppler: doppler}, Image: img}, err
}

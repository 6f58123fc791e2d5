package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/doctor"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// examineGitHub resolves the ref that the run builds.
func (e examination) examineGitHub(ctx context.Context) doctor.Result {
	checkout, err := e.checkout(ctx)
	if err != nil {
		return doctor.Skip("the checkout cannot be read")
	}
	ref, _, _ := refToBuild(e.job, e.spec, checkout)
	if ref == "" {
		return doctor.Skip("not needed, because the checkout is built")
	}
	config, _ := e.doppler(ctx) // its own check reports the error
	hosted, err := hostedRepository(e.job, e.spec, config, repositoryOf(e.job, checkout))
	if err != nil {
		return doctor.Fail(err)
	}
	hosted.HTTP = e.http
	commit, err := hosted.Resolve(ctx, ref)
	if err != nil {
		return doctor.Fail(err)
	}
	return doctor.Pass("%s is commit %s of %s/%s", ref, shortCommit(commit.SHA), hosted.Owner, hosted.Name)
}

// builderCheck returns the check of Depot, or of the BuildKit daemon that the input builder selects.
func (e examination) builderCheck(unneeded string) doctor.Check {
	if e.spec.Builder == "depot" {
		return newCheck("Depot", unneeded, e.examineDepot)
	}
	return newCheck("BuildKit", unneeded, e.examineBuildKit)
}

func (e examination) examineBuildKit(ctx context.Context) doctor.Result {
	limit := e.http.Policy.Timeout
	address := builder.Address{
		Addr: e.spec.Builder, CertDir: e.Getenv(builder.CertPath), AllowPlaintext: e.spec.AllowPlaintextBuilder,
		Connect: builder.ConnectPolicy{Timeout: limit, AnswerTimeout: limit},
	}
	daemon, err := address.Inspect(ctx, e.spec.Platforms...)
	if err != nil {
		return doctor.Fail(err)
	}
	text := "version " + daemon.Version
	if daemon.Version == "" {
		text = "unknown version"
	}
	text += fmt.Sprintf(" at %s, %s", e.spec.Builder, strings.Join(daemon.Platforms, ", "))
	if !daemon.Expires.IsZero() {
		text += ", certificates valid until " + daemon.Expires.Format(time.DateOnly)
	}
	return doctor.Pass("%s", text)
}

// examineDepot checks the token and the project. It creates no build.
func (e examination) examineDepot(ctx context.Context) doctor.Result {
	config, dopplerErr := e.doppler(ctx)
	result, err := e.examineProject(ctx, config)
	isMissing := errors.Is(err, builder.ErrNoProject) || errors.Is(err, credentials.ErrNoDepotToken) ||
		errors.Is(err, credentials.ErrNoIDToken)
	switch {
	case err == nil:
		return result
	case isMissing && dopplerErr != nil:
		return doctor.Skip("the Doppler config, which may have the token and the project, was not read")
	}
	return doctor.Fail(err)
}

func (e examination) examineProject(ctx context.Context, config credentials.Doppler) (doctor.Result, error) {
	token := depotToken(e.job, e.spec, config)
	token.OIDC.HTTP = e.http
	if e.Event.IsFork() && !token.OIDC.Available() && !credentials.HasDepotToken(e.spec.DepotToken, token.Getenv) {
		const reason = "a pull request from a fork authenticates with a challenge in the log, which only a build answers"
		return doctor.Skip(reason), nil
	}
	project, from, err := depotProject(e.job, e.spec, config, buildSource{}, discardf)
	if errors.Is(err, builder.ErrNoProject) {
		if checkout, openErr := e.checkout(ctx); openErr == nil {
			if ref, _, _ := refToBuild(e.job, e.spec, checkout); ref != "" {
				return doctor.Skip("the project is that of depot.json in the commit, which only a build fetches"), nil
			}
		}
	}
	if err != nil {
		return doctor.Result{}, err
	}
	client := depot(e.job, e.spec, config, project)
	var authenticated string
	client.Policy.HTTP = e.http.Policy
	client.Token = func(ctx context.Context) (value string, err error) {
		value, authenticated, err = token.Find(ctx)
		return value, err
	}
	if err := client.Check(ctx); err != nil {
		return doctor.Result{}, err
	}
	what := fmt.Sprintf("project %q (%s)", project, relativeTo(from, e.Dir))
	if client.BuildID != "" {
		what = "build " + client.BuildID
	}
	return doctor.Pass("%s, authenticated with %s", what, authenticated), nil
}

// pushChecks returns a check for each reference of the input push.
func (e examination) pushChecks() (checks []doctor.Check) {
	for _, reference := range e.spec.Push {
		checks = append(checks, newCheck("Push to "+reference, "", func(ctx context.Context) doctor.Result {
			return e.examinePush(ctx, reference)
		}))
	}
	if len(checks) == 0 {
		checks = append(checks, newCheck("Registries", "not needed, because push is empty", nil))
	}
	return checks
}

// examinePush starts an upload to the registry and cancels it, without sending anything.
func (e examination) examinePush(ctx context.Context, reference string) doctor.Result {
	auth := image.Auth{Mask: e.Runner.Mask}
	login := "no login"
	ref, err := name.ParseReference(reference)
	if err != nil {
		return doctor.Fail(err)
	}
	found, err := auth.Resolve(ref.Context())
	if err != nil {
		return doctor.Fail(err)
	}
	if found != authn.Anonymous {
		login = "the login in Docker's configuration"
	}
	err = image.CheckPushPermission(ctx, reference, auth)
	failed, isAnswer := errors.AsType[*httpclient.APIError](err)
	switch {
	case err == nil:
		return doctor.Pass("allowed with %s", login)
	case isAnswer && failed.Status == 0: // the builder pushes, and may reach it
		return doctor.Skip("not reachable from this machine: %s", failed.Message)
	}
	return doctor.Fail(err)
}

// dopplerCheck returns the check of the Doppler config to read.
func (e examination) dopplerCheck(unneeded string) doctor.Check {
	return newCheck("Doppler", unneeded, func(ctx context.Context) doctor.Result {
		config, err := e.doppler(ctx)
		switch {
		case err != nil:
			return doctor.Fail(err)
		case config.Client == nil:
			return doctor.Skip("not configured (no token, or no input selects a config)")
		}
		return doctor.Pass("%s.%s (selected by %s), %d secrets, token from %s", config.Client.Project, config.Client.Config,
			config.Selected, len(config.Secrets), config.TokenFrom)
	})
}

// dopplerWriteCheck returns the check of the configs that will name the snapshot.
func (e examination) dopplerWriteCheck(spec inputs.SnapshotSpec) doctor.Check {
	return newCheck("Doppler write access", "", func(ctx context.Context) doctor.Result {
		config, err := e.doppler(ctx)
		switch {
		case !spec.UpdateDoppler:
			return doctor.Skip("not needed, because update_doppler is false")
		case err != nil:
			return doctor.Skip("the Doppler config was not read")
		case config.Client == nil && spec.Record.Required:
			return doctor.Fail(errUpdateWithoutToken())
		case config.Client == nil:
			return doctor.Skip("no Doppler token, so the name of the snapshot will not be recorded")
		}
		var secrets, names []string
		for _, v := range spec.Each() {
			configs := configsToWrite(v.Record, *config.Client)
			for i := range configs {
				if err := configs[i].check(ctx, v.Record); err != nil {
					return doctor.Fail(inputs.Wrap("update_doppler", err))
				}
			}
			secrets, names = append(secrets, v.Record.Secret), configNames(configs)
		}
		return doctor.Pass("%s will be set in %s", strings.Join(secrets, ", "), strings.Join(names, ", "))
	})
}

// daytonaAccess is an accepted key.
type daytonaAccess struct {
	daytona.Client
	Key  daytona.Key
	From string // source of the key, for messages
}

// daytonaChecks returns the checks of the key, the regions, and the snapshots that exist.
func (e examination) daytonaChecks(spec inputs.SnapshotSpec) []doctor.Check {
	access := once(func(ctx context.Context) (access daytonaAccess, err error) {
		config, err := e.doppler(ctx)
		if err != nil && !credentials.HasDaytonaKey(spec.Daytona.DaytonaAPIKey, e.Getenv, e.Runner.InActions()) {
			return access, errDopplerUnread
		}
		if access.Client, access.From, err = credentials.Daytona(daytonaSource(e.Env, spec.Daytona, config)); err == nil {
			access.HTTP = e.http
			access.Key, err = access.CurrentKey(ctx)
		}
		return access, err
	})
	after := func(examine func(context.Context, daytonaAccess) doctor.Result) func(context.Context) doctor.Result {
		return func(ctx context.Context) doctor.Result {
			found, err := access(ctx)
			if err != nil {
				return doctor.Skip("needs a valid Daytona API key")
			}
			return examine(ctx, found)
		}
	}
	return []doctor.Check{
		newCheck("Daytona key", "", func(ctx context.Context) doctor.Result {
			found, err := access(ctx)
			switch {
			case errors.Is(err, errDopplerUnread):
				return doctor.Skip("%v", err)
			case err != nil:
				return doctor.Fail(err)
			}
			return examineKey(found, spec)
		}),
		newCheck("Daytona region", "", after(func(ctx context.Context, found daytonaAccess) doctor.Result {
			return examineRegions(ctx, found, spec)
		})),
		newCheck("Daytona snapshots", "", after(func(ctx context.Context, found daytonaAccess) doctor.Result {
			return examineSnapshots(ctx, found, spec)
		})),
	}
}

var errDopplerUnread = errors.New("the Doppler config, which has the key, was not read")

// examineKey checks the permissions of the key.
func examineKey(access daytonaAccess, spec inputs.SnapshotSpec) doctor.Result {
	key := access.Key
	if err := checkPermissions(key, spec); err != nil {
		return doctor.Fail(err)
	}
	text := "a user's token"
	if key.Permissions != nil {
		text = fmt.Sprintf("%q with %s", key.Name, strings.Join(slices.Sorted(slices.Values(key.Permissions)), ", "))
	}
	if text += ", from " + access.From; !key.Expires.IsZero() {
		text += ", expires on " + key.Expires.Format(time.DateOnly)
	}
	if missing := key.Missing(sandboxPermissions...); spec.Verify == inputs.VerifyDefault && len(missing) > 0 {
		text += ", snapshots are not verified without " + strings.Join(missing, " and ")
	}
	return doctor.Pass("%s", text)
}

// examineRegions checks the region and the resources of each snapshot.
func examineRegions(ctx context.Context, access daytonaAccess, spec inputs.SnapshotSpec) doctor.Result {
	var regions []string
	for _, v := range spec.Each() {
		region, err := checkRegion(ctx, access.Client, v)
		if err == nil {
			_, err = readLimits(ctx, access.Client, v, region)
		}
		if err != nil {
			return doctor.Fail(wrapVariant(v, err))
		}
		if region == "" {
			region = "the organization's default"
		}
		if !slices.Contains(regions, region) {
			regions = append(regions, region)
		}
	}
	return doctor.Pass("%s", strings.Join(regions, ", "))
}

// examineSnapshots checks the names and the quota of snapshots. Only a user's token can read the quota.
func examineSnapshots(ctx context.Context, access daytonaAccess, spec inputs.SnapshotSpec) doctor.Result {
	list, err := access.List(ctx, "")
	if err != nil {
		return doctor.Fail(err)
	}
	limits, err := access.Limits(ctx, daytona.Request{})
	if err != nil {
		return doctor.Fail(err)
	}
	count, organization := 0, access.Organization
	for _, s := range list {
		if organization = s.Organization; strings.HasPrefix(s.Name, spec.NamePrefix) {
			count++
		}
	}
	for _, v := range spec.Each() {
		if v.Name == "" {
			continue
		}
		if err := checkNameFree(ctx, access.Client, access.Key, v); err != nil {
			return doctor.Fail(wrapVariant(v, err))
		}
	}
	if err := limits.CheckSnapshots(len(spec.Each())); err != nil && !spec.MakeRoom {
		return doctor.Fail(err)
	}
	text := fmt.Sprintf("%d used", len(list))
	if limits.Snapshots > 0 {
		text = fmt.Sprintf("%d of %d used", limits.Used, limits.Snapshots)
	}
	text += fmt.Sprintf(", %d with the prefix %s", count, spec.NamePrefix)
	if organization != "" {
		text += ", in organization " + organization
	}
	return doctor.Pass("%s", text)
}

// isEngineImage reports whether the input image can only be an image in the local engine.
func isEngineImage(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	return err == nil && isLocalName(named, image)
}

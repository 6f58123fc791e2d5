package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/trust"
)

// Promote records the name of an existing snapshot in other Doppler configs than the one that it reads. It builds
// nothing. If a config belongs to another Daytona organization, it first creates the snapshot of the same image there.
func Promote(ctx context.Context, env Env, in inputs.Promote) error {
	spec, err := in.Spec()
	if err != nil {
		return env.reject(err)
	}
	return env.runJob(ctx, spec.Timeout, inputs.Report{}, func(
		ctx context.Context, job job,
	) (run runrecord.Record, err error) {
		if err := trust.CheckNaming(job.Event); err != nil {
			return run, err
		}
		source, err := openPromotionSource(ctx, job, spec)
		if err != nil {
			return run, err
		}
		targets, err := openPromotionTargets(ctx, job, spec, source)
		if err != nil {
			return run, err
		}
		if err := checkVerified(job, spec, source); err != nil {
			return run, err
		}
		for _, target := range targets {
			if err := makeAvailable(ctx, job, spec, source, target); err != nil {
				return run, fmt.Errorf("promote to %s: %w", configNames(target.Configs)[0], err)
			}
		}
		record := newRecord(ctx, job, actionPromote, source.Snapshot)
		record.Commit, record.Image = commitOf(source.Snapshot, source.Record), source.Record.Image
		record.Verified = source.Record.Verified
		var configs []dopplerConfig
		for _, target := range targets {
			configs = append(configs, target.Configs...)
		}
		update, err := nameAndDeploy(ctx, job, spec, configs, record)
		addNaming(&run, source.Snapshot, record, update, configs)
		if err != nil {
			return run, err
		}
		run.Outputs = outputList(promoteOutputs(job, source.Snapshot, record, update, configs[0].Previous))
		return run, nil
	})
}

// promotionSource is the snapshot to promote, and the config that names or named it.
type promotionSource struct {
	Config   credentials.Doppler
	Client   daytona.Client
	Snapshot daytona.Snapshot
	Digest   v1.Hash
	Record   namingRecord // of the snapshot in the config's history; zero without one
}

// openPromotionSource reads the config and finds the snapshot.
func openPromotionSource(ctx context.Context, job job, spec inputs.PromoteSpec) (promotionSource, error) {
	config, err := readDoppler(ctx, job.Env, spec.Doppler)
	if err != nil {
		return promotionSource{}, err
	}
	client, err := daytonaClient(job.Env, spec.Daytona, config)
	if err != nil {
		return promotionSource{}, err
	}
	source := promotionSource{Config: config, Client: client}
	name := cmp.Or(spec.Name, config.Secrets[spec.Record.Secret])
	if name == "" {
		return promotionSource{}, inputs.Errorf("name", "", "is missing, and %s of %s names no snapshot; write the name of "+
			"one (see action-snapshot list)", spec.Record.Secret, config.Client.Name())
	}
	var found bool
	if source.Snapshot, found, err = client.Find(ctx, name); err != nil {
		return promotionSource{}, err
	}
	if !found {
		return promotionSource{}, inputs.Errorf("name", name, "not found at Daytona; run action-snapshot list")
	}
	if source.Digest = digestOf(source.Snapshot); source.Digest.Hex == "" {
		return promotionSource{}, inputs.Errorf("name", name, "has no image digest at Daytona, so it cannot be promoted; "+
			"write the name of an active snapshot")
	}
	records, err := parseHistory(config.Secrets[inputs.HistorySecret(spec.Record.Secret)])
	if err != nil {
		job.Runner.Infof("%s of %s %v", inputs.HistorySecret(spec.Record.Secret), config.Client.Name(), err)
	}
	if record, found := recordOf(records, name); found && record.Digest == source.Digest.String() {
		source.Record = record
	}
	return source, nil
}

// digestOf returns the digest of a snapshot's image, or zero if Daytona does not show it.
func digestOf(s daytona.Snapshot) v1.Hash {
	if digest, err := v1.NewHash(s.Digest); err == nil {
		return digest
	}
	digest, _ := parseImageTag(s.Image)
	return digest
}

// checkVerified warns about a snapshot that was not verified, or refuses it.
func checkVerified(job job, spec inputs.PromoteSpec, source promotionSource) error {
	switch {
	case source.Record.Verified != "":
		job.Runner.Infof("Snapshot %s was verified (%s)", source.Snapshot.Name, source.Record.Verified)
	case spec.RequireVerified:
		return inputs.Errorf("require_verified", "true", "the history of %s does not show that snapshot %s was verified; "+
			"create it with verify, or set require_verified: false", source.Config.Client.Name(), source.Snapshot.Name)
	default:
		job.Runner.Warning(runner.Annotation{Title: "The snapshot was not verified", Message: fmt.Sprintf(
			"The history of %s does not show that snapshot %s was verified", source.Config.Client.Name(), source.Snapshot.Name)})
	}
	return nil
}

// promotionTarget is a Daytona organization, and the configs that belong to it.
type promotionTarget struct {
	Client  daytona.Client
	Region  string // ID or name; empty accepts any
	Configs []dopplerConfig
}

// daytonaSecrets are the secrets of a config that select a Daytona organization and a region.
var daytonaSecrets = []string{
	"DAYTONA_API_KEY", "DAYTONA_API_URL", "DAYTONA_ORG_ID", "DAYTONA_ORGANIZATION_ID", "DAYTONA_TARGET",
}

// openPromotionTargets checks that the configs can be written, and returns the organizations to which they belong. A
// config without a Daytona key belongs to the organization of the source.
func openPromotionTargets(
	ctx context.Context, job job, spec inputs.PromoteSpec, source promotionSource,
) ([]promotionTarget, error) {
	defer startActivity(ctx, "Doppler")()
	writer := *source.Config.Client
	if spec.ToToken != "" {
		writer.Token, writer.Renew = spec.ToToken, nil
	}
	configs := configsToWrite(spec.Record, writer)
	if err := checkConfigs(ctx, job, spec.Record, configs); err != nil {
		return nil, inputs.Wrap("to", err)
	}
	var targets []promotionTarget
	for _, config := range configs {
		secrets, err := config.Secrets(ctx, daytonaSecrets...)
		if err != nil {
			return nil, inputs.Wrap("to", err)
		}
		target := promotionTarget{source.Client, spec.Region, []dopplerConfig{config}}
		target.Region = cmp.Or(spec.Region, secrets["DAYTONA_TARGET"].Value)
		if target.Client, err = clientOf(job, config.Client, secrets, source.Client); err != nil {
			return nil, inputs.Wrap("to", err)
		}
		targets = append(targets, target)
	}
	job.Runner.Infof("%s will be set in %s", spec.Record.Secret, strings.Join(configNames(configs), ", "))
	return targets, nil
}

// clientOf returns the client for the Daytona key in the secrets of a config, or the source's client without one.
func clientOf(
	job job, config doppler.Client, secrets map[string]doppler.Secret, source daytona.Client,
) (daytona.Client, error) {
	key := secrets["DAYTONA_API_KEY"]
	switch {
	case key.Withheld:
		return daytona.Client{}, fmt.Errorf("read %s: DAYTONA_API_KEY is restricted (use a service token or "+
			"doppler_identity)", config.Name())
	case key.Value == "" || key.Value == source.Key:
		return source, nil
	}
	job.Runner.MaskAs("the Doppler secret DAYTONA_API_KEY", key.Value)
	client := source
	client.Key, client.URL = key.Value, cmp.Or(secrets["DAYTONA_API_URL"].Value, source.URL)
	client.Organization = cmp.Or(secrets["DAYTONA_ORG_ID"].Value, secrets["DAYTONA_ORGANIZATION_ID"].Value)
	return client, nil
}

// makeAvailable makes sure that an active snapshot with the name and the image is in the organization and the region of
// the target.
func makeAvailable(
	ctx context.Context, job job, spec inputs.PromoteSpec, source promotionSource, target promotionTarget,
) error {
	client, snapshot := target.Client, source.Snapshot
	if client.Key != source.Client.Key {
		if _, err := client.CurrentKey(ctx); err != nil {
			return err
		}
		var found bool
		var err error
		if snapshot, found, err = client.Find(ctx, source.Snapshot.Name); err != nil {
			return err
		}
		if !found || isFailed(snapshot) {
			return copySnapshot(ctx, job, spec, source, target)
		}
		if digestOf(snapshot) != source.Digest {
			return fmt.Errorf("the organization of the Daytona API key has a snapshot %s of another image, %s (delete it, or "+
				"create one with another name)", snapshot.Name, cmp.Or(snapshot.Digest, snapshot.Image))
		}
	}
	region, err := client.Region(ctx, target.Region)
	if err != nil {
		return inputs.Wrap("region", err)
	}
	if region.ID != "" && !slices.Contains(snapshot.Regions, region.ID) {
		return inputs.Errorf("region", target.Region, "snapshot %s is in %s; create one there: action-snapshot --region %s",
			snapshot.Name, cmp.Or(strings.Join(snapshot.Regions, ", "), "an unknown region"), region.ID)
	}
	return ensureActive(ctx, job, client, snapshot, source.Record.Image)
}

// ensureActive waits until a snapshot is active, and activates an inactive one. image is a reference to its image for
// the error; it may be empty.
func ensureActive(ctx context.Context, job job, client daytona.Client, s daytona.Snapshot, image string) error {
	switch {
	case isFailed(s) || s.State == daytona.Removing:
		return inputs.Errorf("name", s.Name, "is in state %s; write the name of an active snapshot", s.State)
	case s.State == daytona.Active:
		return nil
	case s.State == daytona.Inactive:
		job.Runner.Infof("Activating snapshot %s", s.Name)
		if err := client.Activate(ctx, s); err != nil {
			return err
		}
	default:
		job.Runner.Infof("Waiting for snapshot %s, which another run is creating", s.Name)
	}
	_, err := waitUntilActive(ctx, job, client, s, digestOf(s), nil)
	if failed := (*daytona.SnapshotError)(nil); errors.As(err, &failed) && s.State == daytona.Inactive {
		remedy := "action-snapshot"
		if image != "" {
			remedy += " --image " + image
		}
		return fmt.Errorf("%w; Daytona deletes pushed images, so it usually cannot activate a snapshot again (create "+
			"another one: %s)", err, remedy)
	}
	return err
}

// copySnapshot creates the snapshot in another organization. Daytona has deleted the image that was pushed for the
// snapshot, so it must be in another registry.
func copySnapshot(
	ctx context.Context, job job, spec inputs.PromoteSpec, source promotionSource, target promotionTarget,
) error {
	from := source.Snapshot
	name := cmp.Or(spec.Image, source.Record.Image)
	if pushed, _ := parseImageTag(from.Image); name == "" && pushed.Hex == "" {
		name = from.Image + "@" + source.Digest.String()
	}
	const remedy = "write a registry reference of the image, or create the snapshot in that organization with " +
		"action-snapshot"
	if name == "" {
		return &inputs.Error{Input: "image", Reason: fmt.Sprintf("is missing; snapshot %s must be copied to another Daytona "+
			"organization, and Daytona has deleted its image: %s", from.Name, remedy)}
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return inputs.Errorf("image", name, "is not a registry reference (%v)", err)
	}
	img, err := openInRegistry(ctx, job, inputs.BuildSpec{}, source.Config, named, name, inputs.SnapshotPlatform)
	if err != nil {
		return inputs.Wrap("image", fmt.Errorf("read the image of snapshot %s to copy it to another Daytona organization: "+
			"%w; %s", from.Name, err, remedy))
	}
	if digest, err := img.Digest(); err != nil || digest != source.Digest {
		return inputs.Errorf("image", name, "has the digest %s, but snapshot %s has %s", digest, from.Name, source.Digest)
	}
	job.Runner.Infof("Copying snapshot %s to another Daytona organization from %s", from.Name, name)
	copied := inputs.SnapshotSpec{
		Image: name, Name: from.Name, NamePrefix: from.Name, Resources: from.Resources, GPU: from.GPU,
		SandboxClass: from.SandboxClass, Entrypoint: from.Entrypoint, Region: target.Region, IfExists: inputs.Reuse,
		Attempts: inputs.DefaultAttempts, Verify: inputs.VerifyOff,
	}
	destination := snapshotTarget{Client: target.Client}
	if destination.Region, err = checkRegion(ctx, target.Client, copied); err != nil {
		return err
	}
	if destination.Limits, err = readLimits(ctx, target.Client, copied, destination.Region); err != nil {
		return err
	}
	session := snapshotSession{session: session{Doppler: source.Config}, Image: existingImage{Image: img}}
	_, err = ensureSnapshots(ctx, job, copied, session, []snapshotTarget{destination})
	return err
}

// nameAndDeploy records the name in the configs, and a deployment if the name changes. It refuses a name that the
// outputs cannot contain before that.
func nameAndDeploy(
	ctx context.Context, job job, spec inputs.PromoteSpec, configs []dopplerConfig, record namingRecord,
) (dopplerUpdate, error) {
	if err := checkOutputName(job, "name", record.Name); err != nil {
		return dopplerUpdate{}, err
	}
	name := naming{Configs: configs, Secret: spec.Record.Secret, Record: record, AllowChange: refuseChange}
	if !slices.ContainsFunc(configs, func(c dopplerConfig) bool { return c.Previous != record.Name }) {
		return name.write(ctx, job)
	}
	deployed := startDeployment(ctx, job, spec.GitHubToken, spec.Environment, record)
	update, err := name.write(ctx, job)
	deployed.finish(ctx, job, update, err)
	return update, err
}

// refuseChange refuses to replace a name that another run has recorded since this one started.
func refuseChange(_ context.Context, current string) error {
	return fmt.Errorf("another client has set %q since this run started", current)
}

// promoteOutputs returns the outputs of the promote action. They lack a previous name that contains a secret.
func promoteOutputs(
	job job, s daytona.Snapshot, record namingRecord, update dopplerUpdate, previous string,
) PromoteOutputs {
	if _, found := job.Runner.FindSecret(previous); found {
		previous = ""
	}
	return PromoteOutputs{
		SnapshotName: s.Name, SnapshotID: s.ID, Digest: digestOf(s).String(),
		GitSHA:           strings.TrimSuffix(record.Commit, "-dirty"),
		PreviousSnapshot: previous, DopplerUpdated: len(update.Written) > 0,
	}
}

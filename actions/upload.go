package actions

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// imageUpload is an image at Daytona: one that was pushed to its registry, or that of an existing snapshot.
type imageUpload struct {
	Build      BuildOutputs
	Source     buildSource // zero for an existing image
	Summary    string      // of the build; empty for an existing image
	Digest     v1.Hash
	Reference  string             // in Daytona's registry, by digest; empty if a snapshot is reused
	Reused     bool               // whether Existing is reused
	Existing   daytona.Snapshot   // active; zero unless reused
	Superseded []daytona.Snapshot // older snapshots of the same image, to be deleted
}

// uploadImage builds or opens the image, and pushes it to Daytona's registry unless a snapshot of it can be reused. It
// releases the builder.
func uploadImage(
	ctx context.Context, job job, spec inputs.SnapshotSpec, session snapshotSession, target snapshotTarget,
) (_ imageUpload, err error) {
	access := requestAccess(ctx, target) // in parallel with the build
	if spec.Image != "" {
		upload := imageUpload{Build: BuildOutputs{Platforms: inputs.SnapshotPlatform, ImageRef: spec.Image}}
		return offerImage(ctx, job, spec, target, access, upload, session.Image, pushExisting(job, session.Image))
	}
	built, err := buildImage(ctx, job, spec.BuildSpec, session.session)
	if err != nil {
		return imageUpload{}, err
	}
	defer func() { err = release(ctx, job, built.Lease, err) }()
	outputs, err := buildOutputs(spec.BuildSpec, built)
	if err != nil {
		return imageUpload{}, err
	}
	upload := imageUpload{Build: outputs, Source: built.Source, Summary: buildSummary(job, built, outputs)}
	return offerImage(ctx, job, spec, target, access, upload, built.Results[0].Image, pushFromBuilder(job, built))
}

// pushFunc pushes an image to a reference with the credentials of auth, and resumes an interrupted push.
type pushFunc func(ctx context.Context, reference string, auth image.Auth) error

// pushFromBuilder returns a function that pushes directly from the builder to the registry.
func pushFromBuilder(job job, built builtImage) pushFunc {
	return func(ctx context.Context, reference string, auth image.Auth) error {
		machine, err := built.Lease.Machine(ctx, built.Results[0].Platform)
		if err != nil {
			return err
		}
		auth.Credentials = append(auth.Credentials, registryAuth(job, built.Lease).Credentials...)
		err = image.PushFromBuilder(ctx, machine, built.Requests[0], built.Results[0], auth, reference)
		return built.Lease.Explain(built.Results[0].Platform, err)
	}
}

// pushExisting returns a function that streams an existing image and logs the progress every 5 seconds.
func pushExisting(job job, img v1.Image) pushFunc {
	const interval = 5 * time.Second
	return func(ctx context.Context, reference string, auth image.Auth) error {
		logged := time.Now()
		return image.PushImage(ctx, reference, img, auth, func(done, total int64) {
			if time.Since(logged) > interval {
				logged = time.Now()
				job.Runner.Infof("Pushed %s of %s", units.HumanSize(float64(done)), units.HumanSize(float64(total)))
			}
		})
	}
}

// offerImage completes an upload: it reuses a snapshot of the image, or pushes the image.
func offerImage(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, access registryAccess,
	upload imageUpload, img v1.Image, push pushFunc,
) (imageUpload, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return imageUpload{}, fmt.Errorf("read the image's config: %w", err)
	}
	if platform := config.OS + "/" + config.Architecture; platform != inputs.SnapshotPlatform {
		return imageUpload{}, fmt.Errorf("the image is for %s, but Daytona runs %s only; build it with platform: %s",
			platform, inputs.SnapshotPlatform, inputs.SnapshotPlatform)
	}
	if upload.Digest, err = img.Digest(); err != nil {
		return imageUpload{}, fmt.Errorf("read the image's manifest: %w", err)
	}
	if upload.Build.Digest == "" {
		upload.Build.Digest = upload.Digest.String()
	}
	wanted := wantedSnapshot{spec, target.Region, upload.Digest, effectiveEntrypoint(spec, config)}
	if upload.Existing, upload.Superseded, err = findReusable(ctx, job, target, wanted); err != nil {
		return imageUpload{}, err
	}
	if upload.Reused = upload.Existing.ID != ""; !upload.Reused {
		upload.Reference, err = pushToDaytona(ctx, job, spec, target, access, upload.Digest, push)
	}
	return upload, err
}

// effectiveEntrypoint returns the entry point of a sandbox: that of the inputs, or the image's.
func effectiveEntrypoint(spec inputs.SnapshotSpec, config *v1.ConfigFile) []string {
	if len(spec.Entrypoint) > 0 {
		return spec.Entrypoint
	}
	return config.Config.Entrypoint
}

// wantedSnapshot describes the snapshot that the inputs request.
type wantedSnapshot struct {
	spec       inputs.SnapshotSpec
	region     string // ID; empty accepts any
	digest     v1.Hash
	entrypoint []string // effective
}

// matches reports whether a snapshot has the same image, resources, entry point and region.
func (w wantedSnapshot) matches(s daytona.Snapshot) bool {
	digest := w.digest.String()
	sameImage := s.Digest == digest || strings.HasSuffix(s.Image, "@"+digest)
	sameEntrypoint := slices.Equal(s.Entrypoint, w.entrypoint) || slices.Equal(s.Entrypoint, w.spec.Entrypoint)
	sameRegion := w.region == "" || slices.Contains(s.Regions, w.region)
	return sameImage && sameEntrypoint && sameRegion && s.Resources == w.spec.Resources
}

// findReusable returns an active snapshot to reuse, or the snapshots of the same image that the new one supersedes. The
// ID of reuse is empty if no snapshot can be reused.
func findReusable(
	ctx context.Context, job job, target snapshotTarget, wanted wantedSnapshot,
) (reuse daytona.Snapshot, superseded []daytona.Snapshot, err error) {
	defer startActivity(ctx, "Daytona to list the snapshots")()
	spec := wanted.spec
	candidates := []daytona.Snapshot{target.Existing}
	if spec.Name == "" {
		if candidates, err = target.Client.List(ctx, spec.NamePrefix); err != nil {
			return reuse, nil, err
		}
	}
	for _, c := range candidates {
		if c.ID == "" || isFailed(c) || c.State == daytona.Removing || !wanted.matches(c) {
			continue
		}
		switch spec.IfExists {
		case inputs.Replace:
			superseded = append(superseded, c)
		case inputs.Fail:
			return reuse, nil, &inputs.Error{Input: "if_exists", Value: string(spec.IfExists),
				Reason: fmt.Sprintf("snapshot %s has the same image; use it, or set if_exists: reuse or replace", c.Name)}
		default:
			reuse, err = activate(ctx, job, target.Client, c)
			return reuse, nil, err
		}
	}
	if target.Existing.ID != "" && !isFailed(target.Existing) && spec.IfExists == inputs.Reuse {
		return reuse, nil, inputs.Errorf("name", spec.Name, "already exists with another image or other resources; "+
			"write another name, or set if_exists: replace")
	}
	return reuse, superseded, nil
}

// registryAccess waits until access to Daytona's registry is granted.
type registryAccess func() (daytona.PushAccess, error)

// requestAccess requests access to Daytona's registry in the background, until ctx ends.
func requestAccess(ctx context.Context, target snapshotTarget) registryAccess {
	done := make(chan struct{})
	var access daytona.PushAccess
	var err error
	go func() {
		defer close(done)
		access, err = target.Client.PushAccess(ctx, target.Region)
	}()
	return func() (daytona.PushAccess, error) {
		<-done
		return access, err
	}
}

// maxAccesses is how many times access is requested for one push, if it expires in between.
const maxAccesses = 4

// pushToDaytona pushes an image to Daytona's registry, waits until the registry serves it, and returns its reference
// by digest.
func pushToDaytona(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, await registryAccess, digest v1.Hash,
	push pushFunc,
) (string, error) {
	defer startActivity(ctx, "the push to Daytona")()
	job.Runner.Group("Push to Daytona")
	defer job.Runner.EndGroup()
	started := time.Now()
	for attempt := 1; ; attempt++ {
		access, err := await()
		if err != nil {
			return "", err
		}
		repository := access.Registry + "/" + access.Project + "/" + repositoryName(spec.NamePrefix)
		// The tag is derived from the digest, so that every push of an image uses the same reference.
		err = push(ctx, repository+":"+digest.Algorithm+"-"+digest.Hex, image.Auth{
			Credentials: []image.Credential{{Host: access.Registry, Username: access.User, Password: access.Secret}},
			Mask:        job.Runner.Mask,
		})
		if errors.Is(err, image.ErrUnauthorized) && attempt < maxAccesses {
			job.Runner.Infof("Access to Daytona's registry has expired; requesting it again")
			await = requestAccess(ctx, target)
			continue
		}
		if err != nil {
			return "", err
		}
		reference := repository + "@" + digest.String()
		found, err := target.Client.WaitForImage(ctx, access, reference)
		if err != nil {
			return "", err
		}
		if found != digest.String() {
			return "", fmt.Errorf("push to Daytona: the registry has %s instead of %s (run again; if it persists, report it "+
				"to Daytona)", found, digest)
		}
		job.Runner.Infof("Pushed %s in %s", reference, time.Since(started).Round(100*time.Millisecond))
		return reference, nil
	}
}

var notInRepository = regexp.MustCompile(`[^a-z0-9]+`)

// repositoryName returns the repository in Daytona's registry that holds the images of a prefix.
func repositoryName(prefix string) string {
	name := strings.Trim(notInRepository.ReplaceAllString(strings.ToLower(prefix), "-"), "-")
	if name == "" {
		return "snapshot"
	}
	return name
}

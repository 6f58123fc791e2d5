package actions

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// imageUpload is the image of a snapshot: one that was pushed to Daytona's registry, or that of an existing snapshot.
type imageUpload struct {
	Build     BuildOutputs
	Built     builtImage                // zero for an existing image
	Contents  []runrecord.PlatformImage // of an existing image; nil without a report
	Wanted    wantedSnapshot
	Existing  existingSnapshots
	Reference string // in Daytona's registry, by tag; empty if a snapshot is reused
}

func (u imageUpload) isReused() bool { return u.Existing.Reused.ID != "" }

// uploadImage builds or opens the image of the specs, which differ only in the settings of variants. For each spec, it
// pushes the image to Daytona's registry unless a snapshot of it can be reused. It releases the builder. With an error,
// it returns what it reached.
func uploadImage(
	ctx context.Context, job job, specs []inputs.SnapshotSpec, session snapshotSession, targets []snapshotTarget,
) ([]imageUpload, error) {
	accesses := requestAccesses(ctx, targets) // in parallel with the build
	spec := specs[0]
	if spec.Image != "" {
		outputs, err := outputsOfExisting(session.Image, spec.Image)
		if err != nil {
			return nil, err
		}
		outputs.Platforms = inputs.SnapshotPlatform
		upload := imageUpload{Build: outputs}
		result := &image.Result{Platform: outputs.Platforms, Image: session.Image.Image}
		if upload.Contents, err = readContents(ctx, job, result); err != nil {
			return nil, err
		}
		push := pushExisting(job, session.Image)
		uploads, err := offerImage(ctx, job, specs, targets, accesses, upload, session.Image, push)
		if len(uploads) == 0 {
			uploads = []imageUpload{upload}
		}
		return uploads, err
	}
	var uploads []imageUpload
	built, err := withImage(ctx, job, spec.BuildSpec, session.session, func(built builtImage) error {
		outputs, err := buildOutputs(spec.BuildSpec, built)
		if err != nil {
			return err
		}
		if err := checkVerifySuite(job, spec, built.Source); err != nil {
			return err
		}
		upload := imageUpload{Build: outputs, Built: built}
		image := built.Results[0].Image
		uploads, err = offerImage(ctx, job, specs, targets, accesses, upload, image, pushFromBuilder(job, built))
		if err != nil {
			return err
		}
		contents, err := readContents(ctx, job, built.Results...)
		for i := range uploads {
			uploads[i].Built.Contents = contents
		}
		return err
	})
	if len(uploads) == 0 {
		uploads = []imageUpload{{Built: built}}
	}
	return uploads, err
}

// pushFunc pushes an image to a reference with the credentials of auth, and resumes an interrupted push.
type pushFunc func(ctx context.Context, reference string, auth image.Auth) error

// pushFromBuilder returns a function that pushes directly from the builder to the registry. The builder solves the
// Dockerfile again for it. If the workspace or another source has changed since the build, that would be another image,
// so the function streams the one that was built.
func pushFromBuilder(job job, built builtImage) pushFunc {
	return func(ctx context.Context, reference string, auth image.Auth) (err error) {
		task := job.Screen.Start("Pushing", "push "+reference, "")
		defer func() { task.End(err) }()
		machine, err := built.Lease.Machine(ctx, built.Results[0].Platform)
		if err != nil {
			return err
		}
		auth.Credentials = append(auth.Credentials, registryAuth(job, built.Lease).Credentials...)
		logPush(job, built.Results[0].Image, reference)
		stop := logElapsed(ctx, job, "Pushing") // BuildKit does not report what it has pushed
		err = image.PushFromBuilder(ctx, machine, built.Requests[0], built.Results[0], auth, reference)
		stop()
		if stale := (*image.StaleCacheError)(nil); errors.As(err, &stale) {
			job.Runner.Infof("The sources have changed since the build; streaming the image that was built")
			err = image.PushImage(ctx, reference, built.Results[0].Image, auth, logTransfer(job, "Pushing", task))
		}
		if partial := (*image.PushedError)(nil); errors.As(err, &partial) {
			err = partial.Err // no one else knows the repository, so another machine may push again
		}
		return built.Lease.Explain(built.Results[0].Platform, err)
	}
}

// pushExisting returns a function that streams an existing image.
func pushExisting(job job, img v1.Image) pushFunc {
	return func(ctx context.Context, reference string, auth image.Auth) (err error) {
		task := job.Screen.Start("Pushing", "push "+reference, "")
		defer func() { task.End(err) }()
		logPush(job, img, reference)
		return image.PushImage(ctx, reference, img, auth, logTransfer(job, "Pushing", task))
	}
}

// offerImage completes the upload for each spec: it reuses a snapshot of the image, or pushes the image.
func offerImage(
	ctx context.Context, job job, specs []inputs.SnapshotSpec, targets []snapshotTarget, accesses []registryAccess,
	upload imageUpload, img v1.Image, push pushFunc,
) (uploads []imageUpload, err error) {
	if err := checkImageID(specs[0], upload.Build.ImageID); err != nil {
		return nil, err
	}
	uploads = make([]imageUpload, len(specs))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, spec := range specs {
		wanted, err := describeWanted(spec, img)
		if err != nil {
			return nil, err
		}
		upload.Build.Digest = cmp.Or(upload.Build.Digest, wanted.digest.String())
		uploads[i] = upload
		uploads[i].Wanted = wanted
		group.Go(func() (err error) {
			uploads[i].Existing, err = findExisting(groupCtx, job, targets[i], wanted)
			return wrapVariant(spec, err)
		})
	}
	if err := group.Wait(); err != nil {
		return uploads, err
	}
	if err := checkQuota(specs[0], targets[0], uploads); err != nil {
		return uploads, err
	}
	push = pushOnce(job, push)
	var checked []string
	for i, spec := range specs {
		if uploads[i].isReused() {
			continue
		}
		wanted := uploads[i].Wanted
		if checked == nil || !slices.Equal(checked, wanted.entrypoint) {
			logEntrypoint(job, spec, wanted.image, wanted.entrypoint)
			if err := checkEntrypoint(ctx, job, img, wanted.image, wanted.entrypoint); err != nil {
				return uploads, err
			}
			checked = append([]string{}, wanted.entrypoint...)
		}
		uploads[i].Reference, err = pushToDaytona(ctx, job, spec, targets[i], accesses[i], wanted.digest, push)
		if err != nil {
			return uploads, wrapVariant(spec, err)
		}
	}
	return uploads, nil
}

// checkQuota checks the number of snapshots before the push. A snapshot that takes the place of another one needs no
// room.
func checkQuota(spec inputs.SnapshotSpec, target snapshotTarget, uploads []imageUpload) error {
	if spec.MakeRoom {
		return nil
	}
	count := 0
	for _, u := range uploads {
		if !u.isReused() && u.Existing.Conflicting.ID == "" {
			count++
		}
	}
	return target.Limits.CheckSnapshots(count)
}

// pushOnce returns a function that pushes the image, and copies it from there when it is called again for another
// repository of the same project: the registry then mounts the layers, so that they are sent once.
func pushOnce(job job, push pushFunc) pushFunc {
	pushed := map[string]string{}
	return func(ctx context.Context, reference string, auth image.Auth) error {
		project := path.Dir(reference)
		if from := pushed[project]; from != "" {
			img, err := image.Open(ctx, from, "", auth)
			if err == nil {
				err = image.PushImage(ctx, reference, img, auth, nil)
			}
			if err == nil || ctx.Err() != nil || errors.Is(err, image.ErrUnauthorized) {
				return err
			}
			job.Runner.Infof("Copying %s failed: %v; pushing the image again", from, err)
		}
		if err := push(ctx, reference, auth); err != nil {
			return err
		}
		pushed[project] = reference
		return nil
	}
}

// describeWanted returns what a snapshot of the image with the settings of the inputs looks like. It returns an error
// if Daytona cannot run the image: Daytona accepts an image for another architecture and fails only when a sandbox
// starts (daytonaio/daytona v0.190.0, apps/runner/pkg/docker/create.go).
func describeWanted(spec inputs.SnapshotSpec, img v1.Image) (wantedSnapshot, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return wantedSnapshot{}, fmt.Errorf("read the image's config: %w", err)
	}
	if platform := config.OS + "/" + config.Architecture; platform != inputs.SnapshotPlatform {
		return wantedSnapshot{}, fmt.Errorf("the image is for %s, but Daytona runs %s only; build it with platform: %s",
			platform, inputs.SnapshotPlatform, inputs.SnapshotPlatform)
	}
	digest, err := img.Digest()
	if err != nil {
		return wantedSnapshot{}, fmt.Errorf("read the image's manifest: %w", err)
	}
	return wantedSnapshot{spec, digest, effectiveEntrypoint(spec, config.Config), config.Config, config}, nil
}

// checkImageID checks that the image is the one that an earlier step tested.
func checkImageID(spec inputs.SnapshotSpec, id string) error {
	if spec.ExpectImageID == "" || spec.ExpectImageID == id {
		return nil
	}
	return inputs.Errorf("expect_image_id", spec.ExpectImageID, "is not the image of this run, which is %s; pass the "+
		"tested image as the input image", id)
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

// requestAccesses requests access for each target, once for each region.
func requestAccesses(ctx context.Context, targets []snapshotTarget) []registryAccess {
	regions := map[string]registryAccess{}
	var accesses []registryAccess
	for _, target := range targets {
		if regions[target.Region] == nil {
			regions[target.Region] = requestAccess(ctx, target)
		}
		accesses = append(accesses, regions[target.Region])
	}
	return accesses
}

// maxAccesses is how many times access is requested for one push, if it expires in between.
const maxAccesses = 4

// pushToDaytona pushes an image to a repository of its own in Daytona's registry, waits until the registry serves it,
// and returns its reference by tag.
//
// A shared repository does not work: when a snapshot becomes active, Daytona deletes the pushed image with all its
// tags, which other snapshots may still need (daytonaio/daytona v0.190.0,
// apps/api/src/sandbox/managers/snapshot.manager.ts, handleCheckInitialRunnerSnapshot). A reference by digest does not
// work either: Daytona rebuilds NAME@sha256:HEX as NAME:sha256:HEX (apps/api/src/common/utils/docker-image.util.ts,
// getFullName).
func pushToDaytona(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, await registryAccess, digest v1.Hash,
	push pushFunc,
) (_ string, err error) {
	defer startActivity(ctx, "the push to Daytona")()
	defer startPhase(ctx, "Push to Daytona").end(&err)
	title := "Push to Daytona"
	if spec.Variant != "" {
		title += " for " + spec.Variant
	}
	job.Runner.Group(title)
	defer job.Runner.EndGroup()
	started, name := time.Now(), repositoryName(spec.NamePrefix)+":"+imageTag(digest, spec.Region == "")
	for attempt := 1; ; attempt++ {
		access, err := await()
		if err != nil {
			return "", err
		}
		reference := access.Registry + "/" + access.Project + "/" + name
		err = push(ctx, reference, image.Auth{
			Credentials: []image.Credential{{Host: access.Registry, Username: access.User, Password: access.Secret}},
			Mask:        job.Runner.Mask,
		})
		if errors.Is(err, image.ErrUnauthorized) && attempt < maxAccesses {
			job.Runner.Infof("Access to Daytona's registry has expired; requesting it again")
			await = requestAccess(ctx, target)
			continue
		}
		if errors.Is(err, image.ErrUnauthorized) {
			return "", fmt.Errorf("push to Daytona: its registry %s rejected the credentials that Daytona issued, %d times "+
				"(try again later; status: https://status.daytona.io)", access.Registry, attempt)
		}
		if err != nil {
			return "", err
		}
		found, err := target.Client.WaitForImage(ctx, access, reference)
		if err != nil {
			return "", err
		}
		if found != digest.String() {
			return "", fmt.Errorf("push to Daytona: %s has the digest %s instead of %s (run again; if it persists, report it "+
				"to Daytona)", reference, found, digest)
		}
		job.Runner.Infof("Pushed %s in %s", reference, humanize.Duration(time.Since(started)))
		return reference, nil
	}
}

var notInRepository = regexp.MustCompile(`[^a-z0-9]+`)

// maxRepositoryPrefix is the maximum length of the prefix in a repository's name, in bytes. A registry accepts 255
// bytes for the whole name.
const maxRepositoryPrefix = 100

// repositoryName returns a name for a repository that no other push uses. It begins with the prefix of snapshots.
func repositoryName(prefix string) string {
	name := notInRepository.ReplaceAllString(strings.ToLower(prefix), "-")
	name = strings.Trim(name[:min(len(name), maxRepositoryPrefix)], "-")
	return cmp.Or(name, "snapshot") + "-" + strings.ToLower(rand.Text())
}

package daytona

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/moby/client"
)

// This file follows the runner: daytonaio/daytona v0.190.0, apps/runner/pkg/docker.

// platform is the platform that the runner pulls images for.
var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

func (s *Server) remote(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(&authn.Basic{Username: runner, Password: s.puller}),
		remote.WithUserAgent(s.puller), remote.WithPlatform(platform),
	}
}

// inspection is the result of an inspection of an image in its registry.
type inspection struct {
	digest v1.Hash // of the manifest or index
	sizeGB float64 // compressed
}

// inspect has the runner inspect the image of a snapshot (inspectSnapshotInRegistry of
// apps/api/src/sandbox/runner-adapter/runnerAdapter.v2.ts).
func (s *Server) inspect(it *snapshot) (inspection, error) {
	image := fullName(it.image)
	finish, err := s.startJob(image)
	if err != nil {
		return inspection{}, err
	}
	defer finish()
	ctx, cancel := context.WithTimeout(s.ctx, s.options.InspectTimeout)
	defer cancel()
	var found inspection
	switch it.fault {
	case RunnerUnavailable:
		return inspection{}, errUnavailable
	case InspectTimesOut:
		err = context.DeadlineExceeded
	case SlowInspect:
		if err = s.untilChanged(ctx, it, "pending"); err == nil {
			found, err = s.inspectImage(ctx, it, image)
		}
	default:
		found, err = s.inspectImage(ctx, it, image)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded): // apps/api/src/sandbox/services/job.service.ts, waitJobCompletion
		s.abandonJob(image)
		limit := s.options.InspectTimeout.Milliseconds()
		return found, reason(fmt.Sprintf("Job %s timed out after %dms", newID(), limit))
	case err != nil:
		return found, fmt.Errorf("Snapshot %s failed to inspect in registry on runner %s. Error: %s", image, runnerID,
			inspectText(err, image))
	}
	return found, nil
}

// untilChanged waits until a snapshot leaves a state.
func (s *Server) untilChanged(ctx context.Context, it *snapshot, state string) error {
	for s.isIn(it, state) {
		select {
		case <-it.changes:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// errUnavailable is the error of a request to a runner of API version 0 that is behind a proxy
// (apps/api/src/sandbox/runner-adapter/runnerAdapter.v0.ts).
const errUnavailable = reason("Request failed with status code 502")

// fullName returns the name that the server sends to the runner: parseDockerImage and getFullName of
// apps/api/src/common/utils/docker-image.util.ts turn the digest of name@sha256:… into a tag.
func fullName(image string) string {
	full := strings.Replace(image, "@sha256:", ":sha256:", 1)
	if first, _, ok := strings.Cut(image, "/"); !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return "docker.io/" + full
	}
	return full
}

// Errors of the runner's engine, Docker 29. Its client puts daemonError before the error of a response without 200.
var (
	errReference  = errors.New("invalid reference format")
	errDenied     = errors.New("unauthorized: authentication required")
	errNoManifest = errors.New("no matching manifest for linux/amd64 in the manifest list entries: " +
		"no match for platform in manifest: not found")
	errUnknownManifest = errors.New("manifest unknown: manifest unknown") // of registries other than Harbor
)

const daemonError = "Error response from daemon: "

// inspectImage resolves an image name and adds up the sizes of its layers (image_info.go, registry_manifest.go). The
// platform of a single manifest does not matter. If an index has no manifest for linux/amd64, the size is that of the
// index.
func (s *Server) inspectImage(ctx context.Context, it *snapshot, image string) (inspection, error) {
	switch it.fault {
	case ImageNotFound:
		return inspection{}, errUnknownManifest
	case RegistryUnavailable:
		return inspection{}, errors.New(unexpectedStatus(http.StatusServiceUnavailable))
	}
	found, err := s.getManifest(ctx, it, image)
	if err != nil {
		return inspection{}, err
	}
	total := found.Size
	img, err := imageOf(found)
	if err == nil {
		manifest, err := img.Manifest()
		if err != nil {
			return inspection{}, err
		}
		total = manifest.Config.Size
		for _, layer := range manifest.Layers {
			total += layer.Size
		}
	} else if !errors.Is(err, errNoManifest) {
		return inspection{}, err
	}
	return inspection{found.Digest, float64(total) / (1 << 30)}, nil
}

// getManifest reads the manifest or index of an image with the credentials for the registry of the snapshot's region.
func (s *Server) getManifest(ctx context.Context, it *snapshot, image string) (*remote.Descriptor, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, errReference
	}
	inProject := strings.HasPrefix(ref.Context().RepositoryStr(), s.projectOf(it.region)+"/")
	if ref.Context().RegistryStr() != s.host || !inProject {
		return nil, errDenied
	}
	return remote.Get(ref, s.remote(ctx)...)
}

// imageOf returns the image for linux/amd64 of a manifest or index.
func imageOf(found *remote.Descriptor) (v1.Image, error) {
	if !found.MediaType.IsIndex() {
		return found.Image()
	}
	index, err := found.ImageIndex()
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list.Manifests, func(d v1.Descriptor) bool {
		return d.Platform != nil && d.Platform.Satisfies(platform)
	})
	if i < 0 {
		return nil, errNoManifest
	}
	return index.Image(list.Manifests[i].Digest)
}

// inspectText returns the engine's text of an error while it inspects an image.
func inspectText(err error, image string) string {
	failed := new(transport.Error)
	switch {
	case !errors.As(err, &failed):
		return daemonError + err.Error()
	case failed.StatusCode == http.StatusNotFound: // as Harbor reports it
		_, artifact, _ := strings.Cut(image, "/")
		return daemonError + "unknown: artifact " + artifact + " not found"
	}
	return daemonError + unexpectedStatus(failed.StatusCode)
}

func unexpectedStatus(status int) string {
	return fmt.Sprintf("received unexpected HTTP status: %d %s", status, http.StatusText(status))
}

// pullText returns the engine's text of an error while it pulls an image.
func pullText(err error, image string) string {
	failed := new(transport.Error)
	switch {
	case errors.Is(err, errDenied), errors.Is(err, errNoManifest):
		return daemonError + err.Error()
	case !errors.As(err, &failed) || failed.Request == nil:
		return err.Error()
	}
	status := fmt.Sprintf("unexpected status code %d", failed.StatusCode)
	if failed.StatusCode == http.StatusNotFound {
		status = "not found"
	}
	if _, digest, ok := strings.Cut(failed.Request.URL.Path, "/blobs/"); ok {
		return fmt.Sprintf("failed to copy: httpReadSeeker: failed open: could not fetch content descriptor %s "+
			"from remote: %s", digest, status)
	}
	return fmt.Sprintf("%sfailed to resolve reference %q: %[2]s: %s", daemonError, image, status)
}

// internal returns the reference of Daytona's copy of an image.
func (s *Server) internal(hex string) string { return s.host + "/sbox/daytona-" + hex + ":daytona" }

// local returns the name in the runner's engine of the image with a ref.
func (s *Server) local(ref string) string { return strings.TrimPrefix(ref, s.host+"/sbox/") }

// pull pulls the image of a snapshot by its name, not by the digest that the inspection found, and pushes it to the
// internal registry (snapshot_pull.go, image_pull.go, image_push.go). Nothing is started.
func (s *Server) pull(it *snapshot) error {
	if err := s.pullAndPush(s.ctx, it); err != nil {
		return errors.New(pullText(err, it.image))
	}
	return nil
}

func (s *Server) pullAndPush(ctx context.Context, it *snapshot) error {
	if it.fault == PullUnavailable {
		return errUnavailable
	}
	found, err := s.getManifest(ctx, it, it.image)
	if err != nil {
		return err
	}
	img, err := imageOf(found)
	if err != nil {
		return err
	}
	if s.engine != nil {
		_, err = s.engine.Load(ctx, s.local(it.ref), img)
	} else {
		err = readLayers(img)
	}
	switch {
	case err != nil:
		return err
	case it.fault == UnknownBlob: // Docker before 29
		return errors.New("unknown blob")
	case it.fault == PushUnavailable:
		return errors.New("error from registry: blob unknown to registry")
	}
	ref, err := name.ParseReference(it.ref)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, s.remote(ctx)...)
}

// readLayers reads the layers of an image and verifies their digests.
func readLayers(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		blob, err := layer.Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, blob)
		if err := errors.Join(err, blob.Close()); err != nil {
			return err
		}
	}
	return nil
}

// removeArtifact deletes a pushed image with all its tags, as Harbor does for any of the tags (removeImage of
// apps/api/src/docker-registry/services/docker-registry.service.ts). The project is everything before the last slash,
// so that Harbor does not find, and keeps, an image in a repository with a slash in its name.
func (s *Server) removeArtifact(image string) {
	ref, err := name.ParseReference(image)
	if err != nil || ref.Context().RegistryStr() != s.host || strings.Count(ref.Context().RepositoryStr(), "/") != 1 {
		return
	}
	found, err := remote.Head(ref, s.remote(s.ctx)...)
	if err != nil {
		return
	}
	_ = remote.Delete(ref.Context().Digest(found.Digest.String()), s.remote(s.ctx)...) // best effort
}

// removeImage removes the image with a ref from the engine. It ignores errors, which leave the image in place.
func (s *Server) removeImage(ref string) {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return
	}
	defer docker.Close()
	_, _ = docker.ImageRemove(s.ctx, s.local(ref), client.ImageRemoveOptions{Force: true, PruneChildren: true})
}

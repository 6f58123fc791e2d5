package image

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/pkg/humanize"
)

// JoinPlatforms returns an index of the images of several platforms and their attestations, in the given order. The
// same images in the same order always produce the same index.
func JoinPlatforms(results []*Result, annotations map[string]string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, r := range results {
		platform, err := v1.ParsePlatform(r.Platform)
		if err != nil {
			return nil, err
		}
		if r.Index == nil {
			index = mutate.AppendManifests(index, mutate.IndexAddendum{
				Add: r.Image, Descriptor: v1.Descriptor{Platform: platform},
			})
			continue
		}
		manifest, err := r.Index.IndexManifest()
		if err != nil {
			return nil, err
		}
		for _, descriptor := range manifest.Manifests {
			child, err := r.Index.Image(descriptor.Digest)
			if err != nil {
				return nil, err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: child, Descriptor: descriptor})
		}
	}
	if len(annotations) > 0 {
		index = mutate.Annotations(index, annotations).(v1.ImageIndex)
	}
	return index, nil
}

// PushIndex pushes index to reference, and the images that the repository lacks; BuildKit has usually pushed all of
// them by digest. It returns the errors of [PushImage].
func PushIndex(ctx context.Context, reference string, index v1.ImageIndex, keychain authn.Keychain) error {
	return registryClient{keychain: keychain}.pushIndex(ctx, reference, index)
}

func (c registryClient) pushIndex(ctx context.Context, reference string, index v1.ImageIndex) error {
	return c.call(ctx, reference, func(ref name.Reference) error {
		return remote.WriteIndex(ref, index, c.options(ctx)...)
	})
}

// PushImage copies an image to a registry without changing its digest. It streams the layers that the registry lacks,
// with little memory and no temporary files. One goroutine calls progress, which may be nil, without the layers that
// the registry has.
//
// PushImage retries after broken connections, 429 and 5xx. The error is an [*httpclient.APIError], a [*ReadError] of
// the image, or the cause of ctx. After an [ErrUnauthorized], call it again with fresh credentials to send the
// missing layers.
func PushImage(
	ctx context.Context, reference string, image v1.Image, keychain authn.Keychain, progress func(humanize.Transfer),
) error {
	return registryClient{keychain: keychain}.pushImage(ctx, reference, image, progress)
}

func (c registryClient) pushImage(
	ctx context.Context, reference string, image v1.Image, progress func(humanize.Transfer),
) error {
	return c.call(ctx, reference, func(ref name.Reference) error {
		options := c.options(ctx)
		if progress == nil {
			return remote.Write(ref, image, options...)
		}
		updates := make(chan v1.Update) // remote.Write closes it
		reported := make(chan struct{})
		go func() {
			defer close(reported)
			reportTransfer(updates, progress)
		}()
		err := remote.Write(ref, image, append(options, remote.WithProgress(updates))...)
		<-reported
		return err
	})
}

// maxRead is more than the bytes of a layer that are read at once.
const maxRead = 1 << 20

// reportTransfer reports the updates of a push. remote.Write counts a layer that the registry has in one update, and
// the bytes of other layers as they are read.
func reportTransfer(updates <-chan v1.Update, report func(humanize.Transfer)) {
	started := time.Now()
	var complete, existing int64
	for u := range updates {
		if u.Error != nil {
			continue
		}
		if added := u.Complete - complete; added > maxRead {
			existing += added
		}
		complete = u.Complete
		report(humanize.Transfer{Done: complete - existing, Total: u.Total - existing, Elapsed: time.Since(started)})
	}
}

// CheckPushPermission returns an error if the credentials have no permission to push to reference. It pushes nothing.
func CheckPushPermission(ctx context.Context, reference string, keychain authn.Keychain) error {
	return registryClient{keychain: keychain}.checkPushPermission(ctx, reference)
}

func (c registryClient) checkPushPermission(ctx context.Context, reference string) error {
	return c.call(ctx, reference, func(ref name.Reference) error {
		return remote.CheckPushPermission(ref, c.keychain, contextTransport{ctx, c.transport()})
	})
}

// contextTransport adds a context to the requests of a library that does not accept one.
type contextTransport struct {
	ctx  context.Context
	next http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t contextTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.next.RoundTrip(r.WithContext(t.ctx))
}

// call parses a reference, calls push, and describes its error.
func (c registryClient) call(ctx context.Context, reference string, push func(name.Reference) error) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fmt.Errorf("push %q: %w (use for example registry.example.com/team/name:tag)", reference, err)
	}
	if err := push(ref); err != nil {
		return registryCall{op: pushOp, references: []string{reference}}.failure(ctx, "", err)
	}
	return nil
}

// StaleCacheError reports that the builder built another image instead of taking the wanted one from its cache: a file
// of the context or another source has changed, or the cache no longer has a step.
type StaleCacheError struct {
	References  []string // the tags that were not added
	Want, Built v1.Hash
}

func (e *StaleCacheError) Error() string {
	call := registryCall{op: pushOp, references: e.References}
	return fmt.Sprintf("%s: the builder built %s instead of %s (a source has changed since the build; retry)",
		call, e.Built, e.Want)
}

// PushFromBuilder pushes the image that r built on c, without its attestations, directly from the builder's cache. The
// builder pushes it by digest, and PushFromBuilder adds the tags. If the builder would now build another image,
// PushFromBuilder adds none and returns a [*StaleCacheError]. Other errors are those of [PushImage].
func PushFromBuilder(
	ctx context.Context, c *client.Client, r Request, built *Result, auth Auth, references ...string,
) error {
	want, err := built.Image.Digest()
	if err != nil {
		return err
	}
	again := r.fromCache()
	again.Push, again.PushByDigest, again.Auth = references, true, auth
	again.Outputs, again.LayerDir, again.UnpulledDir = nil, "", ""
	again.withoutLease = true
	status := make(chan *client.SolveStatus)
	go drain(status)
	result, err := Solve(ctx, c, again, status)
	if err != nil {
		return err
	}
	if result.Digest != want {
		return &StaleCacheError{References: references, Want: want, Built: result.Digest}
	}
	for _, reference := range references {
		if err := (registryClient{keychain: auth}).pushManifest(ctx, reference, built.Image); err != nil {
			return err
		}
	}
	return nil
}

// pushManifest pushes the manifest of an image whose layers and config the repository has.
func (c registryClient) pushManifest(ctx context.Context, reference string, image v1.Image) error {
	return c.call(ctx, reference, func(ref name.Reference) error {
		return remote.Put(ref, image, c.options(ctx)...)
	})
}

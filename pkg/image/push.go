package image

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// JoinPlatforms makes one index of the images of several platforms, in the order given, with their attestations. The same images in the same
// order make the same index.
func JoinPlatforms(results []*Result, annotations map[string]string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, r := range results {
		platform, err := v1.ParsePlatform(r.Platform)
		if err != nil {
			return nil, err
		}
		if r.Index == nil {
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: r.Image, Descriptor: v1.Descriptor{Platform: platform}})
			continue
		}
		parts, err := r.Index.IndexManifest()
		if err != nil {
			return nil, err
		}
		for _, part := range parts.Manifests {
			child, err := r.Index.Image(part.Digest)
			if err != nil {
				return nil, err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: child, Descriptor: part})
		}
	}
	if len(annotations) > 0 {
		index = mutate.Annotations(index, annotations).(v1.ImageIndex)
	}
	return index, nil
}

// PushIndex gives index the name reference. What that repository lacks of its images is streamed there; after BuildKit has pushed them by
// digest that is nothing. Errors are as those of [PushImage].
func PushIndex(ctx context.Context, reference string, index v1.ImageIndex, keychain authn.Keychain) error {
	return push(ctx, reference, keychain, nil, func(ref name.Reference, options []remote.Option) error {
		return remote.WriteIndex(ref, index, options...)
	})
}

// PushImage sends an image from wherever it is to a registry, as it is: its digest stays. Layers that are there are not sent again, the others
// are streamed, through little memory and no file. progress is called, by one goroutine, with the bytes that are there and the
// bytes that will be; it may be nil.
//
// A broken connection, 429 and 5xx are tried again for a while. An error that is [ErrUnauthorized] asks for a fresh login: with it, the same
// call goes on with what is still missing.
func PushImage(ctx context.Context, reference string, image v1.Image, keychain authn.Keychain, progress func(done, total int64)) error {
	return push(ctx, reference, keychain, progress, func(ref name.Reference, options []remote.Option) error {
		return remote.Write(ref, image, options...)
	})
}

// CheckPushPermission asks a registry whether the login, or having none, lets us push to reference, as long as nothing has been made that would be lost otherwise.
func CheckPushPermission(ctx context.Context, reference string, keychain authn.Keychain) error {
	return push(ctx, reference, keychain, nil, func(ref name.Reference, _ []remote.Option) error {
		return remote.CheckPushPermission(ref, keychain, bound{ctx, patient{registryTransport(registrySilence)}})
	})
}

// bound ends requests that know no context with ours.
type bound struct {
	ctx  context.Context
	next http.RoundTripper
}

func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	return b.next.RoundTrip(r.WithContext(b.ctx))
}

func push(ctx context.Context, reference string, keychain authn.Keychain, progress func(done, total int64), write func(name.Reference, []remote.Option) error) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fmt.Errorf("push %q: %w: write for example registry.example.com/team/name:tag", reference, err)
	}
	options := registryOptions(ctx, keychain)
	shown := make(chan struct{})
	close(shown)
	if progress != nil {
		updates := make(chan v1.Update) // the library closes it
		options = append(options, remote.WithProgress(updates))
		shown = make(chan struct{})
		go func() {
			defer close(shown)
			for u := range updates {
				if u.Error == nil {
					progress(u.Complete, u.Total)
				}
			}
		}()
	}
	err = write(ref, options)
	<-shown
	if err != nil {
		return registryError(ctx, "push", reference, err)
	}
	return nil
}

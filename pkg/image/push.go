package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Join makes one index of the images of several platforms, in the order given, with their attestations. The same images in the same
// order make the same index.
func Join(results []*Result, annotations map[string]string) (v1.ImageIndex, error) {
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

// Push gives index the name reference. Its images must be in that repository already: BuildKit pushed them by digest.
func Push(ctx context.Context, reference string, index v1.ImageIndex, keychain authn.Keychain) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fmt.Errorf("push the index: %w", err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(keychain)); err != nil {
		answer := new(transport.Error)
		if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
			return pushError(fmt.Sprintf("failed to push %s: %d", reference, answer.StatusCode), err)
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return pushError("failed to push "+reference+": "+strings.Join(strings.Fields(err.Error()), " "), err)
	}
	return nil
}

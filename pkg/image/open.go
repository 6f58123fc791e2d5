package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Open opens an existing image and reads its manifest and config. Layers can be read until ctx ends. reference is one
// of
//   - oci-layout://DIR[:TAG][@DIGEST], or DIR[:TAG][@DIGEST] if it begins with /, ./ or ../: an OCI layout
//     (https://github.com/opencontainers/image-spec/blob/main/image-layout.md);
//   - an image in a registry.
//
// platform (os/architecture) selects an image from an index; for a single image, it must match. If it is "", there must
// be only one image, of any platform. The error is an [*httpclient.APIError] of the registry, a [*LayoutError], a
// [*PlatformError], or the cause of ctx.
func Open(ctx context.Context, reference, platform string, keychain authn.Keychain) (v1.Image, error) {
	return registryClient{keychain: keychain}.open(ctx, reference, platform)
}

func (c registryClient) open(ctx context.Context, reference, platform string) (v1.Image, error) {
	var wanted *v1.Platform
	if platform != "" {
		var err error
		if wanted, err = v1.ParsePlatform(platform); err != nil {
			return nil, fmt.Errorf("open %s: %w (use for example linux/amd64)", reference, err)
		}
	}
	if isLayout(reference) {
		return openLayout(reference, wanted)
	}
	return c.openRemote(ctx, reference, wanted)
}

func (c registryClient) openRemote(ctx context.Context, reference string, wanted *v1.Platform) (v1.Image, error) {
	call := registryCall{op: readOp, references: []string{reference}}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf(
			"open %q: %w (use a reference such as registry.example.com/team/name:tag, or oci-layout://DIR)", reference, err)
	}
	got, err := remote.Get(ref, c.options(ctx)...)
	if err != nil {
		return nil, call.failure(ctx, "", err)
	}
	var image v1.Image
	if got.MediaType.IsIndex() {
		index, err := got.ImageIndex()
		if err != nil {
			return nil, call.notAnImage(err.Error(), err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return nil, call.notAnImage(err.Error(), err)
		}
		hash, err := selectImage(reference, manifest.Manifests, wanted)
		if err != nil {
			return nil, err
		}
		if image, err = index.Image(hash); err != nil {
			return nil, call.failure(ctx, "", err)
		}
	} else if image, err = got.Image(); err != nil {
		return nil, call.notAnImage(err.Error(), err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return nil, call.notAnImage(err.Error(), err)
	}
	if manifest.Config.Digest == (v1.Hash{}) {
		const shown = 80
		begin := got.Manifest[:min(shown, len(got.Manifest))]
		return nil, call.notAnImage(fmt.Sprintf("%s %q", manifest.MediaType, begin), nil)
	}
	if _, err := image.RawConfigFile(); err != nil {
		return nil, call.failure(ctx, "", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, call.notAnImage(err.Error(), err)
	}
	return image, checkPlatform(reference, config, wanted)
}

// PlatformError reports an image that is not available for the wanted platform, or ambiguous without one.
type PlatformError struct {
	Reference string
	Platforms []string // available platforms, as os/architecture
	Wanted    string   // "" if the caller set none
}

func (e *PlatformError) Error() string {
	platforms := strings.Join(e.Platforms, ", ")
	switch {
	case len(e.Platforms) == 0:
		return fmt.Sprintf("open %s: the index contains no image (use the reference of an image)", e.Reference)
	case e.Wanted == "":
		return fmt.Sprintf("open %s: several platforms: %s (set the platform)", e.Reference, platforms)
	}
	return fmt.Sprintf("open %s: no image for %s, only for %s (build it for %s)",
		e.Reference, e.Wanted, platforms, e.Wanted)
}

func newPlatformError(reference string, platforms []string, wanted *v1.Platform) *PlatformError {
	e := &PlatformError{Reference: reference, Platforms: platforms}
	if wanted != nil {
		e.Wanted = wanted.String()
	}
	return e
}

// selectImage returns the digest of the image for the wanted platform in an index.
func selectImage(reference string, manifests []v1.Descriptor, wanted *v1.Platform) (v1.Hash, error) {
	var platforms []string
	var matches []v1.Hash
	for _, m := range manifests {
		if !isPlatformImage(m) {
			continue
		}
		if m.Platform == nil {
			m.Platform = &v1.Platform{}
		}
		platforms = append(platforms, m.Platform.String())
		if wanted == nil || m.Platform.Satisfies(*wanted) {
			matches = append(matches, m.Digest)
		}
	}
	// Several variants of the wanted architecture may match: the index lists the preferred one first.
	if len(matches) == 0 || wanted == nil && len(matches) > 1 {
		return v1.Hash{}, newPlatformError(reference, platforms, wanted)
	}
	return matches[0], nil
}

// checkPlatform returns a [*PlatformError] if the image's config is for another platform.
func checkPlatform(reference string, config *v1.ConfigFile, wanted *v1.Platform) error {
	platform := config.Platform()
	if wanted == nil || platform != nil && platform.Satisfies(*wanted) {
		return nil
	}
	return newPlatformError(reference, []string{config.OS + "/" + config.Architecture}, wanted)
}

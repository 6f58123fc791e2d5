package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
)

// Open finds an image that nobody built just now, and reads its manifest and config; layers are read when somebody reads them, as long as
// ctx lives. reference is
//   - oci-layout://FOLDER[:TAG][@DIGEST], or FOLDER[:TAG][@DIGEST] when it begins with /, ./ or ../: a folder as
//     https://github.com/opencontainers/image-spec/blob/main/image-layout.md describes it;
//   - else an image in a registry.
//
// platform (os/architecture) is what the image must be for, and which one is taken of several; "" takes any, when there is only one.
func Open(ctx context.Context, reference, platform string, keychain authn.Keychain) (v1.Image, error) {
	var wanted *v1.Platform
	if platform != "" {
		var err error
		if wanted, err = v1.ParsePlatform(platform); err != nil {
			return nil, fmt.Errorf("open %s: %w: write for example linux/amd64", reference, err)
		}
	}
	if isLayout(reference) {
		image, err := openLayout(reference, wanted)
		if err != nil {
			return nil, &said{oneLine(err.Error()), err} // it quotes what is in the folder
		}
		return image, nil
	}
	return openRemote(ctx, reference, wanted, keychain)
}

func isLayout(reference string) bool {
	for _, prefix := range []string{layoutScheme, "/", "./", "../"} {
		if strings.HasPrefix(reference, prefix) {
			return true
		}
	}
	return reference == "." || reference == ".."
}

const layoutScheme = "oci-layout://"

// splitLayout parts FOLDER[:TAG][@DIGEST]. The digest rules when both are given.
func splitLayout(layout string) (dir, reference string) {
	dir = layout
	if at := strings.LastIndex(dir, "@"); at >= 0 && digest.Digest(dir[at+1:]).Validate() == nil {
		dir, reference = dir[:at], dir[at+1:]
	}
	if colon := strings.LastIndex(dir, ":"); colon > strings.LastIndex(dir, "/") {
		if reference == "" {
			reference = dir[colon+1:]
		}
		dir = dir[:colon]
	}
	return dir, reference
}

// layoutDigest finds the image, or the index of images, that reference (a digest, a tag, or "") names in an OCI layout.
func layoutDigest(dir, reference string) (string, error) {
	if digest.Digest(reference).Validate() == nil {
		return reference, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s is no OCI layout: there is no index.json in it", dir)
	case err != nil:
		return "", fmt.Errorf("%s can not be read as an OCI layout: %w", dir, err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return "", fmt.Errorf("%s is no OCI layout: index.json: %w", dir, err)
	}
	var found, tags []string
	for _, m := range index.Manifests {
		tag := m.Annotations["org.opencontainers.image.ref.name"]
		if reference == "" || tag == reference || strings.HasSuffix(tag, ":"+reference) {
			found = append(found, m.Digest.String())
		}
		tags = append(tags, fmt.Sprintf("%q", tag))
	}
	slices.Sort(found)
	found = slices.Compact(found)
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(tags) == 0:
		return "", fmt.Errorf("the OCI layout %s is empty", dir)
	case len(found) == 0:
		return "", fmt.Errorf("the OCI layout %s holds no image %q, only %s", dir, reference, strings.Join(tags, ", "))
	}
	return "", fmt.Errorf("the OCI layout %s holds several images (%s): name one as %s:TAG or %s@DIGEST", dir, strings.Join(tags, ", "), dir, dir)
}

func openLayout(reference string, wanted *v1.Platform) (v1.Image, error) {
	dir, named := splitLayout(strings.TrimPrefix(reference, layoutScheme))
	found, err := layoutDigest(dir, named)
	if err != nil {
		return nil, err
	}
	image, err := layoutImage(reference, layout.Path(dir), found, wanted)
	if errors.Is(err, errBroken) {
		return nil, fmt.Errorf("the OCI layout %s: %w: write it again", dir, err)
	}
	if err != nil {
		return nil, err
	}
	return image, fits(reference, image, wanted)
}

var errBroken = errors.New("it is not whole")

// layoutImage opens what the layout's index names, or of several platforms the one, and sees that all of its blobs are there.
func layoutImage(reference string, path layout.Path, found string, wanted *v1.Platform) (v1.Image, error) {
	broken := func(err error) (v1.Image, error) { return nil, fmt.Errorf("%w (%w)", errBroken, err) }
	hash, err := v1.NewHash(found)
	if err != nil {
		return broken(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return broken(err)
	}
	if several, err := index.ImageIndex(hash); err == nil {
		if err := isOf(hash, several.RawManifest); err != nil {
			return broken(err)
		}
		manifest, err := several.IndexManifest()
		if err != nil {
			return broken(err)
		}
		if hash, err = choose(reference, manifest.Manifests, wanted); err != nil {
			return nil, err
		}
		index = several
	}
	image, err := index.Image(hash)
	if err != nil {
		return broken(err)
	}
	if err := isOf(hash, image.RawManifest); err != nil {
		return broken(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return broken(err)
	}
	for _, blob := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		info, err := os.Stat(filepath.Join(string(path), "blobs", blob.Digest.Algorithm, blob.Digest.Hex))
		if err == nil && info.Size() != blob.Size {
			err = fmt.Errorf("%s has %d of %d bytes", blob.Digest, info.Size(), blob.Size)
		}
		if err != nil {
			return broken(err)
		}
	}
	if err := isOf(manifest.Config.Digest, image.RawConfigFile); err != nil {
		return broken(err)
	}
	return image, nil
}

// isOf sees that what a folder holds by the name of a digest is of that digest: reading it does not. Layers are checked by whoever they are sent to.
func isOf(hash v1.Hash, read func() ([]byte, error)) error {
	raw, err := read()
	if err == nil && digest.FromBytes(raw).String() != hash.String() {
		err = fmt.Errorf("%s is not what its digest says", hash)
	}
	return err
}

func openRemote(ctx context.Context, reference string, wanted *v1.Platform, keychain authn.Keychain) (v1.Image, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%q is no image (%w): write a reference such as registry.example.com/team/name:tag, or oci-layout://FOLDER", reference, err)
	}
	got, err := remote.Get(ref, registryOptions(ctx, keychain)...)
	if err != nil {
		return nil, registryError(ctx, "read", reference, err)
	}
	var image v1.Image
	if got.MediaType.IsIndex() {
		index, err := got.ImageIndex()
		if err != nil {
			return nil, garbage(reference, err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return nil, garbage(reference, err)
		}
		hash, err := choose(reference, manifest.Manifests, wanted)
		if err != nil {
			return nil, err
		}
		image, err = index.Image(hash)
		if err != nil {
			return nil, registryError(ctx, "read", reference, err)
		}
	} else if image, err = got.Image(); err != nil {
		return nil, garbage(reference, err)
	}
	if manifest, err := image.Manifest(); err != nil {
		return nil, garbage(reference, err)
	} else if manifest.Config.Digest == (v1.Hash{}) {
		return nil, garbage(reference, fmt.Errorf("%s with %q", manifest.MediaType, clip(got.Manifest)))
	}
	if _, err := image.RawConfigFile(); err != nil {
		return nil, registryError(ctx, "read", reference, err)
	}
	return image, fits(reference, image, wanted)
}

func garbage(reference string, err error) error {
	return &said{fmt.Sprintf("read %s: the registry answers with something that is no image (%s): check the reference, and that a registry and no web page is there", reference, oneLine(err.Error())), err}
}

func clip(data []byte) string {
	const enough = 80
	return string(data[:min(len(data), enough)])
}

// choose finds the one image in an index that is for the platform. Attestations are no images.
func choose(reference string, manifests []v1.Descriptor, wanted *v1.Platform) (v1.Hash, error) {
	var names []string
	var fitting []v1.Hash
	for _, m := range manifests {
		if !m.MediaType.IsImage() || m.Annotations["vnd.docker.reference.type"] != "" {
			continue
		}
		if m.Platform == nil {
			m.Platform = &v1.Platform{}
		}
		names = append(names, m.Platform.String())
		if wanted == nil || m.Platform.Satisfies(*wanted) {
			fitting = append(fitting, m.Digest)
		}
	}
	switch {
	case len(fitting) == 1:
		return fitting[0], nil
	case len(names) == 0:
		return v1.Hash{}, fmt.Errorf("%s is an index that holds no image: name an image", reference)
	case wanted == nil:
		return v1.Hash{}, fmt.Errorf("%s is for several platforms (%s): say which one", reference, strings.Join(names, ", "))
	case len(fitting) == 0:
		return v1.Hash{}, fmt.Errorf("%s is for %s, not %s: build it for %s", reference, strings.Join(names, ", "), wanted, wanted)
	}
	// Variants of one architecture: the index's order is its maker's preference.
	return fitting[0], nil
}

// fits refuses an image for another platform. Its config says what it is for.
func fits(reference string, image v1.Image, wanted *v1.Platform) error {
	config, err := image.ConfigFile()
	if err != nil {
		return garbage(reference, err)
	}
	if wanted == nil || config.Platform() != nil && config.Platform().Satisfies(*wanted) {
		return nil
	}
	return fmt.Errorf("%s is for %s/%s, not %s: build it for %s", reference, config.OS, config.Architecture, wanted, wanted)
}

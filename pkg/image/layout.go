package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/opencontainers/go-digest"
	"github.com/org/sandbox-actions/pkg/safetext"
)

const layoutScheme = "oci-layout://"

func isLayout(reference string) bool {
	for _, prefix := range []string{layoutScheme, "/", "./", "../"} {
		if strings.HasPrefix(reference, prefix) {
			return true
		}
	}
	return reference == "." || reference == ".."
}

// splitLayout splits DIR[:TAG][@DIGEST]. The digest takes precedence over the tag.
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

// LayoutError reports an OCI layout that cannot be opened.
type LayoutError struct {
	Dir    string
	Reason string
	Hint   string // may be ""
	Err    error  // may be nil
}

func (e *LayoutError) Error() string {
	// The reason may quote untrusted files.
	text := safetext.Line(fmt.Sprintf("open OCI layout %s: %s", e.Dir, e.Reason), maxMessage)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *LayoutError) Unwrap() error { return e.Err }

// layoutDigest returns the digest of the image or index that reference names: a digest, a tag, or "" if the layout has
// only one.
func layoutDigest(dir, reference string) (string, error) {
	if digest.Digest(reference).Validate() == nil {
		return reference, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &LayoutError{Dir: dir, Reason: "no index.json", Hint: "use the directory of an OCI layout", Err: err}
	case err != nil:
		return "", &LayoutError{Dir: dir, Reason: err.Error(), Err: err}
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return "", &LayoutError{
			Dir: dir, Reason: "parse index.json: " + err.Error(), Hint: "write the layout again", Err: err,
		}
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
	all := strings.Join(tags, ", ")
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(tags) == 0:
		return "", &LayoutError{Dir: dir, Reason: "no images"}
	case len(found) == 0:
		return "", &LayoutError{Dir: dir, Reason: fmt.Sprintf("no image %q", reference), Hint: "use one of the tags " + all}
	}
	return "", &LayoutError{
		Dir: dir, Reason: "several images: " + all, Hint: fmt.Sprintf("use %s:TAG or %s@DIGEST", dir, dir),
	}
}

func openLayout(reference string, wanted *v1.Platform) (v1.Image, error) {
	dir, tag := splitLayout(strings.TrimPrefix(reference, layoutScheme))
	found, err := layoutDigest(dir, tag)
	if err != nil {
		return nil, err
	}
	image, err := openLayoutImage(reference, layout.Path(dir), found, wanted)
	if _, ok := errors.AsType[*PlatformError](err); ok {
		return nil, err
	}
	if err != nil {
		return nil, &LayoutError{Dir: dir, Reason: err.Error(), Hint: "the layout is damaged: write it again", Err: err}
	}
	return image, nil
}

// openLayoutImage opens an image, or the image for the wanted platform in an index, and checks that all of its blobs
// exist.
func openLayoutImage(reference string, path layout.Path, found string, wanted *v1.Platform) (v1.Image, error) {
	hash, err := v1.NewHash(found)
	if err != nil {
		return nil, err
	}
	index, err := path.ImageIndex()
	if err != nil {
		return nil, err
	}
	if nested, err := index.ImageIndex(hash); err == nil {
		if err := checkDigest(hash, nested.RawManifest); err != nil {
			return nil, err
		}
		manifest, err := nested.IndexManifest()
		if err != nil {
			return nil, err
		}
		if hash, err = selectImage(reference, manifest.Manifests, wanted); err != nil {
			return nil, err
		}
		index = nested
	}
	image, err := index.Image(hash)
	if err != nil {
		return nil, err
	}
	if err := checkDigest(hash, image.RawManifest); err != nil {
		return nil, err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	for _, blob := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		info, err := os.Stat(filepath.Join(string(path), "blobs", blob.Digest.Algorithm, blob.Digest.Hex))
		if err != nil {
			return nil, err
		}
		if info.Size() != blob.Size {
			return nil, fmt.Errorf("%s has %d of %d bytes", blob.Digest, info.Size(), blob.Size)
		}
	}
	if err := checkDigest(manifest.Config.Digest, image.RawConfigFile); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	return image, checkPlatform(reference, config, wanted)
}

// checkDigest checks the digest of a manifest or a config, which go-containerregistry does not do for a layout. Layers
// are verified when they are sent.
func checkDigest(hash v1.Hash, read func() ([]byte, error)) error {
	raw, err := read()
	if err == nil && digest.FromBytes(raw).String() != hash.String() {
		err = fmt.Errorf("digest mismatch of %s", hash)
	}
	return err
}

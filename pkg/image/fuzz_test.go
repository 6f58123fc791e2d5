package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// manifests are seeds. DIGEST and SIZE are replaced with those of the config.
var manifests = []string{
	`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],
		"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"DIGEST","size":SIZE}}`,
	`{"schemaVersion":2,"config":{"digest":"DIGEST","size":SIZE},
		"layers":[{"digest":"DIGEST","size":SIZE,"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"}]}`,
	`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	`{"config":{"digest":"sha256:../../etc/passwd","size":1}}`,
	`{"config":null}`, `[]`, `{}`, ``, `null`,
}

var configs = []string{
	`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`,
	`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:x"]}}`,
	`{}`, `null`, ``,
}

func addManifests(f *testing.F, more ...any) {
	for _, manifest := range manifests {
		for _, config := range configs {
			f.Add(append([]any{[]byte(manifest), []byte(config)}, more...)...)
		}
	}
}

// link fills in the digest and the size of the config.
func link(manifest, config []byte) []byte {
	values := strings.NewReplacer("DIGEST", digest.FromBytes(config).String(), "SIZE", strconv.Itoa(len(config)))
	return []byte(values.Replace(string(manifest)))
}

// FuzzOpenLayout checks that every opened image matches its digest and the wanted platform, and that errors are one
// line.
func FuzzOpenLayout(f *testing.F) {
	const ociImage = "application/vnd.oci.image."
	addManifests(f, []byte(`{"manifests":[{"digest":"MANIFEST","size":1,
		"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`), false)
	for _, kind := range []string{"index", "manifest"} {
		index := fmt.Sprintf(`{"manifests":[{"digest":"MANIFEST","mediaType":"%s%s.v1+json","size":1}]}`, ociImage, kind)
		addManifests(f, []byte(index), true)
	}
	dir := f.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, manifest, config, index []byte, damaged bool) {
		manifest = link(manifest, config)
		index = []byte(strings.ReplaceAll(string(index), "MANIFEST", digest.FromBytes(manifest).String()))
		files := map[string][]byte{
			"index.json": index,
			"blobs/sha256/" + digest.FromBytes(manifest).Encoded(): manifest,
			"blobs/sha256/" + digest.FromBytes(config).Encoded():   config,
		}
		for name, data := range files {
			if damaged && strings.HasPrefix(name, "blobs") { // with the same length and meaning
				data = bytes.Replace(data, []byte("layers"), []byte("Layers"), 1)
			}
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(file)
		}
		image, err := Open(t.Context(), dir, amd64, Auth{})
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("%q is not one line", err)
			}
			return
		}
		hash, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := image.RawManifest()
		if err != nil || digest.FromBytes(raw).String() != hash.String() || files["blobs/sha256/"+hash.Hex] == nil {
			t.Errorf("digest %s of %q (%v) is not the name of a blob", hash, raw, err)
		}
		read, err := image.ConfigFile()
		if err != nil || read.OS != "linux" || read.Architecture != "amd64" {
			t.Errorf("%+v, %v", read, err)
		}
		name, err := image.ConfigName()
		raw, readable := image.RawConfigFile()
		if err != nil || readable != nil || digest.FromBytes(raw).String() != name.String() {
			t.Errorf("config digest is %s for %q (%v, %v)", name, raw, err, readable)
		}
		if _, err := image.Layers(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzBuilt checks that a builder's image matches its digest, for any response of the builder.
func FuzzBuilt(f *testing.F) {
	addManifests(f, []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","size":1}`))
	addManifests(f, []byte(`{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"MANIFEST","size":1}`))
	f.Fuzz(func(t *testing.T, manifest, config, descriptor []byte) {
		manifest = link(manifest, config)
		descriptor = []byte(strings.ReplaceAll(string(descriptor), "MANIFEST", digest.FromBytes(manifest).String()))
		store := &contentStore{ctx: t.Context(), client: fakeContent{blobs: map[digest.Digest][]byte{
			digest.FromBytes(manifest): manifest, digest.FromBytes(config): config,
		}}}
		encoded := base64.StdEncoding.EncodeToString(descriptor)
		r, err := store.result(amd64, map[string]string{exptypes.ExporterImageDescriptorKey: encoded})
		if err != nil {
			return
		}
		raw, err := r.Image.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		hash, err := r.Image.Digest()
		if err != nil || digest.FromBytes(raw).String() != hash.String() || r.Index == nil && hash != r.Digest {
			t.Errorf("digest %s of %q, want %s (%v)", hash, raw, r.Digest, err)
		}
		layers, err := r.Image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, layer := range layers {
			content, err := layer.Compressed()
			if err != nil {
				continue
			}
			data, err := io.ReadAll(content)
			if is, _ := layer.Digest(); err == nil && digest.FromBytes(data).String() != is.String() {
				t.Errorf("%d bytes do not match the layer %s", len(data), is)
			}
		}
	})
}

// fakeContent is an in-memory content store of a builder.
type fakeContent struct {
	contentapi.ContentClient
	blobs map[digest.Digest][]byte
}

func (c fakeContent) Read(
	_ context.Context, in *contentapi.ReadContentRequest, _ ...grpc.CallOption,
) (contentapi.Content_ReadClient, error) {
	data, ok := c.blobs[digest.Digest(in.Digest)]
	if !ok {
		return nil, status.Error(codes.NotFound, "not found")
	}
	return &fakeContentStream{rest: [][]byte{data[:len(data)/2], data[len(data)/2:]}}, nil
}

type fakeContentStream struct {
	grpc.ClientStream
	rest [][]byte
}

func (s *fakeContentStream) Recv() (*contentapi.ReadContentResponse, error) {
	if len(s.rest) == 0 {
		return nil, io.EOF
	}
	next := s.rest[0]
	s.rest = s.rest[1:]
	return &contentapi.ReadContentResponse{Data: next}, nil
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	hub "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BaseImage is the path of the root file system of debian:bookworm-slim, relative to the checkout. scripts/setup.sh
// creates it.
const BaseImage = ".cache/base/bookworm-slim.tar"

// Mirror stands in for Docker Hub. It is read-only and requires no authentication.
type Mirror struct {
	Addr   string // host:port, plain HTTP
	server *http.Server
	served chan struct{}
}

// StartMirror starts a mirror that serves library/debian:bookworm-slim for linux/amd64 and linux/arm64. tar is the path
// of [BaseImage].
func StartMirror(ctx context.Context, tar string) (*Mirror, error) {
	base, err := debianIndex(tar)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &Mirror{Addr: listener.Addr().String(), served: make(chan struct{})}
	content := hub.New(hub.Logger(log.New(io.Discard, "", 0)))
	ready := make(chan struct{})
	handle := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-ready:
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				http.Error(w, "the mirror is read-only", http.StatusMethodNotAllowed)
				return
			}
		default: // StartMirror is pushing the image
		}
		content.ServeHTTP(w, r)
	}
	m.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(handle)}
	go func() {
		defer close(m.served)
		_ = m.server.Serve(listener) // returns an error after Stop
	}()
	reference, err := name.ParseReference(m.Addr + "/library/debian:bookworm-slim")
	if err == nil {
		err = remote.WriteIndex(reference, base, remote.WithContext(ctx))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("push the base image to the mirror: %w", err), m.Stop())
	}
	close(ready)
	return m, nil
}

// Stop stops the mirror.
func (m *Mirror) Stop() error {
	err := m.server.Close()
	<-m.served
	return err
}

// debianIndex returns an image index with the base image for each platform. The arm64 image has the amd64 layer, so
// FROM and COPY work but RUN does not.
func debianIndex(tar string) (v1.ImageIndex, error) {
	file, err := newBaseLayer(tar)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("base image %s not found (run scripts/setup.sh test)", tar)
	}
	if err != nil {
		return nil, fmt.Errorf("read the base image: %w", err)
	}
	layer, err := partial.CompressedToLayer(file)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range []string{"amd64", "arm64"} {
		config := &v1.ConfigFile{
			Architecture: architecture, OS: "linux", Created: v1.Time{Time: time.Unix(0, 0).UTC()},
			RootFS: v1.RootFS{Type: "layers"},
			Config: v1.Config{
				Cmd: []string{"bash"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			},
		}
		if architecture == "arm64" {
			config.Variant = "v8"
		}
		image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
		if err != nil {
			return nil, err
		}
		image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
		history := v1.History{CreatedBy: "debian.sh", Created: config.Created}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: history}); err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: architecture, Variant: config.Variant},
		}})
	}
	return index, nil
}

// baseLayer is a compressed layer. It reads its digests from a file, because computing them takes seconds.
type baseLayer struct {
	file           string
	size           int64
	diffID, digest v1.Hash
}

func newBaseLayer(tar string) (*baseLayer, error) {
	sums, err := os.ReadFile(tar + ".sums")
	if err != nil {
		return nil, err
	}
	l := &baseLayer{file: tar + ".gz"}
	info, err := os.Stat(l.file)
	if err != nil {
		return nil, err
	}
	l.size = info.Size()
	fields := strings.Fields(string(sums)) // SUM NAME for the tar and for the compressed tar
	if len(fields) != 4 {
		return nil, fmt.Errorf("invalid checksums in %s.sums (remove its directory and run scripts/setup.sh test)", tar)
	}
	l.diffID, l.digest = v1.Hash{Algorithm: "sha256", Hex: fields[0]}, v1.Hash{Algorithm: "sha256", Hex: fields[2]}
	return l, nil
}

func (l *baseLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *baseLayer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *baseLayer) Size() (int64, error)                { return l.size, nil }
func (l *baseLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }
func (l *baseLayer) Compressed() (io.ReadCloser, error)  { return os.Open(l.file) }

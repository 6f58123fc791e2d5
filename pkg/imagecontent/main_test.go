package imagecontent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	hub "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
)

const (
	amd64 = "linux/amd64"
	arm64 = "linux/arm64"
)

// services are BuildKit daemons and a stand-in of Docker Hub with debian:bookworm-slim, and small:1 and small:2, which
// have one file.
type services struct {
	dir      string
	hub      *httptest.Server
	builders *builders.Builders
}

var startOnce = sync.OnceValues(startServices)

func TestMain(m *testing.M) {
	code := m.Run()
	if s, err := startOnce(); s != nil {
		if err = errors.Join(err, s.stop()); err != nil {
			log.Print(err)
			code = 1
		}
	}
	os.Exit(code)
}

// machine connects to the daemon of a platform. The daemons start on first use.
func machine(t *testing.T, platform string) *client.Client {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit; run without -short")
	}
	s, err := startOnce()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(t.Context(), s.builders.Address(platform))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func startServices() (*services, error) {
	if testing.Short() {
		return nil, nil
	}
	dir, err := os.MkdirTemp("", "imagecontent-")
	if err != nil {
		return nil, err
	}
	s := &services{dir: dir, hub: httptest.NewServer(hub.New(hub.Logger(log.New(io.Discard, "", 0))))}
	if err := s.fillHub(); err != nil {
		return s, err
	}
	s.builders, err = builders.Start(context.Background(), builders.Options{
		Dir: filepath.Join(dir, "builders"), Mirrors: map[string]string{"docker.io": s.host()},
	})
	return s, err
}

func (s *services) host() string { return strings.TrimPrefix(s.hub.URL, "http://") }

func (s *services) stop() (err error) {
	if s.builders != nil {
		err = s.builders.Stop()
	}
	s.hub.Close()
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *services) fillHub() error {
	root, err := os.ReadFile(filepath.Join("..", "..", ".cache", "base", "bookworm-slim.tar"))
	if err != nil {
		return err
	}
	for reference, content := range map[string][]byte{
		"debian:bookworm-slim": root,
		"small:1":              archiveOf(entry{name: "small.txt", content: "1\n"}),
		"small:2":              archiveOf(entry{name: "small.txt", content: "22\n"}),
	} {
		ref, err := name.ParseReference(s.host() + "/library/" + reference)
		if err != nil {
			return err
		}
		image, err := imageOf(static.NewLayer(content, types.OCIUncompressedLayer))
		if err == nil {
			err = remote.Write(ref, image)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// imageOf returns an image with layers whose history is "RUN 0", "RUN 1", ….
func imageOf(layers ...v1.Layer) (v1.Image, error) {
	image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}},
	})
	if err != nil {
		return nil, err
	}
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	for i, layer := range layers {
		image, err = mutate.Append(image, mutate.Addendum{
			Layer: layer, History: v1.History{CreatedBy: "RUN " + string(rune('0'+i)) + " # buildkit"},
		})
		if err != nil {
			return nil, err
		}
	}
	return image, nil
}

// entry is one entry of an archive. Without a kind, it is a regular file.
type entry struct {
	name, content string
	kind          byte
	link          string
}

func archiveOf(entries ...entry) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o644, Size: int64(len(e.content)), Linkname: e.link}
		if e.kind == 0 {
			header.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(header); err != nil {
			panic(err) // the tests have only valid entries
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// writeFiles writes files with a fixed time.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	fixed := time.Unix(1_000_000_000, 0)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, fixed, fixed); err != nil {
			t.Fatal(err)
		}
	}
}

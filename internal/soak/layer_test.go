//go:build linux

package soak

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/org/sandbox-actions/internal/localcloud"
)

// pushLayer pushes an image with one layer to the registry.
func (l *lab) pushLayer(ctx context.Context, tag string, write func(*tar.Writer) error) error {
	path := filepath.Join(l.temp, tag+".tar.gz")
	defer os.Remove(path)
	if err := writeLayer(path, write); err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(path)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	image, err = mutate.Config(image, v1.Config{Env: []string{"PATH=/bin"}})
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(l.Registry.Addr + "/team/app:" + tag)
	if err != nil {
		return err
	}
	auth := &authn.Basic{Username: localcloud.RegistryUser, Password: l.RegistryPassword}
	return remote.Write(ref, image, remote.WithAuth(auth), remote.WithContext(ctx))
}

// writeLayer writes a layer to a file.
func writeLayer(path string, write func(*tar.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	compressed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := tar.NewWriter(compressed)
	if err := write(w); err != nil {
		return err
	}
	return errors.Join(w.Close(), compressed.Close())
}

// entry is an entry of a layer.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func link(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hardlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

func writeEntries(w *tar.Writer, entries ...entry) error {
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			return err
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			return err
		}
	}
	return nil
}

// zeros reads as endless zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

package dockerengine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// readArchive reads the engine's archive of an image once and creates the image's manifest from it. See
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageGet.
func (i *storedImage) readArchive(ctx context.Context, e *Engine, id v1.Hash) error {
	a := &savedArchive{engine: e, ctx: ctx, id: id, entries: map[string]savedEntry{}}
	list, err := a.scan()
	if err != nil {
		return err
	}
	var images []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(list, &images); err != nil || len(images) != 1 {
		return fmt.Errorf("parse the archive's manifest.json: got %d images, want one (%v)", len(images), err)
	}
	i.config = a.config
	config, err := v1.ParseConfigFile(bytes.NewReader(a.config))
	if err != nil || digest.FromBytes(a.config).String() != id.String() {
		return fmt.Errorf("read the archive: config %s is missing or invalid (%v)", id, err)
	}
	names := images[0].Layers
	if i.diffIDs = config.RootFS.DiffIDs; len(i.diffIDs) != len(names) {
		return fmt.Errorf("read the archive: got %d layers, but the config has %d", len(names), len(i.diffIDs))
	}
	i.manifest = &v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(a.config)), Digest: id},
	}
	paths := map[v1.Hash]string{}
	for n, name := range names {
		name = a.followLinks(name)
		entry, ok := a.entries[name]
		if !ok || entry.digest != i.diffIDs[n].String() {
			return fmt.Errorf("read the archive: layer %s is missing or does not match %s", name, i.diffIDs[n])
		}
		paths[i.diffIDs[n]] = name
		i.manifest.Layers = append(i.manifest.Layers, v1.Descriptor{
			MediaType: types.OCIUncompressedLayer, Size: entry.size, Digest: i.diffIDs[n],
		})
	}
	i.raw, err = json.Marshal(i.manifest)
	i.open = func(descriptor v1.Descriptor) (io.ReadCloser, error) { return a.open(paths[descriptor.Digest]) }
	i.position = func(descriptor v1.Descriptor) int { return a.entries[paths[descriptor.Digest]].number }
	return err
}

// savedArchive is the engine's archive of an image. The engine streams it for each request.
type savedArchive struct {
	engine  *Engine
	ctx     context.Context
	id      v1.Hash
	config  []byte
	entries map[string]savedEntry

	mutex sync.Mutex
	idle  *savedStream // not in use; the next open may reuse it
}

type savedEntry struct {
	number int // position in the archive
	size   int64
	digest string
	link   string // target if the entry is a link
}

// savedStream is one pass over the archive.
type savedStream struct {
	*tar.Reader
	*idleReader
	next int // number of the next entry
}

func (s *savedStream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func (a *savedArchive) start() (*savedStream, error) {
	s := &savedStream{idleReader: a.engine.newIdleReader(a.ctx)}
	body, err := a.engine.client.ImageSave(s.ctx, []string{a.id.String()})
	if err != nil {
		s.Close()
		return nil, err
	}
	s.from, s.stop = body, body.Close
	s.Reader = tar.NewReader(s.idleReader)
	return s, nil
}

func (s *savedStream) advance() (*tar.Header, error) {
	header, err := s.Next()
	s.next++
	return header, err
}

// scan reads the whole archive, fills a.entries and a.config, and returns manifest.json.
func (a *savedArchive) scan() (list []byte, err error) {
	s, err := a.start()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for {
		header, err := s.advance()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		entry := savedEntry{number: s.next - 1, size: header.Size}
		switch header.Typeflag {
		case tar.TypeSymlink: // a layer identical to another one
			entry.link = path.Join(path.Dir(header.Name), header.Linkname)
		case tar.TypeLink:
			entry.link = path.Clean(header.Linkname)
		}
		isList, mayBeConfig := header.Name == "manifest.json", strings.Contains(header.Name, a.id.Hex)
		digester := digest.SHA256.Digester()
		var content bytes.Buffer
		to := io.Writer(digester.Hash())
		if isList || mayBeConfig {
			if header.Size > maxMetadata {
				return nil, fmt.Errorf("read the archive: %s is larger than %d bytes", header.Name, maxMetadata)
			}
			to = io.MultiWriter(to, &content)
		}
		if _, err := io.Copy(to, s); err != nil {
			return nil, err
		}
		entry.digest = digester.Digest().String()
		a.entries[path.Clean(header.Name)] = entry
		switch {
		case isList:
			list = content.Bytes()
		case mayBeConfig && entry.digest == a.id.String():
			a.config = content.Bytes()
		}
	}
}

// followLinks returns the name of the entry that name is or links to.
func (a *savedArchive) followLinks(name string) string {
	name = path.Clean(name)
	for range 8 { // engines write links of one level
		if link := a.entries[name].link; link != "" {
			name = link
		}
	}
	return name
}

// open opens one entry. It reuses the idle stream unless that is already past the entry.
func (a *savedArchive) open(name string) (io.ReadCloser, error) {
	a.mutex.Lock()
	s := a.idle
	a.idle = nil
	a.mutex.Unlock()
	wanted := a.entries[name].number
	if s != nil && s.next > wanted {
		s.Close()
		s = nil
	}
	var err error
	if s == nil {
		if s, err = a.start(); err != nil {
			return nil, err
		}
	}
	for s.next <= wanted {
		if _, err := s.advance(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return &savedLayer{savedStream: s, archive: a}, nil
}

// savedLayer reads one entry. Close keeps the stream for the next open.
type savedLayer struct {
	*savedStream
	archive *savedArchive
	once    sync.Once
	err     error
}

func (l *savedLayer) Read(p []byte) (n int, err error) {
	if n, err = l.savedStream.Read(p); err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

func (l *savedLayer) Close() error {
	l.once.Do(func() {
		l.archive.mutex.Lock()
		defer l.archive.mutex.Unlock()
		isLast := l.next >= len(l.archive.entries)
		if l.err != nil || isLast || l.archive.idle != nil || l.ctx.Err() != nil {
			l.savedStream.Close()
			return
		}
		l.archive.idle = l.savedStream
	})
	return nil
}

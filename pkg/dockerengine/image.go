package dockerengine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/v2/core/content/proxy"
	cerrdefs "github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	v1spec "github.com/opencontainers/image-spec/specs-go/v1"
)

// smallBlob bounds what is read into memory: manifests, indexes and configs, in bytes.
const smallBlob = 16 << 20

// Image is an image of the engine for a platform such as "linux/amd64", or "" for the one that the engine itself would run. Its
// layers are read from the engine when they are asked for, until ctx ends, and are kept nowhere.
//
// With the containerd image store it is the image byte for byte, with the digest that it was built or pulled with. Any other
// store keeps neither manifest nor compressed layers: the image has uncompressed ones then, whose digests are the diff IDs of its
// config, so that its digest is the same whenever and wherever it is taken. Their sizes have to be known for a manifest, so the engine
// is read once before Image returns; layers that are read one after the other, in ReadOrder, take one more reading for all.
func (e *Engine) Image(ctx context.Context, name, platform string) (*Image, error) {
	fail := func(err error) (*Image, error) {
		return nil, fmt.Errorf("read %s from the Docker Engine at %s: %w", name, e.Host, e.because(ctx, err))
	}
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	found, err := e.client.ImageInspect(step, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return fail(errors.New("it has no image of that name: docker image ls shows which it has"))
	case err != nil:
		return fail(err)
	}
	id, err := v1.NewHash(found.ID)
	if err != nil {
		return fail(fmt.Errorf("its id %q is no digest", found.ID))
	}
	i := &storedImage{}
	if blobs := e.blobs(step); blobs != nil {
		i.open = e.fromContent(ctx, blobs)
		err = i.resolve(id, platform)
	} else if err = isFor(platform, v1.Platform{OS: found.Os, Architecture: found.Architecture, Variant: found.Variant}); err == nil {
		err = i.save(e, ctx, id)
	}
	if err != nil {
		return fail(err)
	}
	img := &Image{}
	if img.Image, err = partial.CompressedToImage(i); err != nil {
		return fail(err)
	}
	for _, hash := range i.order() {
		layer, err := img.LayerByDigest(hash)
		if err != nil {
			return fail(err)
		}
		img.ReadOrder = append(img.ReadOrder, layer)
	}
	return img, nil
}

// Image is one that an engine holds.
type Image struct {
	v1.Image

	// ReadOrder are the layers, equal ones once, in the order in which the engine gives them. It matters to the stores that are
	// not containerd's: out of order each layer is looked for from the beginning of all.
	ReadOrder []v1.Layer
}

// isFor says whether an image for one platform is what was asked for. The variant counts where both name one.
func isFor(want string, is v1.Platform) error {
	if want == "" {
		return nil
	}
	asked, err := v1.ParsePlatform(want)
	if err != nil {
		return fmt.Errorf("%q is not a platform: write one such as linux/amd64", want)
	}
	if asked.OS == is.OS && asked.Architecture == is.Architecture &&
		(asked.Variant == is.Variant || asked.Variant == "" || is.Variant == "") {
		return nil
	}
	return fmt.Errorf("the image is for %s, not for %s: build it for that platform", is, want)
}

// storedImage implements partial.CompressedImageCore.
type storedImage struct {
	raw, config []byte
	manifest    *v1.Manifest
	diffIDs     []v1.Hash
	open        func(v1.Descriptor) (io.ReadCloser, error)
	place       func(v1.Descriptor) int // in the order in which the engine gives them; nil: it does not matter
}

// order are the layers as the engine gives them.
func (i *storedImage) order() (list []v1.Hash) {
	layers := slices.Clone(i.manifest.Layers)
	if i.place != nil {
		slices.SortStableFunc(layers, func(a, b v1.Descriptor) int { return i.place(a) - i.place(b) })
	}
	for _, layer := range layers {
		if !slices.Contains(list, layer.Digest) {
			list = append(list, layer.Digest)
		}
	}
	return list
}

func (i *storedImage) RawManifest() ([]byte, error)        { return i.raw, nil }
func (i *storedImage) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i *storedImage) MediaType() (types.MediaType, error) { return i.manifest.MediaType, nil }
func (i *storedImage) LayerByDigest(hash v1.Hash) (partial.CompressedLayer, error) {
	if hash == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	for n, descriptor := range i.manifest.Layers {
		if descriptor.Digest == hash {
			return &storedLayer{image: i, descriptor: descriptor, diffID: i.diffIDs[n]}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", hash)
}

// storedLayer implements partial.CompressedLayer.
type storedLayer struct {
	image      *storedImage
	descriptor v1.Descriptor
	diffID     v1.Hash
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *storedLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *storedLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error)  { return l.image.open(l.descriptor) }

// resolve reads the manifest with this digest or, of an index, its manifest for the platform, and the config.
func (i *storedImage) resolve(hash v1.Hash, platform string) error {
	var err error
	if i.raw, err = i.small(v1.Descriptor{Digest: hash}); err != nil {
		return err
	}
	var kind struct{ MediaType types.MediaType }
	if err := json.Unmarshal(i.raw, &kind); err != nil {
		return fmt.Errorf("manifest %s: %w", hash, err)
	}
	if kind.MediaType.IsIndex() {
		index, err := v1.ParseIndexManifest(bytes.NewReader(i.raw))
		if err != nil {
			return fmt.Errorf("index %s: %w", hash, err)
		}
		return i.among(index, platform)
	}
	if i.manifest, err = v1.ParseManifest(bytes.NewReader(i.raw)); err != nil {
		return fmt.Errorf("manifest %s: %w", hash, err)
	}
	if i.config, err = i.small(i.manifest.Config); err != nil {
		return err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(i.config))
	if err != nil {
		return fmt.Errorf("config %s: %w", i.manifest.Config.Digest, err)
	}
	if i.diffIDs = config.RootFS.DiffIDs; len(i.diffIDs) != len(i.manifest.Layers) {
		return fmt.Errorf("the image has %d layers and its config %d", len(i.manifest.Layers), len(i.diffIDs))
	}
	if i.manifest.MediaType == "" { // which OCI allows
		i.manifest.MediaType = types.OCIManifestSchema1
	}
	return isFor(platform, *cmp.Or(config.Platform(), &v1.Platform{OS: "unknown", Architecture: "unknown"}))
}

// among takes the image for the platform from an index, of which an engine may hold a part only.
func (i *storedImage) among(index *v1.IndexManifest, platform string) error {
	err := errors.New("the index holds no image")
	for _, m := range index.Manifests {
		if m.Annotations["vnd.docker.reference.type"] != "" || !m.MediaType.IsImage() {
			continue
		}
		if err = i.resolve(m.Digest, platform); err == nil {
			return nil
		}
	}
	return err
}

// small reads a manifest, an index or a config.
func (i *storedImage) small(descriptor v1.Descriptor) ([]byte, error) {
	from, err := i.open(descriptor)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	data, err := io.ReadAll(io.LimitReader(from, smallBlob+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > smallBlob:
		return nil, fmt.Errorf("%s is larger than a manifest or a config may be (%d bytes)", descriptor.Digest, smallBlob)
	case digest.FromBytes(data).String() != descriptor.Digest.String():
		return nil, fmt.Errorf("%s is not what its digest says", descriptor.Digest)
	}
	return data, nil
}

// fromContent opens blobs of a content store.
func (e *Engine) fromContent(ctx context.Context, blobs contentapi.ContentClient) func(v1.Descriptor) (io.ReadCloser, error) {
	store := proxy.NewContentStore(blobs)
	return func(descriptor v1.Descriptor) (io.ReadCloser, error) {
		reading := e.reading(ctx)
		at, err := store.ReaderAt(reading.ctx, v1spec.Descriptor{Digest: digest.Digest(descriptor.Digest.String()), Size: descriptor.Size})
		if err != nil {
			reading.Close()
			return nil, fmt.Errorf("read %s from the Docker Engine: %w", descriptor.Digest, err)
		}
		reading.from = bufio.NewReaderSize(io.NewSectionReader(at, 0, at.Size()), 1<<20) // each filling is one call
		reading.stop = at.Close
		return reading, nil
	}
}

// reading is a stream of the engine's that ends with its context, or when the engine says nothing for too long.
type reading struct {
	from   io.Reader
	stop   func() error
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	engine *Engine
}

func (e *Engine) reading(ctx context.Context) *reading {
	r := &reading{engine: e, stop: func() error { return nil }}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.timer = time.AfterFunc(e.silence, func() {
		r.cancel(fmt.Errorf("%s has been silent for %s: see its log, or try again", theEngine, e.silence))
	})
	r.timer.Stop() // until someone reads
	return r
}

func (r *reading) Read(p []byte) (int, error) {
	r.timer.Reset(r.engine.silence)
	n, err := r.from.Read(p)
	r.timer.Stop()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read from the Docker Engine: %w", r.engine.because(r.ctx, err))
	}
	return n, err
}

func (r *reading) Close() error {
	r.timer.Stop()
	defer r.cancel(nil)
	return r.stop()
}

// save learns what is in the engine's archive of an image by reading it once, and makes the image's manifest of that. See
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageGet.
func (i *storedImage) save(e *Engine, ctx context.Context, id v1.Hash) error {
	a := &savedArchive{engine: e, ctx: ctx, id: id, entries: map[string]savedEntry{}}
	list, err := a.read()
	if err != nil {
		return err
	}
	var described []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(list, &described); err != nil || len(described) != 1 {
		return fmt.Errorf("its archive's manifest.json describes %d images (%v)", len(described), err)
	}
	i.config = a.config
	config, err := v1.ParseConfigFile(bytes.NewReader(a.config))
	if err != nil || digest.FromBytes(a.config).String() != id.String() {
		return fmt.Errorf("its archive holds no config %s (%v)", id, err)
	}
	if i.diffIDs = config.RootFS.DiffIDs; len(i.diffIDs) != len(described[0].Layers) {
		return fmt.Errorf("its archive holds %d layers of the config's %d", len(described[0].Layers), len(i.diffIDs))
	}
	i.manifest = &v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{},
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(a.config)), Digest: id},
	}
	paths := map[v1.Hash]string{}
	for n, name := range described[0].Layers {
		name = a.target(name)
		entry, ok := a.entries[name]
		if !ok || entry.digest != i.diffIDs[n].String() {
			return fmt.Errorf("its archive's layer %s is not %s", name, i.diffIDs[n])
		}
		paths[i.diffIDs[n]] = name
		i.manifest.Layers = append(i.manifest.Layers, v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: entry.size, Digest: i.diffIDs[n]})
	}
	i.raw, err = json.Marshal(i.manifest)
	i.open = func(descriptor v1.Descriptor) (io.ReadCloser, error) { return a.open(paths[descriptor.Digest]) }
	i.place = func(descriptor v1.Descriptor) int { return a.entries[paths[descriptor.Digest]].number }
	return err
}

// savedArchive is what the engine streams of one image, again and again.
type savedArchive struct {
	engine  *Engine
	ctx     context.Context
	id      v1.Hash
	config  []byte
	entries map[string]savedEntry

	mutex sync.Mutex
	idle  *savedStream // one that nobody reads from, to go on with
}

type savedEntry struct {
	number int // its place in the archive
	size   int64
	digest string
	link   string // the entry that it stands for
}

// savedStream is one reading of the archive.
type savedStream struct {
	*tar.Reader
	*reading
	next int // number of the entry that comes
}

func (s *savedStream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func (a *savedArchive) start() (*savedStream, error) {
	s := &savedStream{reading: a.engine.reading(a.ctx)}
	body, err := a.engine.client.ImageSave(s.ctx, []string{a.id.String()})
	if err != nil {
		s.Close()
		return nil, err
	}
	s.from, s.stop = body, body.Close
	s.Reader = tar.NewReader(s.reading)
	return s, nil
}

func (s *savedStream) step() (*tar.Header, error) {
	header, err := s.Next()
	s.next++
	return header, err
}

// read goes through the whole archive, and answers its manifest.json.
func (a *savedArchive) read() (list []byte, err error) {
	s, err := a.start()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for {
		header, err := s.step()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		entry := savedEntry{number: s.next - 1, size: header.Size}
		switch header.Typeflag {
		case tar.TypeSymlink: // a layer that is like another
			entry.link = path.Join(path.Dir(header.Name), header.Linkname)
		case tar.TypeLink:
			entry.link = path.Clean(header.Linkname)
		}
		digester := digest.SHA256.Digester()
		var small bytes.Buffer
		to := io.Writer(digester.Hash())
		isList, isConfig := header.Name == "manifest.json", strings.Contains(header.Name, a.id.Hex)
		if isList || isConfig {
			to = io.MultiWriter(to, &small)
		}
		if (isList || isConfig) && header.Size > smallBlob {
			return nil, fmt.Errorf("its archive's %s is larger than %d bytes", header.Name, smallBlob)
		}
		if _, err := io.Copy(to, s); err != nil {
			return nil, err
		}
		entry.digest = digester.Digest().String()
		a.entries[path.Clean(header.Name)] = entry
		switch {
		case isList:
			list = small.Bytes()
		case isConfig && entry.digest == a.id.String():
			a.config = small.Bytes()
		}
	}
}

// target is the entry that name stands for.
func (a *savedArchive) target(name string) string {
	name = path.Clean(name)
	for range 8 { // links are one deep
		if link := a.entries[name].link; link != "" {
			name = link
		}
	}
	return name
}

// open reads one entry, with the idle stream where that has not passed it.
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
		if _, err := s.step(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return &savedLayer{savedStream: s, archive: a}, nil
}

// savedLayer is one entry that is read. When it is closed its stream waits for the next one.
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
		last := l.next >= len(l.archive.entries)
		if l.err != nil || last || l.archive.idle != nil || l.ctx.Err() != nil {
			l.savedStream.Close()
			return
		}
		l.archive.idle = l.savedStream
	})
	return nil
}

package dockerengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

// Platform is what the engine runs: "linux/amd64".
func (e *Engine) Platform(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	version, err := e.client.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", fmt.Errorf("the Docker Engine at %s does not say its platform: %w", e.Host, err)
	}
	return version.Os + "/" + version.Arch, nil
}

// ReadsZstd reports whether the engine reads layers that are compressed with zstd: Docker 23 and later do.
func (e *Engine) ReadsZstd() bool { return !versions.LessThan(e.client.ClientVersion(), "1.42") }

// ImageID is the engine's id of the image called name, "sha256:…", or "" when there is none. It is the digest of the
// image's config or, with the containerd image store, of its manifest or index.
func (e *Engine) ImageID(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	image, err := e.client.ImageInspect(ctx, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("the Docker Engine at %s does not say what %s is: %w", e.Host, name, err)
	}
	return image.ID, nil
}

// Loaded is what a load came to.
type Loaded struct {
	ID     string // the engine's id of the image
	Config string // digest of the image's config; with the containerd image store the id is the manifest's, which names this config
	Sent   int64  // bytes of layers that the engine was sent
	Layers int    // of the image
	Held   int    // of those, how many the engine had
}

// String says it in a few words.
func (l Loaded) String() string {
	if l.Held == l.Layers {
		return fmt.Sprintf("all %d layers were there", l.Layers)
	}
	return fmt.Sprintf("%d of %d layers were there, %s sent", l.Held, l.Layers, units.HumanSize(float64(l.Sent)))
}

// Load puts an image into the engine and calls it name. An image that the engine has already is only named; of any other it is
// given, in little memory, the layers that it lacks: in one archive or, where that is faster and the engine shares our loopback, by
// a pull. The name is moved when the image is whole: when Load fails it is what it was before. Load ends with ctx, or when for 5 minutes neither the image's source nor the engine has shown
// any sign of life.
func (e *Engine) Load(ctx context.Context, name string, img v1.Image) (Loaded, error) {
	loaded, err := e.load(ctx, name, img)
	if err != nil {
		return Loaded{}, fmt.Errorf("load %s into the Docker Engine at %s: %w", name, e.Host, err)
	}
	return loaded, nil
}

func (e *Engine) load(ctx context.Context, name string, img v1.Image) (Loaded, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return Loaded{}, fmt.Errorf("not an image's name: %w", err)
	}
	if _, digested := ref.(reference.Digested); digested {
		return Loaded{}, errors.New("not an image's name: only a registry can name an image by its digest")
	}
	ref = reference.TagNameOnly(ref)
	a, err := newArchive(img)
	if err != nil {
		return Loaded{}, err
	}

	loaded := Loaded{Config: a.config.String(), Layers: len(a.layers), Held: len(a.layers)}
	if id := e.has(ctx, a); id != "" {
		if err := e.name(ctx, id, ref.String(), &loaded); !cerrdefs.IsNotFound(err) {
			return loaded, err
		} // removed meanwhile
	}
	count := func(sent []file) {
		for _, f := range sent {
			loaded.Held--
			loaded.Sent += f.size
		}
	}
	if e.mayPull(ctx) {
		sent, err := e.pull(ctx, a, func() error {
			id := e.has(ctx, a)
			if id == "" {
				return fmt.Errorf("%w: %w", errNoPull, errNotWhole)
			}
			return e.name(ctx, id, ref.String(), &loaded)
		})
		if !errors.Is(err, errNoPull) {
			count(sent)
			return loaded, err
		}
	}
	sent, id, err := e.sendLacking(ctx, a, e.holds(ctx, a))
	if err != nil {
		return Loaded{}, e.discard(ctx, a, err)
	}
	count(sent)
	return loaded, e.name(ctx, id, ref.String(), &loaded)
}

// sendLacking sends the archive without what the engine holds or, when it turns out that it does not, whole. It answers what was
// sent, and the engine's id of the image that it has now.
func (e *Engine) sendLacking(ctx context.Context, a *archive, held map[v1.Hash]bool) (sent []file, id string, err error) {
	for {
		sent = a.without(held)
		if err = e.send(ctx, a, sent); err == nil {
			if id = e.has(ctx, a); id != "" {
				return sent, id, nil
			}
			err = errNotWhole
		}
		if len(held) == 0 || !wrongGuess(err) {
			return nil, "", err
		}
		held = nil
	}
}

// errNotWhole is what the current engine does with an image of another platform than its own: it does not unpack it, and so
// does not miss what is lacking.
var errNotWhole = errors.New("the engine says that all went well, but the image is not there or not whole: see its log")

// name gives a whole image its name, and looks whether it has it.
func (e *Engine) name(ctx context.Context, id, name string, loaded *Loaded) error {
	var err error
	if loaded.ID, err = e.ImageID(ctx, name); err != nil || loaded.ID == id {
		return err
	}
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if _, err := e.client.ImageTag(step, client.ImageTagOptions{Source: id, Target: name}); err != nil {
		return fmt.Errorf("name it: %w", e.because(ctx, err))
	}
	if loaded.ID, err = e.ImageID(ctx, name); err == nil && loaded.ID != id {
		err = fmt.Errorf("the engine was told to name %s so, and shows %q: is another load using the same name", id, loaded.ID)
	}
	return err
}

// has is the engine's id of the archive's image, if it has all of it. An engine that does not tell has nothing.
func (e *Engine) has(ctx context.Context, a *archive) string {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, hash := range []v1.Hash{a.manifest, a.config} {
		image, err := e.client.ImageInspect(ctx, hash.String())
		if err != nil || image.ID != hash.String() {
			continue
		}
		if image.Descriptor == nil { // not the containerd store: an image is there or not
			return image.ID
		}
		image, err = e.client.ImageInspect(ctx, hash.String(), client.ImageInspectWithManifests(true))
		if err != nil {
			continue
		}
		for _, manifest := range image.Manifests {
			if manifest.ID == a.manifest.String() && manifest.Available {
				return image.ID
			}
		}
	}
	return ""
}

// discard removes what a load left that failed with err: the current engine keeps an image that it could not unpack.
func (e *Engine) discard(ctx context.Context, a *archive, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	image, missing := e.client.ImageInspect(ctx, a.manifest.String())
	if missing != nil || len(image.RepoTags) > 0 {
		return err // there is none, or one that is someone's; an engine that is gone has left nothing worse
	}
	_, removed := e.client.ImageRemove(ctx, a.manifest.String(), client.ImageRemoveOptions{PruneChildren: true})
	if removed != nil && !cerrdefs.IsNotFound(removed) {
		return fmt.Errorf("%w, and a broken image was left (docker image rm %s): %v", err, a.manifest, removed)
	}
	return err
}

// wrongGuess says whether the engine lacks a layer that an archive left out, in the words of its two image stores.
func wrongGuess(err error) bool {
	return errors.Is(err, errNotWhole) || strings.Contains(err.Error(), "no such file or directory") || strings.Contains(err.Error(), "not found")
}

// send streams the archive and reads the engine's answer to its end. See
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageLoad.
func (e *Engine) send(parent context.Context, a *archive, layers []file) error {
	for _, f := range layers {
		if f.zstd && !e.ReadsZstd() {
			return fmt.Errorf("the image has layers compressed with zstd, which this engine (API %s) does not read: "+
				"update it to 23 or later, or build the image with gzip layers", e.client.ClientVersion())
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	watch := newWatch(e.silence, cancel)
	defer watch.stop()

	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := a.write(ctx, writer, layers, watch, e.Progress)
		writer.CloseWithError(err)
		written <- err
	}()
	err := e.exchange(ctx, reader, watch)
	reader.CloseWithError(errEngineDone) // a source that still writes need not
	cancelled := context.Cause(ctx)
	cancel(errEngineDone)
	source := <-written
	switch {
	case cancelled != nil:
		return cancelled
	case source != nil && !errors.Is(source, errEngineDone) && !errors.Is(source, io.ErrClosedPipe):
		return source // the engine only says that the archive broke off
	}
	return explain(err) // nil: the engine need not read what follows the archive's end
}

// errEngineDone is what the writer of an archive sees when the engine does not read on.
var errEngineDone = errors.New("the engine does not read on")

// exchange is one request: the archive there, the engine's report back.
func (e *Engine) exchange(ctx context.Context, archive io.Reader, watch *watch) error {
	response, err := e.client.ImageLoad(ctx, archive)
	if err != nil {
		return err
	}
	defer response.Close()
	// With quiet=0 it is a stream of JSON: progress, "Loaded image: …", and errors whatever the status says.
	decoder := json.NewDecoder(response)
	for {
		var message jsonstream.Message
		err := decoder.Decode(&message)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("the engine's answer broke off: %w", err)
		case message.Error != nil:
			return message.Error
		case strings.HasPrefix(message.Stream, "Error "): // "Error unpacking image …", together with "Loaded image"
			return errors.New(strings.TrimSpace(message.Stream))
		}
		watch.alive(theEngine)
	}
}

// cause is an error of the client without the request's address, which our sentences name.
func cause(err error) error {
	if request := new(url.Error); errors.As(err, &request) {
		return request.Err
	}
	return err
}

// explain adds what to do to errors that an engine's users can mend.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("the connection to it broke (%w): see whether it still runs (docker info), and its log", cause(err))
	}
	text := err.Error()
	for _, known := range []struct{ part, remedy string }{
		{"no space left on device", "free some of the engine's disk (docker system df, docker system prune)"},
		{"disk quota exceeded", "free some of the engine's disk (docker system df, docker system prune)"},
		{"permission denied", "the engine may not write to its own data: see its log"},
	} {
		if strings.Contains(text, known.part) {
			return fmt.Errorf("%w: %s", err, known.remedy)
		}
	}
	return err
}

// watch ends a load in which nothing moves.
type watch struct {
	silence time.Duration
	timer   *time.Timer
	waiting atomic.Value // of party: whom we wait for
}

type party string

const (
	theEngine party = "the Docker Engine"
	theSource party = "the builder that holds the image"
)

func newWatch(silence time.Duration, cancel context.CancelCauseFunc) *watch {
	w := &watch{silence: silence}
	w.waiting.Store(theEngine)
	w.timer = time.AfterFunc(silence, func() {
		cancel(fmt.Errorf("%s has been silent for %s: see its log, or try again", w.waiting.Load(), silence))
	})
	return w
}

// alive says that something moved, and whom we wait for from now on.
func (w *watch) alive(next party) {
	w.waiting.Store(next)
	w.timer.Reset(w.silence)
}

func (w *watch) stop() { w.timer.Stop() }

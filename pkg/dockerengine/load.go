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

// Load puts an image into the engine and calls it name. An image that the engine has already is only named; any other
// is streamed to it as one archive, whole, in little memory. When it fails, name is what it was before. Load ends with
// ctx, or when for 5 minutes neither the image's source nor the engine has shown any sign of life.
func (e *Engine) Load(ctx context.Context, name string, img v1.Image) error {
	fail := func(err error) error {
		return fmt.Errorf("load %s into the Docker Engine at %s: %w", name, e.Host, err)
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return fail(fmt.Errorf("not an image's name: %w", err))
	}
	tagged, ok := reference.TagNameOnly(ref).(reference.NamedTagged)
	if _, digested := ref.(reference.Digested); !ok || digested {
		return fail(errors.New("not an image's name: only a registry can name an image by its digest"))
	}
	a, err := newArchive(tagged, img)
	if err != nil {
		return fail(err)
	}

	before, err := e.ImageID(ctx, tagged.String())
	if err != nil {
		return fail(err)
	}
	if id := e.has(ctx, a); id != "" {
		if id == before {
			return nil
		}
		_, err := e.client.ImageTag(ctx, client.ImageTagOptions{Source: id, Target: tagged.String()})
		if err == nil {
			return nil
		}
		if !cerrdefs.IsNotFound(err) { // removed meanwhile
			return fail(err)
		}
	}

	if version := e.client.ClientVersion(); a.zstd && versions.LessThan(version, "1.42") {
		return fail(fmt.Errorf("the image has layers compressed with zstd, which this engine (API %s) does not read: "+
			"update it to 23 or later, or build the image with gzip layers", version))
	}
	if err := e.send(ctx, a); err != nil {
		return fail(errors.Join(err, e.restore(ctx, tagged.String(), before)))
	}
	id, err := e.ImageID(ctx, tagged.String())
	if err != nil {
		return fail(err)
	}
	if id != a.manifest.String() && id != a.config.String() {
		return fail(fmt.Errorf("the engine says that all went well, but %s is %q instead of %s", name, id, a.config))
	}
	return nil
}

// has is the engine's id of the archive's image, if it has all of it. An engine that does not tell has nothing.
func (e *Engine) has(ctx context.Context, a *archive) string {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
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

// restore undoes what a failed load did to the name: the current engine gives it to an image even if it could not
// unpack it.
func (e *Engine) restore(ctx context.Context, name, before string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	now, err := e.ImageID(ctx, name)
	switch {
	case err != nil || now == before:
		return nil // what failed is told already, and an engine that is gone has restored nothing worse
	case before == "":
		_, err = e.client.ImageRemove(ctx, name, client.ImageRemoveOptions{PruneChildren: true})
	default:
		_, err = e.client.ImageTag(ctx, client.ImageTagOptions{Source: before, Target: name})
	}
	if err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("it left a broken image of that name (docker image rm %s): %w", name, err)
	}
	return nil
}

// send streams the archive and reads the engine's answer to its end. See
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageLoad.
func (e *Engine) send(parent context.Context, a *archive) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	watch := newWatch(e.silence, cancel)
	defer watch.stop()

	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := a.write(ctx, writer, watch, e.Progress)
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

package dockerengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
)

// Loaded is the result of a load.
type Loaded struct {
	ID       string // the engine's ID of the image, as ImageID returns it
	Config   string // digest of the image's config
	Sent     int64  // bytes of layers that were sent
	Layers   int    // number of distinct layers of the image
	Existing int    // number of those that the engine had
}

// String summarizes the load for a log line.
func (l Loaded) String() string {
	if l.Existing == l.Layers {
		return fmt.Sprintf("all %d layers already existed", l.Layers)
	}
	return fmt.Sprintf("%d of %d layers already existed, %s sent", l.Existing, l.Layers, units.HumanSize(float64(l.Sent)))
}

// addSent counts the layers that were sent.
func (l *Loaded) addSent(layers []file) {
	for _, f := range layers {
		l.Existing--
		l.Sent += f.size
	}
}

// Load loads an image into the engine and tags it with name. It sends the layers that the engine lacks, streaming, and
// none of an image that the engine has: in one archive, or by a pull from this process where that is faster and the
// engine shares our loopback. The tag moves only when the image is complete: if Load fails, it is what it was before.
// Load ends with ctx, or when neither the image's source nor the engine makes progress for 5 minutes.
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
		return Loaded{}, fmt.Errorf("invalid image name: %w", err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return Loaded{}, errors.New("invalid image name: a name with a digest cannot be loaded, use a tag")
	}
	ref = reference.TagNameOnly(ref)
	a, err := newArchive(img)
	if err != nil {
		return Loaded{}, err
	}

	loaded := Loaded{Config: a.config.String(), Layers: len(a.layers), Existing: len(a.layers)}
	if id := e.completeImage(ctx, a); id != "" {
		loaded.ID, err = e.tagImage(ctx, id, ref.String())
		if !cerrdefs.IsNotFound(err) { // else the image was removed since
			return loaded, err
		}
	}
	if e.canPull(ctx) {
		sent, err := e.pullImage(ctx, a, func() (err error) {
			id := e.completeImage(ctx, a)
			if id == "" {
				return fmt.Errorf("%w: %w", errCannotPull, errIncomplete)
			}
			loaded.ID, err = e.tagImage(ctx, id, ref.String())
			return err
		})
		if !errors.Is(err, errCannotPull) {
			loaded.addSent(sent)
			return loaded, err
		}
	}
	sent, id, err := e.loadMissing(ctx, a, e.existingLayers(ctx, a))
	if err != nil {
		return Loaded{}, e.removePartial(ctx, a, err)
	}
	loaded.addSent(sent)
	loaded.ID, err = e.tagImage(ctx, id, ref.String())
	return loaded, err
}

// loadMissing sends the archive without the existing layers. When the engine turns out not to have them, it sends the
// whole archive. It returns the layers that were sent, and the engine's ID of the image.
func (e *Engine) loadMissing(ctx context.Context, a *archive, existing map[v1.Hash]bool) ([]file, string, error) {
	for {
		missing := a.missingLayers(existing)
		err := e.streamArchive(ctx, a, missing)
		if err == nil {
			if id := e.completeImage(ctx, a); id != "" {
				return missing, id, nil
			}
			err = errIncomplete
		}
		refused := new(engineError)
		if len(existing) == 0 || !errors.Is(err, errIncomplete) && !errors.As(err, &refused) {
			return nil, "", err
		}
		existing = nil
	}
}

// errIncomplete is a load after which the engine does not have the whole image. The current engine reports no error for
// an image of another platform: it does not unpack it, and does not notice missing layers.
var errIncomplete = errors.New("the engine reported success, but the image is missing or incomplete: check its log")

// tagImage gives a complete image its name, and returns the ID that the engine then has for the name.
func (e *Engine) tagImage(ctx context.Context, id, name string) (string, error) {
	existing, err := e.ImageID(ctx, name)
	if err != nil || existing == id {
		return existing, err
	}
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if _, err := e.client.ImageTag(step, client.ImageTagOptions{Source: id, Target: name}); err != nil {
		return "", fmt.Errorf("tag %s: %w", id, e.classifyError(ctx, err))
	}
	tagged, err := e.ImageID(ctx, name)
	if err == nil && tagged != id {
		err = fmt.Errorf("tag %s: the name is now %q: is another load using it", id, tagged)
	}
	return tagged, err
}

// completeImage returns the engine's ID of the archive's image if the engine has all of it, else "". It returns "" for
// an engine that fails, too: the load then reports why.
func (e *Engine) completeImage(ctx context.Context, a *archive) string {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for _, hash := range []v1.Hash{a.manifest, a.config} {
		image, err := e.client.ImageInspect(ctx, hash.String())
		if err != nil || image.ID != hash.String() {
			continue
		}
		if image.Descriptor == nil { // without the containerd store an image is complete or absent
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

// removePartial removes what a load that failed with err left: the current engine keeps an image that it could not
// unpack. An image with a tag stays: it existed before.
func (e *Engine) removePartial(ctx context.Context, a *archive, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	image, missing := e.client.ImageInspect(ctx, a.manifest.String())
	if missing != nil || len(image.RepoTags) > 0 {
		return err
	}
	_, removed := e.client.ImageRemove(ctx, a.manifest.String(), client.ImageRemoveOptions{PruneChildren: true})
	if removed != nil && !cerrdefs.IsNotFound(removed) {
		return fmt.Errorf("%w, and removing the incomplete image failed: %v (docker image rm %s)", err, removed, a.manifest)
	}
	return err
}

// streamArchive sends the archive with these layers and reads the engine's answer to its end. See
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageLoad.
func (e *Engine) streamArchive(parent context.Context, a *archive, layers []file) error {
	for _, f := range layers {
		if f.zstd && !e.ReadsZstd() {
			return fmt.Errorf("unsupported layer compression zstd: this engine (API %s) reads gzip only; "+
				"update Docker to 23 or later, or build the image with gzip layers", e.client.ClientVersion())
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	idle := newIdleTimer(e.idleTimeout, cancel)
	defer idle.stop()

	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := a.write(ctx, writer, layers, idle, e.Progress)
		writer.CloseWithError(err)
		written <- err
	}()
	err := e.postArchive(ctx, reader, idle)
	reader.CloseWithError(errEngineDone) // ends a write that is under way
	canceled := context.Cause(ctx)
	cancel(errEngineDone)
	writeErr := <-written
	switch {
	case canceled != nil:
		return canceled
	case writeErr != nil && !errors.Is(writeErr, errEngineDone) && !errors.Is(writeErr, io.ErrClosedPipe):
		return writeErr // the engine only reports that the archive broke off
	}
	return withHint(err) // nil if the engine did not read what follows the archive's end
}

// errEngineDone ends the source of a transfer when the engine does not read on.
var errEngineDone = errors.New("the engine stopped reading")

// postArchive sends the archive in one request and reads the engine's report.
func (e *Engine) postArchive(ctx context.Context, archive io.Reader, idle *idleTimer) error {
	response, err := e.client.ImageLoad(ctx, archive)
	if err != nil {
		if cerrdefs.IsInternal(err) || cerrdefs.IsInvalidArgument(err) || cerrdefs.IsNotFound(err) {
			return &engineError{err.Error()}
		}
		return err
	}
	defer response.Close()
	// A stream of JSON objects: progress, "Loaded image: …", and errors, whatever the status is.
	decoder := json.NewDecoder(response)
	for {
		var message jsonstream.Message
		err := decoder.Decode(&message)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's answer: %w", err)
		case message.Error != nil:
			return &engineError{message.Error.Message}
		case strings.HasPrefix(message.Stream, "Error "): // "Error unpacking image …", followed by "Loaded image"
			return &engineError{strings.TrimSpace(message.Stream)}
		}
		idle.touch(peerEngine)
	}
}

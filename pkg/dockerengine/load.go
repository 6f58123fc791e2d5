package dockerengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/org/sandbox-actions/pkg/humanize"
)

// Loaded is the result of [Engine.Load].
type Loaded struct {
	ID       string // the engine's ID of the image, see ImageID
	Config   string // digest of the image's config
	Sent     int64  // total bytes of the layers that were sent
	Layers   int    // number of distinct layers of the image
	Existing int    // number of those that the engine already had
}

// String summarizes the load for a log line.
func (l Loaded) String() string {
	if l.Existing == l.Layers {
		return fmt.Sprintf("all %d layers already exist", l.Layers)
	}
	return fmt.Sprintf("sent %d of %d layers, %s", l.Layers-l.Existing, l.Layers, humanize.Size(l.Sent))
}

// addSent adds layers that were sent.
func (l *Loaded) addSent(layers []file) {
	for _, f := range layers {
		l.Existing--
		l.Sent += f.size
	}
}

// Load loads an image into the engine and tags it with name. It streams only the layers that the engine lacks, either
// in one archive or, if that is faster and the engine can reach our loopback interface, by having the engine pull from
// this process. The tag moves only when the image is complete: if Load fails, the tag is unchanged. Load fails when ctx
// ends, or when neither the image source nor the engine makes progress for 5 minutes.
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
		return Loaded{}, errors.New("invalid image name: a digest cannot be loaded (use a tag)")
	}
	a, err := newArchive(img, e.readsZstd())
	if err != nil {
		return Loaded{}, err
	}
	for attempt := 1; ; attempt++ {
		loaded, err := e.loadArchive(ctx, a, reference.TagNameOnly(ref).String())
		freed := e.removeLeftovers(ctx) > 0 // after the load, which may use their layers
		// The image was removed before it was tagged, another job loads it, or the leftovers may have filled the disk.
		retry := cerrdefs.IsNotFound(err) || isConflict(err) || freed
		if err == nil || !retry || attempt == maxLoads {
			return loaded, err
		}
	}
}

// maxLoads is how often Load tries to load an image. After a conflict, the other job has often completed it.
const maxLoads = 8

// isConflict reports whether a load failed because another load of the same image created a name first. The engine
// returns only the text of containerd's error: moby/moby v29, daemon/containerd/image_exporter.go, LoadImage, which
// creates names with core/images.
func isConflict(err error) bool {
	failed, ok := errors.AsType[*engineError](err)
	return ok && strings.HasSuffix(failed.message, cerrdefs.ErrAlreadyExists.Error())
}

// loadArchive has the engine get the image in the fastest way that works, and tags it.
func (e *Engine) loadArchive(ctx context.Context, a *archive, name string) (loaded Loaded, err error) {
	loaded = Loaded{Config: a.config.String(), Layers: len(a.layers), Existing: len(a.layers)}
	if loaded.ID = e.completeImage(ctx, a); loaded.ID != "" {
		return loaded, e.tagImage(ctx, loaded.ID, name)
	}
	existing := e.existingLayers(ctx, a)
	sent := a.missingLayers(existing)
	if e.canPull(ctx, sent) {
		sent, err = e.pullImage(ctx, a, sent, func() error {
			if loaded.ID = e.completeImage(ctx, a); loaded.ID == "" {
				return fmt.Errorf("%w: %w", errCannotPull, errIncomplete)
			}
			return e.tagImage(ctx, loaded.ID, name)
		})
		if !errors.Is(err, errCannotPull) {
			loaded.addSent(sent)
			return loaded, err
		}
	}
	sent, loaded.ID, err = e.loadMissing(ctx, a, existing)
	switch {
	case isConflict(err): // the image is that of the other load
		return Loaded{}, err
	case err != nil:
		return Loaded{}, e.removePartial(ctx, a, err)
	}
	loaded.addSent(sent)
	return loaded, e.tagImage(ctx, loaded.ID, name)
}

// loadMissing sends the archive without the existing layers. If the engine does not have them after all, it sends the
// whole archive. It returns the layers that were sent and the engine's ID of the image.
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
		rejected := new(engineError)
		if len(existing) == 0 || !errors.Is(err, errIncomplete) && !errors.As(err, &rejected) {
			return nil, "", err
		}
		existing = nil
	}
}

// errIncomplete means that the engine does not have the complete image after a load. The current engine does not unpack
// an image for another platform and therefore reports no error for missing layers.
var errIncomplete = errors.New("the engine reported success, but the image is incomplete (check the engine's log)")

// tagImage tags a complete image. Of several clients that use one tag at once, the last one wins. The current engine
// replaces a tag in two steps and returns 500 if another client creates the tag in between, so tagImage retries:
// moby/moby v29, daemon/containerd/image_tag.go, createOrReplaceImage.
func (e *Engine) tagImage(ctx context.Context, id, name string) error {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval, waits.MaxInterval = 20*time.Millisecond, 500*time.Millisecond
	_, err := backoff.Retry(ctx, func() (client.ImageTagResult, error) {
		step, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		tagged, err := e.client.ImageTag(step, client.ImageTagOptions{Source: id, Target: name})
		if err != nil && !cerrdefs.IsInternal(err) {
			err = backoff.Permanent(err)
		}
		return tagged, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTagAttempts))
	if err != nil {
		return fmt.Errorf("tag %s: %w", id, e.classifyError(ctx, err))
	}
	return nil
}

// maxTagAttempts allows for about 3 s of conflicts.
const maxTagAttempts = 12

// completeImage returns the engine's ID of the archive's image if the engine has the complete image, or "". It also
// returns "" if the engine fails; the load then reports the error.
func (e *Engine) completeImage(ctx context.Context, a *archive) string {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	// The manifests say which blobs the containerd store has. Other stores ignore the option.
	withManifests := client.ImageInspectWithManifests(!versions.LessThan(e.client.ClientVersion(), "1.48"))
	for _, hash := range []v1.Hash{a.manifest, a.config} {
		image, err := e.client.ImageInspect(ctx, hash.String(), withManifests)
		if err != nil || image.ID != hash.String() {
			continue
		}
		if image.Descriptor == nil { // without the containerd store, an image is never incomplete
			return image.ID
		}
		for _, manifest := range image.Manifests {
			if manifest.ID == a.manifest.String() && manifest.Available {
				return image.ID
			}
		}
	}
	return ""
}

// removePartial removes the incomplete image that a load that failed with err left behind, because the current engine
// keeps an image that it could not unpack. It keeps a tagged image, which existed before. It returns err, with a hint
// if the removal fails.
func (e *Engine) removePartial(ctx context.Context, a *archive, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeGrace)
	defer cancel()
	image, missing := e.client.ImageInspect(ctx, a.manifest.String())
	if missing != nil || len(image.RepoTags) > 0 {
		return err
	}
	_, removed := e.client.ImageRemove(ctx, a.manifest.String(), client.ImageRemoveOptions{PruneChildren: true})
	if removed != nil && !cerrdefs.IsNotFound(removed) {
		return fmt.Errorf("%w; removing the incomplete image failed: %v (run docker image rm %s)", err, removed, a.manifest)
	}
	return err
}

// streamArchive sends the archive with these layers and reads the engine's response. See
// https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Image/operation/ImageLoad.
func (e *Engine) streamArchive(parent context.Context, a *archive, layers []file) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	idle := newIdleTimer(e.idleTimeout, cancel)
	defer idle.stop()

	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := a.write(ctx, writer, layers,
			&copier{idle: idle, meter: newMeter(layers, e.Progress), tempDir: e.TempDir})
		writer.CloseWithError(err)
		written <- err
	}()
	err := e.postArchive(ctx, reader, idle)
	reader.CloseWithError(errEngineDone) // interrupts a pending write
	canceled := context.Cause(ctx)
	cancel(errEngineDone)
	writeErr := <-written
	switch {
	case canceled != nil:
		return canceled
	case writeErr != nil && !errors.Is(writeErr, errEngineDone) && !errors.Is(writeErr, io.ErrClosedPipe):
		return writeErr // the engine reports only that the archive is truncated
	}
	return withDiskHint(withConnectionHint(err)) // nil even if the engine did not read to the end of the pipe
}

// errEngineDone stops the source of a transfer when the engine has stopped reading.
var errEngineDone = errors.New("the engine stopped reading")

// postArchive sends the archive in one request and reads the engine's messages.
func (e *Engine) postArchive(ctx context.Context, archive io.Reader, idle *idleTimer) error {
	response, err := e.client.ImageLoad(ctx, archive)
	if err != nil {
		if cerrdefs.IsInternal(err) || cerrdefs.IsInvalidArgument(err) || cerrdefs.IsNotFound(err) {
			return &engineError{err.Error()}
		}
		return err
	}
	defer response.Close()
	// The body is a stream of JSON objects: progress, "Loaded image: …", and errors, regardless of the status.
	decoder := json.NewDecoder(response)
	for {
		var message jsonstream.Message
		err := decoder.Decode(&message)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read the engine's response: %w", err)
		case message.Error != nil:
			return &engineError{message.Error.Message}
		case strings.HasPrefix(message.Stream, "Error "): // "Error unpacking image …", followed by "Loaded image"
			return &engineError{strings.TrimSpace(message.Stream)}
		}
		idle.touch(peerEngine)
	}
}

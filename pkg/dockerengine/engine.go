// Package dockerengine loads images into a Docker Engine, reads them from it, and runs containers. The engine may be a
// daemon of this machine, in a virtual machine (Docker Desktop, OrbStack, Colima), on another machine over TLS or ssh,
// or Podman's Docker API.
package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

// Deadlines for the engine's answers. What a container itself takes is bounded by the caller's context only.
const (
	stepTimeout   = time.Minute
	killTimeout   = 3 * time.Second
	removeTimeout = 30 * time.Second
)

// Engine is a Docker Engine that has answered.
type Engine struct {
	Host string // address, as in DOCKER_HOST

	// Progress, if set, is called during Load for each part of a layer that was sent. Calls do not overlap.
	Progress func(Layer)

	client      *client.Client
	content     content       // connection to the containerd content store
	idleTimeout time.Duration // without progress of the engine or of an image's source
	archiveOnly bool          // Load never has the engine pull
}

// Close closes the connections to the engine.
func (e *Engine) Close() error { return errors.Join(e.content.close(), e.client.Close()) }

// Platform returns the platform that the engine runs: "linux/amd64".
func (e *Engine) Platform(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	version, err := e.client.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", fmt.Errorf("get the platform of the Docker Engine at %s: %w", e.Host, err)
	}
	return version.Os + "/" + version.Arch, nil
}

// ReadsZstd reports whether the engine reads layers that are compressed with zstd: Docker 23 and later do.
func (e *Engine) ReadsZstd() bool { return !versions.LessThan(e.client.ClientVersion(), "1.42") }

// ImageID returns the engine's ID of the image called name, "sha256:…", or "" if there is none. It is the digest of the
// image's config or, with the containerd image store, of its manifest or index.
func (e *Engine) ImageID(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	image, err := e.client.ImageInspect(ctx, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("inspect image %s on the Docker Engine at %s: %w", name, e.Host, err)
	}
	return image.ID, nil
}

// engineError is an error that the engine reported in the body of its answer, whatever the answer's status.
type engineError struct{ message string }

func (e *engineError) Error() string { return e.message }

// classifyError returns why a request failed: the end of ctx if it has ended, else err with a hint.
func (e *Engine) classifyError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("timed out waiting for the Docker Engine at %s: check its log", e.Host)
	}
	return withHint(err)
}

// withHint adds a hint to errors that a user can do something about. An engine reports them only as text.
func withHint(err error) error {
	if err == nil {
		return nil
	}
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("lost the connection to the Docker Engine: %w (check docker info and the engine's log)",
			withoutURL(err))
	}
	for _, known := range []struct{ text, hint string }{
		{"no space left on device", "free disk space with docker system prune"},
		{"disk quota exceeded", "free disk space with docker system prune"},
		{"permission denied", "check the engine's log"},
	} {
		if strings.Contains(err.Error(), known.text) {
			return fmt.Errorf("%w (%s)", err, known.hint)
		}
	}
	return err
}

// withoutURL returns the cause of a failed request without its URL.
func withoutURL(err error) error {
	if request := new(url.Error); errors.As(err, &request) {
		return request.Err
	}
	return err
}

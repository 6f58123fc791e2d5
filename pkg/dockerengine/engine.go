// Package dockerengine loads images into a Docker Engine, reads images from it, and runs containers. The engine may be
// local, in a virtual machine (Docker Desktop, OrbStack, Colima), remote over TLS or SSH, or Podman with its Docker
// API.
package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/humanize"
)

// Timeouts for the engine's responses. Only the caller's context limits how long a container runs.
const (
	stepTimeout   = time.Minute
	killTimeout   = 1500 * time.Millisecond // after a run that ended early; Remove kills, too
	removeGrace   = 3 * time.Second
	removeTimeout = 30 * time.Second
)

// Engine is a connection to a Docker Engine.
type Engine struct {
	Host string // address, as in DOCKER_HOST
	From string // source of the address, for messages: DOCKER_HOST, a context of docker, or the name of a default

	// Progress, if set, is called during Load for each chunk of a layer that was sent, but never concurrently. If the
	// engine rejects the first attempt, the progress starts again.
	Progress func(humanize.Transfer)

	// TempDir is a directory for the content of layers that the engine cannot decompress, one layer at a time. ""
	// means [os.TempDir].
	TempDir string

	client      *client.Client
	content     content       // connection to the containerd content store
	idleTimeout time.Duration // maximum time without progress by the engine or the image source
	pullMinimum int64         // size of missing layers from which a pull is faster than an archive; 0: 32 MiB
}

// Close closes the connections to the engine.
func (e *Engine) Close() error { return errors.Join(e.content.close(), e.client.Close()) }

// Platform returns the engine's platform, such as "linux/amd64".
func (e *Engine) Platform(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	version, err := retry(ctx, func() (client.ServerVersionResult, error) {
		return e.client.ServerVersion(ctx, client.ServerVersionOptions{})
	})
	if err != nil {
		return "", fmt.Errorf("get the platform of the Docker Engine at %s: %w", e.Host, err)
	}
	return version.Os + "/" + version.Arch, nil
}

// readsZstd reports whether the engine supports layers compressed with zstd, as Docker 23 and later do.
func (e *Engine) readsZstd() bool { return !versions.LessThan(e.client.ClientVersion(), "1.42") }

// ImageID returns the engine's ID of the named image, "sha256:…", or "" if the image does not exist. The ID is the
// digest of the image's config or, with the containerd image store, of its manifest or index.
func (e *Engine) ImageID(ctx context.Context, name string) (string, error) {
	info, err := e.ImageInfo(ctx, name)
	return info.ID, err
}

// ImageInfo describes an image in the engine.
type ImageInfo struct {
	ID      string    // see [Engine.ImageID]; "" if the image does not exist
	Created time.Time // zero if the image does not tell
	Labels  map[string]string
}

// ImageInfo describes the named image.
func (e *Engine) ImageInfo(ctx context.Context, name string) (ImageInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	image, err := e.inspectImage(ctx, name)
	switch {
	case cerrdefs.IsNotFound(err):
		return ImageInfo{}, nil
	case err != nil:
		return ImageInfo{}, fmt.Errorf("inspect image %s on the Docker Engine at %s: %w", name, e.Host, err)
	}
	info := ImageInfo{ID: image.ID}
	info.Created, _ = time.Parse(time.RFC3339Nano, image.Created)
	if image.Config != nil {
		info.Labels = image.Config.Labels
	}
	return info, nil
}

func (e *Engine) inspectImage(ctx context.Context, name string) (client.ImageInspectResult, error) {
	return retry(ctx, func() (client.ImageInspectResult, error) { return e.client.ImageInspect(ctx, name) })
}

// retry repeats an idempotent call after a failed connection or a server error, which may pass. It does not repeat a
// call that already waited for the engine, see [redial].
func retry[T any](ctx context.Context, call func() (T, error)) (T, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = 100 * time.Millisecond
	return backoff.Retry(ctx, func() (T, error) {
		result, err := call()
		if cerrdefs.IsNotFound(err) || cerrdefs.IsInvalidArgument(err) || cerrdefs.IsUnauthorized(err) ||
			cerrdefs.IsPermissionDenied(err) || cerrdefs.IsConflict(err) || cerrdefs.IsNotImplemented(err) ||
			errors.As(err, new(*httpclient.BodyTooLargeError)) {
			err = backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(4), backoff.WithMaxElapsedTime(restartLimit))
}

// engineError is an error that the engine reported in a response body, regardless of the status.
type engineError struct{ message string }

func (e *engineError) Error() string { return e.message }

// classifyError returns the cause of ctx if ctx has ended, or err with a hint if one is known.
func (e *Engine) classifyError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("timed out waiting for the Docker Engine at %s (check its log)", e.Host)
	}
	return withConnectionHint(err)
}

// withConnectionHint adds a hint to the error of a lost connection.
func withConnectionHint(err error) error {
	if !client.IsErrConnectionFailed(err) {
		return err
	}
	return fmt.Errorf("lost the connection to the Docker Engine: %w (run docker info, or check the engine's log)",
		withoutURL(err))
}

// withDiskHint adds a hint to the error of a full disk. Use it only for calls that fill the engine's disk: other limits
// of the kernel, such as those of inotify, cause the same error. The engine reports it only as text, in the wording of
// Go's syscall package.
func withDiskHint(err error) error {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if err != nil && strings.Contains(err.Error(), full.Error()) {
			return fmt.Errorf("%w (free disk space with docker system prune)", err)
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

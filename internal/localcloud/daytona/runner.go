package daytona

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// start makes the runner process a snapshot. The caller holds the lock.
func (s *Server) start(it *snapshot, o *Organization) {
	ctx, stop := context.WithCancel(s.ctx)
	it.stop, it.ended = stop, make(chan struct{})
	if s.ctx.Err() != nil {
		return
	}
	s.running.Go(func() {
		defer close(it.ended)
		defer stop()
		err := s.process(ctx, it, o)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case ctx.Err() != nil: // removed, deactivated, or the server stops
		case err != nil:
			it.reason = err.Error()
			s.enter(it, "error")
		}
	})
}

// process takes a snapshot from pending to active. Its error becomes the snapshot's errorReason.
func (s *Server) process(ctx context.Context, it *snapshot, o *Organization) error {
	if it.fault == Stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := s.wait(ctx, it, s.options.Linger); err != nil {
		return err
	}
	image, digest, err := s.inspect(ctx, it, o)
	if err != nil {
		return err
	}
	if err := s.step(ctx, it, "pulling", s.options.Linger); err != nil {
		return err
	}
	if err := s.pull(ctx, it, image, digest); err != nil {
		return err
	}
	if err := s.store(ctx, it, image, digest); err != nil {
		return err
	}
	if it.fault == Strange {
		if err := s.step(ctx, it, "propagating", max(1, s.options.Linger)); err != nil {
			return err
		}
	}
	if it.fault == Falls {
		if err := s.step(ctx, it, "active", 1); err != nil {
			return err
		}
		return reason("Timeout processing snapshot on initial runner")
	}
	return s.step(ctx, it, "active", 0)
}

// reason is an error of Daytona, as opposed to one of the engine or the registry.
type reason string

func (r reason) Error() string { return string(r) }

// step enters a state and waits until clients have read it so many times.
func (s *Server) step(ctx context.Context, it *snapshot, state string, reads int) error {
	s.mu.Lock()
	if ctx.Err() == nil {
		s.enter(it, state)
		if state == "active" {
			it.used = time.Now()
		}
	}
	s.mu.Unlock()
	return s.wait(ctx, it, reads)
}

func (s *Server) wait(ctx context.Context, it *snapshot, reads int) error {
	for {
		s.mu.Lock()
		enough := it.reads >= reads
		s.mu.Unlock()
		if ctx.Err() != nil || enough {
			return ctx.Err()
		}
		select {
		case <-it.seen:
		case <-ctx.Done():
		}
	}
}

func (s *Server) remote(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(&authn.Basic{Username: runner, Password: s.puller}),
		remote.WithUserAgent(s.puller),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}),
	}
}

// inspect reads the image's digest, which the snapshot's ref contains from then on, its platform, and its compressed
// size.
func (s *Server) inspect(ctx context.Context, it *snapshot, o *Organization) (v1.Image, v1.Hash, error) {
	fail := func(err error) (v1.Image, v1.Hash, error) { return nil, v1.Hash{}, err }
	ref, err := name.ParseReference(it.image)
	if err != nil {
		return fail(err)
	}
	if ref.Context().RegistryStr() != s.host {
		return fail(fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': "+
			"denied: requested access to the resource is denied", ref.Context()))
	}
	found, err := remote.Get(ref, s.remote(ctx)...)
	if err != nil {
		return fail(err)
	}
	// From here on the digest counts, even if the tag moves.
	image, err := remote.Image(ref.Context().Digest(found.Digest.String()), s.remote(ctx)...)
	if err != nil {
		if found.MediaType.IsIndex() {
			return fail(fmt.Errorf("no matching manifest for linux/amd64 in the manifest list entries: %s", it.image))
		}
		return fail(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return fail(err)
	}
	if config.OS != "linux" || config.Architecture != "amd64" {
		return fail(fmt.Errorf("image %s architecture (%s) is not x64 compatible", found.Digest, config.Architecture))
	}
	manifest, err := image.Manifest()
	if err != nil {
		return fail(err)
	}
	total := manifest.Config.Size
	for _, layer := range manifest.Layers {
		total += layer.Size
	}
	most := o.MaxSnapshotGB
	if most == 0 {
		most = 20
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	it.ref, it.size = s.internal(found.Digest.Hex), float64(total)/(1<<30)
	if it.size > most {
		return fail(reason(fmt.Sprintf("Snapshot size (%.2fGB) exceeds maximum allowed size of %vGB", it.size, most)))
	}
	if len(it.entrypoint) == 0 {
		it.entrypoint = config.Config.Entrypoint
	}
	return image, found.Digest, nil
}

// internal is the reference under which Daytona stores an image.
func (s *Server) internal(hex string) string { return s.host + "/sbox/daytona-" + hex + ":daytona" }

// local is the name of an image in the runner's engine.
func local(hex string) string { return "daytona-" + hex + ":daytona" }

// pull reads the whole image and, if there is an engine, starts a container to check that it keeps running.
func (s *Server) pull(ctx context.Context, it *snapshot, image v1.Image, digest v1.Hash) error {
	if s.engine == nil {
		layers, err := image.Layers()
		if err != nil {
			return err
		}
		for _, layer := range layers {
			blob, err := layer.Compressed()
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, blob) // this verifies the digest
			if err := errors.Join(err, blob.Close()); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := s.engine.Load(ctx, local(digest.Hex), image); err != nil {
		return err
	}
	return s.checkContainer(ctx, local(digest.Hex), it.entrypoint)
}

// checkContainer starts a container, as for a sandbox, and fails if it exits.
func (s *Server) checkContainer(ctx context.Context, image string, entrypoint []string) error {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return err
	}
	defer docker.Close()
	made, err := docker.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{
			Image: image, Entrypoint: entrypoint, OpenStdin: true, Labels: map[string]string{"io.daytona.snapshot": image},
		},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	})
	if err != nil {
		return err
	}
	defer func() {
		// Even if the snapshot has been removed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_, _ = docker.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}()
	if _, err := docker.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	alive, cancel := context.WithTimeout(ctx, s.options.Alive)
	defer cancel()
	wait := docker.ContainerWait(alive, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case ended := <-wait.Result:
		return fmt.Errorf("container exited with code %d at once: %s", ended.StatusCode, lastLine(ctx, docker, made.ID))
	case err := <-wait.Error:
		if alive.Err() == nil {
			return err
		}
		return ctx.Err()
	case <-alive.Done():
		return ctx.Err()
	}
}

// lastLine returns the last line of a container's output.
func lastLine(ctx context.Context, docker *client.Client, id string) string {
	logs, err := docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "1"})
	if err != nil {
		return err.Error()
	}
	defer logs.Close()
	var text bytes.Buffer
	_, _ = stdcopy.StdCopy(&text, &text, logs)
	return strings.TrimSpace(text.String())
}

// store copies the image to Daytona's internal repository and deletes the pushed one, as the real runner does.
func (s *Server) store(ctx context.Context, it *snapshot, image v1.Image, digest v1.Hash) error {
	ref, err := name.ParseReference(s.internal(digest.Hex))
	if err != nil {
		return err
	}
	if err := remote.Write(ref, image, s.remote(ctx)...); err != nil {
		return err
	}
	pushed, err := name.ParseReference(it.image)
	if err != nil {
		return err
	}
	if s.shared(it) {
		return nil
	}
	_ = remote.Delete(pushed.Context().Digest(digest.String()), s.remote(ctx)...) // a failure leaves the image
	return nil
}

// shared reports whether another snapshot is being created from the same image.
func (s *Server) shared(it *snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.snapshots {
		if other != it && other.image == it.image && (other.state == "pending" || other.state == "pulling") {
			return true
		}
	}
	return false
}

// finishRemoval drops a removed snapshot once the runner has stopped processing it, and its image in the engine unless
// another snapshot needs it.
func (s *Server) finishRemoval(it *snapshot) {
	select {
	case <-it.ended:
	case <-s.ctx.Done():
		return
	}
	if s.wait(s.ctx, it, s.options.Linger) != nil {
		return
	}
	s.mu.Lock()
	needed := it.ref == "" || slices.ContainsFunc(s.snapshots, func(other *snapshot) bool {
		return other != it && other.ref == it.ref
	})
	s.mu.Unlock()
	if !needed && s.engine != nil {
		s.removeImage(it)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshots = slices.DeleteFunc(s.snapshots, func(other *snapshot) bool { return other == it })
}

// removeImage removes a snapshot's image from the engine. A failure leaves the image.
func (s *Server) removeImage(it *snapshot) {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return
	}
	defer docker.Close()
	hex := strings.TrimSuffix(strings.TrimPrefix(it.ref, s.host+"/sbox/daytona-"), ":daytona")
	_, _ = docker.ImageRemove(s.ctx, local(hex), client.ImageRemoveOptions{Force: true, PruneChildren: true})
}

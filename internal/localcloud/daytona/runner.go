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

// start lets the runner make a snapshot. The server is locked.
func (s *Server) start(it *snapshot, o *Organization) {
	ctx, stop := context.WithCancel(s.ctx)
	it.stop, it.ended = stop, make(chan struct{})
	if s.ctx.Err() != nil {
		return
	}
	s.running.Go(func() {
		defer close(it.ended)
		defer stop()
		err := s.make(ctx, it, o)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case ctx.Err() != nil: // removed, deactivated, or the server ends
		case err != nil:
			it.reason = err.Error()
			s.enter(it, "error")
		}
	})
}

// make is a snapshot's way from pending to active. Its error is the snapshot's reason.
func (s *Server) make(ctx context.Context, it *snapshot, o *Organization) error {
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
	if err := s.keep(ctx, it, image, digest); err != nil {
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

// reason is one of Daytona's own.
type reason string

func (r reason) Error() string { return string(r) }

// step enters a state and stays in it until it was read so many times.
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
		remote.WithContext(ctx), remote.WithAuth(&authn.Basic{Username: runner, Password: s.puller}), remote.WithUserAgent(s.puller),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"}),
	}
}

// inspect looks the image up in the registry: its digest, which the snapshot's ref holds from then on, its platform, and its size, which is
// that of what is transferred.
func (s *Server) inspect(ctx context.Context, it *snapshot, o *Organization) (v1.Image, v1.Hash, error) {
	fail := func(err error) (v1.Image, v1.Hash, error) { return nil, v1.Hash{}, err }
	ref, err := name.ParseReference(it.image)
	if err != nil {
		return fail(err)
	}
	if ref.Context().RegistryStr() != s.host {
		return fail(fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", ref.Context()))
	}
	found, err := remote.Get(ref, s.remote(ctx)...)
	if err != nil {
		return fail(err)
	}
	// From here on the digest rules, whatever becomes of the tag.
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

// internal is where Daytona keeps an image for itself.
func (s *Server) internal(hex string) string { return s.host + "/sbox/daytona-" + hex + ":daytona" }

// local is what the runner's engine calls an image.
func local(hex string) string { return "daytona-" + hex + ":daytona" }

// pull reads all of the image and, where there is an engine, starts a container of it to see that it lives.
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
			_, err = io.Copy(io.Discard, blob) // its digest is checked on the way
			if err := errors.Join(err, blob.Close()); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := s.engine.Load(ctx, local(digest.Hex), image); err != nil {
		return err
	}
	return s.live(ctx, local(digest.Hex), it.entrypoint)
}

// live starts a container, as for a sandbox, and sees that it does not end.
func (s *Server) live(ctx context.Context, image string, entrypoint []string) error {
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
		// Also when the snapshot is removed meanwhile.
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
		return fmt.Errorf("container exited with code %d at once: %s", ended.StatusCode, said(ctx, docker, made.ID))
	case err := <-wait.Error:
		if alive.Err() == nil {
			return err
		}
		return ctx.Err()
	case <-alive.Done():
		return ctx.Err()
	}
}

// said is the last line of a container's output.
func said(ctx context.Context, docker *client.Client, id string) string {
	logs, err := docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "1"})
	if err != nil {
		return err.Error()
	}
	defer logs.Close()
	var text bytes.Buffer
	_, _ = stdcopy.StdCopy(&text, &text, logs)
	return strings.TrimSpace(text.String())
}

// keep moves the image to where Daytona keeps it, within the registry, and forgets what was pushed, as there.
func (s *Server) keep(ctx context.Context, it *snapshot, image v1.Image, digest v1.Hash) error {
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
	_ = remote.Delete(pushed.Context().Digest(digest.String()), s.remote(ctx)...) // when it fails, it stays
	return nil
}

// shared reports whether another snapshot is still being made from the same image.
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

// clear takes a removed snapshot away once the runner has let go of it, with its image in the engine unless another needs it.
func (s *Server) clear(it *snapshot) {
	select {
	case <-it.ended:
	case <-s.ctx.Done():
		return
	}
	if s.wait(s.ctx, it, s.options.Linger) != nil {
		return
	}
	s.mu.Lock()
	needed := it.ref == "" || slices.ContainsFunc(s.snapshots, func(other *snapshot) bool { return other != it && other.ref == it.ref })
	s.mu.Unlock()
	if !needed && s.engine != nil {
		s.forget(it)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshots = slices.DeleteFunc(s.snapshots, func(other *snapshot) bool { return other == it })
}

// forget removes a snapshot's image from the engine. When it fails, it stays.
func (s *Server) forget(it *snapshot) {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return
	}
	defer docker.Close()
	hex := strings.TrimSuffix(strings.TrimPrefix(it.ref, s.host+"/sbox/daytona-"), ":daytona")
	_, _ = docker.ImageRemove(s.ctx, local(hex), client.ImageRemoveOptions{Force: true, PruneChildren: true})
}

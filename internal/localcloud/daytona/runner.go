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

// start processes a snapshot in the background. The caller must hold s.mu.
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
		case ctx.Err() != nil: // the snapshot was removed or deactivated, or the server is stopping
		case err != nil:
			it.reason = err.Error()
			s.setState(it, "error")
		}
	})
}

// process moves a snapshot from pending to active. Its error becomes the snapshot's errorReason.
func (s *Server) process(ctx context.Context, it *snapshot, o *Organization) error {
	if it.fault == Stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := s.wait(ctx, it, s.options.ReadsPerState); err != nil {
		return err
	}
	image, digest, err := s.inspect(ctx, it, o)
	if err != nil {
		return err
	}
	if err := s.advance(ctx, it, "pulling", s.options.ReadsPerState); err != nil {
		return err
	}
	if err := s.pull(ctx, it, image, digest); err != nil {
		return err
	}
	if err := s.store(ctx, it, image, digest); err != nil {
		return err
	}
	if it.fault == UnknownState {
		if err := s.advance(ctx, it, "propagating", max(1, s.options.ReadsPerState)); err != nil {
			return err
		}
	}
	if it.fault == FailsAfterActive {
		if err := s.advance(ctx, it, "active", 1); err != nil {
			return err
		}
		return reason("Timeout processing snapshot on initial runner")
	}
	return s.advance(ctx, it, "active", 0)
}

// reason is an error message of Daytona itself, not of the engine or the registry.
type reason string

func (r reason) Error() string { return string(r) }

// advance sets the snapshot's state and waits until clients have read that state the given number of times.
func (s *Server) advance(ctx context.Context, it *snapshot, state string, reads int) error {
	s.mu.Lock()
	if ctx.Err() == nil {
		s.setState(it, state)
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

// inspect resolves the image, checks its platform and compressed size, and sets the snapshot's ref and size.
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
	// Use the digest from now on, in case the tag moves.
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

// internal returns the reference of Daytona's copy of an image.
func (s *Server) internal(hex string) string { return s.host + "/sbox/daytona-" + hex + ":daytona" }

// local returns the name of an image in the runner's engine.
func local(hex string) string { return "daytona-" + hex + ":daytona" }

// pull reads the whole image. With an engine, it also loads the image and checks that a container keeps running.
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
			_, err = io.Copy(io.Discard, blob) // verifies the digest
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

// checkContainer starts a container as for a sandbox, and returns an error if it exits within MinUptime.
func (s *Server) checkContainer(ctx context.Context, image string, entrypoint []string) error {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return err
	}
	defer docker.Close()
	created, err := docker.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{
			Image: image, Entrypoint: entrypoint, OpenStdin: true, Labels: map[string]string{"io.daytona.snapshot": image},
		},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	})
	if err != nil {
		return err
	}
	defer func() {
		// Remove the container even if ctx is canceled because the snapshot was removed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_, _ = docker.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}()
	if _, err := docker.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	uptime, cancel := context.WithTimeout(ctx, s.options.MinUptime)
	defer cancel()
	untilExit := client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning}
	wait := docker.ContainerWait(uptime, created.ID, untilExit)
	select {
	case ended := <-wait.Result:
		return fmt.Errorf("container exited with code %d at once: %s", ended.StatusCode, lastLine(ctx, docker, created.ID))
	case err := <-wait.Error:
		if uptime.Err() == nil {
			return err
		}
		return ctx.Err()
	case <-uptime.Done():
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

// store copies the image to Daytona's internal repository and deletes the pushed image, as the real runner does.
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
	_ = remote.Delete(pushed.Context().Digest(digest.String()), s.remote(ctx)...) // best effort
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

// finishRemoval deletes a removed snapshot when the runner has stopped processing it. It also deletes the image in the
// engine unless another snapshot uses it.
func (s *Server) finishRemoval(it *snapshot) {
	select {
	case <-it.ended:
	case <-s.ctx.Done():
		return
	}
	if s.wait(s.ctx, it, s.options.ReadsPerState) != nil {
		return
	}
	s.mu.Lock()
	inUse := it.ref == "" || slices.ContainsFunc(s.snapshots, func(other *snapshot) bool {
		return other != it && other.ref == it.ref
	})
	s.mu.Unlock()
	if !inUse && s.engine != nil {
		s.removeImage(it)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshots = slices.DeleteFunc(s.snapshots, func(other *snapshot) bool { return other == it })
}

// removeImage removes a snapshot's image from the engine. It ignores errors, which leave the image in place.
func (s *Server) removeImage(it *snapshot) {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return
	}
	defer docker.Close()
	hex := strings.TrimSuffix(strings.TrimPrefix(it.ref, s.host+"/sbox/daytona-"), ":daytona")
	_, _ = docker.ImageRemove(s.ctx, local(hex), client.ImageRemoveOptions{Force: true, PruneChildren: true})
}

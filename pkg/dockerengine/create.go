package dockerengine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// logFileSize is the maximum size of each of the two log files that the engine keeps for a container.
const logFileSize = "16m"

// ContainerSpec describes a container. Zero fields mean the image's setting or, for settings that an image does not
// have, no network, mounts, limits or extra privileges.
type ContainerSpec struct {
	Image          string        // ID or name
	Entrypoint     []string      // nil means the image's; empty means none, so that Cmd is the program
	Cmd            []string      // nil means the image's, unless Entrypoint is set
	Env            []string      // NAME=VALUE, in addition to the image's
	User           string        // name or UID, optionally with ":GROUP"
	WorkDir        string        // absolute
	TTY            bool          // allocate a terminal: standard error joins standard output
	Size           Size          // of the terminal
	Stdin          bool          // keep standard input open until the first attached client closes it
	HealthInterval time.Duration // between probes of the image's HEALTHCHECK

	Network string            // default: none, or bridge if ports are published
	Publish []int             // container TCP ports; see State.Ports for their addresses
	Mounts  []Mount           // read-only bind mounts
	Tmpfs   map[string]string // options by path, as in docker run --tmpfs: size=64m,mode=1777

	Memory          int64   // bytes, swap included
	CPUs            float64 // cores
	Pids            int64   // processes and threads
	CapDrop         []string
	NoNewPrivileges bool
	Privileged      bool
	ReadOnly        bool // the root file system, not the mounts

	Labels map[string]string
}

// Mount is a read-only bind mount of a file or directory on the engine's machine.
type Mount struct{ Source, Target string }

// Size is the size of a terminal in characters. The zero value means unknown.
type Size struct{ Width, Height uint }

// Create creates a container without starting it. It does not pull the image.
//
// It labels the container with this process as the owner, so that [Engine.Reap] can remove it if this process is
// killed. It gives the container a random name, so that it can repeat a request of which the answer was lost.
func (e *Engine) Create(ctx context.Context, spec ContainerSpec) (*Container, error) {
	fail := func(err error) (*Container, error) {
		return nil, fmt.Errorf("create a container of %s: %w", shortImage(spec.Image), err)
	}
	options, err := spec.options()
	if err != nil {
		return fail(err)
	}
	maps.Copy(options.Config.Labels, ownerLabels(time.Now()))
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	options.Name = "sandbox-" + strings.ToLower(rand.Text())
	created, err := retry(step, func() (client.ContainerCreateResult, error) {
		return e.client.ContainerCreate(step, options)
	})
	c := &Container{ID: cmp.Or(created.ID, options.Name), engine: e, image: spec.Image, tty: spec.TTY}
	switch {
	case err == nil:
		return c, nil
	case cerrdefs.IsConflict(err): // an earlier request created it
		return c, nil
	case cerrdefs.IsNotFound(err):
		return fail(errors.New("image not found in the Docker Engine (build or load it first)"))
	}
	_ = c.Remove(ctx) // an error is left to Reap
	return fail(withDiskHint(e.classifyError(ctx, err)))
}

// options converts the spec to the API's options.
func (spec ContainerSpec) options() (client.ContainerCreateOptions, error) {
	config := &container.Config{
		Image: spec.Image, Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env, User: spec.User,
		WorkingDir: spec.WorkDir, Tty: spec.TTY, OpenStdin: spec.Stdin, StdinOnce: spec.Stdin,
		AttachStdin: spec.Stdin, AttachStdout: true, AttachStderr: true, Labels: map[string]string{},
	}
	maps.Copy(config.Labels, spec.Labels)
	if spec.HealthInterval > 0 {
		config.Healthcheck = &container.HealthConfig{Interval: spec.HealthInterval}
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(spec.Network), ConsoleSize: [2]uint{spec.Size.Height, spec.Size.Width},
		Tmpfs: spec.Tmpfs, CapDrop: spec.CapDrop, Privileged: spec.Privileged, ReadonlyRootfs: spec.ReadOnly,
		Resources: container.Resources{
			Memory: spec.Memory, MemorySwap: spec.Memory, NanoCPUs: int64(spec.CPUs * 1e9),
		},
		LogConfig: container.LogConfig{
			Type: "json-file", Config: map[string]string{"max-size": logFileSize, "max-file": "2"},
		},
	}
	if spec.Pids > 0 {
		host.PidsLimit = &spec.Pids
	}
	if spec.NoNewPrivileges {
		host.SecurityOpt = []string{"no-new-privileges"}
	}
	if spec.Network == "" {
		host.NetworkMode = network.NetworkNone
		if len(spec.Publish) > 0 {
			host.NetworkMode = network.NetworkBridge
		}
	}
	if len(spec.Publish) > 0 {
		config.ExposedPorts, host.PortBindings = network.PortSet{}, network.PortMap{}
	}
	for _, number := range spec.Publish {
		port, ok := network.PortFrom(uint16(number), network.TCP)
		if number < 1 || number > 65535 || !ok {
			return client.ContainerCreateOptions{}, fmt.Errorf("invalid port %d: must be between 1 and 65535", number)
		}
		config.ExposedPorts[port] = struct{}{}
		host.PortBindings[port] = []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	}
	for _, m := range spec.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{
			Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: true,
		})
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host}, nil
}

package suite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/grace"
)

// Engine creates containers. [*dockerengine.Engine] implements it.
type Engine interface {
	Create(context.Context, dockerengine.ContainerSpec) (*dockerengine.Container, error)
	// Reap removes containers of earlier runs that were killed.
	Reap(context.Context) (removed int, err error)
}

// OnEngine returns the target that runs tests in containers of the image with this ID. Unlike a name, the ID always
// refers to the same image.
func OnEngine(engine Engine, imageID string) Target { return engineTarget{engine, imageID} }

type engineTarget struct {
	Engine
	imageID string
}

// createGrace is how long the creation of a container may continue after its test has ended.
const createGrace = 3 * time.Second

func (t engineTarget) Create(ctx context.Context, spec Spec) (Instance, error) {
	// The engine may complete an interrupted request. Without the grace period, that container would remain.
	ctx, cancel := grace.Extend(ctx, createGrace, nil)
	defer cancel()
	created, err := t.Engine.Create(ctx, containerSpec(t.imageID, spec))
	if err != nil {
		return nil, err
	}
	return &engineInstance{container: created}, nil
}

// idleCommand keeps a shared container running by waiting for input that never arrives. It needs only a shell.
var idleCommand = []string{"/bin/sh", "-c", "read -r _"}

// healthInterval is the time between probes of the HEALTHCHECK.
const healthInterval = 500 * time.Millisecond

func containerSpec(imageID string, spec Spec) dockerengine.ContainerSpec {
	c := dockerengine.ContainerSpec{
		Image: imageID, User: spec.User, WorkDir: spec.WorkDir, TTY: spec.TTY, Env: spec.Env, Network: spec.Network,
		Memory: int64(spec.Limits.Memory), CPUs: spec.Limits.CPUs, Pids: int64(spec.Limits.PIDs), Publish: spec.Ports,
	}
	if spec.Network == "" && spec.Kind != ServiceInstance {
		c.Network = "none"
	}
	switch spec.Kind {
	case CommandInstance:
		c.Entrypoint, c.Cmd = spec.Args[:1], spec.Args[1:]
	case SharedInstance:
		c.Entrypoint, c.Cmd, c.TTY, c.Stdin = idleCommand[:1], idleCommand[1:], false, true
		c.WorkDir = "" // each command sets its working directory, which may not exist yet
	case ServiceInstance:
		c.Cmd = spec.Args
	}
	if spec.Health {
		c.HealthInterval = healthInterval
	}
	switch spec.Privileges {
	case "none":
		c.CapDrop, c.NoNewPrivileges = []string{"ALL"}, true
	case "all":
		c.Privileged = true
	}
	for _, m := range spec.Mounts {
		c.Mounts = append(c.Mounts, dockerengine.Mount{Source: m.Source, Target: m.Target})
	}
	return c
}

// container is a container of an engine. [*dockerengine.Container] implements it.
type container interface {
	Start(context.Context) error
	Run(context.Context, dockerengine.Streams) (exit int, err error)
	Exec(context.Context, dockerengine.ExecSpec) (exit int, err error)
	Inspect(context.Context) (dockerengine.State, error)
	Logs(context.Context, dockerengine.LogOptions, dockerengine.Streams) error
	Restart(ctx context.Context, grace time.Duration) (between time.Time, err error)
	Stop(ctx context.Context, grace time.Duration) error
	Kill(ctx context.Context, signal string) error
	Wait(context.Context) (exit int, err error)
	Remove(context.Context) error
}

// engineInstance adapts a container to the interface Instance.
type engineInstance struct {
	container
	started time.Time // before the last start, if the container was restarted
}

func (i *engineInstance) Start(ctx context.Context) error {
	return asStartError(i.container.Start(ctx))
}

func (i *engineInstance) Run(ctx context.Context, streams Streams) (int, error) {
	exit, err := i.container.Run(ctx, dockerengine.Streams{Out: streams.Out, Err: streams.Err})
	return exit, asStartError(err)
}

func (i *engineInstance) Exec(ctx context.Context, p Process, streams Streams) (int, error) {
	exit, err := i.container.Exec(ctx, dockerengine.ExecSpec{
		Cmd: p.Args, Env: p.Env, User: p.User, WorkDir: p.WorkDir, TTY: p.TTY,
		Streams: dockerengine.Streams{Out: streams.Out, Err: streams.Err},
	})
	return exit, asStartError(err)
}

// asStartError converts a start error of the engine. It returns other errors unchanged.
func asStartError(err error) error {
	if failed := new(dockerengine.StartError); errors.As(err, &failed) {
		return &StartError{Exit: failed.Exit, Cause: failed.Error(), Err: err}
	}
	return err
}

func (i *engineInstance) State(ctx context.Context) (State, error) {
	s, err := i.Inspect(ctx)
	return State{
		Running: s.Running, ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, Health: s.Health, Probe: s.Probe,
	}, err
}

func (i *engineInstance) Logs(ctx context.Context, sinceStart bool, streams Streams) error {
	var options dockerengine.LogOptions
	if sinceStart {
		options.Since = i.started
	}
	return i.container.Logs(ctx, options, dockerengine.Streams{Out: streams.Out, Err: streams.Err})
}

func (i *engineInstance) Restart(ctx context.Context, grace time.Duration) (err error) {
	i.started, err = i.container.Restart(ctx, grace)
	return asStartError(err)
}

// closeDetectionDelay is how long a connection must stay open to count as accepted.
const closeDetectionDelay = 250 * time.Millisecond

func (i *engineInstance) CheckPort(ctx context.Context, port int) error {
	state, err := i.Inspect(ctx)
	if err != nil {
		return err
	}
	return checkAcceptsConnections(ctx, state.Ports[port])
}

// checkAcceptsConnections connects to a published port. The engine's proxy accepts every connection, but closes it
// immediately if no process in the container listens, so the connection must stay open for closeDetectionDelay.
func checkAcceptsConnections(ctx context.Context, address string) error {
	if address == "" {
		return errors.New("port is not published by the engine")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(closeDetectionDelay))
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("connection closed immediately (%w)", err)
	}
	return nil
}

// serviceClient sends requests to published ports. They are on loopback, so it uses no proxy.
var serviceClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (i *engineInstance) Send(port int, request *http.Request) (*http.Response, error) {
	state, err := i.Inspect(request.Context())
	if err != nil {
		return nil, err
	}
	if request.URL.Host = state.Ports[port]; request.URL.Host == "" {
		return nil, errors.New("service is not running, or the engine did not publish the port")
	}
	return serviceClient.Do(request)
}

package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// How long the engine may take for one step of a container's life. What a container itself takes is bounded by the
// caller's context only.
const (
	stepTimeout   = time.Minute
	killTimeout   = 3 * time.Second
	removeTimeout = 30 * time.Second
)

// What the engine keeps of a container's output: two files of this size, the newest.
const keptOutput = "16m"

// ContainerSpec is what a container is made of. What is left out is the image's own or, where an image says nothing, the
// closed one: no network, nothing mounted.
type ContainerSpec struct {
	Image          string        // id or name
	Entrypoint     []string      // nil: the image's; empty: none, Cmd is the program
	Cmd            []string      // nil: the image's, unless there is an Entrypoint here
	Env            []string      // NAME=VALUE, over the image's
	User           string        // name or uid, with ":group"
	WorkDir        string        // absolute
	TTY            bool          // a terminal: standard error joins standard output
	Size           Size          // of the terminal
	Stdin          bool          // open: what is attached first writes to it, and closes it
	HealthInterval time.Duration // between probes of the image's HEALTHCHECK

	Network string            // none; where ports are published, bridge
	Publish []int             // TCP ports of the container, each reachable at an address that State.Ports tells
	Mounts  []Mount           // what of the engine's machine the container may read
	Tmpfs   map[string]string // path to options, as in docker run --tmpfs: size=64m,mode=1777

	Memory          int64   // bytes, swap included
	CPUs            float64 // cores
	Pids            int64   // processes and threads
	CapDrop         []string
	NoNewPrivileges bool
	Privileged      bool
	ReadOnly        bool // the image's files, not what is mounted

	Labels map[string]string
}

// Mount is a file or a directory of the engine's machine, read only in the container.
type Mount struct{ Source, Target string }

// Size is a terminal's, in characters. The zero value is unknown.
type Size struct{ Width, Height uint }

// Container is a container of ours. Whoever creates one removes it.
type Container struct {
	ID string

	engine *Engine
	image  string
	tty    bool
}

// State is what a container is at one moment.
type State struct {
	Status     string // created, running, paused, restarting, removing, exited or dead
	Running    bool
	ExitCode   int
	OOMKilled  bool
	Error      string // why it could not be started
	StartedAt  time.Time
	FinishedAt time.Time      // zero before its first end
	Health     string         // starting, healthy or unhealthy; "" without a HEALTHCHECK
	Probe      string         // what the last probe of the HEALTHCHECK printed
	Ports      map[int]string // of each published port its address, 127.0.0.1:32768; another one after each start
	ImageID    string         // what it was made of
}

// Streams are a process's. What is nil is empty, or discarded. They are copied as they come: nothing is kept, and a
// writer that is slow slows the process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// ExecSpec is one more process in a running container.
type ExecSpec struct {
	Cmd     []string
	Env     []string // NAME=VALUE, over the container's
	User    string   // the container's
	WorkDir string   // the container's
	TTY     bool
	Streams
}

// Create makes a container and does not start it. An image that is not in the engine is not pulled: it is an error.
//
// The container carries labels that say whose it is, so that [Engine.Reap] finds it when our process is killed.
func (e *Engine) Create(ctx context.Context, spec ContainerSpec) (*Container, error) {
	fail := func(err error) (*Container, error) {
		return nil, fmt.Errorf("create a container of %s: %w", spec.Image, err)
	}
	options, err := spec.options()
	if err != nil {
		return fail(err)
	}
	maps.Copy(options.Config.Labels, ownerLabels(time.Now()))
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	created, err := e.client.ContainerCreate(step, options)
	switch {
	case cerrdefs.IsNotFound(err):
		return fail(errors.New("the Docker Engine has no such image: build or load it first, docker image ls shows what there is"))
	case err != nil:
		return fail(e.because(ctx, err))
	}
	return &Container{ID: created.ID, engine: e, image: spec.Image, tty: spec.TTY}, nil
}

// options says it in the engine's words.
func (spec ContainerSpec) options() (client.ContainerCreateOptions, error) {
	config := &container.Config{
		Image: spec.Image, Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env, User: spec.User, WorkingDir: spec.WorkDir,
		Tty: spec.TTY, OpenStdin: spec.Stdin, StdinOnce: spec.Stdin, AttachStdin: spec.Stdin, AttachStdout: true, AttachStderr: true,
		Labels: map[string]string{},
	}
	maps.Copy(config.Labels, spec.Labels)
	if spec.HealthInterval > 0 {
		config.Healthcheck = &container.HealthConfig{Interval: spec.HealthInterval}
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(spec.Network), ConsoleSize: [2]uint{spec.Size.Height, spec.Size.Width},
		Tmpfs: spec.Tmpfs, CapDrop: spec.CapDrop, Privileged: spec.Privileged, ReadonlyRootfs: spec.ReadOnly,
		Resources: container.Resources{Memory: spec.Memory, MemorySwap: spec.Memory, NanoCPUs: int64(spec.CPUs * 1e9)},
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": keptOutput, "max-file": "2"}},
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
			return client.ContainerCreateOptions{}, fmt.Errorf("%d is not a port: write 1 to 65535", number)
		}
		config.ExposedPorts[port] = struct{}{}
		host.PortBindings[port] = []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	}
	for _, m := range spec.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: true})
	}
	return client.ContainerCreateOptions{Config: config, HostConfig: host}, nil
}

// Start starts it. What prints before [Container.Attach] is only in its logs.
func (c *Container) Start(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerStart(step, c.ID, client.ContainerStartOptions{})
	return c.failed(ctx, "start", err)
}

// Run runs a created container to its end: attaches, starts it, and waits for its exit code and the last of its output. A
// writer's error ends the container and is returned. When ctx ends the container is killed, and the cause is returned.
func (c *Container) Run(ctx context.Context, streams Streams) (exit int, err error) {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	attached, err := c.Attach(running, streams)
	if err != nil {
		return 0, err
	}
	defer attached.Close()
	// Asked for before the start: a container may end at once.
	wait := c.engine.client.ContainerWait(running, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if err := c.Start(ctx); err != nil {
		cancel(err)
		_, _ = c.exit(running, wait)
		c.end(ctx) // it may have started before ctx ended
		return 0, err
	}
	copied := make(chan error, 1)
	go func() {
		err := attached.Wait()
		if err != nil {
			cancel(err)
		}
		copied <- err
	}()
	exit, err = c.exit(running, wait)
	if err == nil {
		// The engine has said that it ended, so the rest of the output is there.
		err = <-copied
	}
	if err != nil {
		c.end(ctx)
		return 0, err
	}
	return exit, nil
}

// end kills the container, whatever has become of ctx. That it had ended already is no error, and Remove is forced anyway.
func (c *Container) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if c.Kill(ctx, "KILL") == nil {
		_, _ = c.Wait(ctx)
	}
}

// Wait waits until the container does not run and answers its exit code.
func (c *Container) Wait(ctx context.Context) (exit int, err error) {
	return c.exit(ctx, c.engine.client.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning}))
}

func (c *Container) exit(ctx context.Context, wait client.ContainerWaitResult) (int, error) {
	select {
	case response := <-wait.Result:
		if response.Error != nil {
			return 0, c.failed(ctx, "wait for", errors.New(response.Error.Message))
		}
		return int(response.StatusCode), nil
	case err := <-wait.Error:
		return 0, c.failed(ctx, "wait for", err)
	}
}

// Attachment is a container's streams while they are copied.
type Attachment struct {
	conn   client.HijackedResponse
	stop   func() bool
	copied chan error
}

// Attach copies the streams of a container's main process from now on: before Start, everything. With a TTY all output
// goes to Out. The container's standard input is closed when In ends. Attach lasts until the process ends or ctx does.
func (c *Container) Attach(ctx context.Context, streams Streams) (*Attachment, error) {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	conn, err := c.engine.client.ContainerAttach(step, c.ID, client.ContainerAttachOptions{
		Stream: true, Stdin: streams.In != nil, Stdout: true, Stderr: true, DetachKeys: noDetachKeys,
	})
	if err != nil {
		return nil, c.failed(ctx, "attach to", err)
	}
	a := &Attachment{conn: conn.HijackedResponse, copied: make(chan error, 1)}
	a.stop = context.AfterFunc(ctx, a.conn.Close)
	go func() { a.copied <- c.failed(ctx, "read the output of", pump(a.conn, streams, c.tty)) }()
	return a, nil
}

// Wait waits for the end of the output, and answers why it broke off if it did. It is called once.
func (a *Attachment) Wait() error { return <-a.copied }

// Close ends the copying. The container runs on.
func (a *Attachment) Close() {
	a.stop()
	a.conn.Close()
}

// noDetachKeys stands in the place of docker's, Ctrl-P Ctrl-Q, which shells need: what nobody types.
const noDetachKeys = "ctrl-@,ctrl-@,ctrl-@,ctrl-@"

// pump copies until the process's output ends.
func pump(conn client.HijackedResponse, streams Streams, tty bool) error {
	if streams.In != nil {
		go func() {
			_, _ = io.Copy(conn.Conn, streams.In) // a process need not read what it is given
			_ = conn.CloseWrite()
		}()
	}
	out, errOut := streams.Out, streams.Err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	var err error
	if tty {
		_, err = io.Copy(out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errOut, conn.Reader)
	}
	return err
}

// Exec runs one more process in a running container and answers its exit code; of a program that can not be started it is 126
// or 127, as in a shell, and Out says why. When ctx ends the process runs on until the container is stopped: an engine can not
// end it. Children that keep the output open are waited for 2 seconds.
func (c *Container) Exec(ctx context.Context, spec ExecSpec) (exit int, err error) {
	fail := func(err error) (int, error) {
		return 0, c.failed(ctx, fmt.Sprintf("run %q in", strings.Join(spec.Cmd, " ")), err)
	}
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	created, err := c.engine.client.ExecCreate(step, c.ID, client.ExecCreateOptions{
		Cmd: spec.Cmd, Env: spec.Env, User: spec.User, WorkingDir: spec.WorkDir, TTY: spec.TTY,
		AttachStdin: spec.In != nil, AttachStdout: true, AttachStderr: true, DetachKeys: noDetachKeys,
	})
	if err != nil {
		return fail(err)
	}
	conn, err := c.engine.client.ExecAttach(step, created.ID, client.ExecAttachOptions{TTY: spec.TTY})
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	if err := pump(conn.HijackedResponse, spec.Streams, spec.TTY); err != nil || ctx.Err() != nil {
		return fail(err)
	}
	// The output has ended; the engine may not have seen yet that the process has.
	ended, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		state, err := c.engine.client.ExecInspect(ended, created.ID, client.ExecInspectOptions{})
		if err != nil {
			return fail(err)
		}
		if !state.Running {
			return state.ExitCode, nil
		}
		select {
		case <-ended.Done():
			return fail(fmt.Errorf("it closed its output and does not end (%w)", ended.Err()))
		case <-time.After(wait):
		}
	}
}

// Logs writes what the container has printed so far, and with follow what it prints until it ends. Of much output only the
// newest is there: 16 MB in the engine's own form, which is larger than the text.
func (c *Container) Logs(ctx context.Context, follow bool, streams Streams) error {
	stream, err := c.engine.client.ContainerLogs(ctx, c.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: follow})
	if err != nil {
		return c.failed(ctx, "read the log of", err)
	}
	defer stream.Close()
	streams.In = nil
	if streams.Out == nil {
		streams.Out = io.Discard
	}
	if streams.Err == nil {
		streams.Err = io.Discard
	}
	if c.tty {
		_, err = io.Copy(streams.Out, stream)
	} else {
		_, err = stdcopy.StdCopy(streams.Out, streams.Err, stream)
	}
	return c.failed(ctx, "read the log of", err)
}

// Stop asks the container to end (the image's STOPSIGNAL, else SIGTERM) and kills it when it has not after grace, which
// counts in whole seconds.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	step, cancel := context.WithTimeout(ctx, grace+stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerStop(step, c.ID, client.ContainerStopOptions{Timeout: seconds(grace)})
	return c.failed(ctx, "stop", err)
}

// Restart is [Container.Stop] and [Container.Start].
func (c *Container) Restart(ctx context.Context, grace time.Duration) error {
	step, cancel := context.WithTimeout(ctx, grace+2*stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerRestart(step, c.ID, client.ContainerRestartOptions{Timeout: seconds(grace)})
	return c.failed(ctx, "restart", err)
}

func seconds(d time.Duration) *int {
	whole := int((d + time.Second - 1) / time.Second)
	return &whole
}

// Kill sends a signal, as "KILL" or "HUP", to the container's main process.
func (c *Container) Kill(ctx context.Context, signal string) error {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerKill(step, c.ID, client.ContainerKillOptions{Signal: signal})
	return c.failed(ctx, "send SIG"+strings.TrimPrefix(signal, "SIG")+" to", err)
}

// Resize tells a container with a TTY how large the terminal is.
func (c *Container) Resize(ctx context.Context, size Size) error {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerResize(step, c.ID, client.ContainerResizeOptions{Height: size.Height, Width: size.Width})
	return c.failed(ctx, "resize the terminal of", err)
}

// Inspect is the container's state.
func (c *Container) Inspect(ctx context.Context) (State, error) {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	inspected, err := c.engine.client.ContainerInspect(step, c.ID, client.ContainerInspectOptions{})
	if err != nil {
		return State{}, c.failed(ctx, "inspect", err)
	}
	got := inspected.Container
	if got.State == nil {
		return State{}, c.failed(ctx, "inspect", errors.New("the engine's answer holds no state"))
	}
	s := State{
		Status: string(got.State.Status), Running: got.State.Running, ExitCode: got.State.ExitCode, OOMKilled: got.State.OOMKilled,
		Error: got.State.Error, StartedAt: moment(got.State.StartedAt), FinishedAt: moment(got.State.FinishedAt),
		Ports: map[int]string{}, ImageID: got.Image,
	}
	if health := got.State.Health; health != nil && health.Status != container.NoHealthcheck {
		s.Health = string(health.Status)
		if n := len(health.Log); n > 0 {
			s.Probe = health.Log[n-1].Output
		}
	}
	if got.NetworkSettings != nil {
		for port, bindings := range got.NetworkSettings.Ports {
			if len(bindings) > 0 && bindings[0].HostPort != "" {
				s.Ports[int(port.Num())] = net.JoinHostPort(bindings[0].HostIP.String(), bindings[0].HostPort)
			}
		}
	}
	return s, nil
}

// moment reads the engine's times, of which year 1 means never.
func moment(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 2000 {
		return time.Time{}
	}
	return t
}

// Remove kills the container and removes it with its volumes. It does so even when ctx has ended, for at most 30 seconds;
// one that is gone already is no error.
func (c *Container) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	return c.failed(ctx, "remove", c.engine.remove(ctx, c.ID))
}

func (e *Engine) remove(ctx context.Context, id string) error {
	_, err := e.client.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsConflict(err) { // someone else is removing it
		wait := e.client.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
		select {
		case <-wait.Result:
			return nil
		case err = <-wait.Error:
		}
	}
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// failed is an error of one of a container's steps, in one sentence; nil stays nil unless ctx has ended.
func (c *Container) failed(ctx context.Context, step string, err error) error {
	if err == nil && ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%s container %.12s of %s: %w", step, c.ID, c.image, c.engine.because(ctx, err))
}

// because is why a request failed: the end of ctx, before the way in which the request noticed it.
func (e *Engine) because(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the Docker Engine at %s does not answer: see its log", e.Host)
	}
	return explain(err)
}

// Containers are the ids of the containers that have all of these labels, of which each is NAME or NAME=VALUE.
func (e *Engine) Containers(ctx context.Context, labels ...string) ([]string, error) {
	found, err := e.list(ctx, labels...)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(found))
	for i, c := range found {
		ids[i] = c.ID
	}
	slices.Sort(ids)
	return ids, nil
}

func (e *Engine) list(ctx context.Context, labels ...string) ([]container.Summary, error) {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	found, err := e.client.ContainerList(step, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", labels...)})
	if err != nil {
		return nil, fmt.Errorf("list the containers of the Docker Engine at %s: %w", e.Host, e.because(ctx, err))
	}
	return found.Items, nil
}

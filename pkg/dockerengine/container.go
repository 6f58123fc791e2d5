package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/pkg/grace"
)

// Container is a container created by [Engine.Create]. The caller must remove it.
type Container struct {
	ID string

	engine *Engine
	image  string
	tty    bool
}

// State is a snapshot of a container's state.
type State struct {
	Status     string // created, running, paused, restarting, removing, exited or dead
	Running    bool
	ExitCode   int
	OOMKilled  bool
	Error      string // why it failed to start
	StartedAt  time.Time
	FinishedAt time.Time      // zero until it first exits
	Health     string         // starting, healthy or unhealthy; "" without a HEALTHCHECK
	Probe      string         // output of the last HEALTHCHECK probe
	Ports      map[int]string // host address by container port, such as 127.0.0.1:32768; changes with each start
	ImageID    string         // ID of the image that it was created from
}

// Start starts the container. Output before [Container.Attach] is available only in the log. If the engine cannot start
// the program, the error is a [*StartError].
func (c *Container) Start(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerStart(step, c.ID, client.ContainerStartOptions{})
	return c.wrapError(ctx, "start", asStartError(err))
}

// Run attaches to a created container, starts it, and waits for its exit and the end of its output. If a writer fails
// or ctx ends, Run kills the container and returns the writer's error or the cause of ctx.
func (c *Container) Run(ctx context.Context, streams Streams) (exit int, err error) {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	attached, err := c.Attach(running, streams)
	if err != nil {
		return 0, err
	}
	defer attached.Close()
	// Wait before starting the container, because it may exit immediately.
	wait := c.engine.client.ContainerWait(running, c.ID, client.ContainerWaitOptions{
		Condition: container.WaitConditionNextExit,
	})
	if err := c.Start(ctx); err != nil {
		cancel(err)
		_, _ = c.exitCode(running, wait)
		c.killAndWait(ctx) // it may have started before ctx ended
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
	exit, err = c.exitCode(running, wait)
	if err == nil {
		// The container has exited, so the rest of the output is available.
		err = <-copied
	}
	if err != nil {
		c.killAndWait(ctx)
		return 0, err
	}
	return exit, nil
}

// killAndWait kills the container, even if ctx has ended. It ignores errors, because the container may have exited
// already and Remove uses force.
func (c *Container) killAndWait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if c.Kill(ctx, "KILL") == nil {
		_, _ = c.Wait(ctx)
	}
}

// Wait waits until the container is not running, and returns its exit code.
func (c *Container) Wait(ctx context.Context) (exit int, err error) {
	return c.exitCode(ctx, c.engine.client.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{
		Condition: container.WaitConditionNotRunning,
	}))
}

func (c *Container) exitCode(ctx context.Context, wait client.ContainerWaitResult) (int, error) {
	select {
	case response := <-wait.Result:
		if response.Error != nil {
			return 0, c.wrapError(ctx, "wait for", errors.New(response.Error.Message))
		}
		return int(response.StatusCode), nil
	case err := <-wait.Error:
		return 0, c.wrapError(ctx, "wait for", err)
	}
}

// Stop sends the image's STOPSIGNAL (default SIGTERM), and kills the container if it does not exit within grace,
// rounded up to whole seconds.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	step, cancel := context.WithTimeout(ctx, grace+stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerStop(step, c.ID, client.ContainerStopOptions{Timeout: seconds(grace)})
	return c.wrapError(ctx, "stop", err)
}

// Restart stops the container like [Container.Stop] and starts it again. It returns a time on the engine's clock
// between the two runs. The times in the container's state do not separate their output: the engine may record output
// after the end, or before the start.
func (c *Container) Restart(ctx context.Context, grace time.Duration) (between time.Time, err error) {
	if err := c.Stop(ctx, grace); err != nil {
		return time.Time{}, err
	}
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	info, err := retry(step, func() (client.SystemInfoResult, error) {
		return c.engine.client.Info(step, client.InfoOptions{})
	})
	if err != nil {
		return time.Time{}, c.wrapError(ctx, "restart", err)
	}
	if between = parseTime(info.Info.SystemTime); between.IsZero() {
		return time.Time{}, c.wrapError(ctx, "restart", errors.New("the engine did not report its time"))
	}
	return between, c.Start(ctx)
}

func seconds(d time.Duration) *int {
	whole := int((d + time.Second - 1) / time.Second)
	return &whole
}

// Kill sends a signal, such as "KILL" or "HUP", to the container's main process.
func (c *Container) Kill(ctx context.Context, signal string) error {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerKill(step, c.ID, client.ContainerKillOptions{Signal: signal})
	return c.wrapError(ctx, "send SIG"+strings.TrimPrefix(signal, "SIG")+" to", err)
}

// Resize sets the size of the terminal of a container with a TTY.
func (c *Container) Resize(ctx context.Context, size Size) error {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	_, err := c.engine.client.ContainerResize(step, c.ID, client.ContainerResizeOptions{
		Height: size.Height, Width: size.Width,
	})
	return c.wrapError(ctx, "resize the terminal of", err)
}

// Inspect returns the container's state.
func (c *Container) Inspect(ctx context.Context) (State, error) {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	inspected, err := retry(step, func() (client.ContainerInspectResult, error) {
		return c.engine.client.ContainerInspect(step, c.ID, client.ContainerInspectOptions{})
	})
	if err != nil {
		return State{}, c.wrapError(ctx, "inspect", err)
	}
	got := inspected.Container
	if got.State == nil {
		return State{}, c.wrapError(ctx, "inspect", errors.New("the engine's response has no state"))
	}
	s := State{
		Status: string(got.State.Status), Running: got.State.Running, ExitCode: got.State.ExitCode,
		OOMKilled: got.State.OOMKilled, Error: got.State.Error,
		StartedAt: parseTime(got.State.StartedAt), FinishedAt: parseTime(got.State.FinishedAt),
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

// parseTime parses a timestamp from the engine. It returns the zero time for an invalid one and for year 1, which means
// never.
func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() < 2000 {
		return time.Time{}
	}
	return t
}

// Remove kills the container and removes it with its anonymous volumes. It takes at most 30 seconds, and at most 3
// seconds after ctx ends. It succeeds if the container no longer exists.
func (c *Container) Remove(ctx context.Context) error {
	ctx, cancel := grace.Extend(ctx, removeGrace, nil)
	defer cancel()
	step, cancelStep := context.WithTimeout(ctx, removeTimeout)
	defer cancelStep()
	return c.wrapError(ctx, "remove", c.engine.remove(step, c.ID))
}

func (e *Engine) remove(ctx context.Context, id string) error {
	_, err := retry(ctx, func() (client.ContainerRemoveResult, error) {
		return e.client.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	})
	if cerrdefs.IsConflict(err) { // another call is removing it
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

// wrapError adds the operation and the container to err. If ctx has ended, it returns an error even if err is nil.
func (c *Container) wrapError(ctx context.Context, op string, err error) error {
	if err == nil && ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%s container %.12s of %s: %w", op, c.ID, shortImage(c.image), c.engine.classifyError(ctx, err))
}

// shortImage abbreviates an image ID as docker image ls does. It returns names unchanged.
func shortImage(image string) string {
	if digits, ok := strings.CutPrefix(image, "sha256:"); ok && len(digits) > 12 {
		return digits[:12]
	}
	return image
}

// Containers returns the sorted IDs of the containers with all of these labels, each NAME or NAME=VALUE.
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
	found, err := retry(step, func() (client.ContainerListResult, error) {
		return e.client.ContainerList(step, client.ContainerListOptions{
			All: true, Filters: client.Filters{}.Add("label", labels...),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list the containers of the Docker Engine at %s: %w", e.Host, e.classifyError(ctx, err))
	}
	return found.Items, nil
}

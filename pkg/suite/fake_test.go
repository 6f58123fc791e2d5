package suite

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// fakeEngine creates containers that run functions instead of programs and record the calls. Tests use it to check
// which containers are created and how failures are reported, which does not need a real engine.
type fakeEngine struct {
	// command is called for each command of a container, and for its log.
	command func(c *fakeContainer, args []string, out, err io.Writer) (exit int, failure error)
	// state returns the result of Inspect; nil stands for a running container.
	state func(c *fakeContainer) dockerengine.State
	// stop is called by Stop and Wait and returns their error.
	stop func(ctx context.Context, c *fakeContainer, grace time.Duration) error

	imageID    string
	mutex      sync.Mutex
	containers []*fakeContainer
}

func (e *fakeEngine) Create(_ context.Context, spec Spec) (Instance, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	c := &fakeContainer{engine: e, number: len(e.containers) + 1, spec: containerSpec(e.imageID, spec)}
	e.containers = append(e.containers, c)
	return &engineInstance{container: c}, nil
}

func (e *fakeEngine) Reap(context.Context) (int, error) { return 0, nil }

// runOnFake runs a suite on a fake engine, one container at a time, and checks that every container is removed.
func runOnFake(t *testing.T, e *fakeEngine, s *Suite, o Options) *Report {
	t.Helper()
	if o.Image == nil {
		img, err := imageOf(v1.Config{User: "app"})
		if err != nil {
			t.Fatal(err)
		}
		o.Image = img
	}
	e.imageID, o.Target, o.Parallel = o.ImageID, e, 1
	report, err := Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range e.containers {
		if !c.removed {
			t.Errorf("container %d is not removed", c.number)
		}
	}
	return report
}

type fakeContainer struct {
	engine  *fakeEngine
	number  int
	spec    dockerengine.ContainerSpec
	execs   []dockerengine.ExecSpec
	calls   []string // methods with their arguments, in order
	removed bool
}

func (c *fakeContainer) call(format string, args ...any) {
	c.calls = append(c.calls, fmt.Sprintf(format, args...))
}

func (c *fakeContainer) Start(context.Context) error { c.call("start"); return nil }

func (c *fakeContainer) Run(_ context.Context, streams dockerengine.Streams) (int, error) {
	c.call("run")
	return c.engine.command(c, append(c.spec.Entrypoint, c.spec.Cmd...), streams.Out, streams.Err)
}

func (c *fakeContainer) Exec(_ context.Context, spec dockerengine.ExecSpec) (int, error) {
	c.call("exec %s", strings.Join(spec.Cmd, " "))
	c.execs = append(c.execs, spec)
	return c.engine.command(c, spec.Cmd, spec.Streams.Out, spec.Streams.Err)
}

func (c *fakeContainer) Inspect(context.Context) (dockerengine.State, error) {
	if c.engine.state == nil {
		return dockerengine.State{Running: true}, nil
	}
	return c.engine.state(c), nil
}

func (c *fakeContainer) Logs(_ context.Context, o dockerengine.LogOptions, streams dockerengine.Streams) error {
	args := []string{"logs"}
	if !o.Since.IsZero() {
		args = append(args, "since", o.Since.String())
	}
	_, err := c.engine.command(c, args, streams.Out, streams.Err)
	return err
}

func (c *fakeContainer) Restart(_ context.Context, grace time.Duration) (time.Time, error) {
	c.call("restart %s", grace)
	return restarted, nil
}

// restarted is the result of Restart.
var restarted = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func (c *fakeContainer) Stop(ctx context.Context, grace time.Duration) error {
	c.call("stop %s", grace)
	return c.engine.stop(ctx, c, grace)
}

func (c *fakeContainer) Kill(_ context.Context, signal string) error {
	c.call("kill %s", signal)
	return nil
}

func (c *fakeContainer) Wait(ctx context.Context) (int, error) { return 0, c.engine.stop(ctx, c, 0) }

func (c *fakeContainer) Remove(ctx context.Context) error {
	c.removed = ctx.Err() == nil
	return ctx.Err()
}

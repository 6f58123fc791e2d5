package dockerengine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// ExecSpec describes a process to run in a running container.
type ExecSpec struct {
	Cmd     []string
	Env     []string // NAME=VALUE, added to the container's
	User    string   // default: the container's
	WorkDir string   // default: the container's
	TTY     bool
	Streams
}

// Exec runs a process in a running container and returns its exit code. For a program that cannot be started that is
// 126 or 127, as in a shell, and Out has the reason. When ctx ends, Exec returns, but the process runs until the
// container is stopped: the API has no way to end it. The engine waits 2 seconds for children that keep the output
// open.
func (c *Container) Exec(ctx context.Context, spec ExecSpec) (exit int, err error) {
	fail := func(err error) (int, error) {
		return 0, c.wrapError(ctx, fmt.Sprintf("run %q in", strings.Join(spec.Cmd, " ")), err)
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
	if err := copyStreams(conn.HijackedResponse, spec.Streams, spec.TTY); err != nil || ctx.Err() != nil {
		return fail(err)
	}
	// The output has ended, but the engine may not know yet that the process has.
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
			return fail(fmt.Errorf("the process closed its output but did not exit: %w", ended.Err()))
		case <-time.After(wait):
		}
	}
}

package dockerengine

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// ExecSpec describes a process to run in a running container.
type ExecSpec struct {
	Cmd     []string
	Env     []string // NAME=VALUE, in addition to the container's
	User    string   // default: the container's
	WorkDir string   // default: the container's
	TTY     bool
	Streams
}

// Exec runs a process in a running container and returns its exit code. If the engine cannot start the program, the
// error is a [*StartError], and Out has received the engine's message. If ctx ends, Exec returns, but the process keeps
// running until the container stops, because the API cannot kill it. The engine waits 2 seconds for child processes
// that keep the output open.
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
	conn, err := hijack(step, func(ctx context.Context) (client.ExecAttachResult, error) {
		return c.engine.client.ExecAttach(ctx, created.ID, client.ExecAttachOptions{TTY: spec.TTY})
	}, func(r client.ExecAttachResult) { r.Close() })
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	printed := &beginning{Writer: io.Discard}
	if spec.Out != nil {
		printed.Writer = spec.Out
	}
	spec.Out = printed
	if err := copyStreams(conn.HijackedResponse, spec.Streams, spec.TTY); err != nil || ctx.Err() != nil {
		return fail(err)
	}
	// After the end of the output, the engine may still report the process as running.
	ended, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		state, err := retry(ended, func() (client.ExecInspectResult, error) {
			return c.engine.client.ExecInspect(ended, created.ID, client.ExecInspectOptions{})
		})
		if err != nil {
			return fail(err)
		}
		switch {
		case !state.Running && state.PID == 0 && state.ExitCode != 0: // there was no process
			return fail(newStartError(string(printed.bytes)))
		case !state.Running:
			return state.ExitCode, nil
		}
		select {
		case <-ended.Done():
			return fail(fmt.Errorf("the process closed its output but did not exit: %w", ended.Err()))
		case <-time.After(wait):
		}
	}
}

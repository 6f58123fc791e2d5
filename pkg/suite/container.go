package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// maxOutput bounds what a command may print, in bytes of each stream. One that prints more is ended.
const maxOutput = 8 << 20

// nobody is who runs commands in an image whose user is root, unless the test asks for root.
const nobody = "65534:65534"

// keeper is what a shared container does: it waits for a line that never comes. No program but the shell is needed.
var keeper = []string{"/bin/sh", "-c", "read -r _"}

// box is a container that commands are run in.
type box struct {
	*dockerengine.Container
	broken bool // it must not be used again
}

// spec is the container that a test asks for.
func (r *run) spec(t *Test) dockerengine.ContainerSpec {
	spec := dockerengine.ContainerSpec{
		Image: r.ImageID, User: string(t.User), WorkDir: t.Workdir, TTY: t.TTY, Env: pairs(t.Env), Network: t.Network,
		Memory: int64(t.Limits.Memory), CPUs: t.Limits.CPUs, Pids: int64(t.Limits.PIDs),
	}
	if spec.Network == "" && t.Service == nil {
		spec.Network = "none"
	}
	if spec.User == "" && t.Service == nil && r.imageIsRoot() {
		spec.User = nobody
	}
	switch t.Privileges {
	case "none":
		spec.CapDrop, spec.NoNewPrivileges = []string{"ALL"}, true
	case "all":
		spec.Privileged = true
	}
	for _, m := range t.Mounts {
		spec.Mounts = append(spec.Mounts, dockerengine.Mount{Source: filepath.Join(r.dir, m.Source), Target: m.Target})
	}
	return spec
}

func (r *run) imageIsRoot() bool {
	user, _, _ := strings.Cut(r.config.Config.User, ":")
	return user == "" || user == "0" || user == "root"
}

func pairs(env map[string]text) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+string(env[name]))
	}
	return list
}

// args is the whole command of a test.
func (r *run) args(t *Test) []string {
	if t.Entrypoint {
		return append(slices.Clone(r.config.Config.Entrypoint), t.Run.args...)
	}
	return t.Run.args
}

// command runs a test's command as the first process of a container of its own: the image needs nothing but it.
func (r *run) command(ctx context.Context, t *Test) ([]Failure, []byte) {
	spec := r.spec(t)
	args := r.args(t)
	spec.Entrypoint, spec.Cmd = args[:1], args[1:]
	c, err := r.Engine.Create(ctx, spec)
	if err != nil {
		return r.broke(ctx, t.Run.Line, err), nil
	}
	defer r.remove(ctx, &box{Container: c})
	var seen transcript
	exit, err := c.Run(ctx, seen.streams())
	if err != nil {
		return withOutput(r.broke(ctx, t.Run.Line, err), &seen), seen.all()
	}
	failures := r.compare(&t.command, exit, &seen)
	if exit == 137 && len(failures) > 0 {
		if state, err := c.Inspect(ctx); err == nil && state.OOMKilled {
			failures[0].Message += "; it ran out of memory, of which limits.memory bounds it to " + fmt.Sprint(int64(t.Limits.Memory)) + " bytes"
		}
	}
	return failures, seen.all()
}

// session runs a test's setup and command in a container that other tests may share.
func (r *run) session(ctx context.Context, t *Test, shared **box) ([]Failure, []byte) {
	var seen transcript
	failures := func() []Failure {
		if *shared == nil || (*shared).broken {
			r.remove(ctx, *shared)
			*shared = nil
			b, err := r.open(ctx, t)
			if err != nil {
				return r.broke(ctx, t.Line, err)
			}
			*shared = b
		}
		b := *shared
		for _, setup := range t.Setup {
			var printed transcript
			exit, err := r.exec(ctx, b, t, setup.args, &printed)
			seen.join(&printed)
			if err != nil {
				return withOutput(r.broke(ctx, setup.Line, err), &printed)
			}
			if exit != 0 {
				return withOutput([]Failure{{Line: setup.Line, Message: fmt.Sprintf("the setup command ended with exit code %d", exit)}}, &printed)
			}
		}
		var printed transcript
		exit, err := r.exec(ctx, b, t, r.args(t), &printed)
		seen.join(&printed)
		if err != nil {
			return withOutput(r.broke(ctx, t.Run.Line, err), &printed)
		}
		return r.compare(&t.command, exit, &printed)
	}()
	if t.Session == "" {
		r.remove(ctx, *shared)
		*shared = nil
	}
	return failures, seen.all()
}

// open starts a container that stays until it is removed.
func (r *run) open(ctx context.Context, t *Test) (*box, error) {
	spec := r.spec(t)
	spec.Entrypoint, spec.Cmd, spec.TTY, spec.Stdin = keeper[:1], keeper[1:], false, true
	spec.WorkDir = "" // a test's own, which need not be there yet
	c, err := r.Engine.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	b := &box{Container: c}
	if err := c.Start(ctx); err != nil {
		r.remove(ctx, b)
		return nil, fmt.Errorf("session and setup need /bin/sh in the image: %w", err)
	}
	return b, nil
}

// exec runs one command in a shared container. What can not be ended alone ends with the container.
func (r *run) exec(ctx context.Context, b *box, t *Test, args []string, seen *transcript) (int, error) {
	user := string(t.User)
	if user == "" && r.imageIsRoot() {
		user = nobody
	}
	exit, err := b.Exec(ctx, dockerengine.ExecSpec{
		Cmd: args, Env: pairs(t.Env), User: user, WorkDir: t.Workdir, TTY: t.TTY, Streams: seen.streams(),
	})
	if err != nil {
		b.broken = true
		return 0, err
	}
	if exit != t.Exit {
		state, err := b.Inspect(ctx)
		b.broken = err != nil || !state.Running
	}
	return exit, nil
}

// compare holds what a command did against what it must do.
func (r *run) compare(c *command, exit int, seen *transcript) (failures []Failure) {
	if exit != c.Exit {
		message := fmt.Sprintf("the exit code is %d, want %d", exit, c.Exit)
		failures = append(failures, Failure{Line: c.Run.Line, Message: message, Detail: excerpt(string(seen.all()))})
	}
	if c.Stdout != nil {
		failures = append(failures, c.Stdout.check("stdout", seen.out.String(), r.dir)...)
	}
	if c.Stderr != nil {
		failures = append(failures, c.Stderr.check("stderr", seen.err.String(), r.dir)...)
	}
	return failures
}

// broke is a test that could not be run to its end.
func (r *run) broke(ctx context.Context, line int, err error) []Failure {
	slow := new(tooSlow)
	switch {
	case errors.Is(err, errTooMuch):
		err = errTooMuch
	case errors.As(context.Cause(ctx), &slow):
		err = slow
	}
	return []Failure{{Line: line, Message: err.Error()}}
}

func withOutput(failures []Failure, seen *transcript) []Failure {
	failures[0].Detail = excerpt(string(seen.all()))
	return failures
}

// remove removes a container, whatever ctx says. One that stays is found by the next run.
func (r *run) remove(ctx context.Context, b *box) {
	if b == nil {
		return
	}
	if err := b.Remove(ctx); err != nil {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		fmt.Fprintf(r.log, "%v\n", err)
	}
}

// errTooMuch ends a command that prints without end.
var errTooMuch = fmt.Errorf("it printed more than %d MiB, and was killed", maxOutput>>20)

// transcript keeps what a command prints: each stream, and both as they came.
type transcript struct {
	mutex    sync.Mutex
	out, err bytes.Buffer
	both     bytes.Buffer
}

func (t *transcript) streams() dockerengine.Streams {
	return dockerengine.Streams{Out: &stream{t, &t.out}, Err: &stream{t, &t.err}}
}

// all is both streams. The commands that it came from have ended or are no longer read.
func (t *transcript) all() []byte {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return bytes.Clone(t.both.Bytes())
}

func (t *transcript) join(more *transcript) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.both.Write(more.all())
}

type stream struct {
	of   *transcript
	kept *bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.of.mutex.Lock()
	defer s.of.mutex.Unlock()
	room := min(len(p), maxOutput-s.kept.Len())
	s.kept.Write(p[:room])
	s.of.both.Write(p[:room])
	if room < len(p) {
		return room, errTooMuch
	}
	return len(p), nil
}

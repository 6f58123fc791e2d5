package suite

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// maxOutput is the default of limits.output.
const maxOutput = 8 << 20

// unprivilegedUser is the user of commands if the image's user is root and the test sets none.
const unprivilegedUser = "65534:65534"

// exitKilled is the exit code of a process that was killed by SIGKILL.
const exitKilled = 137

// testInstance is an instance of one test, or of the tests of a session.
type testInstance struct {
	Instance
	broken bool // a command failed in a way that affects the next one
}

// instanceSpec returns the specification of a test's instance, without the program.
func (r *run) instanceSpec(t *Test) Spec {
	spec := Spec{
		User: string(t.User), WorkDir: t.Workdir, TTY: t.TTY, Env: r.environ(t), Network: t.Network,
		Privileges: t.Privileges, Limits: t.Limits, OwnLimits: t.ownLimits,
	}
	if t.Service == nil {
		spec.User = r.commandUser(t)
	}
	for _, m := range t.Mounts {
		m.Source = filepath.Join(r.suiteDir, m.Source)
		spec.Mounts = append(spec.Mounts, m)
	}
	return spec
}

// commandUser returns the user that a test's commands run as; "" for the image's user.
func (r *run) commandUser(t *Test) string {
	if t.User == "" && !t.AllowRoot && r.imageRunsAsRoot() {
		return unprivilegedUser
	}
	return string(t.User)
}

func (r *run) imageRunsAsRoot() bool {
	user, _, _ := strings.Cut(r.config.Config.User, ":")
	return user == "" || user == "0" || user == "root"
}

// environ returns environment variables as NAME=VALUE, sorted by name.
func environ(env Env) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+string(env[name]))
	}
	return list
}

// commandLine returns the program and arguments of a test.
func (r *run) commandLine(t *Test) []string {
	args := r.expand(t, t.Run.Args)
	if t.Entrypoint {
		return append(slices.Clone(r.config.Config.Entrypoint), args...)
	}
	return args
}

// environ returns the environment variables of a test as NAME=VALUE, sorted by name.
func (r *run) environ(t *Test) []string {
	if !t.Expand || t.Service != nil {
		return environ(t.Env)
	}
	expanded := Env{}
	for name, value := range t.Env {
		expanded[name] = Text(os.Expand(string(value), r.imageVariable))
	}
	return environ(expanded)
}

// expand returns the arguments of a command with the references replaced, if the test sets expand.
func (r *run) expand(t *Test, args []string) []string {
	if !t.Expand {
		return args
	}
	var expanded []string
	for _, arg := range args {
		expanded = append(expanded, os.Expand(arg, r.imageVariable))
	}
	return expanded
}

// imageVariable returns the value of a reference: a variable of the image, or $ for the reference $$.
func (r *run) imageVariable(name string) string {
	if name == "$" {
		return "$"
	}
	return environMap(r.config.Config.Env)[name]
}

// runCommand runs a test's command as the first process of a new container, so the image needs no other program. It
// returns the failures and everything that the command printed.
func (r *run) runCommand(ctx context.Context, t *Test, own **testInstance) ([]Failure, []byte) {
	spec := r.instanceSpec(t)
	spec.Kind, spec.Args = CommandInstance, r.commandLine(t)
	c, err := r.Target.Create(ctx, spec)
	if err != nil {
		return executionFailure(ctx, t.Run.Line, err), nil
	}
	*own = &testInstance{Instance: c}
	printed := transcript{limit: int(t.Limits.Output)}
	exit, err := printed.exitOf(c.Run(ctx, printed.streams()))
	if err != nil {
		return withOutput(executionFailure(ctx, t.Run.Line, err), &printed), printed.all()
	}
	failures := r.checkCommand(&t.CommandCheck, exit, &printed)
	if exit == exitKilled && len(failures) > 0 {
		if state, err := c.State(ctx); err == nil && state.OOMKilled {
			failures[0].Message += fmt.Sprintf("; out of memory, limits.memory is %d bytes", t.Limits.Memory)
		}
	}
	return failures, printed.all()
}

// runInSession runs a test's setup and command in a container that the tests of a session share. *shared is that
// container, or nil before the first test.
func (r *run) runInSession(ctx context.Context, t *Test, shared **testInstance) ([]Failure, []byte) {
	var log transcript
	failures := r.runSetupAndCommand(ctx, t, shared, &log)
	return failures, log.all()
}

func (r *run) runSetupAndCommand(ctx context.Context, t *Test, shared **testInstance, log *transcript) []Failure {
	if *shared != nil && (*shared).broken {
		r.closeContainer(ctx, shared)
	}
	if *shared == nil {
		if err := r.startShared(ctx, t, shared); err != nil {
			return executionFailure(ctx, t.Line, err)
		}
	}
	for _, setup := range t.Setup {
		printed := transcript{limit: int(t.Limits.Output)}
		exit, err := r.exec(ctx, *shared, t, r.expand(t, setup.Args), &printed)
		log.append(&printed)
		if err != nil {
			return withOutput(executionFailure(ctx, setup.Line, err), &printed)
		}
		if exit != 0 && (!t.SetupMayFail || printed.startError != nil) {
			failure := Failure{Line: setup.Line, Message: fmt.Sprintf("setup command exited with code %d", exit)}
			return withOutput([]Failure{failure}, &printed)
		}
	}
	printed := transcript{limit: int(t.Limits.Output)}
	exit, err := r.exec(ctx, *shared, t, r.commandLine(t), &printed)
	log.append(&printed)
	if err != nil {
		return withOutput(executionFailure(ctx, t.Run.Line, err), &printed)
	}
	return r.checkCommand(&t.CommandCheck, exit, &printed)
}

// startShared creates and starts a container that runs until it is removed. It sets *shared even if the start fails.
func (r *run) startShared(ctx context.Context, t *Test, shared **testInstance) error {
	spec := r.instanceSpec(t)
	spec.Kind = SharedInstance
	c, err := r.Target.Create(ctx, spec)
	if err != nil {
		return err
	}
	*shared = &testInstance{Instance: c, broken: true}
	if err := c.Start(ctx); err != nil {
		if failed := new(StartError); errors.As(err, &failed) && failed.Exit != 0 {
			err = fmt.Errorf("session and setup need /bin/sh in the image: %w", err)
		}
		return err
	}
	(*shared).broken = false
	return nil
}

// closeContainer removes a shared container, if there is one.
func (r *run) closeContainer(ctx context.Context, shared **testInstance) {
	if *shared != nil {
		r.remove(ctx, (*shared).Instance)
		*shared = nil
	}
}

// exec runs one command in a shared container and returns its exit code. After an error, it marks the container as
// broken, because the command may still be running.
func (r *run) exec(
	ctx context.Context, c *testInstance, t *Test, args []string, printed *transcript,
) (int, error) {
	exit, err := printed.exitOf(c.Exec(ctx, Process{
		Args: args, Env: r.environ(t), User: r.commandUser(t), WorkDir: t.Workdir, TTY: t.TTY,
	}, printed.streams()))
	if err != nil {
		c.broken = true
		return 0, err
	}
	if exit != t.Exit {
		state, err := c.State(ctx)
		c.broken = err != nil || !state.Running
	}
	return exit, nil
}

// checkCommand compares a command's exit code and output with the expected ones.
func (r *run) checkCommand(check *CommandCheck, exit int, printed *transcript) (failures []Failure) {
	if exit != check.Exit {
		message := fmt.Sprintf("exit code is %d, want %d", exit, check.Exit)
		if printed.startError != nil {
			message += ": " + printed.startError.Cause
		}
		failures = append(failures, Failure{Line: check.Run.Line, Message: message, Detail: excerpt(string(printed.all()))})
	}
	if check.Stdout != nil {
		failures = append(failures, check.Stdout.check("stdout", printed.stdout.String(), r.suiteDir)...)
	}
	if check.Stderr != nil {
		failures = append(failures, check.Stderr.check("stderr", printed.stderr.String(), r.suiteDir)...)
	}
	return failures
}

// isCanceled reports whether the run was canceled, as opposed to a test that timed out.
func isCanceled(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.As(context.Cause(ctx), new(*timeoutError))
}

// executionFailure returns the failure of a test that did not complete. If the cause of the engine's error is a timeout
// or the output limit, it reports that cause.
func executionFailure(ctx context.Context, line int, err error) []Failure {
	timeout, unsupported := new(timeoutError), new(UnsupportedError)
	switch {
	case errors.As(err, &unsupported):
		return []Failure{{Line: line, Message: unsupported.Reason, skip: true}}
	case errors.Is(err, errOutputLimit):
		err = errOutputLimit
	case errors.As(context.Cause(ctx), &timeout):
		err = timeout
	}
	return []Failure{{Line: line, Message: err.Error(), outage: daytona.IsTransient(err)}}
}

// withOutput adds what a command printed, if anything, to the first failure.
func withOutput(failures []Failure, printed *transcript) []Failure {
	if all := printed.all(); len(all) > 0 {
		failures[0].Detail = excerpt(all)
	}
	return failures
}

// remove removes a container, even if ctx has ended. It only logs an error, because the next run removes the container.
func (r *run) remove(ctx context.Context, c Instance) {
	r.logError(c.Remove(ctx))
}

func (r *run) logError(err error) {
	if err != nil {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		fmt.Fprintf(r.log, "%v\n", err)
	}
}

// errOutputLimit reports a command that was killed because it printed too much.
var errOutputLimit = fmt.Errorf(
	"command printed more than limits.output (default %d MiB) and was killed",
	maxOutput>>20,
)

// transcript records the output of a command: each stream separately, and both in order.
type transcript struct {
	mutex          sync.Mutex
	stdout, stderr bytes.Buffer
	both           bytes.Buffer
	limit          int         // bytes of each stream; 0 for maxOutput
	startError     *StartError // set if the command could not be started
}

// exitOf returns the result of a command. If the engine could not start the program, it returns the exit code that a
// shell reports, and replaces the output by the cause on standard error. The result thus does not depend on the kind of
// container: engines print the cause on standard output if the container runs, and otherwise not at all.
func (t *transcript) exitOf(exit int, err error) (int, error) {
	failed := new(StartError)
	if !errors.As(err, &failed) || failed.Exit == 0 {
		return exit, err
	}
	t.startError = failed
	t.stdout.Reset()
	t.stderr.Reset()
	t.both.Reset()
	_, err = fmt.Fprintln(t.streams().Err, failed.Cause)
	return failed.Exit, err
}

func (t *transcript) streams() Streams {
	return Streams{Out: &transcriptWriter{t, &t.stdout}, Err: &transcriptWriter{t, &t.stderr}}
}

// all returns a copy of both streams in order.
func (t *transcript) all() []byte {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return bytes.Clone(t.both.Bytes())
}

func (t *transcript) append(other *transcript) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.both.Write(other.all())
}

// transcriptWriter records one stream of a transcript.
type transcriptWriter struct {
	transcript *transcript
	stream     *bytes.Buffer
}

func (w *transcriptWriter) Write(p []byte) (int, error) {
	w.transcript.mutex.Lock()
	defer w.transcript.mutex.Unlock()
	n := min(len(p), cmp.Or(w.transcript.limit, maxOutput)-w.stream.Len())
	w.stream.Write(p[:n])
	w.transcript.both.Write(p[:n])
	if n < len(p) {
		return n, errOutputLimit
	}
	return len(p), nil
}

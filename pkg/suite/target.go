package suite

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Target is where the tests of a suite run: the containers of an engine ([OnEngine]), or sandboxes ([InSandboxes]).
// Tests of metadata need none, and those of files only without the image's layers.
type Target interface {
	// Create creates an instance without starting it. The caller must remove it.
	Create(context.Context, Spec) (Instance, error)
	// Reap removes instances of earlier runs that were killed.
	Reap(context.Context) (removed int, err error)
}

// Instance is a running copy of the image. Each method returns an [*UnsupportedError] if the target cannot do what the
// test needs, and a [*StartError] if the program could not be started.
type Instance interface {
	// Run runs the program of a [CommandInstance] and returns its exit code. If a writer fails, it returns that error.
	Run(context.Context, Streams) (exit int, err error)
	// Start starts a [SharedInstance], or the program of a [ServiceInstance].
	Start(context.Context) error
	// Exec runs a process in a started instance and returns its exit code. If a writer fails, it returns that error.
	Exec(context.Context, Process, Streams) (exit int, err error)
	Remove(context.Context) error

	ServiceControl
}

// ServiceControl controls the program of a [ServiceInstance].
type ServiceControl interface {
	State(context.Context) (State, error)
	// Logs writes the program's output so far, or only the output since its last start.
	Logs(ctx context.Context, sinceStart bool, streams Streams) error
	// Restart stops the program like Stop and starts it again.
	Restart(ctx context.Context, grace time.Duration) error
	// Stop sends the image's STOPSIGNAL and, after grace, kills the program.
	Stop(ctx context.Context, grace time.Duration) error
	// Kill sends a signal such as TERM to the program.
	Kill(ctx context.Context, signal string) error
	// Wait waits for the end of the program and returns its exit code.
	Wait(context.Context) (exit int, err error)
	// CheckPort returns an error if a port does not accept connections.
	CheckPort(ctx context.Context, port int) error
	// Send sends an HTTP request to a port, and follows no redirects. The host of its URL is ignored.
	Send(port int, request *http.Request) (*http.Response, error)
}

// InstanceKind is what an instance is for.
type InstanceKind int

// Kinds of instances.
const (
	CommandInstance InstanceKind = iota // runs one program and ends
	SharedInstance                      // runs nothing by itself; needs /bin/sh in the image
	ServiceInstance                     // runs the image's entry point, with Args in place of the image's command if set
)

// Spec describes an instance.
type Spec struct {
	Kind       InstanceKind
	Args       []string // the program and its arguments, or the arguments of a service
	User       string   // "" means the image's
	WorkDir    string   // absolute; "" means the image's
	Env        []string // NAME=VALUE, in addition to the image's
	TTY        bool
	Network    string  // as in the suite; "" means the default of the kind
	Privileges string  // as in the suite
	Mounts     []Mount // with absolute sources
	Limits     Limits
	OwnLimits  bool  // whether the test itself sets limits, other than that of the output
	Ports      []int // to which CheckPort and Send connect
	Health     bool  // whether State must report the health
}

// Process is a process to run in an instance. Empty fields mean the settings of the instance.
type Process struct {
	Args    []string
	Env     []string // NAME=VALUE, in addition to those of the instance
	User    string
	WorkDir string
	TTY     bool
}

// Streams receive the output of a process.
type Streams struct{ Out, Err io.Writer }

// State is the state of an instance's program.
type State struct {
	Running   bool
	ExitCode  int // if it is not running
	OOMKilled bool
	Health    string // starting, healthy or unhealthy; "" if the image has no HEALTHCHECK
	Probe     string // output of the last HEALTHCHECK probe
}

// StartError reports a program that could not be started.
type StartError struct {
	// Exit is the exit code with which shells report a program that does not exist (127) or cannot be executed (126). It
	// is 0 if the cause is not the program, but for example a mount.
	Exit  int
	Cause string // for the user
	Err   error  // Cause with the operation
}

func (e *StartError) Error() string { return e.Err.Error() }

func (e *StartError) Unwrap() error { return e.Err }

// UnsupportedError reports that a target lacks what a test needs. The test is skipped.
type UnsupportedError struct{ Reason string }

func (e *UnsupportedError) Error() string { return e.Reason }

// treeReader is a Target that reads the files of the image itself, because its layers are not available.
type treeReader interface {
	readTree(context.Context) (*Tree, error)
}

func isUnsupported(err error) bool { return errors.As(err, new(*UnsupportedError)) }

package actions

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Exit codes of the programs. docs/reference.md lists them.
const (
	exitFailure = 1
	exitInvalid = 2   // an input is invalid
	exitSignal  = 128 // plus the number of the signal, as shells and the docker command do
)

// exitCode returns the exit code for the error that ends a program.
func exitCode(err error) int {
	if err == nil || errors.Is(err, inputs.ErrHelp) {
		return 0
	}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return exit.Code
	}
	if signaled, ok := errors.AsType[*SignalError](err); ok {
		return exitSignal + int(signaled.Signal)
	}
	if kindOf(err) == runrecord.InvalidInput {
		return exitInvalid
	}
	return exitFailure
}

// usageError reports arguments or inputs with which a run cannot start.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// SignalError is the cause of a cancellation by a signal.
type SignalError struct{ Signal syscall.Signal }

func (e *SignalError) Error() string { return e.Signal.String() + " signal received" }

// notifyContext returns a context that the first of the signals cancels, with a [*SignalError] as its cause. The second
// signal kills the process.
func notifyContext(parent context.Context, signals ...os.Signal) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	signal.Notify(received, signals...)
	go func() {
		select {
		case s := <-received:
			number, _ := s.(syscall.Signal)
			cancel(&SignalError{number})
		case <-ctx.Done():
		}
		signal.Stop(received)
	}()
	return ctx, func() { cancel(nil) }
}

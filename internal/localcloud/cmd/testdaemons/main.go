// Testdaemons starts the daemons of package testdaemons, runs a command, and stops the daemons:
//
//	go run ./internal/localcloud/cmd/testdaemons go test ./...
//
// It exits with the command's exit code, or with 1 if a daemon cannot be started or stopped.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: testdaemons COMMAND [ARGUMENT…]")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testdaemons:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run starts the daemons, runs the command and stops the daemons. It returns an error if a daemon or the command cannot
// be started, or if a daemon cannot be stopped. It reports a command that fails only through its exit code.
func run(name string, args ...string) (code int, err error) {
	// The terminal also sends Ctrl-C to the command. Wait until the command exits, then stop the daemons.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)

	root, err := checkout.Root()
	if err != nil {
		return 0, err
	}
	set, err := testdaemons.Start(context.Background(), filepath.Join(root, ".cache", "test", "daemons"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, set.Stop()) }()
	command := exec.Command(name, args...)
	command.Env = append(os.Environ(), set.Env()...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM { // sent to this process only
				_ = command.Process.Signal(s)
			}
		case err := <-ended:
			if exit := new(exec.ExitError); errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}

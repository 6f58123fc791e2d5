// Release publishes on GitHub what scripts/release.sh makes:
//
//	go run ./internal/release publish dist/v1.2.3
//	go run ./internal/release promote dist/v1.2.3
//
// publish pushes the tag, creates the release with its assets, and downloads each asset as users do. promote verifies
// all of that again and moves the major version's tag, such as v1, to the release. Both can be run again: they keep
// what is correct and refuse what differs. GITHUB_TOKEN needs contents: write.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/org/sandbox-actions/pkg/runner"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	log := runner.New(os.Stdout, os.Stderr, os.Getenv)
	if err := run(ctx, log, os.Args[1:], os.Getenv, limits{}); err != nil {
		log.Fail(err, runner.Annotation{})
		os.Exit(1)
	}
}

func run(ctx context.Context, log *runner.Runner, args []string, getenv func(string) string, l limits) error {
	if len(args) != 2 || args[0] != "publish" && args[0] != "promote" {
		return errors.New("usage: release publish|promote DIRECTORY (one that `make release` made, such as dist/v1.2.3)")
	}
	a, err := readArtifacts(args[1])
	if err != nil {
		return err
	}
	p, err := newPublisher(a, getenv("GITHUB_API_URL"), getenv("GITHUB_TOKEN"), l, log)
	if err != nil {
		return err
	}
	if args[0] == "publish" {
		return p.publish(ctx)
	}
	return p.promote(ctx)
}

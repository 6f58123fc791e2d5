// Release publishes at GitHub what scripts/release.sh made:
//
//	go run ./internal/release publish dist/v1.2.3
//	go run ./internal/release promote dist/v1.2.3
//
// publish pushes the tag, makes the release with its assets, and downloads each as a stranger would. promote moves v1 to it, once all of that is as
// it should be: never backwards, never to a candidate. What is done already is left alone, so both can be run again; what is there and differs is
// refused. GITHUB_TOKEN needs contents: write.
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
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	r := runner.New(os.Stdout, os.Stderr, os.Getenv)
	if err := run(ctx, r, os.Args[1:], os.Getenv); err != nil {
		r.Fail(err, runner.Annotation{})
		os.Exit(1)
	}
}

func run(ctx context.Context, r *runner.Runner, args []string, getenv func(string) string) error {
	if len(args) != 2 || args[0] != "publish" && args[0] != "promote" {
		return errors.New("usage: release publish|promote FOLDER, where FOLDER is what `make release` made, such as dist/v1.2.3")
	}
	made, err := open(args[1])
	if err != nil {
		return err
	}
	at, err := connect(made, getenv("GITHUB_API_URL"), getenv("GITHUB_TOKEN"), r)
	if err != nil {
		return err
	}
	if args[0] == "publish" {
		return at.publish(ctx)
	}
	return at.promote(ctx)
}

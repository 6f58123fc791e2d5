// Release publishes a release that scripts/release.sh created on GitHub:
//
//	go run ./internal/release publish dist/v1.2.3
//	go run ./internal/release promote dist/v1.2.3
//
// publish pushes the tag, creates the release with its assets, and verifies each asset by downloading it. promote
// verifies the release again and moves the tag of the major version, such as v1, to it. You can repeat both commands:
// they keep matching tags and assets, and fail if they differ. GITHUB_TOKEN requires contents: write.
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
	context.AfterFunc(ctx, stop) // a second signal kills the process
	log := runner.New(os.Stdout, os.Stderr, os.Getenv)
	if err := run(ctx, log, os.Args[1:], os.Getenv, limits{}); err != nil {
		log.Fail(err, runner.Annotation{})
		os.Exit(1)
	}
}

func run(ctx context.Context, log *runner.Runner, args []string, getenv func(string) string, l limits) error {
	if len(args) != 2 || args[0] != "publish" && args[0] != "promote" {
		return errors.New("usage: release publish|promote DIRECTORY (created by `make release`, for example dist/v1.2.3)")
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

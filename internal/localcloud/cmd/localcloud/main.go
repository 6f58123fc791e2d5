// Localcloud runs the local cloud in the foreground, until SIGINT or SIGTERM:
//
//	go run ./internal/localcloud/cmd/localcloud --env FILE [--engine current|oldest|none]
//
// When all services are ready, it writes FILE. Source FILE in a shell to make programs use the local cloud. Localcloud
// removes FILE when it exits. On SIGUSR1 it prints the number of bytes pushed to Daytona's registry: "pushed N".
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/checkout"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

type options struct {
	Env        string `required:"" help:"File to write when all services run: export NAME='value'." type:"path"`
	Engine     string `help:"Docker Engine to start: current, oldest or none." enum:"current,oldest,none" default:"none"`
	Repository string `help:"OWNER/NAME of this checkout on GitHub." default:"org/sandbox-actions"`
	Dir        string `help:"Directory for layers and images, relative to the checkout." default:".cache/localcloud"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var o options
	kong.Parse(&o, kong.Description("Runs Depot, GitHub, Doppler, Daytona, registries and Docker Engines on loopback."))
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	owner, name, ok := strings.Cut(o.Repository, "/")
	if !ok {
		return fmt.Errorf("--repository: %q is not OWNER/NAME", o.Repository)
	}
	if !filepath.IsAbs(o.Dir) {
		o.Dir = filepath.Join(root, o.Dir)
	}
	if o.Engine == "none" {
		o.Engine = ""
	}
	cloud, err := localcloud.Start(ctx, localcloud.Options{
		Dir: o.Dir, Base: filepath.Join(root, registry.BaseImage), Engine: o.Engine,
		Repositories: []github.Repository{{Owner: owner, Name: name, Dir: root, Private: true}},
	})
	if err != nil {
		return err
	}
	if err = writeEnv(o.Env, cloud.Env()); err == nil {
		fmt.Fprintf(os.Stderr, "The local cloud is ready: source %s. Press Ctrl-C to stop it.\n", o.Env)
		usr1 := make(chan os.Signal, 1)
		signal.Notify(usr1, syscall.SIGUSR1)
		for ctx.Err() == nil {
			select {
			case <-usr1:
				fmt.Fprintf(os.Stderr, "pushed %d\n", pushedBytes(cloud))
			case <-ctx.Done():
			}
		}
		err = os.Remove(o.Env)
	}
	return errors.Join(err, cloud.Stop())
}

// pushedBytes returns the number of bytes pushed to Daytona's registry.
func pushedBytes(cloud *localcloud.Cloud) int64 {
	var sum int64
	for _, request := range cloud.Daytona.Requests() {
		if request.Registry && request.Method != http.MethodGet && request.Method != http.MethodHead {
			sum += request.Bytes
		}
	}
	return sum
}

// writeEnv writes the file atomically, because scripts wait for it to appear. It has mode 0600 because it contains
// tokens.
func writeEnv(path string, env map[string]string) error {
	var s strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&s, "export %s='%s'\n", name, strings.ReplaceAll(env[name], "'", `'\''`))
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".env-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(s.String()); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

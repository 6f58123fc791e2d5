// Localcloud runs the local cloud in the foreground, until SIGINT or SIGTERM:
//
//	go run ./internal/localcloud/cmd/localcloud --env FILE [--engine current|oldest|none]
//
// Once everything answers it writes FILE, which a shell sources to point any program at it. FILE is removed at the end. At SIGUSR1 it says
// how many bytes Daytona's registry has been sent: "pushed N".
package main

import (
	"context"
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
)

type options struct {
	Env        string `required:"" help:"File to write: lines export NAME='value', once everything answers." type:"path"`
	Engine     string `help:"Docker Engine to start: current, oldest or none." enum:"current,oldest,none" default:"none"`
	Repository string `help:"OWNER/NAME under which GitHub has this checkout." default:"org/sandbox-actions"`
	Dir        string `help:"Keeps layers and images from one run to the next; seen from the checkout." default:".cache/localcloud"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var o options
	kong.Parse(&o, kong.Description("Depot, GitHub, registries and a Docker Engine on loopback."))
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
		return fmt.Errorf("--repository %q is no repository: write OWNER/NAME", o.Repository)
	}
	if !filepath.IsAbs(o.Dir) {
		o.Dir = filepath.Join(root, o.Dir)
	}
	if o.Engine == "none" {
		o.Engine = ""
	}
	cloud, err := localcloud.Start(ctx, localcloud.Options{
		Dir: o.Dir, Base: filepath.Join(root, ".cache/base/bookworm-slim.tar"), Engine: o.Engine,
		Repositories: []github.Repository{{Owner: owner, Name: name, Dir: root, Private: true}},
	})
	if err != nil {
		return err
	}
	if err = writeEnv(o.Env, cloud.Env()); err == nil {
		fmt.Fprintf(os.Stderr, "The local cloud is ready: source %s. Ctrl-C ends it.\n", o.Env)
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, syscall.SIGUSR1)
		for ctx.Err() == nil {
			select {
			case <-asked:
				fmt.Fprintf(os.Stderr, "pushed %d\n", pushed(cloud))
			case <-ctx.Done():
			}
		}
		err = os.Remove(o.Env)
	}
	if stopped := cloud.Stop(); err == nil {
		err = stopped
	}
	return err
}

// pushed is how many bytes of images have been sent to Daytona's registry.
func pushed(cloud *localcloud.Cloud) int64 {
	var sum int64
	for _, request := range cloud.Daytona.Requests() {
		if request.Registry && request.Method != http.MethodGet && request.Method != http.MethodHead {
			sum += request.Bytes
		}
	}
	return sum
}

// writeEnv writes the file whole or not at all: it holds tokens, and who waits for it may read it at once.
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

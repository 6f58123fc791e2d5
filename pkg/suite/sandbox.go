package suite

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// SandboxClient manages the sandboxes of a service. [*daytona.Client] implements it.
type SandboxClient interface {
	CreateSandbox(context.Context, daytona.SandboxRequest) (daytona.Sandbox, error)
	WaitUntilStarted(ctx context.Context, id string) (daytona.Sandbox, error)
	DeleteSandbox(ctx context.Context, id string) error
	Execute(context.Context, daytona.Sandbox, daytona.Command) (daytona.CommandResult, error)
	Download(ctx context.Context, box daytona.Sandbox, file string) ([]byte, error)
	PreviewURL(ctx context.Context, box daytona.Sandbox, port int) (daytona.Preview, error)
}

// InSandboxes returns the target that runs each test or session in a new sandbox of a snapshot. config is the
// configuration of the snapshot's image.
func InSandboxes(client SandboxClient, request daytona.SandboxRequest, config v1.Config) Target {
	return &sandboxTarget{client: client, request: request, config: config}
}

type sandboxTarget struct {
	client  SandboxClient
	request daytona.SandboxRequest
	config  v1.Config
	live    atomic.Int32 // sandboxes that exist
}

// unsupported returns the error for a test that needs what a sandbox lacks.
func unsupported(format string, args ...any) error {
	return &UnsupportedError{"not supported in a Daytona sandbox: " + fmt.Sprintf(format, args...)}
}

// Reap does nothing: Daytona deletes the sandboxes of a run that was killed.
func (t *sandboxTarget) Reap(context.Context) (int, error) { return 0, nil }

// Create creates a sandbox and waits until it is started. That is not part of the test's timeout.
func (t *sandboxTarget) Create(ctx context.Context, spec Spec) (Instance, error) {
	if reason := unsupportedInSandbox(spec); reason != "" {
		return nil, unsupported("%s", reason)
	}
	return t.create(ctx, spec)
}

func (t *sandboxTarget) create(ctx context.Context, spec Spec) (*sandboxInstance, error) {
	defer pauseTimeout(ctx)()
	box, err := t.createSandbox(ctx)
	if err != nil {
		return nil, err
	}
	t.live.Add(1)
	i := &sandboxInstance{target: t, spec: spec, box: box, token: "suite-" + strings.ToLower(rand.Text())}
	i.service.previews = map[int]daytona.Preview{}
	if i.box, err = t.client.WaitUntilStarted(ctx, box.ID); err == nil {
		err = i.prepare(ctx)
	}
	if err != nil {
		i.box.ID = box.ID
		return nil, daytona.WithLeftovers(err, i.Remove(ctx))
	}
	return i, nil
}

// quotaGrace is how long Daytona may count a sandbox that was deleted.
const quotaGrace = 15 * time.Second

// createSandbox creates a sandbox. If the organization's quota allows no more, it waits for the end of another test.
func (t *sandboxTarget) createSandbox(ctx context.Context) (daytona.Sandbox, error) {
	for alone := time.Now(); ; {
		box, err := t.client.CreateSandbox(ctx, t.request)
		if t.live.Load() > 0 {
			alone = time.Now()
		}
		if !errors.Is(err, daytona.ErrSandboxQuota) || time.Since(alone) > quotaGrace {
			return box, err
		}
		select {
		case <-ctx.Done():
			return box, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// unsupportedInSandbox returns what a sandbox lacks of what a test needs, or "".
func unsupportedInSandbox(spec Spec) string {
	switch {
	case spec.Privileges == "all":
		return "privileges: all"
	case spec.TTY:
		return "tty"
	case len(spec.Mounts) > 0:
		return "mounts"
	case spec.Network == "none":
		return "network: none"
	case spec.OwnLimits: // those of the suite's defaults are only precautions
		return "limits"
	}
	return ""
}

// sandboxInstance is a sandbox. Its methods run shell scripts with the toolbox API, because that API joins the output
// streams, replaces bytes that are not UTF-8, and cannot select the user.
type sandboxInstance struct {
	target *sandboxTarget
	spec   Spec
	box    daytona.Sandbox
	token  string // marks the beginning of a script's report
	dir    string // of the scripts' files
	number int    // of processes so far

	service sandboxService
}

// Start starts the service. A sandbox without a service runs already.
func (i *sandboxInstance) Start(ctx context.Context) error {
	if i.spec.Kind != ServiceInstance {
		return nil
	}
	return i.startService(ctx)
}

// Run runs the program of the instance.
func (i *sandboxInstance) Run(ctx context.Context, streams Streams) (int, error) {
	p := Process{Args: i.spec.Args, Env: i.spec.Env, User: i.spec.User, WorkDir: i.spec.WorkDir}
	return i.exec(ctx, p, streams, true)
}

// Exec runs a process.
func (i *sandboxInstance) Exec(ctx context.Context, p Process, streams Streams) (int, error) {
	return i.exec(ctx, p, streams, false)
}

// Remove deletes the sandbox.
func (i *sandboxInstance) Remove(ctx context.Context) error {
	if i.service.cancel != nil {
		i.service.cancel()
	}
	err := i.target.client.DeleteSandbox(ctx, i.box.ID)
	i.target.live.Add(-1)
	i.service.running.Wait()
	return err
}

// exec runs a process and copies its output. makeDir creates a missing working directory, as an engine does for the
// first process of a container.
func (i *sandboxInstance) exec(ctx context.Context, p Process, streams Streams, makeDir bool) (int, error) {
	if p.TTY {
		return 0, unsupported("tty")
	}
	i.number++
	files := fmt.Sprintf("%s/%d", i.dir, i.number)
	script := i.processScript(files, p, makeDir)
	for {
		report, err := i.run(ctx, script)
		if errors.Is(err, errStillRunning) {
			continue // the script does not start the process twice
		}
		if err != nil {
			return 0, fmt.Errorf("run %q in %s: %w", strings.Join(p.Args, " "), i.name(), err)
		}
		if err := i.startError(report, p); err != nil {
			return 0, err
		}
		switch limit := cmp.Or(int64(i.spec.Limits.Output), maxOutput); {
		case max(report.sizes[0], report.sizes[1]) > limit:
			return 0, errOutputLimit
		case !report.running:
			return report.exit, i.copyOutput(ctx, files, report, streams)
		}
	}
}

// workDir returns the working directory of a process.
func (i *sandboxInstance) workDir(p Process) string {
	return cmp.Or(p.WorkDir, i.spec.WorkDir, i.target.config.WorkingDir, "/")
}

func (i *sandboxInstance) name() string { return "sandbox " + i.box.ID }

// copyOutput copies both streams. The report contains short ones, unless they changed or are not UTF-8.
func (i *sandboxInstance) copyOutput(ctx context.Context, files string, report processReport, streams Streams) error {
	var contents [2][]byte
	out, err := report.sizes[0], report.sizes[1]
	if whole := report.output; int64(len(whole)) == out+err {
		contents[0], contents[1] = []byte(whole[:out]), []byte(whole[out:])
	} else {
		for n, name := range []string{"out", "err"} {
			if report.sizes[n] == 0 {
				continue
			}
			var err error
			if contents[n], err = i.target.client.Download(ctx, i.box, files+"/"+name); err != nil {
				return err
			}
		}
	}
	for n, w := range []io.Writer{streams.Out, streams.Err} {
		if _, err := w.Write(contents[n]); err != nil {
			return err
		}
	}
	return nil
}

// startError returns the error of a process that could not be started, in the words of an engine.
func (i *sandboxInstance) startError(report processReport, p Process) error {
	failed := dockerengine.StartError{}
	switch report.failure {
	case "":
		return nil
	case failedUser:
		return unsupported("user %s, because commands run as the image's user", cmp.Or(p.User, i.spec.User))
	case failedSetpriv:
		return unsupported("privileges: none and other users, because the image has no setpriv")
	case failedUnknownUser:
		failed.Cause = fmt.Sprintf("user %q not found in the image's /etc/passwd", cmp.Or(p.User, i.spec.User))
	case failedDir:
		failed.Cause = fmt.Sprintf("working directory %q: no such file or directory", i.workDir(p))
	case failedMissing:
		failed.Exit, failed.Cause = 127, fmt.Sprintf("%q: executable file not found in $PATH", p.Args[0])
		if strings.Contains(p.Args[0], "/") {
			failed.Cause = fmt.Sprintf("%q: no such file or directory", p.Args[0])
		}
	case failedMode:
		failed.Exit, failed.Cause = 126, fmt.Sprintf("%q: permission denied", p.Args[0])
	default:
		return fmt.Errorf("run %q in %s: unexpected report %q", strings.Join(p.Args, " "), i.name(), report.failure)
	}
	err := fmt.Errorf("run %q in %s: %w", strings.Join(p.Args, " "), i.name(), &failed)
	return &StartError{Exit: failed.Exit, Cause: failed.Error(), Err: err}
}

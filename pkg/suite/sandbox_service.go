package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// This file runs services in sandboxes. A sandbox starts the entry point itself, but with the arguments of its
// snapshot, and its API cannot stop it. Therefore a test of a service first stops all processes of the sandbox, and
// then runs the entry point as a process of its own.

// sandboxService is the service of a sandbox.
type sandboxService struct {
	starts   int // so far
	cancel   context.CancelFunc
	running  sync.WaitGroup
	previews map[int]daytona.Preview // by port
}

// serviceFiles returns the directory of the nth start.
func (i *sandboxInstance) serviceFiles(n int) string { return fmt.Sprintf("%s/service-%d", i.dir, n) }

// inService runs a script with the directory of the last start.
func (i *sandboxInstance) inService(ctx context.Context, script string) (processReport, error) {
	return i.run(ctx, i.header(i.serviceFiles(i.service.starts))+script)
}

// endGrace is how many times 50 ms the processes of a sandbox have to end after SIGTERM.
const endGrace = 200

// startService ends all processes, starts the service, and waits until it runs.
func (i *sandboxInstance) startService(ctx context.Context) error {
	config := i.target.config
	args := i.spec.Args
	if args == nil {
		args = config.Cmd
	}
	args = slices.Concat(config.Entrypoint, args)
	if len(args) == 0 {
		return errors.New("start the service: the image has no ENTRYPOINT and no CMD (set command)")
	}
	if err := i.endProcesses(ctx); err != nil {
		return err
	}
	i.service.starts++
	p := Process{Args: args, Env: i.spec.Env, User: i.spec.User, WorkDir: i.spec.WorkDir}
	const launcher = `/bin/sh -c 'echo $$ >"$0"; exec "$@"' "$d/pid"`
	script := i.header(i.serviceFiles(i.service.starts)) + `if mkdir "$d" 2>/dev/null; then
` + i.start(p, true, launcher) + `
fi`
	if i.service.cancel != nil {
		i.service.cancel()
	}
	var running context.Context
	running, i.service.cancel = context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 1)
	i.service.running.Go(func() { // until the service ends
		_, err := i.execute(running, script)
		failed <- err
	})
	for {
		report, err := i.inService(ctx, "until [ -d \"$d\" ] || [ $((n=n+1)) -ge 300 ]; do nap; done; await pid; report 2>&1")
		select {
		case startErr := <-failed:
			if startErr != nil && running.Err() == nil {
				return fmt.Errorf("start the service in %s: %w", i.name(), startErr)
			}
		default:
		}
		switch {
		case errors.Is(err, errStillRunning):
		case err != nil:
			return fmt.Errorf("start the service in %s: %w", i.name(), err)
		default:
			return i.startError(report, p)
		}
	}
}

// endProcesses ends all processes of the sandbox except its daemon, the first process, which starts scripts.
func (i *sandboxInstance) endProcesses(ctx context.Context) error {
	report, err := i.run(ctx, i.header(i.dir)+`if [ "$PPID" -gt 1 ]; then echo "$token failed `+failedDaemon+`"; exit; fi
kill -TERM -1 2>/dev/null
n=0
while kill -0 -1 2>/dev/null && [ $n -lt `+strconv.Itoa(endGrace)+` ]; do nap; n=$((n+1)); done
kill -KILL -1 2>/dev/null
echo "$token 0 0 0"`)
	switch {
	case err != nil:
		return fmt.Errorf("stop the entry point of %s: %w", i.name(), err)
	case report.failure != "":
		return unsupported("services, because its daemon is not the first process")
	}
	return nil
}

// failedDaemon is the failure of endProcesses that would end the daemon.
const failedDaemon = "daemon"

// State returns the state of the service. It runs the HEALTHCHECK, which Daytona ignores.
func (i *sandboxInstance) State(ctx context.Context) (State, error) {
	if i.service.starts == 0 {
		return State{Running: true}, nil
	}
	report, err := i.inService(ctx, "report")
	if err != nil {
		return State{}, fmt.Errorf("read the state of the service in %s: %w", i.name(), err)
	}
	state := State{Running: report.running, ExitCode: report.exit}
	if check := i.target.config.Healthcheck; i.spec.Health && state.Running && check != nil {
		state.Health, state.Probe, err = i.probe(ctx, check.Test, check.Timeout)
	}
	return state, err
}

// defaultProbeTimeout is Docker's default of HEALTHCHECK --timeout.
const defaultProbeTimeout = 30 * time.Second

// probe runs a HEALTHCHECK once.
func (i *sandboxInstance) probe(
	ctx context.Context, test []string, timeout time.Duration,
) (health, output string, err error) {
	if timeout <= 0 {
		timeout = defaultProbeTimeout
	}
	var args []string
	switch {
	case len(test) > 1 && test[0] == "CMD":
		args = test[1:]
	case len(test) > 1 && test[0] == "CMD-SHELL":
		args = []string{"/bin/sh", "-c", test[1]}
	default: // NONE
		return "", "", nil
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var printed transcript
	exit, err := printed.exitOf(i.Exec(limited, Process{Args: args, Env: i.spec.Env}, printed.streams()))
	switch {
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		return "unhealthy", fmt.Sprintf("HEALTHCHECK timed out after %s", timeout), nil
	case err != nil:
		return "", "", err
	case exit != 0:
		return "unhealthy", string(printed.all()), nil
	}
	return "healthy", string(printed.all()), nil
}

// Logs writes the output of the service.
func (i *sandboxInstance) Logs(ctx context.Context, sinceStart bool, streams Streams) error {
	first := 1
	if sinceStart {
		first = i.service.starts
	}
	for n := first; n > 0 && n <= i.service.starts; n++ {
		report, err := i.run(ctx, i.header(i.serviceFiles(n))+"report")
		if err == nil && report.failure == "" {
			err = i.copyOutput(ctx, i.serviceFiles(n), report, streams)
		}
		if err != nil {
			return fmt.Errorf("read the log of the service in %s: %w", i.name(), err)
		}
	}
	return nil
}

// Restart stops the service and starts it again.
func (i *sandboxInstance) Restart(ctx context.Context, grace time.Duration) error {
	if err := i.Stop(ctx, grace); err != nil {
		return err
	}
	return i.startService(ctx)
}

// Stop stops the service.
func (i *sandboxInstance) Stop(ctx context.Context, grace time.Duration) error {
	signal := strings.TrimPrefix(i.target.config.StopSignal, "SIG")
	if signal == "" {
		signal = "TERM"
	}
	if state, err := i.State(ctx); err != nil || !state.Running {
		return err
	}
	if err := i.Kill(ctx, signal); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	_, err := i.Wait(limited)
	if err == nil || ctx.Err() != nil || limited.Err() == nil {
		return err
	}
	if err := i.Kill(ctx, "KILL"); err != nil {
		return err
	}
	_, err = i.Wait(ctx)
	return err
}

// Kill sends a signal to the service.
func (i *sandboxInstance) Kill(ctx context.Context, signal string) error {
	report, err := i.inService(ctx, `read -r pid <"$d/pid"
message=$(kill -s `+shellQuote(signal)+` "$pid" 2>&1) && failed=0 || failed=1
if [ -s "$d/exit" ]; then failed=0; fi
echo "$token $failed 0 0
$message"`)
	switch {
	case err != nil:
		return fmt.Errorf("send SIG%s to the service in %s: %w", signal, i.name(), err)
	case report.exit != 0:
		message := truncate(strings.TrimSpace(report.output), 200)
		return fmt.Errorf("send SIG%s to the service in %s: %s", signal, i.name(), message)
	}
	return nil
}

// Wait waits for the end of the service.
func (i *sandboxInstance) Wait(ctx context.Context) (int, error) {
	for {
		report, err := i.inService(ctx, "await exit; report")
		switch {
		case errors.Is(err, errStillRunning):
		case err != nil:
			return 0, fmt.Errorf("wait for the service in %s: %w", i.name(), err)
		case !report.running:
			return report.exit, nil
		}
	}
}

// CheckPort looks for a process that listens on a port.
func (i *sandboxInstance) CheckPort(ctx context.Context, port int) error {
	report, err := i.inService(ctx, fmt.Sprintf(`for f in /proc/net/tcp /proc/net/tcp6; do
	[ -r $f ] || continue
	while read -r _ address _ state _; do
		if [ "$state ${address##*:}" = "0A %04X" ]; then echo "$token 0 0 0"; exit; fi
	done <$f
done
echo "$token 1 0 0"`, port))
	if err == nil && report.exit != 0 {
		return errors.New("no process listens on it")
	}
	return err
}

// sandboxHTTP sends requests to previews.
var sandboxHTTP = &http.Client{
	Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, DisableCompression: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Send sends a request to the preview of a port.
func (i *sandboxInstance) Send(port int, request *http.Request) (*http.Response, error) {
	if request.Host != "" {
		return nil, unsupported("requests with the header Host")
	}
	preview, ok := i.service.previews[port]
	if !ok {
		var err error
		if preview, err = i.target.client.PreviewURL(request.Context(), i.box, port); err != nil {
			return nil, err
		}
		i.service.previews[port] = preview
	}
	base, err := request.URL.Parse(preview.URL)
	if err != nil {
		return nil, fmt.Errorf("read the preview URL of port %d: %w", port, err)
	}
	request.URL.Scheme, request.URL.Host = base.Scheme, base.Host
	preview.Authorize(request)
	// apps/proxy/pkg/proxy/proxy.go in daytonaio/daytona v0.190.0: otherwise the proxy adds headers to the response.
	request.Header.Set("X-Daytona-Disable-CORS", "true")
	response, err := sandboxHTTP.Do(request)
	// libs/common-go/pkg/proxy/proxy.go in daytonaio/daytona v0.190.0: the response if the connection to the port fails.
	if err == nil && response.StatusCode == http.StatusBadGateway {
		if n, _ := io.CopyN(io.Discard, response.Body, 1); n == 0 {
			return nil, errors.Join(errors.New("connection refused, or the service does not use HTTP"), response.Body.Close())
		}
	}
	return response, err
}

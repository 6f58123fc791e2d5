package builders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/moby/buildkit/client"
)

// machine is the BuildKit daemon of one platform.
type machine struct {
	platform, dir, socket string
	fork                  *fork // between connections and the daemon

	process *os.Process
	ended   chan struct{} // closed when the process has exited
}

// start starts the daemon and waits up to 60 s until it accepts requests.
func (m *machine) start(ctx context.Context, program string, o Options) error {
	temporary := filepath.Join(m.dir, "tmp") // for the daemon's mounts
	if err := os.MkdirAll(temporary, 0o700); err != nil {
		return fmt.Errorf("builders: %w", err)
	}
	config := filepath.Join(m.dir, "buildkitd.toml")
	if err := os.WriteFile(config, []byte(configuration(m, o)), 0o600); err != nil {
		return fmt.Errorf("builders: %w", err)
	}
	logFile := filepath.Join(m.dir, "buildkitd.log")
	log, err := os.Create(logFile)
	if err != nil {
		return fmt.Errorf("builders: %w", err)
	}
	defer log.Close()

	command := exec.Command(program, "--config", config)
	command.Stdout, command.Stderr = log, log
	// The daemon creates SSH agent sockets in TMPDIR, and socket paths are limited to 107 bytes.
	short := strings.TrimSuffix(m.socket, ".sock") + ".tmp"
	if err := os.Symlink(temporary, short); err != nil {
		return fmt.Errorf("builders: %w", err)
	}
	command.Env = append(os.Environ(), "TMPDIR="+short)
	command.SysProcAttr = processAttributes()
	m.ended = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the process exits, so keep that thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(m.ended)
		err := command.Start()
		m.process = command.Process
		started <- err
		if err == nil {
			_ = command.Wait() // the log contains the reason
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("builders: start %s: %w", program, err)
	}
	return m.waitUntilReady(ctx, logFile)
}

func (m *machine) waitUntilReady(ctx context.Context, logFile string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	c, err := client.New(ctx, "unix://"+m.socket)
	if err != nil {
		return fmt.Errorf("builders: %w", err)
	}
	defer c.Close()
	for {
		_, err := c.ListWorkers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("builders: buildkitd for %s exited: %s", m.platform, exitReason(logFile))
		case <-ctx.Done():
			return fmt.Errorf("builders: buildkitd for %s does not answer: %w: %s", m.platform, err, exitReason(logFile))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop sends SIGTERM, and SIGKILL after 5 s, and removes leftover containers and mounts.
func (m *machine) stop() error {
	if m.process == nil {
		return nil
	}
	_ = m.process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(5 * time.Second):
		_ = m.process.Kill()
		<-m.ended
	}
	return errors.Join(m.removeContainers(), m.removeMounts())
}

// removeContainers removes containers that outlived the daemon: those with a bundle below its directory.
func (m *machine) removeContainers() error {
	// runc list fails if another daemon removes a container at the same time.
	list, err := backoff.Retry(context.Background(), func() ([]byte, error) {
		return exec.Command("runc", "list", "--format", "json").Output()
	}, backoff.WithMaxTries(5))
	if err != nil {
		return fmt.Errorf("builders: runc list: %w", err)
	}
	var containers []struct{ ID, Bundle string }
	if err := json.Unmarshal(list, &containers); err != nil {
		return fmt.Errorf("builders: runc list: %w", err)
	}
	var errs []error
	for _, c := range containers {
		if !strings.HasPrefix(c.Bundle, m.dir+"/") {
			continue
		}
		if out, err := exec.Command("runc", "delete", "--force", c.ID).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("builders: runc delete %s: %w: %s", c.ID, err, out))
		}
	}
	return errors.Join(errs...)
}

// removeMounts unmounts everything below the daemon's directory, innermost first.
func (m *machine) removeMounts() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("builders: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		// proc(5): the fifth field is the mount point, with octal escapes for spaces.
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if strings.HasPrefix(point, m.dir+"/") {
			points = append(points, point)
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		if err := unmount(point); err != nil {
			errs = append(errs, fmt.Errorf("builders: unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// configuration returns the daemon's buildkitd.toml.
// https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md
func configuration(m *machine, o Options) string {
	var s strings.Builder
	fmt.Fprintf(&s, "root = %q\n", filepath.Join(m.dir, "root"))
	// Depot allows both entitlements.
	fmt.Fprintf(&s, "insecure-entitlements = [%q, %q]\n", "network.host", "security.insecure")
	fmt.Fprintf(&s, "[grpc]\n  address = [%q]\n", "unix://"+m.socket)
	// All daemons on a host default to the same path, so a second daemon would exit.
	fmt.Fprintf(&s, "[otel]\n  socketPath = %q\n", strings.TrimSuffix(m.socket, ".sock")+"-otel.sock")
	fmt.Fprintf(&s, "[worker.containerd]\n  enabled = false\n")
	// RUN uses the host's network and name resolution, without a bridge.
	fmt.Fprintf(&s, "[worker.oci]\n  enabled = true\n  platforms = [%q]\n", m.platform)
	fmt.Fprintf(&s, "  binary = \"runc\"\n  networkMode = \"host\"\n")

	mirrors, http := o.Mirrors, slices.Clone(o.Insecure)
	hosts := make([]string, 0, len(mirrors))
	for host, mirror := range mirrors {
		hosts = append(hosts, host)
		http = append(http, mirror)
	}
	slices.Sort(hosts)
	for _, host := range hosts {
		fmt.Fprintf(&s, "[registry.%q]\n  mirrors = [%q]\n", host, mirrors[host])
	}
	slices.Sort(http)
	for _, host := range slices.Compact(http) {
		fmt.Fprintf(&s, "[registry.%q]\n  http = true\n", host)
	}
	return s.String()
}

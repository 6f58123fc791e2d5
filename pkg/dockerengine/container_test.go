package dockerengine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

func TestRun(t *testing.T) {
	fixture := filepath.Join(t.TempDir(), "fixture")
	if err := os.WriteFile(fixture, []byte("mounted"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		spec          ContainerSpec
		in, out, errs string
		exit          int
	}{
		{name: "default command", out: "hello by default\n"},
		{name: "different command", spec: ContainerSpec{Cmd: []string{"hello", "you"}}, out: "hello you\n"},
		{name: "different entrypoint", spec: ContainerSpec{Entrypoint: []string{"/probe", "hello"}}, out: "hello \n"},
		{name: "no entrypoint", out: "hello me\n", spec: ContainerSpec{
			Entrypoint: []string{}, Cmd: []string{"/probe", "hello", "me"},
		}},
		{name: "exit code", spec: ContainerSpec{Cmd: []string{"exit", "42"}}, exit: 42},
		{name: "both streams", spec: ContainerSpec{Cmd: []string{"streams"}}, out: "to out", errs: "to err"},
		{name: "terminal", spec: ContainerSpec{Cmd: []string{"hello", "you"}, TTY: true}, out: "hello you\r\n"},
		{name: "standard input", spec: ContainerSpec{Cmd: []string{"cat"}, Stdin: true}, in: "one\ntwo\n", out: "one\ntwo\n"},
		{name: "no standard input", spec: ContainerSpec{Cmd: []string{"cat"}}},
		{name: "default environment", spec: ContainerSpec{Cmd: []string{"env", "FROM"}}, out: "image"},
		{name: "different environment", out: "spec", spec: ContainerSpec{
			Cmd: []string{"env", "FROM"}, Env: []string{"FROM=spec"},
		}},
		{name: "root in /", spec: ContainerSpec{Cmd: []string{"where"}}, out: "0:0 /"},
		{name: "user in a directory", out: "7:8 /work", spec: ContainerSpec{
			Cmd: []string{"where"}, User: "7:8", WorkDir: "/work",
		}},
		{name: "mount", out: "mounted<nil>", spec: ContainerSpec{
			Cmd: []string{"read", "/in/file"}, Mounts: []Mount{{fixture, "/in/file"}},
		}},
		{name: "write to a mount", out: "false", spec: ContainerSpec{
			Cmd: []string{"write", "/in/file"}, Mounts: []Mount{{fixture, "/in/file"}},
		}},
		{name: "writable root file system", spec: ContainerSpec{Cmd: []string{"write", "/file"}}, out: "true"},
		{name: "read-only root file system", out: "false", spec: ContainerSpec{
			Cmd: []string{"write", "/file"}, ReadOnly: true,
		}},
		{name: "tmpfs", out: "true", spec: ContainerSpec{
			Cmd: []string{"write", "/tmp/file"}, ReadOnly: true, Tmpfs: map[string]string{"/tmp": "size=1m"},
		}},
		{name: "no capabilities", out: "0000000000000000", spec: ContainerSpec{
			Cmd: []string{"status", "CapEff"}, CapDrop: []string{"ALL"},
		}},
		{name: "no new privileges", out: "1", spec: ContainerSpec{
			Cmd: []string{"status", "NoNewPrivs"}, NoNewPrivileges: true,
		}},
		{name: "default privileges", spec: ContainerSpec{Cmd: []string{"status", "NoNewPrivs"}}, out: "0"},
		{name: "no network", spec: ContainerSpec{Cmd: []string{"read", "/sys/class/net/eth0/address"}},
			out: "open /sys/class/net/eth0/address: no such file or directory"},
		{name: "process limit", spec: ContainerSpec{Cmd: []string{"fork"}, Pids: 32}, out: "limited true\n"},
		{name: "child that outlives its parent", spec: ContainerSpec{Cmd: []string{"child"}}, out: "left true\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
				c := create(t, e, test.spec)
				var out, errs bytes.Buffer
				streams := Streams{Out: &out, Err: &errs}
				if test.in != "" {
					streams.In = strings.NewReader(test.in)
				}
				exit, err := c.Run(t.Context(), streams)
				if err != nil || exit != test.exit || out.String() != test.out || errs.String() != test.errs {
					t.Errorf("got %q and %q, exit %d (%v), want %q, %q, %d",
						&out, &errs, exit, err, test.out, test.errs, test.exit)
				}
			})
		})
	}
}

func TestRunOutOfMemory(t *testing.T) {
	onEachEngine(t, func(t *testing.T, kind string, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"memory"}, Memory: 64 << 20, CPUs: 0.5})
		exit, err := c.Run(t.Context(), Streams{})
		state, inspected := c.Inspect(t.Context())
		isReported := state.OOMKilled || kind == engine.Oldest // which misses it if it removes the cgroup first
		if err != nil || inspected != nil || exit != 137 || !isReported || state.ExitCode != 137 {
			t.Errorf("exit %d, %+v (%v, %v)", exit, state, err, inspected)
		}
	})
}

// Output is not buffered, and the engine's log of it is bounded.
func TestRunWithLargeOutput(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"spam", "50"}})
		var printed, kept atomic.Int64
		exit, err := c.Run(t.Context(), Streams{Out: counter{&printed}})
		if err != nil || exit != 0 || printed.Load() != 50<<20 {
			t.Errorf("%d bytes of output, exit %d (%v)", printed.Load(), exit, err)
		}
		err = c.Logs(t.Context(), LogOptions{}, Streams{Out: counter{&kept}})
		if err != nil || kept.Load() < 8<<20 || kept.Load() > 32<<20 {
			t.Errorf("got %d bytes in the log (%v)", kept.Load(), err)
		}

		c = create(t, e, ContainerSpec{Cmd: []string{"spam", "1000000"}})
		if _, err := c.Run(t.Context(), Streams{Out: &limited{left: 10 << 20}}); !errors.Is(err, errFull) {
			t.Errorf("got %v, want %v", err, errFull)
		}
		if state, err := c.Inspect(t.Context()); err != nil || state.Running {
			t.Errorf("the container is still running: %+v, %v", state, err)
		}
	})
}

type limited struct{ left int }

var errFull = errors.New("too much output")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestRunEndsWithContext(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"stubborn"}})
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		cause := errors.New("canceled by the test")
		out := newOutput()
		go func() {
			out.await(t, "ready")
			cancel(cause)
		}()
		if _, err := c.Run(ctx, Streams{Out: out}); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
		if state, err := c.Inspect(t.Context()); err != nil || state.Running || state.ExitCode != 137 {
			t.Errorf("got %+v, %v", state, err)
		}
	})
}

func TestRunFailures(t *testing.T) {
	for _, test := range []struct {
		name string
		spec ContainerSpec
		want []string
	}{
		{"unknown image", ContainerSpec{Image: "no/such:image"},
			[]string{"create a container of no/such:image: ", "image not found"}},
		{"unknown program", ContainerSpec{Entrypoint: []string{"/bin/sh"}, Cmd: []string{"-c", "true"}},
			[]string{"start container", "/bin/sh", "no such file"}},
		{"unknown user", ContainerSpec{User: "no-such-user"}, []string{"start container", "no-such-user"}},
		{"missing mount source", ContainerSpec{Mounts: []Mount{{"/no/such/file", "/in"}}},
			[]string{"create a container of", "/no/such/file"}},
		{"invalid port", ContainerSpec{Publish: []int{65536}}, []string{"invalid port 65536"}},
		{"unknown network", ContainerSpec{Network: "no-such-network"}, []string{"no-such-network"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
				if test.spec.Image == "" {
					test.spec.Image = loadProbe(t, e)
				}
				c, err := e.Create(t.Context(), test.spec)
				if err == nil {
					_, err = c.Run(t.Context(), Streams{})
					if removed := c.Remove(t.Context()); removed != nil {
						t.Error(removed)
					}
				}
				if err == nil {
					t.Fatal("Run succeeded")
				}
				for _, want := range test.want {
					if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
						t.Errorf("got %q, want %q", err, want)
					}
				}
			})
		})
	}
}

func TestExec(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c, out := start(t, e, ContainerSpec{Cmd: []string{"trap"}})
		out.await(t, "ready")
		for _, test := range []struct {
			name          string
			spec          ExecSpec
			in, out, errs string
			exit          int
		}{
			{name: "both streams", spec: ExecSpec{Cmd: []string{"/probe", "streams"}}, out: "to out", errs: "to err"},
			{name: "exit code", spec: ExecSpec{Cmd: []string{"/probe", "exit", "42"}}, exit: 42},
			{name: "terminal", spec: ExecSpec{Cmd: []string{"/probe", "streams"}, TTY: true}, out: "to outto err"},
			{name: "standard input", spec: ExecSpec{Cmd: []string{"/probe", "cat"}}, in: "one\ntwo", out: "one\ntwo"},
			{name: "environment", spec: ExecSpec{Cmd: []string{"/probe", "env", "A"}, Env: []string{"A=b"}}, out: "b"},
			{name: "user and directory", out: "7:0 /volume", spec: ExecSpec{
				Cmd: []string{"/probe", "where"}, User: "7", WorkDir: "/volume",
			}},
			{name: "child that outlives its parent", spec: ExecSpec{Cmd: []string{"/probe", "child"}}, out: "left true\n"},
		} {
			t.Run(test.name, func(t *testing.T) {
				var out, errs bytes.Buffer
				test.spec.Out, test.spec.Err = &out, &errs
				if test.in != "" {
					test.spec.In = strings.NewReader(test.in)
				}
				exit, err := c.Exec(t.Context(), test.spec)
				if err != nil || exit != test.exit || out.String() != test.out || errs.String() != test.errs {
					t.Errorf("got %q and %q, exit %d (%v), want %q, %q, %d",
						&out, &errs, exit, err, test.out, test.errs, test.exit)
				}
			})
		}

		t.Run("canceled", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := newOutput()
			go func() {
				out.await(t, "ready")
				cancel()
			}()
			_, err := c.Exec(ctx, ExecSpec{Cmd: []string{"/probe", "stubborn"}, Streams: Streams{Out: out}})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		if err := c.Kill(t.Context(), "KILL"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := c.Exec(t.Context(), ExecSpec{Cmd: []string{"/probe", "hello"}})
		if err == nil || !strings.Contains(err.Error(), "is not running") {
			t.Error(err)
		}
	})
}

func TestService(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c := create(t, e, ContainerSpec{
			Cmd: []string{"serve", "8080"}, Publish: []int{8080}, HealthInterval: 50 * time.Millisecond,
		})
		state, err := c.Inspect(t.Context())
		if err != nil || state.Status != "created" || state.Running || !state.StartedAt.IsZero() {
			t.Errorf("got %+v, %v", state, err)
		}
		before := time.Now()
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time, after a restart
			state := waitUntilHealthy(t, c)
			if !state.Running || state.Status != "running" || state.Probe != "[200 OK]" ||
				state.StartedAt.Before(before) || len(state.Ports) != 1 {
				t.Errorf("got %+v", state)
			}
			if got := get(t, "http://"+state.Ports[8080]); got != "served" {
				t.Errorf("GET returns %q", got)
			}
			before = time.Now()
			if _, err := c.Restart(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func waitUntilHealthy(t *testing.T, c *Container) State {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		state, err := c.Inspect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if state.Health == "healthy" {
			return state
		}
		if time.Now().After(deadline) {
			t.Fatalf("not healthy: %+v", state)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// The time that Restart returns separates the output of the two runs, including what the first one prints at its end.
func TestRestartSeparatesLogs(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c, out := start(t, e, ContainerSpec{Cmd: []string{"trap"}})
		out.await(t, "ready")
		for range 3 {
			between, err := c.Restart(t.Context(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			log := newOutput()
			followed := make(chan error, 1)
			go func() {
				followed <- c.Logs(t.Context(), LogOptions{Since: between, Follow: true}, Streams{Out: log})
			}()
			log.await(t, "ready")
			if err := c.Stop(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := <-followed; err != nil || log.String() != "ready\nterminated\n" {
				t.Errorf("got %q, %v", log, err)
			}
		}
	})
}

func TestSignalsAndStop(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c, out := start(t, e, ContainerSpec{Cmd: []string{"trap"}})
		out.await(t, "ready")
		if err := c.Kill(t.Context(), "HUP"); err != nil {
			t.Fatal(err)
		}
		out.await(t, "hangup")
		if err := c.Stop(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(t.Context()); err != nil || exit != 3 {
			t.Errorf("exit %d, %v", exit, err)
		}
		var log bytes.Buffer
		err := c.Logs(t.Context(), LogOptions{Follow: true}, Streams{Out: &log})
		if err != nil || log.String() != "ready\nhangup\nterminated\n" {
			t.Errorf("got %q, %v", &log, err)
		}

		c, out = start(t, e, ContainerSpec{Cmd: []string{"stubborn"}})
		out.await(t, "ready")
		if err := c.Stop(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
		state, err := c.Inspect(t.Context())
		if err != nil || state.Running || state.ExitCode != 137 || state.OOMKilled || state.FinishedAt.IsZero() {
			t.Errorf("got %+v, %v", state, err)
		}
	})
}

func TestRemove(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		c, out := start(t, e, ContainerSpec{Cmd: []string{"stubborn"}})
		out.await(t, "ready")
		volumes := volumesOf(t, e, c)
		if len(volumes) != 1 {
			t.Fatalf("the volumes are %q, want one", volumes)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		var group sync.WaitGroup
		for range 4 { // concurrent calls all succeed
			group.Go(func() {
				if err := c.Remove(canceled); err != nil {
					t.Error(err)
				}
				if _, err := c.Inspect(t.Context()); !cerrdefs.IsNotFound(err) {
					t.Errorf("got %v, want not found", err)
				}
			})
		}
		group.Wait()
		_, err := e.client.VolumeInspect(t.Context(), volumes[0], client.VolumeInspectOptions{})
		if !cerrdefs.IsNotFound(err) {
			t.Error("the volume was not removed")
		}
	})
}

func volumesOf(t *testing.T, e *Engine, c *Container) (names []string) {
	t.Helper()
	inspected, err := e.client.ContainerInspect(t.Context(), c.ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range inspected.Container.Mounts {
		names = append(names, m.Name)
	}
	return names
}

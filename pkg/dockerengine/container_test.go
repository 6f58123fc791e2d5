package dockerengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/moby/moby/client"
)

// loaded is an image of the probe alone, in the engine once for all tests.
func loaded(t *testing.T, e *Engine) string {
	t.Helper()
	const name = "probe:test"
	mutex.Lock()
	defer mutex.Unlock()
	if id, err := e.ImageID(t.Context(), name); err != nil || id != "" {
		return name
	}
	img := image(t, "by default")
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config.Env = []string{"FROM=image"}
	config.Config.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/probe", "check", "8080"}, Interval: time.Hour, Timeout: 10 * time.Second, Retries: 1}
	config.Config.Volumes = map[string]struct{}{"/volume": {}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), name, img); err != nil {
		t.Fatal(err)
	}
	return name
}

var mutex sync.Mutex

// create makes a container of the probe that is removed with the test.
func create(t *testing.T, e *Engine, spec ContainerSpec) *Container {
	t.Helper()
	if spec.Image == "" {
		spec.Image = loaded(t, e)
	}
	c, err := e.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// start starts one and waits until it prints a line.
func start(t *testing.T, e *Engine, spec ContainerSpec) (*Container, *lines) {
	t.Helper()
	c := create(t, e, spec)
	out := newLines()
	if _, err := c.Attach(t.Context(), Streams{Out: out, Err: out}); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, out
}

// lines is a writer whose lines can be waited for.
type lines struct {
	mutex sync.Mutex
	text  bytes.Buffer
	more  chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.text.Write(p)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

func (l *lines) await(t *testing.T, want string) {
	t.Helper()
	for deadline := time.After(time.Minute); !strings.Contains(l.String(), want); {
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("it printed %q, not %q", l, want)
		}
	}
}

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
		{name: "the image as it is", out: "hello by default\n"},
		{name: "another command", spec: ContainerSpec{Cmd: []string{"hello", "you"}}, out: "hello you\n"},
		{name: "another entrypoint", spec: ContainerSpec{Entrypoint: []string{"/probe", "hello"}}, out: "hello \n"},
		{name: "no entrypoint", spec: ContainerSpec{Entrypoint: []string{}, Cmd: []string{"/probe", "hello", "me"}}, out: "hello me\n"},
		{name: "an exit code", spec: ContainerSpec{Cmd: []string{"exit", "42"}}, exit: 42},
		{name: "both streams", spec: ContainerSpec{Cmd: []string{"streams"}}, out: "to out", errs: "to err"},
		{name: "a terminal", spec: ContainerSpec{Cmd: []string{"hello", "you"}, TTY: true}, out: "hello you\r\n"},
		{name: "standard input", spec: ContainerSpec{Cmd: []string{"cat"}, Stdin: true}, in: "one\ntwo\n", out: "one\ntwo\n"},
		{name: "no standard input", spec: ContainerSpec{Cmd: []string{"cat"}}},
		{name: "the image's environment", spec: ContainerSpec{Cmd: []string{"env", "FROM"}}, out: "image"},
		{name: "another environment", spec: ContainerSpec{Cmd: []string{"env", "FROM"}, Env: []string{"FROM=spec"}}, out: "spec"},
		{name: "root in /", spec: ContainerSpec{Cmd: []string{"where"}}, out: "0:0 /"},
		{name: "a user in a directory", spec: ContainerSpec{Cmd: []string{"where"}, User: "7:8", WorkDir: "/work"}, out: "7:8 /work"},
		{name: "a mount", spec: ContainerSpec{Cmd: []string{"read", "/in/file"}, Mounts: []Mount{{fixture, "/in/file"}}}, out: "mounted<nil>"},
		{name: "a mount is read only", spec: ContainerSpec{Cmd: []string{"write", "/in/file"}, Mounts: []Mount{{fixture, "/in/file"}}}, out: "false"},
		{name: "files that can be written", spec: ContainerSpec{Cmd: []string{"write", "/file"}}, out: "true"},
		{name: "files that are read only", spec: ContainerSpec{Cmd: []string{"write", "/file"}, ReadOnly: true}, out: "false"},
		{name: "a tmpfs over them", spec: ContainerSpec{Cmd: []string{"write", "/tmp/file"}, ReadOnly: true, Tmpfs: map[string]string{"/tmp": "size=1m"}}, out: "true"},
		{name: "no capabilities", spec: ContainerSpec{Cmd: []string{"status", "CapEff"}, CapDrop: []string{"ALL"}}, out: "0000000000000000"},
		{name: "no new privileges", spec: ContainerSpec{Cmd: []string{"status", "NoNewPrivs"}, NoNewPrivileges: true}, out: "1"},
		{name: "privileges as they are", spec: ContainerSpec{Cmd: []string{"status", "NoNewPrivs"}}, out: "0"},
		{name: "no network", spec: ContainerSpec{Cmd: []string{"read", "/sys/class/net/eth0/address"}},
			out: "open /sys/class/net/eth0/address: no such file or directory"},
		{name: "forks without end", spec: ContainerSpec{Cmd: []string{"fork"}, Pids: 32}, out: "refused true\n"},
		{name: "a child is left", spec: ContainerSpec{Cmd: []string{"child"}}, out: "left true\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, e *Engine) {
				c := create(t, e, test.spec)
				var out, errs bytes.Buffer
				streams := Streams{Out: &out, Err: &errs}
				if test.in != "" {
					streams.In = strings.NewReader(test.in)
				}
				exit, err := c.Run(t.Context(), streams)
				if err != nil || exit != test.exit || out.String() != test.out || errs.String() != test.errs {
					t.Errorf("%q and %q, exit %d (%v), want %q, %q, %d", &out, &errs, exit, err, test.out, test.errs, test.exit)
				}
			})
		})
	}
}

func TestRunOutOfMemory(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"memory"}, Memory: 64 << 20, CPUs: 0.5})
		exit, err := c.Run(t.Context(), Streams{})
		state, inspected := c.Inspect(t.Context())
		if err != nil || inspected != nil || exit != 137 || !state.OOMKilled || state.ExitCode != 137 {
			t.Errorf("exit %d, %+v (%v, %v)", exit, state, err, inspected)
		}
	})
}

// What a container prints is not kept: neither by us, nor without end by the engine.
func TestRunPrintsMuch(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"spam", "50"}})
		var printed, kept atomic.Int64
		exit, err := c.Run(t.Context(), Streams{Out: counter{&printed}})
		if err != nil || exit != 0 || printed.Load() != 50<<20 {
			t.Errorf("%d bytes, exit %d (%v)", printed.Load(), exit, err)
		}
		if err := c.Logs(t.Context(), false, Streams{Out: counter{&kept}}); err != nil || kept.Load() < 8<<20 || kept.Load() > 32<<20 {
			t.Errorf("%d bytes are kept (%v)", kept.Load(), err)
		}

		c = create(t, e, ContainerSpec{Cmd: []string{"spam", "1000000"}})
		if _, err := c.Run(t.Context(), Streams{Out: &limited{left: 10 << 20}}); !errors.Is(err, errFull) {
			t.Errorf("%v, want %v", err, errFull)
		}
		if state, err := c.Inspect(t.Context()); err != nil || state.Running {
			t.Errorf("it runs on: %+v, %v", state, err)
		}
	})
}

type limited struct{ left int }

var errFull = errors.New("it prints too much")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestRunEndsWithItsContext(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"stubborn"}})
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		why := errors.New("the test has lasted long enough")
		out := newLines()
		go func() {
			out.await(t, "ready")
			cancel(why)
		}()
		if _, err := c.Run(ctx, Streams{Out: out}); !errors.Is(err, why) {
			t.Errorf("%v, want %v", err, why)
		}
		if state, err := c.Inspect(t.Context()); err != nil || state.Running || state.ExitCode != 137 {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

func TestRunSaysWhyNot(t *testing.T) {
	for _, test := range []struct {
		name string
		spec ContainerSpec
		want []string
	}{
		{"no such image", ContainerSpec{Image: "no/such:image"}, []string{"create a container of no/such:image: ", "no such image: build or load it first"}},
		{"no such program", ContainerSpec{Entrypoint: []string{"/bin/sh"}, Cmd: []string{"-c", "true"}}, []string{"start container", "/bin/sh", "no such file"}},
		{"no such user", ContainerSpec{User: "nobody-knows"}, []string{"start container", "nobody-knows"}},
		{"no such mount", ContainerSpec{Mounts: []Mount{{"/no/such/file", "/in"}}}, []string{"create a container of", "/no/such/file"}},
		{"no such port", ContainerSpec{Publish: []int{65536}}, []string{"65536 is not a port"}},
		{"no such network", ContainerSpec{Network: "no-such-network"}, []string{"no-such-network"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, e *Engine) {
				if test.spec.Image == "" {
					test.spec.Image = loaded(t, e)
				}
				c, err := e.Create(t.Context(), test.spec)
				if err == nil {
					_, err = c.Run(t.Context(), Streams{})
					if removed := c.Remove(t.Context()); removed != nil {
						t.Error(removed)
					}
				}
				if err == nil {
					t.Fatal("it ran")
				}
				for _, want := range test.want {
					if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
						t.Errorf("%q, want %q", err, want)
					}
				}
			})
		})
	}
}

func TestExec(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		c, out := start(t, e, ContainerSpec{Cmd: []string{"trap"}})
		out.await(t, "ready")
		for _, test := range []struct {
			name          string
			spec          ExecSpec
			in, out, errs string
			exit          int
		}{
			{name: "both streams", spec: ExecSpec{Cmd: []string{"/probe", "streams"}}, out: "to out", errs: "to err"},
			{name: "an exit code", spec: ExecSpec{Cmd: []string{"/probe", "exit", "42"}}, exit: 42},
			{name: "a terminal", spec: ExecSpec{Cmd: []string{"/probe", "streams"}, TTY: true}, out: "to outto err"},
			{name: "standard input", spec: ExecSpec{Cmd: []string{"/probe", "cat"}}, in: "one\ntwo", out: "one\ntwo"},
			{name: "environment", spec: ExecSpec{Cmd: []string{"/probe", "env", "A"}, Env: []string{"A=b"}}, out: "b"},
			{name: "user and directory", spec: ExecSpec{Cmd: []string{"/probe", "where"}, User: "7", WorkDir: "/volume"}, out: "7:0 /volume"},
			{name: "a child is left", spec: ExecSpec{Cmd: []string{"/probe", "child"}}, out: "left true\n"},
		} {
			t.Run(test.name, func(t *testing.T) {
				var out, errs bytes.Buffer
				test.spec.Out, test.spec.Err = &out, &errs
				if test.in != "" {
					test.spec.In = strings.NewReader(test.in)
				}
				exit, err := c.Exec(t.Context(), test.spec)
				if err != nil || exit != test.exit || out.String() != test.out || errs.String() != test.errs {
					t.Errorf("%q and %q, exit %d (%v), want %q, %q, %d", &out, &errs, exit, err, test.out, test.errs, test.exit)
				}
			})
		}

		t.Run("no such program", func(t *testing.T) {
			var out bytes.Buffer
			exit, err := c.Exec(t.Context(), ExecSpec{Cmd: []string{"/bin/sh", "-c", "true"}, Streams: Streams{Out: &out, Err: &out}})
			if err != nil || exit != 126 && exit != 127 || !strings.Contains(out.String(), "/bin/sh") || !strings.Contains(out.String(), "no such file") {
				t.Errorf("%q, exit %d, %v", &out, exit, err)
			}
		})
		t.Run("its context ends", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out := newLines()
			go func() {
				out.await(t, "ready")
				cancel()
			}()
			if _, err := c.Exec(ctx, ExecSpec{Cmd: []string{"/probe", "stubborn"}, Streams: Streams{Out: out}}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		if err := c.Kill(t.Context(), "KILL"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), ExecSpec{Cmd: []string{"/probe", "hello"}}); err == nil || !strings.Contains(err.Error(), "is not running") {
			t.Error(err)
		}
	})
}

func TestAService(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		c := create(t, e, ContainerSpec{Cmd: []string{"serve", "8080"}, Publish: []int{8080}, HealthInterval: 50 * time.Millisecond})
		if state, err := c.Inspect(t.Context()); err != nil || state.Status != "created" || state.Running || !state.StartedAt.IsZero() {
			t.Errorf("%+v, %v", state, err)
		}
		before := time.Now()
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time after a restart
			state := healthy(t, c)
			if !state.Running || state.Status != "running" || state.Probe != "[200 OK]" || state.StartedAt.Before(before) || len(state.Ports) != 1 {
				t.Errorf("%+v", state)
			}
			if got := get(t, "http://"+state.Ports[8080]); got != "served" {
				t.Errorf("it answers %q", got)
			}
			before = time.Now()
			if err := c.Restart(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func healthy(t *testing.T, c *Container) State {
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
			t.Fatalf("%+v", state)
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

func TestSignalsAndStop(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
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
		if err := c.Logs(t.Context(), true, Streams{Out: &log}); err != nil || log.String() != "ready\nhangup\nterminated\n" {
			t.Errorf("%q, %v", &log, err)
		}

		c, out = start(t, e, ContainerSpec{Cmd: []string{"stubborn"}})
		out.await(t, "ready")
		if err := c.Stop(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
		state, err := c.Inspect(t.Context())
		if err != nil || state.Running || state.ExitCode != 137 || state.OOMKilled || state.FinishedAt.IsZero() {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

func TestRemove(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		c, out := start(t, e, ContainerSpec{Cmd: []string{"stubborn"}})
		out.await(t, "ready")
		volumes := volumesOf(t, e, c)
		if len(volumes) != 1 {
			t.Fatalf("its volumes are %q", volumes)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		var group sync.WaitGroup
		for range 4 { // at once: one of them does it, and all see it gone
			group.Go(func() {
				if err := c.Remove(cancelled); err != nil {
					t.Error(err)
				}
				if _, err := c.Inspect(t.Context()); err == nil || !strings.Contains(strings.ToLower(err.Error()), "no such container") {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if _, err := e.client.VolumeInspect(t.Context(), volumes[0], client.VolumeInspectOptions{}); err == nil {
			t.Error("its volume is left")
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

// The process that TestReap kills: it makes a container of PROBE and waits.
func makeAndWait(host string) {
	e, err := Open(context.Background(), env(map[string]string{"DOCKER_HOST": host}))
	if err == nil {
		var c *Container
		if c, err = e.Create(context.Background(), ContainerSpec{Image: "probe:test", Cmd: []string{"stubborn"}}); err == nil {
			if err = c.Start(context.Background()); err == nil {
				fmt.Println(c.ID)
				select {}
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestReap(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		loaded(t, e)
		ours := create(t, e, ContainerSpec{})
		foreign, err := e.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{Image: "probe:test"})
		if err != nil {
			t.Fatal(err)
		}
		defer e.client.ContainerRemove(context.Background(), foreign.ID, client.ContainerRemoveOptions{})

		other := exec.Command(os.Args[0])
		other.Env = append(os.Environ(), "ENGINE_TEST_OWNER_OF="+e.Host)
		other.Stderr = t.Output()
		stdout, err := other.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		var theirs string
		if _, err := fmt.Fscan(stdout, &theirs); err != nil {
			t.Fatal(err)
		}
		is := func(when string, want ...string) {
			t.Helper()
			got, err := e.Containers(t.Context(), untilLabel)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range want {
				if !strings.Contains(strings.Join(got, " "), id) {
					t.Errorf("%s: %q are there, want %q", when, got, want)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %q are there, want %q", when, got, want)
			}
		}
		if n, err := e.Reap(t.Context()); n != 0 || err != nil {
			t.Errorf("%d reaped, %v", n, err)
		}
		is("while it lives", ours.ID, theirs)
		if err := other.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = other.Wait()
		if n, err := e.Reap(t.Context()); n != 1 || err != nil {
			t.Errorf("%d reaped, %v", n, err)
		}
		is("when it is dead", ours.ID)
		if _, err := e.client.ContainerInspect(t.Context(), foreign.ID, client.ContainerInspectOptions{}); err != nil {
			t.Errorf("a container that is not ours was removed: %v", err)
		}
	})
}

func TestOrphaned(t *testing.T) {
	now := time.Now()
	us, err := processOwner(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	reused, elsewhere, dead := us, us, us
	reused.start = "1"
	elsewhere.machine, elsewhere.start = "other/pid:[1]", "1"
	dead.pid = 1 << 30
	until := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	for _, test := range []struct {
		name, owner, until string
		want               bool
	}{
		{"ours", us.String(), until(time.Hour), false},
		{"ours, forgotten", us.String(), until(-time.Hour), true},
		{"of a process that is gone", dead.String(), until(time.Hour), true},
		{"of a process whose number is another's", reused.String(), until(time.Hour), true},
		{"of another machine", elsewhere.String(), until(time.Hour), false},
		{"of another machine, forgotten", elsewhere.String(), until(-time.Hour), true},
		{"of nobody", "", until(time.Hour), false},
		{"with another's label", us.String(), "tomorrow", false},
	} {
		if got := orphaned(map[string]string{ownerLabel: test.owner, untilLabel: test.until}, now); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

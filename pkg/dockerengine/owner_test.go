package dockerengine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// ownerProcess is the environment variable that makes the test binary create a container on an engine, or pull an
// image, and wait. Tests start such a process with startOwner and kill it.
const ownerProcess = "DOCKERENGINE_TEST_OWNER_ON"

func runOwner(task string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	task, host, _ := strings.Cut(task, " ")
	e, err := Open(context.Background(), env(map[string]string{"DOCKER_HOST": host}))
	if err != nil {
		fail(err)
	}
	switch task {
	case "container":
		c, err := e.Create(context.Background(), ContainerSpec{Image: probeImage, Cmd: []string{"stubborn"}})
		if err == nil {
			err = c.Start(context.Background())
		}
		if err != nil {
			fail(err)
		}
		fmt.Println(c.ID)
		select {}
	case "pull":
		img, err := random.Image(1000, 1)
		if err != nil {
			fail(err)
		}
		a, err := newArchive(img, true)
		if err != nil {
			fail(err)
		}
		_, err = e.pullImage(context.Background(), a, a.layers, func() error {
			fmt.Println(a.manifest)
			select {}
		})
		fail(err)
	}
}

// startOwner starts a process with a task of runOwner. It returns the process's first word of output, and a function
// that kills the process.
func startOwner(t *testing.T, task string, e *Engine) (output string, kill func()) {
	t.Helper()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), ownerProcess+"="+task+" "+e.Host)
	other.Stderr = t.Output()
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	})
	t.Cleanup(kill)
	if _, err := fmt.Fscan(stdout, &output); err != nil {
		t.Fatal(err)
	}
	return output, kill
}

func TestReap(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		loadProbe(t, e)
		own := create(t, e, ContainerSpec{})
		unlabeled, err := e.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{Image: probeImage})
		if err != nil {
			t.Fatal(err)
		}
		defer e.client.ContainerRemove(context.Background(), unlabeled.ID, client.ContainerRemoveOptions{})

		others, kill := startOwner(t, "container", e)
		checkContainers := func(want ...string) {
			t.Helper()
			slices.Sort(want)
			if got, err := e.Containers(t.Context(), untilLabel); err != nil || !slices.Equal(got, want) {
				t.Errorf("containers %q, want %q (%v)", got, want, err)
			}
		}
		if n, err := e.Reap(t.Context()); n != 0 || err != nil {
			t.Errorf("Reap removed %d, %v", n, err)
		}
		checkContainers(own.ID, others)
		kill()
		if n, err := e.Reap(t.Context()); n != 1 || err != nil {
			t.Errorf("Reap removed %d, %v", n, err)
		}
		checkContainers(own.ID)
		if _, err := e.client.ContainerInspect(t.Context(), unlabeled.ID, client.ContainerInspectOptions{}); err != nil {
			t.Errorf("a container without labels was removed: %v", err)
		}
	})
}

// A load removes the temporary names of a process that was killed during a load, and the images without other names. It
// keeps those of running processes.
func TestLoadRemovesLeftovers(t *testing.T) {
	e := openHost(t, engineHost(t, engine.Current))
	if !e.isLocal() {
		t.Skip("the engine cannot pull from this machine")
	}
	killed, kill := startOwner(t, "pull", e)
	running, _ := startOwner(t, "pull", e)
	kill()
	removeImage(t, e, running)
	removeImage(t, e, "leftovers:ci")
	if id, err := e.ImageID(t.Context(), killed); id != killed || err != nil {
		t.Fatalf("the killed process left %q (%v)", id, err)
	}
	if _, err := e.Load(t.Context(), "leftovers:ci", newImage(t, "next")); err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{killed: "", running: running} {
		if id, err := e.ImageID(t.Context(), image); id != want || err != nil {
			t.Errorf("image %s: got %q, want %q (%v)", image, id, want, err)
		}
	}
}

func TestTemporaryLabels(t *testing.T) {
	now := time.Now()
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	got := temporaryLabels("127.0.0.1:5000/" + temporaryRepository(now) + digest)
	if want := ownerLabels(now); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, name := range []string{
		"", "alpine:3", "127.0.0.1:5000/sandbox-actions" + digest, "127.0.0.1:5000/sandbox-actions-a-1-2" + digest,
		"127.0.0.1:5000/team/" + temporaryRepository(now) + digest, "127.0.0.1:5000/other-a-1-2-3-r" + digest,
	} {
		if got := temporaryLabels(name); got != nil || orphaned(got, now) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestOrphaned(t *testing.T) {
	now := time.Now()
	self, err := processOwner(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	reused, remote, dead := self, self, self
	reused.start = "1"
	remote.machine, remote.start = "other/pid:[1]", "1"
	dead.pid = 1 << 30
	until := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	for _, test := range []struct {
		name, owner, until string
		want               bool
	}{
		{"this process", self.String(), until(time.Hour), false},
		{"this process, expired", self.String(), until(-time.Hour), true},
		{"ended process", dead.String(), until(time.Hour), true},
		{"process with a reused PID", reused.String(), until(time.Hour), true},
		{"process of another machine", remote.String(), until(time.Hour), false},
		{"process of another machine, expired", remote.String(), until(-time.Hour), true},
		{"no owner", "", until(time.Hour), false},
		{"invalid time", dead.String(), "tomorrow", false},
		{"no label", "", "", false},
	} {
		if got := orphaned(map[string]string{ownerLabel: test.owner, untilLabel: test.until}, now); got != test.want {
			t.Errorf("%s: orphaned is %t", test.name, got)
		}
	}
}

package dockerengine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// ownerProcess is the environment variable that makes the test binary create a container on an engine and wait.
// TestReap starts such a process and kills it.
const ownerProcess = "DOCKERENGINE_TEST_OWNER_ON"

func createContainerAndWait(host string) {
	e, err := Open(context.Background(), env(map[string]string{"DOCKER_HOST": host}))
	if err == nil {
		var c *Container
		if c, err = e.Create(context.Background(), ContainerSpec{Image: probeImage, Cmd: []string{"stubborn"}}); err == nil {
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
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		loadProbe(t, e)
		own := create(t, e, ContainerSpec{})
		unlabeled, err := e.client.ContainerCreate(t.Context(), client.ContainerCreateOptions{Image: probeImage})
		if err != nil {
			t.Fatal(err)
		}
		defer e.client.ContainerRemove(context.Background(), unlabeled.ID, client.ContainerRemoveOptions{})

		other := exec.Command(os.Args[0])
		other.Env = append(os.Environ(), ownerProcess+"="+e.Host)
		other.Stderr = t.Output()
		stdout, err := other.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		var others string
		if _, err := fmt.Fscan(stdout, &others); err != nil {
			t.Fatal(err)
		}
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
		if err := other.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = other.Wait()
		if n, err := e.Reap(t.Context()); n != 1 || err != nil {
			t.Errorf("Reap removed %d, %v", n, err)
		}
		checkContainers(own.ID)
		if _, err := e.client.ContainerInspect(t.Context(), unlabeled.ID, client.ContainerInspectOptions{}); err != nil {
			t.Errorf("a container without labels was removed: %v", err)
		}
	})
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

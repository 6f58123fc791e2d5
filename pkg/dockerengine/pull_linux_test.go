package dockerengine

import (
	"errors"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// The engine cannot reach the loopback interface of a job that runs in a container with the engine's socket.
func TestLoadFromAnotherNetwork(t *testing.T) {
	e := openHost(t, engineHost(t, engine.Current))
	removeImage(t, e, "elsewhere:ci")
	img := newImage(t, "elsewhere")
	a := must(newArchive(img, true))
	if !e.canPull(t.Context(), a.layers) {
		t.Error("canPull is false")
	}
	type result struct {
		loaded      Loaded
		pulled, err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread and its network namespace end with the goroutine
		var r result
		if r.err = unix.Unshare(unix.CLONE_NEWNET); r.err == nil {
			r.err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		if r.err == nil {
			_, r.pulled = e.pullImage(t.Context(), a, a.layers, func() error { return nil })
			r.loaded, r.err = e.Load(t.Context(), "elsewhere:ci", img)
		}
		done <- r
	}()
	r := <-done
	if r.err != nil || r.loaded.Sent == 0 {
		t.Errorf("got %+v, %v", r.loaded, r.err)
	}
	if !errors.Is(r.pulled, errCannotPull) {
		t.Errorf("pull: %v, want %v", r.pulled, errCannotPull)
	}
	if got := outputOf(t, e, "elsewhere:ci"); got != "hello elsewhere" {
		t.Error(got)
	}
}

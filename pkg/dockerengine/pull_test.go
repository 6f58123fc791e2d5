package dockerengine

import (
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// A job in a container that is given the engine's socket has a loopback of its own, which the engine does not reach: the archive
// does it.
func TestLoadFromAnotherNetwork(t *testing.T) {
	e := openHost(t, engines[engine.Current])
	remove(t, e, "elsewhere:ci")
	img := image(t, "elsewhere")
	a := must(newArchive(img))
	if !e.mayPull(t.Context()) {
		t.Error("this engine is not one to pull")
	}
	type result struct {
		loaded      Loaded
		pulled, err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with us, and its network with it
		var r result
		if r.err = unix.Unshare(unix.CLONE_NEWNET); r.err == nil {
			r.err = exec.Command("ip", "link", "set", "lo", "up").Run() // scripts/packages.sh installs it
		}
		if r.err == nil {
			_, r.pulled = e.pull(t.Context(), a, func() error { return nil })
			r.loaded, r.err = e.Load(t.Context(), "elsewhere:ci", img)
		}
		done <- r
	}()
	r := <-done
	if r.err != nil || r.loaded.Sent == 0 {
		t.Errorf("%+v, %v", r.loaded, r.err)
	}
	if r.pulled == nil {
		t.Error("the engine pulled from a network that it is not in")
	}
	if got := prints(t, e, "elsewhere:ci"); got != "hello elsewhere" {
		t.Error(got)
	}
}

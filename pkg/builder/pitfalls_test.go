package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"connectrpc.com/connect"
	depotgo "github.com/depot/depot-go/machine"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// What goes wrong with github.com/depot/depot-go v0.5.1 does not go wrong here: keys in temporary files, health that is reported for ever,
// a second release that panics, a canceled build that is never finished, no second try, words on standard output, one try a second, platforms'
// names.

// watch tells which files were made in a folder since, even if they are gone.
func watch(t *testing.T, dir string) (made func() []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		var names []string
		buffer := make([]byte, 1<<16)
		for {
			n, err := unix.Read(fd, buffer)
			if errors.Is(err, unix.EAGAIN) {
				return names
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < n; {
				event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[i]))
				i += unix.SizeofInotifyEvent
				names = append(names, string(bytes.TrimRight(buffer[i:i+int(event.Len)], "\x00")))
				i += int(event.Len)
			}
		}
	}
}

func TestNoKeyReachesAFile(t *testing.T) {
	temporary, home := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	inTemporary, inHome := watch(t, temporary), watch(t, home)

	theirs := &depotgo.Machine{Addr: "tcp://127.0.0.1:1", Cert: "certificate", Key: "key"}
	if _, err := theirs.Client(t.Context()); err == nil {
		t.Error("a certificate that is none was taken")
	}
	if made := strings.Join(inTemporary(), " "); !strings.Contains(made, "depot-key") {
		t.Fatalf("this test does not see what depot-go writes: %q", made)
	}

	j := &journal{}
	s := startDepot(t)
	b := startBuild(t, depot(j, "project-token"), Request{Platforms: []string{"linux/amd64", "linux/arm64"}})
	for _, name := range []string{"linux/amd64", "linux/arm64"} {
		c, err := b.Machine(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		tree := t.TempDir() // below the test's own folder, not below the temporary one
		if strings.HasPrefix(tree, temporary) {
			t.Fatal("the context is in the watched folder")
		}
		if err := solve(t.Context(), t, c, oneFile); err != nil {
			t.Fatal(err)
		}
	}
	b.Finish(nil)
	if made := append(inTemporary(), inHome()...); len(made) > 0 {
		t.Errorf("files were made: %q", made)
	}
	keys := 0
	for _, secret := range j.secrets() {
		if strings.Contains(secret, "PRIVATE KEY") {
			keys++
		}
	}
	if keys != 2 {
		t.Errorf("%d private keys were masked, want one for each machine", keys)
	}
	if n := calls(s, "FinishBuild", nil); n != 1 {
		t.Errorf("%d calls of FinishBuild", n)
	}
}

func TestNothingOnStandardOutput(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/output")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = file, file
	log.SetOutput(file)
	defer func() {
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(stderr)
	}()
	set(t, &healthPeriod, time.Millisecond)
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "ReportBuildHealth", Code: connect.CodeInternal, Message: "no"}) // depot-go prints this one
	s.Fail(depotapi.Fault{Method: "FinishBuild", Code: connect.CodeInternal, Message: "no"})       // and logs this one
	j := &journal{}
	b := startBuild(t, depot(j, "project-token"), Request{})
	if _, err := b.Machine(t.Context(), "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second report", func() bool { return calls(s, "ReportBuildHealth", nil) > 1 })
	b.Finish(nil)
	written, err := os.ReadFile(file.Name())
	if err != nil || len(written) > 0 {
		t.Errorf("written: %q, %v", written, err)
	}
	want := "Depot did not take a report that the build lives (internal: no); it goes on\n" +
		"Depot could not be told that build " + b.ID + " is over (internal: no): it will notice by itself"
	if got := j.text(); got != want {
		t.Errorf("logged, want once each:\n%s\ngot:\n%s", want, got)
	}
}

func TestHealthIsReported(t *testing.T) {
	reports := func(s *depotapi.Server, platform string) int {
		return calls(s, "ReportBuildHealth", func(c depotapi.Call) bool { return c.Platform == platform })
	}
	ended := func() bool { return !strings.Contains(goroutines(), "reportHealth") }

	t.Run("before a machine is there, while it works, and not after", func(t *testing.T) {
		set(t, &healthPeriod, time.Millisecond)
		hold := make(chan struct{})
		s := startDepot(t)
		s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Hold: hold, Times: 1})
		b := startBuild(t, depot(&journal{}, "project-token"), Request{})
		var asked errgroup.Group
		asked.Go(func() error { _, err := b.Machine(t.Context(), "linux/arm64"); return err })
		eventually(t, "a report before a machine", func() bool { return reports(s, "linux/arm64") > 0 })
		if n := calls(s, "GetBuildKitConnection", func(c depotapi.Call) bool { return c.State == "active" }); n != 0 {
			t.Error("the machine was there already")
		}
		close(hold)
		if err := asked.Wait(); err != nil {
			t.Fatal(err)
		}
		before := reports(s, "linux/arm64")
		eventually(t, "more reports", func() bool { return reports(s, "linux/arm64") > before+2 })
		b.Finish(nil)
		if !ended() {
			t.Error("reports go on after Finish")
		}
		if n := reports(s, "linux/amd64"); n != 0 {
			t.Errorf("%d reports for a platform that nobody asked for", n)
		}
	})

	t.Run("not after a machine could not be had", func(t *testing.T) {
		set(t, &healthPeriod, time.Millisecond)
		s := startDepot(t)
		s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Code: connect.CodePermissionDenied, Message: "no"})
		b := startBuild(t, depot(&journal{}, "project-token"), Request{})
		if _, err := b.Machine(t.Context(), "linux/amd64"); err == nil {
			t.Fatal("a machine")
		}
		eventually(t, "the end of the reports", ended) // before Finish, with nobody to stop them
		b.Finish(errors.New("no machine"))
	})
}

// Depot says with its answers to health reports when it will cancel a build.
func TestDepotsLimitIsSaid(t *testing.T) {
	set(t, &healthPeriod, time.Millisecond)
	s := startDepot(t, func(o *depotapi.Options) { o.Limit = time.Hour })
	j := &journal{}
	b := startBuild(t, depot(j, "project-token"), Request{})
	if _, err := b.Machine(t.Context(), "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "more than one report", func() bool { return calls(s, "ReportBuildHealth", nil) > 2 })
	b.Finish(nil)
	if text := j.text(); !strings.HasPrefix(text, "Depot will cancel this build at ") || !strings.HasSuffix(text, ": that is the project's limit") || strings.Contains(text, "\n") {
		t.Errorf("logged: %q", text)
	}
}

func TestFinish(t *testing.T) {
	canceledCall := func(t *testing.T, b *Build) error {
		c, err := b.Machine(t.Context(), "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = c.ListWorkers(ctx)
		return err
	}
	for _, test := range []struct {
		name    string
		outcome func(t *testing.T, b *Build) error
		want    string
	}{
		{"success", func(*testing.T, *Build) error { return nil }, "success "},
		{"failure", func(*testing.T, *Build) error { return errors.New("exit code: 2") }, "error exit code: 2"},
		{"canceled", func(*testing.T, *Build) error { return fmt.Errorf("solve: %w", context.Canceled) }, "canceled "},
		{"canceled in BuildKit", canceledCall, "canceled "},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t)
			ctx, cancel := context.WithCancel(t.Context())
			b, err := depot(&journal{}, "project-token").Start(ctx, Request{})
			if err != nil {
				t.Fatal(err)
			}
			outcome := test.outcome(t, b)
			cancel() // the build's own context is no longer of use
			returns(t, "Finish, from several sides", func() {
				var all sync.WaitGroup
				for range 5 {
					all.Go(func() { b.Finish(outcome) })
				}
				all.Wait()
			})
			b.Finish(errors.New("again"))
			var got []string
			for _, c := range s.Calls() {
				if c.Method == "FinishBuild" {
					got = append(got, c.Result+" "+c.ResultError)
				}
			}
			if len(got) != 1 || got[0] != test.want {
				t.Errorf("Depot was told %q, want %q once", got, test.want)
			}
			if _, err := b.Machine(t.Context(), "linux/amd64"); !errors.Is(err, ErrFinished) {
				t.Errorf("a machine after the end: %v", err)
			}
		})
	}
}

// Whatever a machine is waiting for, the build ends at once, and Depot is told.
func TestFinishWhileAMachineIsWaitedFor(t *testing.T) {
	set(t, &connectPatience, time.Hour)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, test := range []struct {
		name  string
		fault depotapi.Fault
		stuck string // what the goroutine is seen in
	}{
		{"Depot is silent", depotapi.Fault{Method: "GetBuildKitConnection", Silence: true}, "RoundTrip"},
		{"Depot fails", depotapi.Fault{Method: "GetBuildKitConnection", Code: connect.CodeResourceExhausted, Header: map[string]string{"Retry-After": "60"}}, "v5.Retry["},
		{"never active", depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.NeverActive}, "(*session).wait"},
		{"unreachable", depotapi.Fault{Method: "GetBuildKitConnection", Machine: depotapi.Unreachable}, "(*endpoint).connect"},
		{"all is silent", depotapi.Fault{Silence: true}, "RoundTrip"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.fault.Method == "" { // nobody will hear of the end
				set(t, &finishTime, 50*time.Millisecond)
			}
			s := startDepot(t)
			b := startBuild(t, depot(&journal{}, "project-token"), Request{})
			s.Fail(test.fault)
			var asked errgroup.Group
			asked.Go(func() error { _, err := b.Machine(context.Background(), "linux/amd64"); return err })
			eventually(t, "a request for a machine", func() bool {
				return calls(s, "GetBuildKitConnection", nil) > 0 && strings.Contains(goroutines(), test.stuck)
			})

			impatient, cancel := context.WithCancelCause(t.Context())
			cancel(errors.New("no time"))
			if _, err := b.Machine(impatient, "linux/amd64"); err == nil || err.Error() != "no time" {
				t.Errorf("another who asks, and may not wait: %v", err)
			}
			returns(t, "Finish", func() { b.Finish(context.Canceled) })
			if err := asked.Wait(); !errors.Is(err, ErrFinished) {
				t.Errorf("who waited is told %v", err)
			}
			if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "canceled" || test.fault.Method == "" }); n != 1 {
				t.Errorf("Depot was told %d times", n)
			}
		})
	}
	t.Run("an address is silent", func(t *testing.T) {
		b, err := Address{Addr: "tcp://" + silent.Addr().String()}.Start(t.Context(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		var asked errgroup.Group
		asked.Go(func() error { _, err := b.Machine(context.Background(), "linux/amd64"); return err })
		eventually(t, "a connection", func() bool { return strings.Contains(goroutines(), "ListWorkers") })
		returns(t, "Finish", func() { b.Finish(nil) })
		if err := asked.Wait(); err == nil || !strings.Contains(err.Error(), ErrFinished.Error()) {
			t.Errorf("who waited is told %v", err)
		}
	})
	if all := asShipped.finishTime + asShipped.linger; all > 5*time.Second {
		t.Errorf("an end may take %s", all)
	}
}

// A build that is made while its context ends is not left behind: nobody else knows that it is there.
func TestStartCanceledWhileTheBuildIsMade(t *testing.T) {
	hold := make(chan struct{})
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "CreateBuild", Hold: hold})
	ctx, cancel := context.WithCancelCause(t.Context())
	var started errgroup.Group
	started.Go(func() error { _, err := depot(&journal{}, "project-token").Start(ctx, Request{}); return err })
	eventually(t, "the call", func() bool { return calls(s, "CreateBuild", nil) > 0 })
	cancel(errors.New("Ctrl-C"))
	close(hold)
	if err := started.Wait(); err == nil || err.Error() != "Ctrl-C" {
		t.Errorf("Start: %v", err)
	}
	if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "canceled" }); n != 1 {
		t.Errorf("Depot was told %d times that it is canceled", n)
	}
	before := len(s.Calls())
	if _, err := depot(&journal{}, "project-token").Start(ctx, Request{}); err == nil || err.Error() != "Ctrl-C" {
		t.Errorf("Start, too late: %v", err)
	}
	if n := len(s.Calls()) - before; n != 0 {
		t.Errorf("%d calls after the end", n)
	}
}

func TestTransientErrorsAreRetried(t *testing.T) {
	for _, fault := range []struct {
		name string
		depotapi.Fault
	}{
		{"unavailable", depotapi.Fault{Code: connect.CodeUnavailable}},
		{"internal", depotapi.Fault{Code: connect.CodeInternal}},
		{"429", depotapi.Fault{Code: connect.CodeResourceExhausted}},
		{"a proxy's 502", depotapi.Fault{Status: 502, Body: "<html>Bad Gateway</html>"}},
		{"a proxy's 503", depotapi.Fault{Status: 503}},
		{"a proxy's 429", depotapi.Fault{Status: 429}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			s := startDepot(t)
			for _, method := range []string{"CreateBuild", "GetBuildKitConnection", "FinishBuild"} {
				f := fault.Fault
				f.Method, f.Times = method, 2
				s.Fail(f)
			}
			j := &journal{}
			b := startBuild(t, depot(j, "project-token"), Request{})
			if _, err := b.Machine(t.Context(), "linux/amd64"); err != nil {
				t.Fatal(err)
			}
			b.Finish(nil)
			for method, want := range map[string]int{"CreateBuild": 3, "GetBuildKitConnection": 4, "FinishBuild": 3} {
				if n := calls(s, method, nil); n != want {
					t.Errorf("%d calls of %s, want %d", n, method, want)
				}
			}
			if text := j.text(); text != "" {
				t.Errorf("what passed by itself is logged: %s", text)
			}
		})
	}
}

func TestConnectTriesAgainSoon(t *testing.T) {
	socket := strings.TrimPrefix(machines(t).Address("linux/amd64"), "unix://")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections := forward(t, listener, socket, 3)
	b, err := Address{Addr: "tcp://" + listener.Addr().String()}.Start(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finish(nil)
	if _, err := b.Machine(t.Context(), "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	if n := connections.Load(); n < 4 {
		t.Errorf("connected after %d connections, of which 3 failed", n)
	}
	if asShipped.firstConnectWait > time.Second/10 {
		t.Errorf("the second try comes after %s", asShipped.firstConnectWait)
	}
}

func TestPlatformNames(t *testing.T) {
	s := startDepot(t)
	for name, ok := range map[string]bool{
		"linux/amd64": true, "linux/arm64": true,
		"amd64": false, "arm64": false, "linux/arm64/v8": false, "linux/arm/v7": false, "linux/386": false, "windows/amd64": false,
		"LINUX/AMD64": false, "linux/aarch64": false, "": false, "linux/amd64,linux/arm64": false,
	} {
		before := calls(s, "CreateBuild", nil)
		b, err := depot(&journal{}, "project-token").Start(t.Context(), Request{Platforms: []string{name}})
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			b.Finish(nil)
			continue
		}
		oneSentence(t, err)
		if calls(s, "CreateBuild", nil) != before {
			t.Errorf("%q: a build was made", name)
		}
	}
}

package engine

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain starts an engine and waits if ENGINE_TEST_OWNER_DIR is set: TestStopsWithOwner runs and kills that process.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ENGINE_TEST_OWNER_DIR"); dir != "" {
		if _, err := Start(context.Background(), Oldest, dir, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString("ready\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestStartSideBySide(t *testing.T) {
	needRoot(t)
	versions := map[string]string{Current: "1.5", Oldest: "1.41"}
	for _, kinds := range [][]string{{Current, Oldest}, {Current, Current}, {Oldest, Oldest}} {
		t.Run(strings.Join(kinds, " "), func(t *testing.T) {
			root := t.TempDir()
			var engines []*Engine
			for i, kind := range kinds {
				e, err := Start(t.Context(), kind, filepath.Join(root, strconv.Itoa(i)), t.Output())
				if err != nil {
					t.Fatal(err)
				}
				defer e.Stop() // also tests a second Stop
				engines = append(engines, e)
			}
			for i, e := range engines {
				if found := traces(t, filepath.Join(root, strconv.Itoa(i))); len(found) < 5 {
					t.Errorf("traces of the running engine: %q, want at least 5", found)
				}
				if got := apiVersion(t, e.Host); !strings.HasPrefix(got, versions[kinds[i]]) {
					t.Errorf("%s: API %s, want %s", kinds[i], got, versions[kinds[i]])
				}
			}
			for _, e := range engines {
				if err := e.Stop(); err != nil {
					t.Error(err)
				}
			}
			for i := range kinds {
				if left := traces(t, filepath.Join(root, strconv.Itoa(i))); len(left) > 0 {
					t.Errorf("leftovers: %q", left)
				}
			}
		})
	}
}

func TestStartAgainInLongDirectory(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	for range 2 { // the second engine uses the data of the first
		e, err := Start(t.Context(), Current, dir, t.Output())
		if err != nil {
			t.Fatal(err)
		}
		apiVersion(t, e.Host)
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(strings.TrimPrefix(e.Host, "unix://")); err == nil {
			t.Errorf("%s still exists after Stop", e.Host)
		}
	}
}

func TestStopsWithOwner(t *testing.T) {
	needRoot(t)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			dir := t.TempDir()
			owner := exec.Command(os.Args[0])
			owner.Env = append(os.Environ(), "ENGINE_TEST_OWNER_DIR="+dir)
			owner.Stderr = t.Output()
			out, err := owner.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := owner.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 6)); err != nil {
				t.Fatalf("the owner did not start an engine: %v", err)
			}
			_ = owner.Process.Signal(signal)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
				left := traces(t, dir)
				if len(left) == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("leftovers: %q", left)
				}
			}
			_ = owner.Wait()
		})
	}
}

func TestStartFailures(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name, kind, dir, want string
		ctx                   context.Context
	}{
		{name: "unknown kind", kind: "newest", dir: t.TempDir(), want: "usage: scripts/engine.sh current|oldest"},
		{name: "a file instead of a directory", kind: Current, dir: file, want: "cannot create directory"},
		{name: "canceled", kind: Current, dir: t.TempDir(), want: "context canceled", ctx: canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.ctx == nil {
				test.ctx = t.Context()
			}
			e, err := Start(test.ctx, test.kind, test.dir, t.Output())
			if err == nil {
				e.Stop()
				t.Fatal("Start succeeded")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if left := traces(t, test.dir); len(left) > 0 {
				t.Errorf("leftovers: %q", left)
			}
		})
	}
}

// needRoot skips the test under -short, because starting engines requires root.
func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs root to start a Docker Engine; run without -short")
	}
}

// traces lists the resources of an engine on this machine: processes and mounts with its directory, its bridge, and
// firewall rules for the bridge.
func traces(t *testing.T, dir string) []string {
	t.Helper()
	hash := sha256.Sum256([]byte(dir))
	bridge := fmt.Sprintf("engine-%x", hash[:4])
	var found []string
	commands := [][]string{{"ip", "-br", "link"}, {"iptables", "-w", "-S"}, {"iptables", "-w", "-t", "nat", "-S"}}
	for _, command := range commands {
		out, err := exec.Command(command[0], command[1:]...).Output()
		if err != nil {
			t.Fatalf("%q: %v (install it with scripts/setup.sh test)", command, err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, bridge) {
				found = append(found, line)
			}
		}
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "/proc/self/mountinfo") {
		data, _ := os.ReadFile(file) // the process may have ended
		for line := range strings.Lines(strings.ReplaceAll(string(data), "\x00", " ")) {
			if strings.Contains(line, dir+"/") || strings.Contains(line, dir+" ") {
				found = append(found, file+": "+line)
			}
		}
	}
	return found
}

func apiVersion(t *testing.T, host string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://engine/version")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var version struct{ APIVersion string }
	if err := json.NewDecoder(response.Body).Decode(&version); err != nil {
		t.Fatal(err)
	}
	return version.APIVersion
}

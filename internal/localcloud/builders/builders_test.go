package builders

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/fsutil"
)

// start starts daemons for one test, and checks after the test that they left no mounts or processes.
func start(t *testing.T, o Options) *Builders {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit daemons; run without -short")
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	b, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(mounts, []byte(o.Dir)) {
			t.Errorf("leftover mounts below %s:\n%s", o.Dir, mounts)
		}
		for _, m := range b.machines {
			if err := syscall.Kill(m.process.Pid, 0); err == nil {
				t.Errorf("the daemon for %s is still running", m.platform)
			}
		}
	})
	return b
}

func connect(t *testing.T, c *Connection, ca, cert, key string) (*client.Client, error) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	options := []client.ClientOpt{client.WithServerConfig(c.ServerName, file("ca", ca))}
	if cert != "" {
		options = append(options, client.WithCredentials(file("cert", cert), file("key", key)))
	}
	bk, err := client.New(t.Context(), c.Endpoint, options...)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { bk.Close() })
	_, err = bk.ListWorkers(t.Context())
	return bk, err
}

// solve builds a context that contains dockerfile and file, and returns the image digest and the number of steps that
// were not cached.
func solve(t *testing.T, bk *client.Client, dockerfile, file string) (digest string, executed int, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"Dockerfile": dockerfile, "file": file} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	status := make(chan *client.SolveStatus)
	counted := make(chan map[string]bool)
	go func() {
		steps := map[string]bool{}
		for s := range status {
			for _, v := range s.Vertexes {
				if v.Completed != nil && strings.HasPrefix(v.Name, "[") && !strings.HasPrefix(v.Name, "[internal]") {
					steps[v.Digest.String()] = v.Cached
				}
			}
		}
		counted <- steps
	}()
	response, err := bk.Solve(t.Context(), nil, client.SolveOpt{
		Frontend:    "dockerfile.v0",
		LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree},
		Exports:     []client.ExportEntry{{Type: client.ExporterImage}},
	}, status)
	for _, cached := range <-counted {
		if !cached {
			executed++
		}
	}
	if err != nil {
		return "", executed, err
	}
	return response.ExporterResponse[exptypes.ExporterImageDigestKey], executed, nil
}

func TestMachinePerPlatform(t *testing.T) {
	b := start(t, Options{})
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		c, err := b.Open(platform, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		bk, err := connect(t, c, c.CACert, c.Cert, c.Key)
		if err != nil {
			t.Fatal(err)
		}
		workers, err := bk.ListWorkers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p := workers[0].Platforms[0]
		if got := p.OS + "/" + p.Architecture; got != platform || len(workers) != 1 {
			t.Errorf("%d workers, the first for %s; want one for %s", len(workers), got, platform)
		}
		if _, _, err := solve(t, bk, "FROM scratch\nCOPY file /\n", platform); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Open("linux/riscv64", time.Minute); !errors.Is(err, ErrNoMachine) {
		t.Errorf("linux/riscv64: %v, want %v", err, ErrNoMachine)
	}
	if got := b.Address("linux/riscv64"); got != "" {
		t.Errorf("address of linux/riscv64: %q", got)
	}
	if info, err := os.Stat(b.sockets); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("socket directory: %v, %v; want mode 0700", info.Mode(), err)
	}
}

// TestRun executes buildkitd itself in RUN, because it is a static program that every checkout has.
func TestRun(t *testing.T) {
	b := start(t, Options{Platforms: []string{"linux/amd64"}})
	bk, err := client.New(t.Context(), b.Address("linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	defer bk.Close()
	program, err := findProgram("", Current)
	if err != nil {
		t.Fatal(err)
	}
	static, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dockerfile := "FROM scratch\nCOPY --chmod=755 file /bin\nRUN [\"/bin\", \"--version\"]\nRUN [\"/absent\"]\n"
	_, _, err = solve(t, bk, dockerfile, string(static))
	if err == nil || !strings.Contains(err.Error(), "/absent") {
		t.Errorf("got %v, want the first RUN to succeed and the second to fail with /absent", err)
	}
}

// The daemon's configuration selects the mirror: Dockerfiles do not change.
func TestMirrorOfDockerHub(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	base, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := base.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", "amd64"
	if base, err = mutate.ConfigFile(base, config); err != nil {
		t.Fatal(err)
	}
	if err := crane.Push(base, host+"/library/debian:bookworm-slim"); err != nil {
		t.Fatal(err)
	}
	b := start(t, Options{Platforms: []string{"linux/amd64"}, Mirrors: map[string]string{"docker.io": host}})
	bk, err := client.New(t.Context(), b.Address("linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	defer bk.Close()
	for name, dockerfile := range map[string]string{
		"short name":  "FROM debian:bookworm-slim\nCOPY file /\n",
		"mirror host": "FROM " + host + "/library/debian:bookworm-slim\nCOPY file /\n",
		"full name":   "FROM docker.io/library/debian:bookworm-slim\nCOPY file /\n",
	} {
		if _, _, err := solve(t, bk, dockerfile, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCertificatesAreForOneBuild(t *testing.T) {
	b := start(t, Options{Platforms: []string{"linux/amd64"}})
	open := func(lifetime time.Duration) *Connection {
		t.Helper()
		c, err := b.Open("linux/amd64", lifetime)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c, other, expired, ended := open(time.Minute), open(time.Minute), open(-time.Second), open(time.Minute)
	ended.Close()
	ended.Close()
	for _, test := range []struct {
		name          string
		to            *Connection
		ca, cert, key string
		ok            bool
	}{
		{"own certificate", c, c.CACert, c.Cert, c.Key, true},
		{"no certificate", c, c.CACert, "", "", false},
		{"certificate of another build", c, c.CACert, other.Cert, other.Key, false},
		{"machine of another build", other, c.CACert, c.Cert, c.Key, false},
		{"expired certificate", expired, expired.CACert, expired.Cert, expired.Key, false},
		{"closed connection", ended, ended.CACert, ended.Cert, ended.Key, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := connect(t, test.to, test.ca, test.cert, test.key); (err == nil) != test.ok {
				t.Errorf("got %v, want success: %v", err, test.ok)
			}
		})
	}
}

func TestCloseEndsConnections(t *testing.T) {
	b := start(t, Options{Platforms: []string{"linux/amd64"}})
	c, err := b.Open("linux/amd64", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	bk, err := connect(t, c, c.CACert, c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := bk.ListWorkers(ctx); err == nil {
		t.Error("the machine still answers after Close")
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := b.Open("linux/amd64", time.Minute); err == nil {
		t.Error("Open succeeds after Stop")
	}
}

func TestLayerCacheSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	build := func() (string, int) {
		t.Helper()
		b := start(t, Options{Dir: dir, Platforms: []string{"linux/amd64"}})
		bk, err := client.New(t.Context(), b.Address("linux/amd64"))
		if err != nil {
			t.Fatal(err)
		}
		defer bk.Close()
		digest, executed, err := solve(t, bk, "FROM scratch\nCOPY file /\n", "kept")
		if err != nil {
			t.Fatal(err)
		}
		bk.Close()
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
		return digest, executed
	}
	digest, executed := build()
	if executed != 1 {
		t.Errorf("the first build executed %d steps, want 1", executed)
	}
	second, executed := build()
	if executed != 0 {
		t.Errorf("the same build executed %d steps after a restart, want 0", executed)
	}
	if second != digest {
		t.Logf("image digests differ (%s, %s): the config contains the build time", digest, second)
	}
}

// Stop ends a running build and leaves no containers, even if the daemon was killed.
func TestStopEndsContainers(t *testing.T) {
	daemon, err := findProgram("", Current)
	if err != nil {
		t.Fatal(err)
	}
	static, err := os.ReadFile(filepath.Join(filepath.Dir(daemon), "buildctl"))
	if err != nil {
		t.Fatalf("buildctl is missing: %v (run scripts/setup.sh test)", err)
	}
	for name, before := range map[string]func(m *machine){
		"stopped": func(*machine) {},
		"killed": func(m *machine) {
			_ = m.process.Kill()
			<-m.ended
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, Options{Platforms: []string{"linux/amd64"}})
			m := b.machines["linux/amd64"]
			c, err := b.Open("linux/amd64", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			bk, err := connect(t, c, c.CACert, c.Cert, c.Key)
			if err != nil {
				t.Fatal(err)
			}
			solved := make(chan error)
			go func() {
				blockingStep := `RUN ["/bin", "--wait", "--addr", "unix:///absent", "debug", "workers"]`
				_, _, err := solve(t, bk, "FROM scratch\nCOPY --chmod=755 file /bin\n"+blockingStep+"\n", string(static))
				solved <- err
			}()
			for end := time.Now().Add(time.Minute); len(running(t, m)) == 0; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("timed out waiting for the step")
				}
			}
			containers := running(t, m)
			before(m)
			if err := b.Stop(); err != nil {
				t.Error(err)
			}
			if err := <-solved; err == nil {
				t.Error("the build succeeded")
			}
			if left := running(t, m); len(left) > 0 {
				t.Errorf("leftover containers %v of %v", left, containers)
			}
		})
	}
}

// running returns the PIDs of container processes with a root below the daemon's directory.
func running(t *testing.T, m *machine) []string {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range commands {
		line, _ := os.ReadFile(file) // the process may have exited
		root, _ := os.Readlink(filepath.Join(filepath.Dir(file), "root"))
		if bytes.HasPrefix(line, []byte("/bin\x00--wait")) || root != "/" && strings.HasPrefix(root, m.dir) {
			found = append(found, filepath.Base(filepath.Dir(file)))
		}
	}
	return found
}

func TestConfiguration(t *testing.T) {
	got := configuration(
		&machine{platform: "linux/arm64", dir: "/state/linux-arm64", socket: "/s/linux-arm64.sock"},
		Options{
			Mirrors:  map[string]string{"docker.io": "127.0.0.1:1"},
			Insecure: []string{"127.0.0.1:2", "127.0.0.1:1"},
		},
	)
	want := `root = "/state/linux-arm64/root"
insecure-entitlements = ["network.host", "security.insecure"]
[grpc]
  address = ["unix:///s/linux-arm64.sock"]
[otel]
  socketPath = "/s/linux-arm64-otel.sock"
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  platforms = ["linux/arm64"]
  binary = "runc"
  networkMode = "host"
[registry."docker.io"]
  mirrors = ["127.0.0.1:1"]
[registry."127.0.0.1:1"]
  http = true
[registry."127.0.0.1:2"]
  http = true
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStartErrors(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "buildkitd")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no such luck\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	crashing := filepath.Join(t.TempDir(), "buildkitd")
	script := "#!/bin/sh\necho 'fatal error: newosproc'\necho goroutine 1:\nexit 2\n"
	if err := os.WriteFile(crashing, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		filepath.Join(t.TempDir(), "absent"): "no such file",
		broken:                               "exited: no such luck",
		crashing:                             "exited: fatal error: newosproc",
	} {
		_, err := Start(t.Context(), Options{Dir: t.TempDir(), Program: program, Platforms: []string{"linux/amd64"}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", program, err, want)
		}
	}
	t.Chdir(t.TempDir())
	if _, err := Start(t.Context(), Options{Dir: t.TempDir()}); err == nil {
		t.Error("Start succeeds outside a checkout without Options.Program")
	}
}

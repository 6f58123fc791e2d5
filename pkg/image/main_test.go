package image

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	hub "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/sync/errgroup"
)

var update = flag.Bool("update", false, "write the golden files in testdata")

const (
	amd64 = "linux/amd64"
	arm64 = "linux/arm64"

	// password must not appear in files, logs or errors.
	password = "correct-horse-battery-staple"
)

// services are shared by the tests with BuildKit: daemons, a registry, and servers from which Dockerfiles fetch.
type services struct {
	*testRegistry
	dir      string
	state    string // directory of the daemons
	builders *builders.Builders
	old      func() (*builders.Builders, error) // with BuildKit v0.11, started on first use
	hub      *httptest.Server                   // Docker Hub: debian:bookworm-slim, onbuild:1, scanner:1, small:1
	files    *httptest.Server                   // /hello.txt
	git      *httptest.Server                   // /repo.git
	commit   string                             // SHA of the repository's branch main
	agent    string                             // socket of an SSH agent with one key
	layout   string                             // directory of an OCI layout: small:1

	mutex   sync.Mutex
	started []*builders.Builders
}

// testRegistry is a registry in this process. The account robot can push below team/; the account reader can only pull.
type testRegistry struct {
	dir      string
	registry *registry.Registry
}

func TestMain(m *testing.M) {
	// Keep the user's Docker configuration out of the tests. Docker's library reads the variable only once.
	dir, err := os.MkdirTemp("", "docker-")
	if err == nil {
		err = os.Setenv("DOCKER_CONFIG", filepath.Join(dir, "config"))
	}
	if err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	if err := errors.Join(stopShared(), os.RemoveAll(dir)); err != nil {
		log.Print(err)
		code = 1
	}
	os.Exit(code)
}

var (
	startServicesOnce = sync.OnceValues(startServices)
	startRegistryOnce = sync.OnceValues(startRegistry)

	startedServices, startedRegistry bool
)

// sharedServices returns the services and starts them on first use.
func sharedServices(t testing.TB) *services {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit; run without -short")
	}
	startedServices, startedRegistry = true, true
	w, err := startServicesOnce()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// sharedRegistry returns the registry and starts it on first use.
func sharedRegistry(t testing.TB) *testRegistry {
	t.Helper()
	startedRegistry = true
	r, err := startRegistryOnce()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func stopShared() (err error) {
	if startedServices {
		if w, failed := startServicesOnce(); failed == nil {
			err = w.stop()
		}
	}
	if startedRegistry {
		if r, failed := startRegistryOnce(); failed == nil {
			err = errors.Join(err, r.registry.Stop(), os.RemoveAll(r.dir))
		}
	}
	return err
}

func startRegistry() (*testRegistry, error) {
	dir, err := os.MkdirTemp("", "registry-")
	if err != nil {
		return nil, err
	}
	r, err := registry.Start(context.Background(), filepath.Join(dir, "registry"),
		registry.Account{User: "robot", Password: password, Prefix: "team/", Push: true},
		registry.Account{User: "reader", Password: password})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &testRegistry{dir, r}, nil
}

func startServices() (_ *services, err error) {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return nil, err
	}
	w := &services{dir: dir, state: filepath.Join(dir, "builders")}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	if w.testRegistry, err = startRegistryOnce(); err != nil {
		return nil, err
	}
	w.hub = httptest.NewServer(hub.New(hub.Logger(log.New(io.Discard, "", 0))))
	w.files = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hello.txt" {
			http.NotFound(rw, r)
			return
		}
		rw.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
		fmt.Fprintln(rw, "hello over HTTP")
	}))
	w.old = sync.OnceValues(func() (*builders.Builders, error) {
		return w.startBuilders(builders.Options{
			Dir: w.state + "-old", Platforms: []string{amd64}, Version: builders.V011,
		})
	})
	var group errgroup.Group
	group.Go(w.fillHub)
	group.Go(w.serveGit)
	group.Go(w.startAgent)
	group.Go(func() (err error) {
		w.builders, err = w.startBuilders(builders.Options{Dir: w.state})
		return err
	})
	return w, group.Wait()
}

// startBuilders starts daemons that use the registry and the stand-in of Docker Hub. stop stops them.
func (w *services) startBuilders(o builders.Options) (*builders.Builders, error) {
	o.Mirrors = map[string]string{"docker.io": host(w.hub)}
	o.Insecure = []string{w.registry.Addr}
	b, err := builders.Start(context.Background(), o)
	if err == nil {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.started = append(w.started, b)
	}
	return b, err
}

func (w *services) stop() (err error) {
	for _, s := range []*httptest.Server{w.hub, w.files, w.git} {
		if s != nil {
			s.Close()
		}
	}
	for _, b := range w.started {
		err = errors.Join(err, b.Stop())
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func host(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

// fillHub pushes the base images. It leaves Debian's layer uncompressed, because compressing it takes longer than most
// tests.
func (w *services) fillHub() error {
	file := filepath.Join("..", "..", ".cache", "base", "bookworm-slim.tar")
	root, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the base image: %w (run scripts/setup.sh test)", err)
	}
	uncompressed := static.NewLayer(root, types.OCIUncompressedLayer)
	debian, err := baseImage(v1.Config{
		Cmd: []string{"bash"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}, uncompressed)
	if err != nil {
		return err
	}
	small, err := baseImage(v1.Config{Labels: map[string]string{"from": "small"}}, gzipped(tarOf("small.txt", "small\n")))
	if err != nil {
		return err
	}
	onbuild, err := baseImage(v1.Config{OnBuild: []string{"COPY file /triggered"}}, gzipped(tarOf("base.txt", "base\n")))
	if err != nil {
		return err
	}
	// An SBOM scanner, see https://github.com/moby/buildkit/blob/master/docs/attestations/sbom-protocol.md.
	const statement = `{"_type": "https://in-toto.io/Statement/v0.1", ` +
		`"predicateType": "https://spdx.dev/Document", "predicate": {"name": "scanned"}}`
	scanner, err := baseImage(v1.Config{
		Entrypoint: []string{"/bin/sh", "-c", `echo '` + statement + `' >"$BUILDKIT_SCAN_DESTINATION/scan.spdx.json"`},
		Env:        []string{"PATH=/usr/bin:/bin"},
	}, uncompressed)
	if err != nil {
		return err
	}
	for reference, image := range map[string]v1.Image{
		"debian:bookworm-slim": debian, "small:1": small, "onbuild:1": onbuild, "scanner:1": scanner,
	} {
		ref, err := name.ParseReference(host(w.hub) + "/library/" + reference)
		if err != nil {
			return err
		}
		if err := remote.Write(ref, image); err != nil {
			return err
		}
	}
	w.layout = filepath.Join(w.dir, "layout")
	path, err := layout.Write(w.layout, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(small, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"}))
}

func baseImage(config v1.Config, layer v1.Layer) (v1.Image, error) {
	image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS: v1.RootFS{Type: "layers"}, Config: config,
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(mutate.ConfigMediaType(image, types.OCIConfigJSON), mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "base", Created: v1.Time{Time: time.Unix(0, 0).UTC()}},
	})
}

func gzipped(tar []byte) v1.Layer {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar)), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		panic(err) // reading a buffer does not fail
	}
	return layer
}

// serveGit serves a repository with the branches main and other, with git's own HTTP server.
func (w *services) serveGit() error {
	root := filepath.Join(w.dir, "git")
	work := filepath.Join(w.dir, "work")
	script := `set -eu
git init -q -b main "$WORK"
cd "$WORK"
printf 'from git\n' >tracked.txt
printf 'FROM scratch\nCOPY tracked.txt /\n' >Dockerfile
git add .
git commit -q -m first
git checkout -q -b other
printf 'other\n' >other.txt
git add .
git commit -q -m second
git clone -q --bare "$WORK" "$ROOT/repo.git"
git rev-parse main
git --exec-path`
	command := exec.Command("bash", "-c", script)
	command.Env = append(os.Environ(), "WORK="+work, "ROOT="+root, "HOME="+w.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=2026-01-01T00:00:00Z",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z")
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("create a repository: %w: %s", err, out)
	}
	lines := strings.Fields(string(out))
	w.commit = lines[len(lines)-2]
	w.git = httptest.NewServer(&cgi.Handler{
		Path:   filepath.Join(lines[len(lines)-1], "git-http-backend"),
		Env:    []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + w.dir},
		Stderr: io.Discard,
	})
	return nil
}

func (w *services) startAgent() error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: key, Comment: "a key of the tests"}); err != nil {
		return err
	}
	w.agent = filepath.Join(w.dir, "agent.sock")
	listener, err := net.Listen("unix", w.agent)
	if err != nil {
		return err
	}
	go func() { // runs until the process ends
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(keys, conn) // returns when the client disconnects
			}()
		}
	}()
	return nil
}

// machine connects to the BuildKit daemon of a platform.
func (w *services) machine(t testing.TB, platform string) *client.Client {
	t.Helper()
	return connect(t, w.builders.Address(platform))
}

// oldMachine connects to a daemon of BuildKit v0.11 for amd64.
func (w *services) oldMachine(t testing.TB) *client.Client {
	t.Helper()
	b, err := w.old()
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, b.Address(amd64))
}

// depotMachine connects to a daemon of BuildKit v0.11 for amd64 that behaves like one of Depot's.
func (w *services) depotMachine(t testing.TB) (*builders.Builders, *client.Client) {
	t.Helper()
	b, err := w.old()
	if err != nil {
		t.Fatal(err)
	}
	connection, err := b.Open(amd64, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	dir := writeFiles(t, map[string]string{"ca": connection.CACert, "cert": connection.Cert, "key": connection.Key})
	c, err := client.New(t.Context(), connection.Endpoint,
		client.WithServerConfig(connection.ServerName, filepath.Join(dir, "ca")),
		client.WithCredentials(filepath.Join(dir, "cert"), filepath.Join(dir, "key")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return b, c
}

func connect(t testing.TB, address string) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// onBothVersions runs a test with the current BuildKit and with v0.11, which runs one exporter in a solve.
func onBothVersions(t *testing.T, test func(t *testing.T, w *services, c *client.Client)) {
	w := sharedServices(t)
	t.Run("current", func(t *testing.T) { test(t, w, w.machine(t, amd64)) })
	t.Run("v0.11", func(t *testing.T) { test(t, w, w.oldMachine(t)) })
}

// emptyMachine starts a BuildKit daemon with an empty cache.
func (w *services) emptyMachine(t testing.TB) *client.Client {
	t.Helper()
	b, err := builders.Start(t.Context(), builders.Options{
		Dir: t.TempDir(), Platforms: []string{amd64},
		Mirrors: map[string]string{"docker.io": host(w.hub)}, Insecure: []string{w.registry.Addr},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return connect(t, b.Address(amd64))
}

// solve builds r and returns the statuses of the build.
func solve(ctx context.Context, c *client.Client, r Request) (*Result, []*client.SolveStatus, error) {
	status := make(chan *client.SolveStatus)
	seen := make(chan []*client.SolveStatus)
	go func() {
		var all []*client.SolveStatus
		for s := range status {
			all = append(all, s)
		}
		seen <- all
	}()
	result, err := Solve(ctx, c, r, status)
	return result, <-seen, err
}

// writeFiles creates a directory with files.
func writeFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// writeDockerConfig writes a Docker configuration that exists until the end of the test.
func writeDockerConfig(t *testing.T, config string) {
	t.Helper()
	dir := os.Getenv("DOCKER_CONFIG")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// request returns a request to build a directory with a Dockerfile.
func request(dir string) Request {
	return Request{Platform: amd64, Context: dir, CommitFiles: dir, Dockerfile: filepath.Join(dir, "Dockerfile")}
}

package suite

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// machine is an engine with two images: Debian, and an image with a single program.
type machine struct {
	*dockerengine.Engine
	debian, scratch string // image IDs
}

func (m *machine) target() Target { return OnEngine(m, m.debian) }

var (
	debian, scratch v1.Image // set by fleet
	cleanups        []func() // stop the engines, in reverse order
)

func TestMain(m *testing.M) {
	if host := os.Getenv("SUITE_TEST_HOST"); host != "" {
		fmt.Fprintln(os.Stderr, runUntilKilled(host, os.Getenv("SUITE_TEST_IMAGE")))
		os.Exit(1)
	}
	code := m.Run()
	for _, cleanup := range slices.Backward(cleanups) {
		cleanup()
	}
	os.Exit(code)
}

// fleet returns the engines by kind. It starts them on first use.
func fleet(t testing.TB) map[string]*machine {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Docker Engines; run without -short")
	}
	machines, err := startEngines()
	if err != nil {
		t.Fatal(err)
	}
	return machines
}

var startEngines = sync.OnceValues(func() (map[string]*machine, error) {
	dir, err := os.MkdirTemp("", "suite-engines-")
	if err != nil {
		return nil, err
	}
	cleanups = append(cleanups, func() { os.RemoveAll(dir) })
	if err := buildImages(dir); err != nil {
		return nil, err
	}
	machines := map[string]*machine{}
	for _, kind := range []string{engine.Current, engine.Oldest} {
		if machines[kind], err = startEngine(kind, filepath.Join(dir, kind)); err != nil {
			return nil, err
		}
	}
	return machines, nil
})

func startEngine(kind, dir string) (*machine, error) {
	ctx := context.Background()
	daemon, err := engine.Start(ctx, kind, dir, nil)
	if err != nil {
		return nil, err
	}
	cleanups = append(cleanups, func() {
		if err := daemon.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	e, err := dockerengine.Open(ctx, environment(daemon.Host, dir))
	if err != nil {
		return nil, err
	}
	cleanups = append(cleanups, func() { e.Close() })
	m := &machine{Engine: e}
	if m.debian, err = loadImage(ctx, e, "suite-test:debian", debian); err != nil {
		return nil, err
	}
	m.scratch, err = loadImage(ctx, e, "suite-test:scratch", scratch)
	return m, err
}

func loadImage(ctx context.Context, e *dockerengine.Engine, name string, img v1.Image) (id string, err error) {
	if _, err := e.Load(ctx, name, img); err != nil {
		return "", err
	}
	return e.ImageID(ctx, name)
}

// environment returns a function that looks up the environment variables for an engine at host.
func environment(host, home string) func(name string) string {
	return func(name string) string { return map[string]string{"DOCKER_HOST": host, "HOME": home}[name] }
}

// buildImages builds the images debian and scratch. Both contain the program in testdata/service.
func buildImages(dir string) error {
	program := filepath.Join(dir, "service")
	build := exec.Command("go", "build", "-o", program, "./testdata/service")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	base, err := os.ReadFile("../../.cache/base/bookworm-slim.tar")
	if err != nil {
		return fmt.Errorf("read the base image (run scripts/setup.sh test first): %w", err)
	}
	header := tar.Header{Name: "service", Mode: 0o755, Size: int64(len(data))}
	service := static.NewLayer(archive(header, string(data)), types.DockerUncompressedLayer)
	if scratch, err = imageOf(v1.Config{Entrypoint: []string{"/service"}, User: "1000"}, service); err != nil {
		return err
	}
	debian, err = imageOf(v1.Config{
		Entrypoint:   []string{"/service"},
		Env:          []string{"PATH=/usr/bin:/bin", "MODE=plain"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Healthcheck:  &v1.HealthConfig{Test: []string{"CMD", "/service", "health"}, Interval: time.Minute},
		Labels:       map[string]string{"org.example.team": "sandbox"},
		StopSignal:   "SIGTERM",
		Volumes:      map[string]struct{}{"/data": {}},
		WorkingDir:   "/tmp",
	}, static.NewLayer(base, types.DockerUncompressedLayer), service)
	return err
}

func imageOf(config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	return mutate.ConfigFile(img, file)
}

// archive returns a tar file with one file.
func archive(header tar.Header, content string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&header); err != nil {
		panic(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// onBoth runs a test on each engine and checks that no containers and volumes remain.
func onBoth(t *testing.T, test func(t *testing.T, m *machine)) {
	machines := fleet(t)
	for _, kind := range slices.Sorted(maps.Keys(machines)) {
		m := machines[kind]
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, m)
			left, err := m.Containers(context.Background())
			if err != nil || len(left) > 0 {
				t.Errorf("remaining containers: %v, %v", left, err)
			}
			volumes, err := exec.Command("docker", "--host", m.Host, "volume", "ls", "--quiet").Output()
			if err != nil || len(volumes) > 0 {
				t.Errorf("remaining volumes: %s, %v", volumes, err)
			}
		})
	}
}

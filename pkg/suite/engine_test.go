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

// machine is an engine that has the two images which tests run: one with all of Debian's, and one with a single program.
type machine struct {
	*dockerengine.Engine
	debian, scratch string // ids
}

var (
	machines        map[string]*machine // by the engine's kind; see fleet
	debian, scratch v1.Image
	running         []func() // ends the engines, the last first
	startOnce       sync.Once
	startErr        error
)

func TestMain(m *testing.M) {
	if host := os.Getenv("SUITE_TEST_HOST"); host != "" {
		fmt.Fprintln(os.Stderr, runUntilKilled(host, os.Getenv("SUITE_TEST_IMAGE")))
		os.Exit(1)
	}
	code := m.Run()
	for _, end := range slices.Backward(running) {
		end()
	}
	os.Exit(code)
}

// fleet starts the engines when the first test asks for them: a fuzz target's processes need none.
func fleet(t testing.TB) map[string]*machine {
	t.Helper()
	startOnce.Do(func() { startErr = start() })
	if startErr != nil {
		t.Fatal(startErr)
	}
	return machines
}

func start() error {
	dir, err := os.MkdirTemp("", "suite-engines-")
	if err != nil {
		return err
	}
	running = append(running, func() { os.RemoveAll(dir) })
	if err := images(dir); err != nil {
		return err
	}
	started := map[string]*machine{}
	for _, kind := range []string{engine.Current, engine.Oldest} {
		daemon, err := engine.Start(context.Background(), kind, filepath.Join(dir, kind), nil)
		if err != nil {
			return err
		}
		running = append(running, func() {
			if err := daemon.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
		e, err := dockerengine.Open(context.Background(), func(name string) string {
			return map[string]string{"DOCKER_HOST": daemon.Host, "HOME": dir}[name]
		})
		if err != nil {
			return err
		}
		running = append(running, func() { e.Close() })
		m := &machine{Engine: e}
		for tag, id := range map[string]*string{"debian": &m.debian, "scratch": &m.scratch} {
			img := map[string]v1.Image{"debian": debian, "scratch": scratch}[tag]
			if _, err := e.Load(context.Background(), "suite-test:"+tag, img); err != nil {
				return err
			}
			if *id, err = e.ImageID(context.Background(), "suite-test:"+tag); err != nil {
				return err
			}
		}
		started[kind] = m
	}
	machines = started
	return nil
}

// images makes the two: the program is the one in testdata/service.
func images(dir string) error {
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
		return fmt.Errorf("run scripts/base-image.sh first: %w", err)
	}
	service := static.NewLayer(archive(tar.Header{Name: "service", Mode: 0o755, Size: int64(len(data))}, string(data)), types.DockerUncompressedLayer)
	config := v1.Config{
		Entrypoint: []string{"/service"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}}, Env: []string{"PATH=/usr/bin:/bin", "MODE=plain"},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/service", "health"}, Interval: time.Minute},
		Labels:      map[string]string{"org.example.team": "sandbox"}, WorkingDir: "/tmp", Volumes: map[string]struct{}{"/data": {}}, StopSignal: "SIGTERM",
	}
	if scratch, err = imageOf(v1.Config{Entrypoint: []string{"/service"}, User: "1000"}, service); err != nil {
		return err
	}
	debian, err = imageOf(config, static.NewLayer(base, types.DockerUncompressedLayer), service)
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

// archive is a tar of one file.
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

// onBoth runs a test on each engine, and looks that it leaves no container and no volume.
func onBoth(t *testing.T, test func(t *testing.T, m *machine)) {
	for _, kind := range slices.Sorted(maps.Keys(fleet(t))) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, machines[kind])
			left, err := machines[kind].Containers(context.Background())
			if err != nil || len(left) > 0 {
				t.Errorf("containers are left: %v, %v", left, err)
			}
			volumes, err := exec.Command("docker", "--host", machines[kind].Host, "volume", "ls", "--quiet").Output()
			if err != nil || len(volumes) > 0 {
				t.Errorf("volumes are left: %s, %v", volumes, err)
			}
		})
	}
}

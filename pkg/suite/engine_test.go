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
	machines        = map[string]*machine{} // by the engine's kind
	debian, scratch v1.Image
)

func TestMain(m *testing.M) { os.Exit(start(m)) }

func start(m *testing.M) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "suite-engines-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := images(dir); err != nil {
		return fail(err)
	}
	for _, kind := range []string{engine.Current, engine.Oldest} {
		started, err := engine.Start(context.Background(), kind, filepath.Join(dir, kind), nil)
		if err != nil {
			return fail(err)
		}
		defer started.Stop()
		e, err := dockerengine.Open(context.Background(), func(name string) string {
			return map[string]string{"DOCKER_HOST": started.Host, "HOME": dir}[name]
		})
		if err != nil {
			return fail(err)
		}
		defer e.Close()
		machine := &machine{Engine: e}
		for name, img := range map[*string]v1.Image{&machine.debian: debian, &machine.scratch: scratch} {
			tag := "suite-test:" + map[bool]string{true: "debian", false: "scratch"}[img == debian]
			if _, err := e.Load(context.Background(), tag, img); err != nil {
				return fail(err)
			}
			if *name, err = e.ImageID(context.Background(), tag); err != nil {
				return fail(err)
			}
		}
		machines[kind] = machine
	}
	return m.Run()
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

// onBoth runs a test on each engine, and looks that it leaves no container.
func onBoth(t *testing.T, test func(t *testing.T, m *machine)) {
	for _, kind := range slices.Sorted(maps.Keys(machines)) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, machines[kind])
			left, err := machines[kind].Containers(context.Background())
			if err != nil || len(left) > 0 {
				t.Errorf("containers are left: %v, %v", left, err)
			}
		})
	}
}

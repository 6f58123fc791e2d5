package dockerengine

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// BenchmarkLoad compares Load with docker load of an archive of the same image. It does not measure creating the
// archive.
//
//	go test ./pkg/dockerengine -run - -bench Load -benchtime 3x
func BenchmarkLoad(b *testing.B) {
	layers := make([]v1.Layer, 5)
	for _, kind := range kinds {
		for _, test := range []struct {
			name    string
			changed int // number of layers, from the top, that changed since the previous load
		}{{"first", 5}, {"unchanged", 0}, {"one changed", 1}} {
			b.Run(test.name+" "+kind, func(b *testing.B) {
				e := openHost(b, engineHost(b, kind))
				e.pullMinimum = 0
				removeImage(b, e, "bench:ci")
				removeImage(b, e, "bench:tar")
				var ours, theirs time.Duration
				for i := range b.N + 1 {
					for n := range layers {
						if layers[n] == nil || n >= len(layers)-test.changed {
							layers[n] = newNoise(b, 20<<20+time.Now().UnixNano()%(1<<20))
						}
					}
					img, err := mutate.AppendLayers(empty.Image, layers...)
					if err != nil {
						b.Fatal(err)
					}
					file := archiveFile(b, img)
					began := time.Now()
					if _, err := e.Load(b.Context(), "bench:ci", img); err != nil {
						b.Fatal(err)
					}
					took := time.Since(began)
					// docker load must not benefit from layers that Load has loaded.
					if test.changed > 0 {
						file = archiveFile(b, other(b, layers, test.changed))
					}
					began = time.Now()
					if out, err := exec.Command("docker", "--host", e.Host, "load", "-q", "-i", file).CombinedOutput(); err != nil {
						b.Fatalf("docker load: %v: %s", err, out)
					}
					if i > 0 { // the first iteration also loads the unchanged layers
						ours, theirs = ours+took, theirs+time.Since(began)
					}
				}
				b.ReportMetric(ours.Seconds()/float64(b.N), "s/load")
				b.ReportMetric(theirs.Seconds()/float64(b.N), "s/docker-load")
				b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-faster")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// other returns an image with the same layers, except for new layers at the top.
func other(b *testing.B, layers []v1.Layer, changed int) v1.Image {
	b.Helper()
	layers = slices.Clone(layers)
	for n := len(layers) - changed; n < len(layers); n++ {
		layers[n] = newNoise(b, 20<<20+time.Now().UnixNano()%(1<<20))
	}
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		b.Fatal(err)
	}
	return img
}

// archiveFile writes an archive of the image, like docker save, and returns its path.
func archiveFile(b *testing.B, img v1.Image) string {
	b.Helper()
	a, err := newArchive(img, true)
	if err != nil {
		b.Fatal(err)
	}
	file, err := os.Create(filepath.Join(b.TempDir(), "image.tar"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	idle := newIdleTimer(time.Hour, func(error) {})
	defer idle.stop()
	if err := a.write(b.Context(), file, a.layers, &copier{idle: idle}); err != nil {
		b.Fatal(err)
	}
	return file.Name()
}

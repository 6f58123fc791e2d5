package dockerengine

import (
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
)

// BenchmarkLoad pairs our load with docker load of the same image's archive, which costs nothing to make here. Beside each
// time it says the ratio: how many times faster ours is.
//
//	go test ./pkg/dockerengine -run - -bench Load -benchtime 3x
func BenchmarkLoad(b *testing.B) {
	layers := make([]v1.Layer, 5)
	for _, kind := range slices.Sorted(maps.Keys(engines)) {
		for _, test := range []struct {
			name    string
			changed int // layers, from the top, since the load before
		}{{"first", 5}, {"unchanged", 0}, {"one changed", 1}} {
			b.Run(test.name+" "+kind, func(b *testing.B) {
				e := openHost(b, engines[kind])
				remove(b, e, "bench:ci")
				remove(b, e, "bench:tar")
				var ours, theirs time.Duration
				for i := range b.N + 1 {
					for n := range layers {
						if layers[n] == nil || n >= len(layers)-test.changed {
							layers[n] = newEndless(b, 20<<20+time.Now().UnixNano()%(1<<20))
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
					// What we have loaded must not help the other.
					if test.changed > 0 {
						file = archiveFile(b, other(b, layers, test.changed))
					}
					began = time.Now()
					if out, err := exec.Command("docker", "--host", e.Host, "load", "-q", "-i", file).CombinedOutput(); err != nil {
						b.Fatalf("docker load (scripts/packages.sh installs it): %v: %s", err, out)
					}
					if i > 0 { // the first one is for the layers that do not change
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

// other is an image of the same layers, of which as many from the top are new.
func other(b *testing.B, layers []v1.Layer, changed int) v1.Image {
	b.Helper()
	layers = slices.Clone(layers)
	for n := len(layers) - changed; n < len(layers); n++ {
		layers[n] = newEndless(b, 20<<20+time.Now().UnixNano()%(1<<20))
	}
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		b.Fatal(err)
	}
	return img
}

// archiveFile is the image as docker save would write it.
func archiveFile(b *testing.B, img v1.Image) string {
	b.Helper()
	a, err := newArchive(img)
	if err != nil {
		b.Fatal(err)
	}
	file, err := os.Create(filepath.Join(b.TempDir(), "image.tar"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	watch := newWatch(time.Hour, func(error) {})
	defer watch.stop()
	if err := a.write(b.Context(), file, a.layers, watch, nil); err != nil {
		b.Fatal(err)
	}
	return file.Name()
}

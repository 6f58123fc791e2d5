package bench

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// TestGrowth measures how a run grows with its input, and writes the results. It needs -full.
func TestGrowth(t *testing.T) {
	if !*full {
		t.Skip("takes minutes; run `make growth`")
	}
	l := newLab(t, true)
	curves := []curve{l.files(), l.bytes(), l.layers(), l.imageSize(), l.concurrent()}
	var measured []Curve
	var names []string
	for _, c := range curves {
		names = append(names, c.Name)
		t.Run(c.Name, func(t *testing.T) {
			for _, size := range c.sizes {
				point := c.measure(t, size)
				point.Size = float64(size)
				fmt.Printf("%-30s %8d %-20s %8.3f s  memory %d MB  %d calls\n", c.Name, size, c.Size, point.Time,
					point.Memory/1e6, point.Calls)
				c.Points = append(c.Points, point)
			}
			measured = append(measured, c.Curve)
		})
	}
	var growth Growth // the curves of earlier runs remain
	if err := Read(growthFile, &growth); err != nil {
		t.Fatal(err)
	}
	growth.Curves = Merge(names, func(c Curve) string { return c.Name }, measured, growth.Curves)
	growth.Machine = machine(t)
	if err := Write(growthFile, growth); err != nil {
		t.Fatal(err)
	}
	writePage(t)
}

// curve is a curve to measure.
type curve struct {
	Curve
	sizes   []int
	measure func(t *testing.T, size int) Point
}

// The reasons of more than one curve.
const (
	fixedCalls   = "A build needs the same requests for every input, and its files go through one session."
	streamMemory = "Files and layers are copied in blocks, and never held as a whole."
)

func (l *lab) files() curve {
	return curve{
		Curve: Curve{Name: "files in the context", Size: "files of 100 bytes", Reasons: map[string]string{
			"time":   "BuildKit receives and copies each file.",
			"memory": "The program and BuildKit's client keep the name and the attributes of each file while they compare it.",
			"calls":  fixedCalls,
		}},
		sizes: []int{10, 1000, 10_000, 100_000},
		measure: func(t *testing.T, size int) Point {
			dir := newContext(t, "FROM scratch\nCOPY . /\n")
			for n := range size {
				writeRandom(t, filepath.Join(dir, fmt.Sprintf("%03d/%d", n/1000, n)), 100)
			}
			return l.grow(t, dir, "--no-load")
		},
	}
}

func (l *lab) bytes() curve {
	sizes := []int{10, 100, 1000}
	if *large {
		sizes = append(sizes, 4000)
	}
	return curve{
		Curve: Curve{Name: "bytes in the context", Size: "MB in 10 files", Reasons: map[string]string{
			"time":   "BuildKit receives, hashes and copies each byte.",
			"memory": streamMemory,
			"calls":  fixedCalls,
		}},
		sizes: sizes,
		measure: func(t *testing.T, size int) Point {
			dir := newContext(t, "FROM scratch\nCOPY . /\n")
			for n := range 10 {
				writeRandom(t, filepath.Join(dir, fmt.Sprint(n)), int64(size)*1e5)
			}
			return l.grow(t, dir, "--no-load")
		},
	}
}

func (l *lab) layers() curve {
	return curve{
		Curve: Curve{Name: "layers that are loaded", Size: "layers of 100 kB", Reasons: map[string]string{
			"time":   "BuildKit creates and the engine unpacks one layer after the other.",
			"memory": "Only the layers in transfer use memory, and their number is limited.",
			"calls":  "The program reads each layer with its own call.",
		}},
		sizes: []int{1, 30, 60, 120},
		measure: func(t *testing.T, size int) Point {
			var dockerfile strings.Builder
			dockerfile.WriteString("FROM scratch\n")
			for n := range size {
				fmt.Fprintf(&dockerfile, "COPY %d /\n", n)
			}
			dir := newContext(t, dockerfile.String())
			for n := range size {
				writeRandom(t, filepath.Join(dir, fmt.Sprint(n)), 100_000)
			}
			return l.grow(t, dir, "--image-name", "layers:1")
		},
	}
}

func (l *lab) imageSize() curve {
	sizes := []int{10, 100, 1000}
	if *large {
		sizes = append(sizes, 5000)
	}
	return curve{
		Curve: Curve{Name: "bytes in an image that is loaded", Size: "MB in one layer", Reasons: map[string]string{
			"time":   "The engine receives and unpacks each byte.",
			"memory": streamMemory,
			"calls":  "The program reads each layer with one call, whose answer is a stream.",
		}},
		sizes: sizes,
		measure: func(t *testing.T, size int) Point {
			// BuildKit creates the content, so that the context is empty. The date avoids the cache of an earlier run.
			dir := newContext(t, fmt.Sprintf("FROM debian:bookworm-slim\nRUN : %d; head -c %dM /dev/urandom >/data\n",
				time.Now().UnixNano(), size))
			mustRun(t, l.growCommand("", dir, "--no-load"))
			host, stop := startEngine(t, engine.Current)
			defer stop()
			return l.growOn(t, host, dir, "--image-name", "size:1")
		},
	}
}

func (l *lab) concurrent() curve {
	return curve{
		Curve: Curve{Name: "builds at once", Size: "builds", Reasons: map[string]string{
			"time":   "The builds share the processors of this machine and one BuildKit.",
			"memory": "The builds are processes that share nothing.",
			"calls":  "Each build makes its own requests.",
		}},
		sizes: []int{1, 4, 16, 64},
		measure: func(t *testing.T, size int) Point {
			commands := make([]*exec.Cmd, size)
			for n := range commands {
				dir := newContext(t, "FROM scratch\nCOPY . /\n")
				writeRandom(t, filepath.Join(dir, "file"), 1e6)
				commands[n] = l.growCommand("", dir, "--no-load")
			}
			usages := make([]Usage, size)
			began, calls := time.Now(), l.calls()
			var group errgroup.Group
			for n, command := range commands {
				group.Go(func() (err error) {
					usages[n], err = tryMeasure(command)
					return err
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			point := Point{Time: round(time.Since(began).Seconds()), Calls: l.calls() - calls}
			for _, usage := range usages {
				point.Memory = max(point.Memory, usage.Memory)
			}
			return point
		},
	}
}

// grow measures a build of dir, with the cloud's engine.
func (l *lab) grow(t *testing.T, dir string, args ...string) Point {
	t.Helper()
	return l.growOn(t, l.Engine.Host, dir, args...)
}

func (l *lab) growOn(t *testing.T, host, dir string, args ...string) Point {
	t.Helper()
	calls := l.calls()
	usage := measure(t, l.growCommand(host, dir, args...))
	if err := os.RemoveAll(dir); err != nil { // a later size needs the disk
		t.Fatal(err)
	}
	return Point{Time: round(usage.Value), Memory: usage.Memory, Calls: l.calls() - calls}
}

func (l *lab) growCommand(host, dir string, args ...string) *exec.Cmd {
	command := l.command(host, filepath.Join(l.programs, "action-build"), append(args, "--platform", platform)...)
	command.Dir = dir
	return command
}

// calls returns the number of requests that Depot and BuildKit have received. It ignores health reports, whose number
// depends on the time.
func (l *lab) calls() int64 {
	n := l.Builders.Calls()
	for _, call := range l.Depot.Calls() {
		if call.Method != "ReportBuildHealth" {
			n++
		}
	}
	return n
}

// newContext creates a directory with a Dockerfile.
func newContext(t *testing.T, dockerfile string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeRandom writes a file that does not compress.
func writeRandom(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var seed [32]byte
	copy(seed[:], fmt.Appendf(nil, "%d", rand.Int64()))
	_, err = io.CopyN(file, rand.NewChaCha8(seed), size)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

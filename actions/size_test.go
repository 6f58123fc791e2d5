package actions

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxProgram bounds a program for linux/amd64, in bytes: a step that has none yet fetches it. The same for darwin/amd64 has 0.65 MB more, and
// scripts/release.sh releases none over 20 MB.
const maxProgram = 19_350_000

// goflags are what a release's build has in GOFLAGS, and why:
//
//   - grpcnotrace leaves gRPC's tracing out. We have none, but its pages are templates, and a template may call any method: the linker
//     would keep every exported method of every library.
//   - -l inlines nothing, a tenth of the program, except where it is felt: in Go's runtime, and in what goes over every byte of an image.
const goflags = "goflags"

// TestSize builds the programs as a release does.
func TestSize(t *testing.T) {
	for _, name := range []string{"action-build", "action-snapshot", "action-test"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			program := filepath.Join(dir, name)
			buildFor(t, name, program, "-s -w -buildid= -funcalign=16")
			info, err := os.Stat(program)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes", info.Size())
			if info.Size() <= maxProgram {
				return
			}
			whole := filepath.Join(dir, "whole")
			graph := buildFor(t, name, whole, "-dumpdep")
			t.Errorf("%s has %d bytes, %d too many. Its heaviest packages (go list -deps tells who imports them):\n%s",
				name, info.Size(), info.Size()-maxProgram, heaviest(t, whole))
			for _, library := range byName(graph) {
				t.Errorf("%s looks methods up by their names, for which the linker keeps all methods of all libraries: use it otherwise, or leave it out", library)
			}
		})
	}
}

// buildFor builds a program for linux/amd64, and returns what the linker says.
func buildFor(t *testing.T, name, program, ldflags string) string {
	t.Helper()
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+ldflags, "-o", program, "../"+name)
	build.Env = append(os.Environ(), "GOTOOLCHAIN="+toolchain(t), "GOFLAGS=-mod=readonly "+read(t, goflags), "GOWORK=off", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	said, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %.2000s", err, said)
	}
	return string(said)
}

// toolchain is the Go that a release is built with.
func toolchain(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^toolchain (\S+)$`).FindStringSubmatch(read(t, "../go.mod"))
	if found == nil {
		t.Fatal("go.mod names no toolchain")
	}
	return found[1]
}

var lookup = regexp.MustCompile(`(?m)^(\S+) <ReflectMethod> -> `)

// byName are the packages, of those that the linker's graph reaches, whose functions look methods up by a name that only they know.
func byName(graph string) []string {
	found := map[string]bool{}
	for _, m := range lookup.FindAllStringSubmatch(graph, -1) {
		if name := packageOf(m[1]); name != "reflect" {
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// packageOf is the package of a symbol such as example.com/a/b.(*T).Method.
func packageOf(symbol string) string {
	path, _, _ := strings.Cut(symbol, "(")
	slash := strings.LastIndex(path, "/") + 1
	name, _, _ := strings.Cut(path[slash:], ".")
	return path[:slash] + name
}

// heaviest are the packages whose code is largest, one a line.
func heaviest(t *testing.T, program string) string {
	t.Helper()
	nm := exec.Command("go", "tool", "nm", "-size", program)
	symbols, err := nm.Output()
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int{}
	for lines := bufio.NewScanner(strings.NewReader(string(symbols))); lines.Scan(); {
		var address, kind, name string
		var size int
		if n, _ := fmt.Sscan(lines.Text(), &address, &size, &kind, &name); n == 4 && strings.EqualFold(kind, "t") {
			sizes[packageOf(name)] += size
		}
	}
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int { return sizes[b] - sizes[a] })
	var list strings.Builder
	for _, name := range names[:min(15, len(names))] {
		fmt.Fprintf(&list, "%9d %s\n", sizes[name], name)
	}
	return list.String()
}

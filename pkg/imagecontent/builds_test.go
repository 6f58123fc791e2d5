package imagecontent

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// build describes a build. The Dockerfile is the file with that name.
type build struct {
	files   map[string]string
	args    map[string]string
	noCache bool
	isRead  bool // whether the layers are read
}

// run builds in dir for the platforms and returns the record. Layers of the previous record are not read again.
func (b build) run(t *testing.T, dir string, previous *runrecord.Record, platforms ...string) *runrecord.Record {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, b.files)
	ignore, err := image.ReadIgnoreFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := HashContext(t.Context(), dir, ignore, nil, ContextLimits{})
	if err != nil {
		t.Fatal(err)
	}
	record := &runrecord.Record{
		Format: runrecord.Version, Started: time.Now(), Image: &runrecord.Image{Digest: "sha256:0"},
		Source: &runrecord.Source{
			Definition: b.files["Dockerfile"], Files: files,
			BuildArgs: runrecord.HashBuildArgs(b.args, func(s string) string { return s }),
		},
	}
	if b.noCache {
		record.Inputs = []runrecord.Input{{Name: "no_cache", Value: "true"}}
	}
	statuses := make([]image.PlatformStatus, len(platforms))
	results := make([]*image.Result, len(platforms))
	var solves errgroup.Group
	for i, platform := range platforms {
		c := machine(t, platform)
		statuses[i] = image.PlatformStatus{Platform: platform, Status: make(chan *client.SolveStatus)}
		solves.Go(func() (err error) {
			results[i], err = image.Solve(t.Context(), c, image.Request{
				Platform: platform, Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile"), BuildArgs: b.args,
				NoCache: b.noCache, Compression: image.Uncompressed, UnpulledDir: t.TempDir(),
			}, statuses[i].Status)
			return err
		})
	}
	stats, err := image.Progress(t.Context(), statuses, func(s string) string { return s }, discard)
	if err := solves.Wait(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats.Steps {
		step := runrecord.Step{Name: s.Name, Seconds: s.Duration.Seconds(), Cached: s.Cached}
		if !s.Started.IsZero() {
			step.Offset = s.Started.Sub(record.Started).Seconds()
		}
		record.Steps = append(record.Steps, step)
	}
	o := Options{}
	if previous != nil {
		o.Known = previous.Image.Platforms
	}
	for _, result := range results {
		p, err := Describe(result.Image, result.Platform, nil)
		if err == nil && b.isRead {
			err = Read(t.Context(), result.Image, &p, o)
		}
		if err != nil {
			t.Fatal(err)
		}
		record.Image.Platforms = append(record.Image.Platforms, p)
	}
	return record
}

func discard(_ context.Context, status chan *client.SolveStatus) error {
	for range status {
	}
	return nil
}

// pair is a build and its successor.
type pair struct {
	before, after build
	known         *runrecord.Record // whose layers are not read; may be nil
}

// compare runs both builds. Their file marker makes the steps after its copy new to the builder.
func (p pair) compare(t *testing.T, platforms ...string) *runrecord.Changes {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "context")
	marker := rand.Text()
	for _, b := range []*build{&p.before, &p.after} {
		*b = b.with("marker", marker)
	}
	previous := p.before.run(t, dir, p.known, platforms...)
	return runrecord.Compare(previous, p.after.run(t, dir, previous, platforms...))
}

func dockerfile(lines ...string) build {
	return build{files: map[string]string{"Dockerfile": strings.Join(lines, "\n") + "\n"}}
}

// with returns the build with files, as pairs of a name and its content. An empty content removes the file.
func (b build) with(files ...string) build {
	b.files = maps.Clone(b.files)
	for i := 0; i < len(files); i += 2 {
		b.files[files[i]] = files[i+1]
		if files[i+1] == "" {
			delete(b.files, files[i])
		}
	}
	return b
}

func (b build) withArg(name, value string) build {
	b.args = map[string]string{name: value}
	return b
}

func (b build) withoutCache() build {
	b.noCache = true
	return b
}

// What broke the cache, in real builds.
func TestCacheBreak(t *testing.T) {
	machine(t, amd64) // skips the test
	const from, marker = "FROM debian:bookworm-slim", "COPY marker /"
	simple := dockerfile(from, marker, "COPY src /src", "RUN ls /src").with("src/a", "1", "other", "1")
	stages := func(name string) build {
		return dockerfile(from+" AS "+name, marker, "COPY src /src", "RUN cat /src/* >/out", from, marker, "COPY other /",
			"COPY --from="+name+" /out /").with("src/a", "1", "other", "1")
	}
	args := dockerfile(from, marker, "ARG VERSION=0", "COPY src /src", "RUN echo $VERSION >/version").with("src/a", "1")
	files := func(step string, line int, files ...string) *runrecord.CacheBreak {
		return &runrecord.CacheBreak{Step: step, Line: line, Files: files}
	}
	for _, test := range []struct {
		name          string
		before, after build
		want          *runrecord.CacheBreak
	}{
		{"nothing changed", simple, simple, nil},
		{"changed file", simple, simple.with("src/a", "2"), files("[3/4] COPY src /src", 3, "src/a")},
		{"added file", simple, simple.with("src/b", "2"), files("[3/4] COPY src /src", 3, "src/b")},
		{"removed file", simple.with("src/b", "2"), simple, files("[3/4] COPY src /src", 3, "src/b")},
		{"file that is not copied", simple, simple.with("other", "2"), nil},
		{"ignored file", simple.with(".dockerignore", "src/i"), simple.with(".dockerignore", "src/i", "src/i", "2"), nil},
		{"newly ignored file", simple.with("src/i", "1"), simple.with("src/i", "1", ".dockerignore", "src/i"),
			files("[3/4] COPY src /src", 3, "src/i")},
		{
			"excluded file", dockerfile(from, marker, "COPY --exclude=*.md src /src").with("src/a", "1", "src/b.md", "1"),
			dockerfile(from, marker, "COPY --exclude=*.md src /src").with("src/a", "1", "src/b.md", "2"), nil,
		},
		{
			"wildcard", dockerfile(from, marker, "COPY *.txt /").with("a.txt", "1", "b.md", "1"),
			dockerfile(from, marker, "COPY *.txt /").with("a.txt", "2", "b.md", "2"), files("[3/3] COPY *.txt /", 3, "a.txt"),
		},
		{"instruction", simple, simple.with("Dockerfile", strings.Replace(simple.files["Dockerfile"], "ls", "ls -l", 1)),
			&runrecord.CacheBreak{Step: "[4/4] RUN ls -l /src", Line: 4, Instruction: true}},
		{"comment", simple, simple.with("Dockerfile", "# comment\n"+simple.files["Dockerfile"]), nil},
		{"here-document", dockerfile(
			from, marker, "RUN <<EOF", "echo 1", "EOF",
		), dockerfile(from, marker, "RUN <<EOF", "echo 2", "EOF"),
			&runrecord.CacheBreak{Step: "[3/3] RUN <<EOF (echo 2)", Line: 3, Instruction: true}},
		{"removed instruction", dockerfile(from, marker, "RUN echo 1", "COPY src /src").with("src/a", "1"),
			dockerfile(from, marker, "COPY src /src").with("src/a", "1"),
			&runrecord.CacheBreak{Step: "[3/3] COPY src /src", Line: 3, Earlier: []string{"RUN echo 1"}}},
		{"reordered instructions", dockerfile(
			from, marker, "RUN echo 1", "RUN echo 2",
		), dockerfile(from, marker, "RUN echo 2", "RUN echo 1"),
			&runrecord.CacheBreak{Step: "[3/4] RUN echo 2", Line: 3, Earlier: []string{"RUN echo 1"}}},
		{"environment", dockerfile(from, marker, "ENV A=1", "COPY src /src", "RUN echo $A").with("src/a", "1"),
			dockerfile(from, marker, "ENV A=2", "COPY src /src", "RUN echo $A").with("src/a", "1"),
			&runrecord.CacheBreak{Step: "[4/4] RUN echo 2", Line: 5, Earlier: []string{"ENV A=1", "ENV A=2"}}},
		{"label", dockerfile(from, marker, "LABEL a=1", "RUN true"), dockerfile(from, marker, "LABEL a=2", "RUN true"), nil},
		{"build argument", args.withArg("VERSION", "1"), args.withArg("VERSION", "2"),
			&runrecord.CacheBreak{Step: "[4/4] RUN echo 2 >/version", Line: 5, BuildArgs: []string{"VERSION"}}},
		{"build argument that is not used", args.withArg("OTHER", "1"), args.withArg("OTHER", "2"), nil},
		{"source in a variable", dockerfile(from, marker, "ARG DIR=src", "COPY $DIR/a /").with("src/a", "1"),
			dockerfile(
				from, marker, "ARG DIR=src", "COPY $DIR/a /",
			).with("src/a", "2"), files("[3/3] COPY src/a /", 4, "src/a")},
		{"mounted file", dockerfile(
			from, marker, "RUN --mount=type=bind,source=src,target=/src cat /src/a",
		).with("src/a", "1", "other", "1"),
			dockerfile(from, marker, "RUN --mount=type=bind,source=src,target=/src cat /src/a").with("src/a", "2", "other", "2"),
			files("[3/3] RUN --mount=type=bind,source=src,target=/src cat /src/a", 3, "src/a")},
		{"base image", dockerfile("FROM small:1", marker), dockerfile("FROM small:2", marker),
			&runrecord.CacheBreak{Step: "[2/2] COPY marker /", Line: 2, BaseImage: true}},
		{"base image in an argument", dockerfile("ARG TAG=1", "FROM small:$TAG", marker).withArg("TAG", "1"),
			dockerfile("ARG TAG=1", "FROM small:$TAG", marker).withArg("TAG", "2"),
			&runrecord.CacheBreak{Step: "[2/2] COPY marker /", Line: 3, BaseImage: true, BuildArgs: []string{"TAG"}}},
		{"base image under a linked copy", dockerfile(
			"FROM small:1", "COPY --link marker /",
		), dockerfile("FROM small:2", "COPY --link marker /"),
			nil},
		{"without cache", simple, simple.withoutCache(), nil},
		{"file of another stage", stages("builder"), stages("builder").with("src/a", "2"),
			files("[builder 3/4] COPY src /src", 3, "src/a")},
		{"file of the last stage", stages("builder"), stages("builder").with("other", "2"),
			files("[stage-1 3/4] COPY other /", 7, "other")},
		{"renamed stage", stages("builder"), stages("compiler"), nil},
		{"file of a renamed stage", stages("builder"), stages("compiler").with("src/a", "2"),
			files("[compiler 3/4] COPY src /src", 3, "src/a")},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := pair{before: test.before, after: test.after}.compare(t, amd64).CacheBreak
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// What changed in the files and packages of real images.
func TestImageChanges(t *testing.T) {
	debian := dockerfile("FROM debian:bookworm-slim", "LABEL a=b")
	debian.isRead = true
	base := debian.run(t, filepath.Join(t.TempDir(), "context"), nil, amd64)
	checkDebianPackages(t, base.Image.Platforms[0].Packages)
	const from, marker = "FROM debian:bookworm-slim", "COPY marker /"
	const bash = "Package: bash\nStatus: install ok installed\nVersion: %s\n\n"
	change := func(path string, before, after int64) runrecord.FileChange {
		return runrecord.FileChange{Path: path, Before: before, After: after}
	}
	copied := dockerfile("FROM small:1", marker, "COPY src /src").with("src/a", "1", "src/b", "1")
	for _, test := range []struct {
		name          string
		before, after build
		files         []runrecord.FileChange
		packages      []runrecord.PackageChange
		layers        []string // instructions
	}{
		{name: "nothing", before: copied, after: copied},
		{name: "added", before: copied, after: copied.with("src/c", "333"), files: []runrecord.FileChange{
			change("src/c", -1, 3),
		},
			layers: []string{"COPY src /src"}},
		{name: "removed", before: copied, after: copied.with("src/b", ""), files: []runrecord.FileChange{
			change("src/b", 1, -1),
		},
			layers: []string{"COPY src /src"}},
		{name: "grown", before: copied, after: copied.with("src/b", "22"), files: []runrecord.FileChange{
			change("src/b", 1, 2),
		},
			layers: []string{"COPY src /src"}},
		{name: "changed with the same size", before: copied, after: copied.with("src/b", "2"),
			files: []runrecord.FileChange{change("src/b", 1, 1)}, layers: []string{"COPY src /src"}},
		{name: "whiteout", before: dockerfile(from, marker, "COPY src /src", "RUN true").with("src/a", "1", "src/b", "22"),
			after: dockerfile(from, marker, "COPY src /src", "RUN rm /src/b").with("src/a", "1", "src/b", "22"),
			files: []runrecord.FileChange{change("src/b", 2, -1)}, layers: []string{"RUN rm /src/b"}},
		{name: "opaque directory", before: dockerfile(
			from, marker, "COPY src /src", "RUN true",
		).with("src/a", "1", "src/b", "22"),
			after: dockerfile(
				from, marker, "COPY src /src", "RUN rm -r /src && mkdir /src && printf 333 >/src/c",
			).with("src/a", "1", "src/b", "22"),
			files:  []runrecord.FileChange{change("src/c", -1, 3), change("src/b", 2, -1), change("src/a", 1, -1)},
			layers: []string{"RUN rm -r /src && mkdir /src && printf 333 >/src/c"}},
		{name: "directory instead of a file", before: dockerfile(
			from, marker, "RUN printf 1 >/x",
		), after: dockerfile(from, marker,
			"RUN printf 1 >/x", "RUN rm /x && mkdir /x"), files: []runrecord.FileChange{change("x", 1, -1)},
			layers: []string{"RUN rm /x && mkdir /x"}},
		{name: "package", before: dockerfile(
			"FROM small:1", "COPY status /var/lib/dpkg/",
		).with("status", fmt.Sprintf(bash, "5.1")),
			after:    dockerfile("FROM small:1", "COPY status /var/lib/dpkg/").with("status", fmt.Sprintf(bash, "5.2")),
			files:    []runrecord.FileChange{change("var/lib/dpkg/status", 57, 57)},
			packages: []runrecord.PackageChange{{Manager: "dpkg", Name: "bash", Before: "5.1", After: "5.2"}},
			layers:   []string{"COPY status /var/lib/dpkg/"}},
		{name: "base image", before: dockerfile("FROM small:1", marker), after: dockerfile("FROM small:2", marker),
			files: []runrecord.FileChange{change("small.txt", 2, 3)}, layers: []string{"RUN 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.before.isRead, test.after.isRead = true, true
			changes := pair{test.before, test.after, base}.compare(t, amd64)
			if len(changes.Platforms) != 1 {
				t.Fatalf("got %+v", changes)
			}
			got := changes.Platforms[0]
			var layers []string
			for _, layer := range got.Layers {
				layers = append(layers, layer.CreatedBy)
			}
			if !slices.Equal(got.Files, test.files) || !slices.Equal(got.Packages, test.packages) || got.Unread != 0 {
				t.Errorf("got files %v, packages %v and %d unread layers, want %v and %v",
					got.Files, got.Packages, got.Unread, test.files, test.packages)
			}
			if !slices.Equal(layers, test.layers) {
				t.Errorf("got layers %q, want %q", layers, test.layers)
			}
		})
	}
}

func checkDebianPackages(t *testing.T, packages []runrecord.Package) {
	t.Helper()
	var names []string
	for _, p := range packages {
		if p.Manager != "dpkg" || p.Version == "" || p.Size == 0 {
			t.Errorf("got %+v", p)
		}
		names = append(names, p.Name)
	}
	if !slices.Contains(names, "bash") || !slices.Contains(names, "libc6") || !slices.IsSorted(names) {
		t.Errorf("got %q", names)
	}
}

func TestSeveralPlatforms(t *testing.T) {
	build := dockerfile("FROM scratch", "COPY src /src").with("src/a", "1")
	build.isRead = true
	got := pair{before: build, after: build.with("src/a", "22")}.compare(t, amd64, arm64)
	want := &runrecord.CacheBreak{Step: "[linux/amd64 1/1] COPY src /src", Line: 2, Files: []string{"src/a"}}
	if got.CacheBreak != nil && strings.Contains(got.CacheBreak.Step, arm64) { // either may be the first
		want.Step = "[linux/arm64 1/1] COPY src /src"
	}
	if !reflect.DeepEqual(got.CacheBreak, want) {
		t.Errorf("got %+v, want %+v", got.CacheBreak, want)
	}
	for i, platform := range []string{amd64, arm64} {
		p := got.Platforms[i]
		if p.Platform != platform || !slices.Equal(p.Files, []runrecord.FileChange{{Path: "src/a", Before: 1, After: 2}}) {
			t.Errorf("got %+v", p)
		}
	}
}

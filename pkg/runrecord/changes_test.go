package runrecord

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// layerOf returns a layer that was read.
func layerOf(diffID string, files ...File) Layer {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return Layer{DiffID: diffID, Read: true, Files: files}
}

func whiteout(path string) File         { return File{Path: path, Removed: true} }
func opaque(directory string) File      { return File{Path: directory, Removed: true, Opaque: true} }
func file(path string, size int64) File { return File{Path: path, Size: size, Hash: path} }

func content(path string, size int64, hash string) File {
	return File{Path: path, Size: size, Hash: hash}
}

func TestCompareFiles(t *testing.T) {
	base := layerOf("base", file("etc/passwd", 10), file("lib/a", 100), file("lib/sub/b", 20))
	omitting := layerOf("omits", file("big", 1000))
	omitting.Omitted, omitting.OmittedSize = 3, 50
	unread := Layer{DiffID: "unread"}
	for _, test := range []struct {
		name          string
		before, after []Layer
		want          []FileChange
	}{
		{"same", []Layer{base}, []Layer{base}, nil},
		{"added", []Layer{base}, []Layer{base, layerOf("x", file("new", 5))}, []FileChange{{"new", -1, 5}}},
		{"removed with its layer", []Layer{base, layerOf("x", file("old", 5))}, []Layer{base}, []FileChange{{"old", 5, -1}}},
		{
			"grown, the largest difference first", []Layer{base, layerOf("x", content("a", 1, "1"), content("b", 9, "1"))},
			[]Layer{base, layerOf("y", content("a", 3, "2"), content("b", 2, "2"))},
			[]FileChange{{"b", 9, 2}, {"a", 1, 3}},
		},
		{
			"changed with the same size", []Layer{layerOf("x", content("a", 1, "1"))},
			[]Layer{layerOf("y", content("a", 1, "2"))}, []FileChange{{"a", 1, 1}},
		},
		{
			"hard link instead of the file", []Layer{layerOf("x", content("a", 7, "1"))},
			[]Layer{layerOf("y", content("a", 0, "1"))}, nil,
		},
		{
			"large files without a hash", []Layer{layerOf("x", content("a", 7, ""))},
			[]Layer{layerOf("y", content("a", 7, ""))}, nil,
		},
		{
			"whiteout", []Layer{base}, []Layer{base, layerOf("x", whiteout("etc/passwd"))}, []FileChange{{"etc/passwd", 10, -1}},
		},
		{
			"whiteout of a directory", []Layer{base}, []Layer{base, layerOf("x", whiteout("lib"))},
			[]FileChange{{"lib/a", 100, -1}, {"lib/sub/b", 20, -1}},
		},
		{
			"whiteout of a name that begins alike", []Layer{base}, []Layer{base, layerOf("x", whiteout("li"))}, nil,
		},
		{
			"opaque directory", []Layer{base}, []Layer{base, layerOf("x", opaque("lib"), file("lib/c", 1))},
			[]FileChange{{"lib/a", 100, -1}, {"lib/sub/b", 20, -1}, {"lib/c", -1, 1}},
		},
		{"opaque root", []Layer{base}, []Layer{base, layerOf("x", opaque("."), file("etc/passwd", 10))}, []FileChange{
			{"lib/a", 100, -1}, {"lib/sub/b", 20, -1},
		}},
		{"whiteout does not affect its layer", []Layer{base}, []Layer{
			base, layerOf("x", whiteout("lib"), file("lib/a", 100)),
		}, []FileChange{{"lib/sub/b", 20, -1}}},
		{"file instead of a directory", []Layer{base}, []Layer{base, layerOf("x", file("lib", 1))}, []FileChange{
			{"lib/a", 100, -1}, {"lib/sub/b", 20, -1}, {"lib", -1, 1},
		}},
		{"added again above a whiteout", []Layer{base}, []Layer{
			base, layerOf("x", whiteout("lib")), layerOf("y", file("lib/a", 100)),
		}, []FileChange{{"lib/sub/b", 20, -1}}},
		{"small files may be omitted", []Layer{omitting}, []Layer{layerOf("y", file("small", 50), file("other", 51))},
			[]FileChange{{"big", 1000, -1}, {"other", -1, 51}}},
		{"an omitted file may replace a lower one", []Layer{layerOf("x", content("a", 90, "1")), omitting},
			[]Layer{layerOf("y", content("a", 80, "2")), omitting}, nil},
		{"unread layers", []Layer{unread, layerOf("x", file("a", 1), content("b", 1, "1"))},
			[]Layer{unread, layerOf("y", content("b", 2, "2"))}, []FileChange{{"b", 1, 2}}},
		{"hostile paths", []Layer{
			layerOf("x", file("/", 1), file("//", 1), file("", 1), file("../..", 1)),
		}, []Layer{base, base},
			[]FileChange{{"lib/a", -1, 100}, {"lib/sub/b", -1, 20}, {"etc/passwd", -1, 10}, {"", 1, -1}, {"../..", 1, -1},
				{"/", 1, -1}, {"//", 1, -1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes, omitted := compareFiles(test.before, test.after)
			if !slices.Equal(changes, test.want) || omitted != 0 {
				t.Errorf("got %v and %d omitted, want %v", changes, omitted, test.want)
			}
		})
	}
	var many []File
	for i := range maxFileChanges + 7 {
		many = append(many, file(strings.Repeat("x", i+1), int64(i)))
	}
	changes, omitted := compareFiles([]Layer{base}, []Layer{base, layerOf("x", many...)})
	if len(changes) != maxFileChanges || omitted != 7 || changes[0].After != int64(len(many)-1) {
		t.Errorf("got %d changes, %d omitted, first %v", len(changes), omitted, changes[0])
	}
}

func TestCompareLayers(t *testing.T) {
	layers := func(instructions ...string) (list []Layer) { // "INSTRUCTION ARGUMENT=DIFF ID", with a size of its length
		for _, text := range instructions {
			createdBy, diffID, _ := strings.Cut(text, "=")
			list = append(list, Layer{CreatedBy: createdBy, DiffID: diffID, Size: int64(len(diffID))})
		}
		return list
	}
	for _, test := range []struct {
		name          string
		before, after []Layer
		want          []LayerChange
	}{
		{"same", layers("RUN a=1", "RUN b=2"), layers("RUN a=1", "RUN b=2"), nil},
		{"other content", layers("RUN a=1", "RUN b=2"), layers("RUN a=1", "RUN b=222"), []LayerChange{{"RUN b", 1, 3}}},
		{"added", layers("RUN a=1"), layers("RUN a=1", "RUN b=22"), []LayerChange{{"RUN b", 0, 2}}},
		{"removed", layers("RUN a=1", "RUN b=22", "COPY c=3"), layers("RUN a=1", "COPY c=3"), []LayerChange{{"RUN b", 2, 0}}},
		{"inserted between equal ones", layers("COPY a=1", "COPY a=2"), layers("COPY a=1", "RUN x=xxx", "COPY a=2"),
			[]LayerChange{{"RUN x", 0, 3}}},
		{"edited", layers("RUN a=1", "RUN b=2", "COPY c=3"), layers("RUN a=1", "RUN b2=22", "COPY c=3"),
			[]LayerChange{{"RUN b2", 1, 2}}},
		{"another kind in its place", layers("RUN a=1", "RUN b=2"), layers("RUN a=1", "COPY b=22"),
			[]LayerChange{{"RUN b", 1, 0}, {"COPY b", 0, 2}}},
		{"moved", layers("RUN a=1", "RUN b=2", "COPY c=3"), layers("RUN a=1", "COPY c=33", "RUN b=22"),
			[]LayerChange{{"COPY c", 1, 2}, {"RUN b", 1, 2}}},
		{"moved with the same content", layers("RUN a=1", "COPY c=3"), layers("COPY c=3", "RUN a=1"), nil},
		{"without instructions", layers("=1", "=2"), layers("=1", "=33"), []LayerChange{{"", 1, 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := compareLayers(test.before, test.after)
			if sorted(got) != sorted(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// sorted makes changes comparable in any order: which of two swapped instructions has moved is not defined.
func sorted(changes []LayerChange) string {
	var list []string
	for _, c := range changes {
		list = append(list, fmt.Sprint(c))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestComparePackages(t *testing.T) {
	const status = "var/lib/dpkg/status"
	databases := func(diffID string, files map[string][]Package) Layer {
		layer := Layer{DiffID: diffID, Read: true}
		for path, packages := range files {
			layer.Files = append(layer.Files, File{Path: path})
			layer.Databases = append(layer.Databases, Database{path, packages})
		}
		return layer
	}
	base := databases("base", map[string][]Package{status: {{"dpkg", "bash", "5.1", 0}, {"dpkg", "tar", "1.34", 0}}})
	node := databases("node", map[string][]Package{
		"app/node_modules/ms/package.json":                    {{"npm", "ms", "2.1", 0}},
		"app/node_modules/debug/node_modules/ms/package.json": {{"npm", "ms", "2.0", 0}},
	})
	for _, test := range []struct {
		name          string
		before, after []Layer
		want          []PackageChange
		unread        int
	}{
		{name: "same", before: []Layer{base}, after: []Layer{base}},
		{name: "upgrade, addition and removal", before: []Layer{base}, after: []Layer{base, databases("x",
			map[string][]Package{status: {{"dpkg", "bash", "5.2", 0}, {"dpkg", "vim", "9", 0}}})}, want: []PackageChange{
			{"dpkg", "bash", "5.1", "5.2"}, {"dpkg", "tar", "1.34", ""}, {"dpkg", "vim", "", "9"},
		}},
		{name: "several versions", before: []Layer{node}, after: []Layer{
			node, databases(
				"x", map[string][]Package{"app/node_modules/debug/node_modules/ms/package.json": {{"npm", "ms", "2.2", 0}}},
			),
		}, want: []PackageChange{{"npm", "ms", "2.0, 2.1", "2.1, 2.2"}}},
		{name: "removed directory", before: []Layer{node}, after: []Layer{node, layerOf("x", whiteout("app"))},
			want: []PackageChange{{"npm", "ms", "2.0, 2.1", ""}}},
		{name: "emptied database", before: []Layer{base}, after: []Layer{
			base, databases("x", map[string][]Package{status: {}}),
		},
			want: []PackageChange{{"dpkg", "bash", "5.1", ""}, {"dpkg", "tar", "1.34", ""}}},
		{name: "unread layer", before: []Layer{base}, after: []Layer{base, {DiffID: "unread"}}, unread: 1},
		{name: "layer that only one of the runs has read", before: []Layer{{DiffID: "base"}}, after: []Layer{base}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := comparePlatform(PlatformImage{Layers: test.before}, PlatformImage{Layers: test.after})
			if !slices.Equal(c.Packages, test.want) || c.Unread != test.unread {
				t.Errorf("got %v with %d unread layers, want %v", c.Packages, c.Unread, test.want)
			}
		})
	}
}

func TestCompare(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	previous := &Record{
		Started: started, Seconds: 90, Source: &Source{
			SHA: "abc",
		}, Image: &Image{Digest: "sha256:1", Platforms: []PlatformImage{
			{Platform: "linux/amd64", Size: 100}, {Platform: "linux/386", Size: 10},
		}},
	}
	current := &Record{Image: &Image{Digest: "sha256:2", Platforms: []PlatformImage{
		{Platform: "linux/amd64", Size: 70}, {Platform: "linux/arm64", Size: 500},
	}}}
	want := &Changes{
		Since: started, SHA: "abc", Digest: "sha256:1", Seconds: 90,
		Platforms: []PlatformChange{{Platform: "linux/amd64", Size: -30}},
	}
	got := Compare(previous, current)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, pair := range map[string][2]*Record{
		"first run": {nil, current}, "no current run": {previous, nil}, "failed previous run": {{Error: &Error{}}, current},
	} {
		if got := Compare(pair[0], pair[1]); got != nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	if got := Compare(previous, &Record{}); got == nil || got.Platforms != nil {
		t.Errorf("failed run: got %+v", got)
	}
	current.Run = &Run{Repository: "acme/app", ID: "8"}
	for _, run := range []struct {
		Run
		want string // ID
	}{
		{Run{Repository: "acme/app", ID: "7", Branch: "main"}, "7"},
		{Run{Repository: "else/app", ID: "7", Branch: "main"}, ""},
		{Run{Repository: "acme/app", ID: "../../x", Branch: "main"}, ""},
	} {
		previous.Run = &run.Run
		if got := Compare(previous, current); got.Run != run.want || (got.Branch != "") != (run.want != "") {
			t.Errorf("%+v: run %q on %q", run.Run, got.Run, got.Branch)
		}
	}
}

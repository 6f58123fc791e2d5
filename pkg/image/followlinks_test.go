package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"
)

// writeLinks writes symbolic links into a directory.
func writeLinks(t testing.TB, dir string, links map[string]string) {
	t.Helper()
	for name, target := range links {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFollowLinks(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"real/a/x": "", "real/b/x": "", "real/c.txt": "", "other/d": "", "[odd] name/x": "", "!not/x": "",
	})
	writeLinks(t, dir, map[string]string{
		"link": "real", "again": "link", "absolute": "/real/b", "real/up": "../other", "out": "../../real/a", "root": ".",
		"loop": "loop", "one": "two", "two": "one", "grow": "grow/x", "odd": "[odd] name", "dangling": "nowhere",
		"dirs/p/l": "../../real", "dirs/q/l": "../../other", "updown": "link/../other", "link.txt": "real/c.txt",
	})
	for paths, want := range map[string]string{
		"real/a":          "real/a",
		"/real/../real/a": "real/a",
		"link/a link/b":   "link link/a link/b real/a real/b",
		"link/*":          "link link/* other real/* real/up",
		"again/a again/b": "again again/a again/b link real/a real/b",
		"absolute":        "absolute real/b",
		"absolute/x":      "absolute absolute/x real/b/x",
		"link/up/d":       "link link/up/d other/d real/up",
		"out/x":           "out out/x real/a/x", // the directory is the root
		"updown/d":        "link other/d updown updown/d",
		"l*/a":            "l*/a link link.txt loop real/a",
		"*.txt":           "*.txt link.txt real/c.txt",
		"dirs/*/l/x":      "dirs/*/l/x dirs/p/l dirs/q/l other/x real/x",
		"odd/x":           "?odd??name/x odd odd/x",
		"!not/x":          `\!not/x`,
		"missing/x":       "missing/x",
		"loop/x one/x":    "loop loop/x one one/x two",
		"dangling":        "dangling nowhere",
		"real/**":         "other real/** real/up",
		"root/real/a":     "real/a root root/real/a",
		"root":            "", // all files
		"real/a .":        "",
	} {
		got := followLinks(dir, strings.Fields(paths))
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", paths, strings.Join(got, " "), want)
		}
	}
	if got := followLinks(dir, []string{"grow/y"}); len(got) > maxLinks+2 {
		t.Errorf("an endless path: %d patterns", len(got))
	}
}

func TestExcludeBelow(t *testing.T) {
	for _, test := range []struct {
		include, exclude string
		directory        string
		want             bool
	}{
		{"", "", "data", false},
		{"", "data", "data", true},
		{"", "data", "data/pg", true},
		{"", "data/*", "data", true},
		{"", "data/**", "data", true},
		{"", "data/a", "data", false},
		{"", "* !src/*.txt", "data/pg", true},
		{"", "* !src/*.txt", "src", false},
		{"", "* !*/pg/conf", "data/pg", false},
		{"", "* !*/pg/conf", "data/my", true},
		{"", "* !**/conf", "data/pg", false},
		{"", "* !data", "data/pg", false},
		{"", "data !data/pg/conf", "data/pg/x", true},
		{"src", "", "data", true},
		{"src/*", "", "src", false},
		{"*.txt */x", "", "data", false},
		{"*.txt a*/x", "", "data", true},
		{"src", "src", "src", true},
	} {
		p := newSendPatterns(&fsutil.FilterOpt{
			IncludePatterns: strings.Fields(test.include), ExcludePatterns: strings.Fields(test.exclude),
		})
		if got := p.excludeBelow(test.directory); got != test.want {
			t.Errorf("include %q, exclude %q: %s %t, want %t", test.include, test.exclude, test.directory, got, test.want)
		}
	}
}

// Each case builds with the directories and links of a repository. BuildKit's own client sends only one of two paths
// through a link.
func TestCopyThroughLinks(t *testing.T) { onBothVersions(t, testCopyThroughLinks) }

func testCopyThroughLinks(t *testing.T, _ *services, c *client.Client) {
	for _, test := range []struct {
		name, copies, ignore string
		want                 string // files of the image, or the error
	}{
		{"two paths", "COPY link/a /a\nCOPY link/b /b", "", "a/x b/x"},
		{"wildcard and path", "COPY link/* /all/\nCOPY link/a /a", "", "a/x all/c.txt all/d all/x"},
		{"link to a link", "COPY again/a /a\nCOPY again/b /b\nCOPY link/c.txt /", "", "a/x b/x c.txt"},
		{"nested links", "COPY link/up/d /d\nCOPY link/a/x /x", "", "d x"},
		{"absolute link", "COPY absolute/x /x\nCOPY absolute /y", "", "x y/x"},
		{"whole folder and a part", "COPY link /all\nCOPY link/b /b", "", "all/a/x all/b/x all/c.txt all/up b/x"},
		{"file", "COPY link.txt /", "", "link.txt"},
		{"ignored target", "COPY link/a /a\nCOPY link/b /b", "real/b", "COPY link/b: excluded by .dockerignore (add the line !real/b to it)"},
		{"ignored part", "COPY link/a /a\nCOPY link /b", "real/b\nreal/up\n**/x\n", "b/c.txt"},
		{"out of the context", "COPY out /", "", "not in the build context"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{
				"Dockerfile": "FROM scratch\n" + test.copies, ".dockerignore": test.ignore,
				"real/a/x": "a", "real/b/x": "b", "real/c.txt": "c", "other/d": "d",
			})
			writeLinks(t, dir, map[string]string{
				"link": "real", "again": "link", "absolute": "/real/b", "real/up": "../other", "out": "/etc/passwd",
				"link.txt": "real/c.txt",
			})
			result, _, err := solve(t.Context(), c, request(dir))
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %s", err, test.want)
				}
				return
			}
			var got []string
			for name, file := range extract(t, result.Image) {
				if !file.header.FileInfo().IsDir() {
					got = append(got, name)
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

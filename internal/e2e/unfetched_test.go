//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/github"
)

// A commit's Git LFS files and submodules are in the image, or a warning names them.
func TestLFSAndSubmodules(t *testing.T) {
	e := setup(t)
	dir := writeFiles(t, values{
		"Dockerfile": "FROM scratch\nCOPY . /\n", ".gitattributes": "*.bin filter=lfs -text\n",
		"lib/file":    "of the submodule",
		".gitmodules": "[submodule \"lib\"]\n\tpath = vendor/lib\n\turl = ../large.git\n",
	})
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	content := strings.Repeat("large", 1000)
	oid := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
	objects := filepath.Join(dir, ".git/lfs/objects", oid[:2], oid[2:4])
	must(t, os.MkdirAll(objects, 0o755))
	writeFile(t, objects, oid, content)
	pointer := fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content))
	writeFile(t, dir, "big.bin", pointer)
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "--message=library")
	library := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "update-index", "--add", "--cacheinfo", "160000,"+library+",vendor/lib")
	git(t, dir, "commit", "--quiet", "--message=main")
	must(t, os.MkdirAll(filepath.Join(dir, "vendor/lib"), 0o755))
	e.GitHub.Change(func(o *github.Options) {
		o.Repositories = append(o.Repositories, github.Repository{Owner: "acme", Name: "large", Dir: dir, Private: true})
	})
	t.Cleanup(func() {
		e.GitHub.Change(func(o *github.Options) {
			o.Repositories = slices.DeleteFunc(o.Repositories, func(r github.Repository) bool { return r.Dir == dir })
		})
	})
	modules := "has submodules that are not fetched: vendor/lib; set submodules: true"
	for _, test := range []struct {
		name             string
		dir              string // default: an empty workspace
		inputs           values
		file, submodule  string // content in the image
		warning, without string // parts of the log that are there, and that are not
	}{
		{name: "defaults", file: content, warning: modules, without: "LFS files that"},
		{name: "with submodules", inputs: values{"submodules": "true"}, file: content, submodule: "of the submodule",
			without: "not fetched"},
		{name: "without LFS", inputs: values{"lfs": "false"}, file: pointer, without: "LFS files that"},
		{name: "workspace", dir: dir, inputs: values{"ref": ""}, file: pointer,
			warning: "The checkout has Git LFS files that contain only pointers: big.bin; set lfs: true"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := t.TempDir()
			if test.dir == "" {
				test.dir = t.TempDir()
			}
			r := e.mustRun(t, invocation{
				dir: test.dir, env: values{"GITHUB_REPOSITORY": "acme/large"},
				inputs: merge(values{"ref": "main", "load": "false", "outputs": "type=local,dest=" + out}, test.inputs),
			})
			if got := read(t, filepath.Join(out, "big.bin")); got != test.file {
				t.Errorf("big.bin: %.200q", got)
			}
			if got := read(t, filepath.Join(out, "vendor/lib/lib/file")); got != test.submodule {
				t.Errorf("file of the submodule: %q", got)
			}
			log := r.stdout + r.stderr
			if !strings.Contains(log, test.warning) || test.without != "" && strings.Contains(log, test.without) {
				t.Errorf("want %q in the log, and not %q:\n%s", test.warning, test.without, log)
			}
		})
	}
}

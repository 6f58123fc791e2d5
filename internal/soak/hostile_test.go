//go:build linux

package soak

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
)

// mark is a file that hostile input tries to create.
const mark = "/tmp/soak-escaped"

// maxMemory is the largest resident set, in KiB, that a program may have for hostile input.
const maxMemory = 512 << 10

// filesSuite has checks that read all files of an image.
const filesSuite = `tests:
  - name: files
    files:
      - { path: "/**/*.conf", absent: true }
      - { path: /etc/shadow, absent: true }
`

// Hostile input is refused with an error or has no effect, and uses bounded memory.
func TestHostileImages(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		name  string
		layer func(w *tar.Writer) error
	}{
		{"a layer with paths outside of the root", func(w *tar.Writer) error {
			return writeEntries(w, file("../../soak-escaped", "x"), file("/../soak-escaped", "x"), file("a/../../../x", "x"))
		}},
		{"a layer with links out of the root", func(w *tar.Writer) error {
			return writeEntries(w, link("out", "../../../../../../tmp"), file("out/soak-escaped", "x"),
				hardlink("passwd", "../../../../etc/passwd"))
		}},
		{"a layer with a loop of links", func(w *tar.Writer) error {
			return writeEntries(w, link("a", "b"), link("b", "a"), link("self", "self/x"))
		}},
		{"a layer with devices", func(w *tar.Writer) error {
			return writeEntries(w,
				entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o666, Devmajor: 254}},
				entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o666}})
		}},
		{"a layer with many files", func(w *tar.Writer) error {
			for i := range inFull(1_000_000, 20_000) {
				if err := writeEntries(w, file(fmt.Sprintf("d%d/f%d", i%1000, i), "")); err != nil {
					return err
				}
			}
			return nil
		}},
		{"a layer that unpacks to a large file", func(w *tar.Writer) error {
			size := int64(inFull(4<<30, 256<<20))
			if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}); err != nil {
				return err
			}
			_, err := io.CopyN(w, zeros{}, size)
			return err
		}},
		{"a layer with long names", func(w *tar.Writer) error {
			return writeEntries(w, file(strings.Repeat("d/", 2000)+"f", "x"), file(strings.Repeat("n", 4000), "x"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := fmt.Sprintf("hostile-%d", l.runs.Load())
			if err := l.pushLayer(t.Context(), id, test.layer); err != nil {
				t.Fatal(err)
			}
			f := testFlow
			f.inputs = func(l *lab, _ string) map[string]string {
				return map[string]string{"image": l.pushed(id), "suite": "tests.yaml"}
			}
			f.files = map[string]string{"tests.yaml": filesSuite}
			f.check = checkNothing
			l.tryHostile(t, "image: "+test.name, f)
		})
	}
}

func TestHostileDockerfiles(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct{ name, dockerfile string }{
		{"a step that prints workflow commands", fromDebian +
			"RUN echo '::set-output name=digest::x'; echo '::error::forged'; echo '::add-mask::a'; echo '##[error]forged'\n"},
		{"a step that prints escape sequences", fromDebian + "RUN printf '\\033]0;title\\007\\033[2J\\r\\b\\0'\n"},
		{"a step that prints 1 GB", fromDebian +
			fmt.Sprintf("RUN head -c %d /dev/zero | tr '\\0' x\n", inFull(1<<30, 32<<20))},
		{"a step that prints many lines", fromDebian + fmt.Sprintf("RUN yes | head -n %d\n", inFull(1_000_000, 100_000))},
		{"a Dockerfile of 10,000 instructions", "FROM scratch\n" + strings.Repeat("ENV A=b\n", 10_000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := buildOnly
			f.files = map[string]string{"Dockerfile": test.dockerfile}
			l.tryHostile(t, "Dockerfile: "+test.name, f)
		})
	}
}

// hostileBranches are the branches of a repository, each with a script that prints the ID of its tree. MARK is a file
// that no script of the branch may create.
var hostileBranches = []struct{ name, script string }{
	{"a .git directory with a hook", `hook=$(printf '#!/bin/sh\ntouch %s\n' "$MARK" | git hash-object -w --stdin)
		hooks=$(printf '100755 blob %s\tpost-checkout\n' $hook | git mktree)
		git_dir=$(printf '040000 tree %s\thooks\n' $hooks | git mktree)
		{ git ls-tree main; printf '040000 tree %s\t.git\n' $git_dir; } | git mktree`},
	{"other spellings of .git", `config=$(printf '[core]\nfsmonitor = touch %s\n' "$MARK" | git hash-object -w --stdin)
		git_dir=$(printf '100644 blob %s\tconfig\n' $config | git mktree)
		{ git ls-tree main; printf '040000 tree %s\t.GIT\n040000 tree %s\tgit~1\n' $git_dir $git_dir; } | git mktree`},
	{"a link and a directory of the same name", `link=$(printf '%s' "$(dirname "$MARK")" | git hash-object -w --stdin)
		file=$(echo x | git hash-object -w --stdin)
		directory=$(printf '100644 blob %s\t%s\n' $file "$(basename "$MARK")" | git mktree)
		{ git ls-tree main; printf '120000 blob %s\tout\n040000 tree %s\tout\n' $link $directory; } | git mktree`},
	{"names with line breaks and workflow commands", `pointer=$(printf 'version https://git-lfs.github.com/spec/v1
oid sha256:%064d\nsize 1\n' 0 | git hash-object -w --stdin)
		{ git ls-tree main; printf '100644 blob %s\t"a\\n::error::forged"\n100644 blob %s\t"b\\r##[error]forged\\033[2J"\n' \
		$pointer $pointer; } | git mktree`},
	{"filters and a Git LFS server of its own", `attributes=$(echo '* filter=evil' | git hash-object -w --stdin)
		config=$(printf '[filter "evil"]\nsmudge = touch %s\n' "$MARK" | git hash-object -w --stdin)
		lfs=$(printf '[lfs]\nurl = ext::touch %s\n' "$MARK" | git hash-object -w --stdin)
		{ git ls-tree main; printf '100644 blob %s\t.gitattributes\n100644 blob %s\t.gitconfig\n' $attributes $config
		printf '100644 blob %s\t.lfsconfig\n' $lfs; } | git mktree`},
	{"submodules that run commands", `printf '[submodule "../../../../x"]\npath = x\nurl = ext::touch %s\n' "$MARK" > ../m
		modules=$(git hash-object -w ../m)
		{ git ls-tree main; printf '100644 blob %s\t.gitmodules\n160000 commit %s\tx\n' $modules \
		$(git rev-parse main); } | git mktree`},
	{"a Dockerfile that links to /etc/passwd", `link=$(printf /etc/passwd | git hash-object -w --stdin)
		{ git ls-tree main | grep -v Dockerfile; printf '120000 blob %s\tDockerfile\n' $link; } | git mktree`},
	{"a deep directory", `tree=$(git rev-parse main^{tree})
		for i in $(seq 300); do tree=$(printf '040000 tree %s\tdirectory-%s\n' $tree $i | git mktree); done
		{ git ls-tree main; printf '040000 tree %s\tdeep\n' $tree; } | git mktree`},
	{"a large file", fmt.Sprintf(`file=$(head -c %d /dev/zero | git hash-object -w --stdin)
		{ git ls-tree main; printf '100644 blob %%s\tzeros\n' $file; } | git mktree`, 64<<20)},
	{"many files", fmt.Sprintf(`file=$(echo x | git hash-object -w --stdin)
		files=$(for i in $(seq %d); do printf "100644 blob %%s\tf$i\n" $file; done | git mktree)
		{ git ls-tree main; printf '040000 tree %%s\tmany\n' $files; } | git mktree`, 20_000)},
	{"a .dockerignore of many patterns", `patterns=$(seq -f '**/a*b*%g*c' 10000 | git hash-object -w --stdin)
		{ git ls-tree main; printf '100644 blob %s\t.dockerignore\n' $patterns; } | git mktree`},
}

func TestHostileRepositories(t *testing.T) {
	const create = `git init --quiet --initial-branch=main; printf 'FROM scratch\nCOPY . /\n' > Dockerfile
		git add --all; git commit --quiet --message=begin`
	dir := filepath.Join(t.TempDir(), "hostile")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := runScript(dir, create); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, github.Repository{Owner: "acme", Name: "hostile", Dir: dir, Private: true})
	for n, branch := range hostileBranches {
		t.Run(branch.name, func(t *testing.T) {
			ref := fmt.Sprintf("branch-%d", n)
			_, err := runScript(
				dir,
				fmt.Sprintf(`git update-ref refs/heads/%s $(git commit-tree -m x $(%s))`, ref, branch.script),
			)
			if err != nil {
				t.Fatal(err)
			}
			f := buildOnly
			f.repository = "acme/hostile"
			f.inputs = func(*lab, string) map[string]string {
				return map[string]string{"ref": ref, "load": "false", "submodules": "recursive", "lfs": "false"}
			}
			l.tryHostile(t, "repository: "+branch.name, f)
		})
	}
}

func TestHostileWorkspaces(t *testing.T) {
	l := newLab(t)
	const dockerfile = `printf 'FROM scratch\nCOPY . /\n' > Dockerfile; `
	for _, test := range []struct{ name, script string }{
		{"a Dockerfile that is a named pipe", `mkfifo Dockerfile`},
		{"a Dockerfile that links to /dev/zero", `ln -s /dev/zero Dockerfile`},
		{"a Dockerfile that is a directory", `mkdir Dockerfile`},
		{"a .dockerignore that is a named pipe", dockerfile + `mkfifo .dockerignore`},
		{"a .dockerignore that links to /dev/zero", dockerfile + `ln -s /dev/zero .dockerignore`},
		{"a depot.json that is a named pipe", dockerfile + `mkfifo depot.json`},
		{"a depot.json that links to /dev/zero", dockerfile + `ln -s /dev/zero depot.json`},
		{"a named pipe in the context", dockerfile + `mkfifo pipe`},
		{"a device in the context", dockerfile + `mknod disk b 254 0`},
		{"a loop of links in the context", dockerfile + `ln -s a b; ln -s b a; ln -s . self`},
		{"names with line breaks", dockerfile + `touch "$(printf 'a\n::error::forged\033[2J')"`},
		{"a file system monitor", dockerfile + `git init --quiet; git add --all; git commit --quiet --message=x
			git config core.fsmonitor "touch $MARK"`},
		{"a .git file that names another repository", dockerfile + `mkdir other; git init --quiet other
			git -C other config core.fsmonitor "touch $MARK"; echo "gitdir: other/.git" > .git`},
		{"a .git that is a named pipe", dockerfile + `mkfifo .git`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := buildOnly
			f.script = test.script
			l.tryHostile(t, "workspace: "+test.name, f)
		})
	}
	for _, test := range []struct{ name, script string }{
		{"a suite that is a named pipe", `mkfifo tests.yaml`},
		{"a suite that links to /dev/zero", `ln -s /dev/zero tests.yaml`},
		{"a suite of nested aliases", `{ echo 'a0: &a0 [x,x,x,x,x,x,x,x,x]'
			for i in $(seq 9); do echo "a$i: &a$i [*a$((i-1)),*a$((i-1)),*a$((i-1)),*a$((i-1)),*a$((i-1)),*a$((i-1))]"; done
			echo 'tests: *a9'; } > tests.yaml`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := testFlow
			f.files, f.script, f.check = nil, test.script, checkNothing
			l.tryHostile(t, "workspace: "+test.name, f)
		})
	}
}

// buildOnly builds the workspace without the cache.
var buildOnly = flow{
	name: "build", program: "action-build", check: checkNothing,
	inputs: func(*lab, string) map[string]string {
		return map[string]string{"context": ".", "dockerfile": "Dockerfile", "load": "false", "no_cache": "true"}
	},
}

func checkNothing(context.Context, *lab, trial) error { return nil }

// inFull returns n for a run with -full, and less otherwise.
func inFull(n, less int) int {
	if *full {
		return n
	}
	return less
}

func (l *lab) tryHostile(t *testing.T, name string, f flow) {
	t.Helper()
	var used atomic.Int64
	run := l.try(t.Context(), f, func(pid int, _ *programs.Buffer) { go watchMemory(pid, &used) })
	run.name = name
	if used.Load() == 0 || used.Load() > maxMemory {
		run.fail("the program used %d KiB of memory", used.Load())
	}
	if _, err := os.Lstat(mark); err == nil {
		run.fail("the input created %s", mark)
		_ = os.Remove(mark)
	}
	l.record(t, f, run, row{hostile, name})
}

// watchMemory stores the largest resident set of a process, in KiB, until the process ends. The usage that wait reports
// includes that of the test before it started the program.
func watchMemory(pid int, used *atomic.Int64) {
	for ; ; time.Sleep(10 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, field, found := strings.Cut(string(status), "VmHWM:")
		if err != nil || !found { // it has ended
			return
		}
		if size, err := strconv.ParseInt(strings.Fields(field)[0], 10, 64); err == nil {
			used.Store(size)
		}
	}
}

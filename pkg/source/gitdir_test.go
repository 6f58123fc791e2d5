package source

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	standin "github.com/org/sandbox-actions/internal/localcloud/github"
)

// newRepository returns a repository with symbolic links, an executable, unusual names, a submodule and two commits.
func newRepository(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "origin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, `git init -q
		git config uploadpack.allowFilter true; git config uploadpack.allowAnySHA1InWant true
		mkdir -p a/b 'with space'; echo one > a/b/file; echo two > 'with space/ä'; printf 'x\n' > $'tab\there'
		printf '#!/bin/sh\n' > run.sh; chmod +x run.sh; ln -s a/b/file link; ln -s /missing dangling; : > empty
		git add .; git commit -qm first
		git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,module; mkdir module
		echo more >> a/b/file; git add a; git commit -qm second`)
	return dir
}

// listFiles lists all files in a directory with permissions, time and checksum, one per line.
func listFiles(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		sum := ""
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = fmt.Sprintf("%x", sha256.Sum256(data))
		}
		name, _ := filepath.Rel(dir, path)
		modified := info.ModTime().UTC().Format(time.RFC3339Nano)
		lines = append(lines, fmt.Sprintf("%s %s %s %s", name, info.Mode(), modified, sum))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func gitDirOf(t testing.TB, checkout string) string {
	t.Helper()
	tree, err := OpenCheckout(context.Background(), checkout)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "git")
	if err := tree.WriteGitDir(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serveHTTPS serves a repository over HTTPS. It returns the URL and the number of requests for objects. The environment
// makes git accept the certificate.
func serveHTTPS(t *testing.T, repository string) (url string, fetches *atomic.Int64) {
	t.Helper()
	sh(t, repository, "git config uploadpack.allowFilter true; git config uploadpack.allowAnySHA1InWant true")
	backend := &cgi.Handler{
		Path: filepath.Join(sh(t, repository, "git --exec-path"), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + filepath.Dir(repository), "GIT_HTTP_EXPORT_ALL=1"},
	}
	fetches = &atomic.Int64{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			fetches.Add(1)
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(authority, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_SSL_CAINFO", authority)
	return server.URL + "/" + filepath.Base(repository), fetches
}

// Objects of other repositories could be anywhere on the machine.
func TestSharedObjects(t *testing.T) {
	parent := t.TempDir()
	sh(t, parent, "git clone -q --shared "+newRepository(t)+" c")
	_, err := OpenCheckout(t.Context(), filepath.Join(parent, "c"))
	checkError(t, err, "c/.git/objects/info/alternates", "git repack -a -d")
}

func TestGitDirOfClones(t *testing.T) {
	origin := newRepository(t)
	want := listFiles(t, gitDirOf(t, origin))
	url, _ := serveHTTPS(t, origin)
	t.Setenv("HTTPS", url)
	for name, script := range map[string]string{
		"clone":          "git clone -q %s c",
		"shallow clone":  "git clone -q --depth 1 file://%s c",
		"partial clone":  "git clone -q --filter=blob:none --no-checkout $HTTPS c",
		"treeless clone": "git clone -q --filter=tree:0 --no-checkout $HTTPS c",
		"worktree":       "git -C %s worktree add -q --detach $PWD/c",
		"repacked":       "git clone -q %s c; git -C c -c pack.window=50 -c core.compression=9 repack -qadf",
		"loose": `git clone -q %s c; cd c; git repack -qad; mv .git/objects/pack .git/p
			for p in .git/p/*.pack; do git unpack-objects -q < $p; done`,
		"another umask":   "umask 077; git clone -q %s c",
		"sparse":          "git clone -q --sparse %s c",
		"replaced commit": "git clone -q %s c; git -C c replace HEAD HEAD^; git -C c replace HEAD^{tree} HEAD^^{tree}",
		"settings change": `git clone -q %s c; git -C c config core.autocrlf true
			git -C c config index.version 4; git -C c config core.bigFileThreshold 1`,
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			if name == "worktree" {
				t.Cleanup(func() { sh(t, origin, "git worktree prune") })
			}
			sh(t, parent, strings.ReplaceAll(script, "%s", origin))
			if got := listFiles(t, gitDirOf(t, filepath.Join(parent, "c"))); got != want {
				t.Errorf(".git differs:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Otherwise, git would connect to the server for each missing blob.
func TestPartialCloneFetchesOnce(t *testing.T) {
	url, fetches := serveHTTPS(t, newRepository(t))
	dir := t.TempDir()
	sh(t, dir, "git clone -q --filter=blob:none --no-checkout "+url+" c")
	before := fetches.Load()
	gitDirOf(t, filepath.Join(dir, "c"))
	if n := fetches.Load() - before; n != 1 {
		t.Errorf("%d requests for objects, want 1", n)
	}
}

// The number of CPUs decides only how many packs are written at once.
func TestGitDirOnOneCPU(t *testing.T) {
	origin := newRepository(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(parallelPacks))
	want := listFiles(t, gitDirOf(t, origin))
	runtime.GOMAXPROCS(1)
	if got := listFiles(t, gitDirOf(t, origin)); got != want {
		t.Errorf(".git differs:\n%s\nwant\n%s", got, want)
	}
}

func TestSplitIntoPacks(t *testing.T) {
	const large = maxSharedPack / 2
	for name, test := range map[string]struct{ entries, want string }{
		"small blobs share a pack": {"a1:1 a2:1 af:1 b1:1", "a1,a2,af b1"},
		"large blobs of a digit":   {fmt.Sprintf("a1:1 a2:%d a3:%[1]d b1:1 b2:1", large), "a1 a2 a3 b1,b2"},
		"repeated blob":            {fmt.Sprintf("a1:1 a2:%d a2:%[1]d", large), "a1,a2"},
		"objects of one byte":      {fmt.Sprintf("a10:1 a11:%d a2:%[1]d", large), "a10,a11 a2"},
		"nothing":                  {"", ""},
	} {
		var entries []treeEntry
		for _, field := range strings.Fields(test.entries) {
			id, size, _ := strings.Cut(field, ":")
			n, err := strconv.ParseInt(size, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, treeEntry{id: id, size: n, kind: "blob"})
		}
		var ids, packs []string
		for _, e := range entries {
			ids = append(ids, e.id)
		}
		for _, pack := range splitIntoPacks(slices.Compact(ids), entries) {
			packs = append(packs, strings.Join(pack, ","))
		}
		if got := strings.Join(packs, " "); got != test.want {
			t.Errorf("%s: packs %q, want %q", name, got, test.want)
		}
	}
}

func TestGitDirIgnoresUserSettings(t *testing.T) {
	origin := newRepository(t)
	want := listFiles(t, gitDirOf(t, origin))
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("GIT_WORK_TREE", "/nowhere")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	for name, value := range map[string]string{
		"core.autocrlf": "true", "core.quotePath": "true", "core.precomposeUnicode": "true", "core.abbrev": "4",
		"core.compression": "0", "core.checkRoundtripEncoding": "UTF-16", "i18n.logOutputEncoding": "latin1",
		"color.ui": "always", "index.version": "4", "pack.indexVersion": "1", "log.showSignature": "true",
		"status.short":   "true",
		"core.fsmonitor": "touch " + home + "/ran; false", "core.hooksPath": home, "extensions.worktreeConfig": "true",
	} {
		sh(t, home, fmt.Sprintf("git config -f .gitconfig %s '%s'", name, value))
	}
	umask := syscall.Umask(0o077)
	got := listFiles(t, gitDirOf(t, origin))
	syscall.Umask(umask)
	if got != want {
		t.Errorf(".git differs:\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat(filepath.Join(home, "ran")); err == nil {
		t.Error("the user's file system monitor ran")
	}
}

// A fetched commit has the same .git as a cloned one, so builds of both share the builder's cache.
func TestGitDirOfFetchedCommit(t *testing.T) {
	origin := newRepository(t)
	hub.Change(func(o *standin.Options) {
		o.Repositories = append(
			o.Repositories,
			standin.Repository{Owner: "octo", Name: "origin", Dir: origin, Private: true},
		)
	})
	defer hub.Change(func(o *standin.Options) { o.Repositories = o.Repositories[:len(o.Repositories)-1] })
	tree, err := fetch(t, fromHub("origin", goodToken), sh(t, origin, "git rev-parse HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "git")
	if err := tree.WriteGitDir(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if got, want := listFiles(t, dir), listFiles(t, gitDirOf(t, origin)); got != want {
		t.Errorf(".git differs:\n%s\nwant\n%s", got, want)
	}
	if got := sh(t, tree.Dir, "GIT_DIR="+dir+" GIT_WORK_TREE=$PWD git status --porcelain"); got != "" {
		t.Errorf("git status of the fetched files: %s", got)
	}
}

func TestGitDirIsValidRepository(t *testing.T) {
	origin := newRepository(t)
	head := sh(t, origin, "git rev-parse HEAD")
	copied := filepath.Join(t.TempDir(), "copy")
	script := fmt.Sprintf("git clone -q %s copy; rm -rf copy/.git; cp -r %s copy/.git", origin, gitDirOf(t, origin))
	sh(t, filepath.Dir(copied), script)
	for _, test := range []struct{ script, want string }{
		{"git rev-parse HEAD", head},
		{"git status --porcelain", ""},
		{"git fsck --strict --no-dangling", ""},
		{"git log --format=%s", "second"},
		{"git ls-files -s | wc -l", sh(t, origin, "git ls-files -s | wc -l")},
		{"git cat-file -p HEAD:a/b/file", "one\nmore"},
		{
			"git count-objects -v | grep ^in-pack", "in-pack: " + sh(t, origin, "git rev-list --objects --no-walk HEAD | wc -l"),
		},
		{"echo x > new; git add new; git commit -qm third; git log --oneline | wc -l", "2"},
	} {
		if got := sh(t, copied, test.script); got != test.want {
			t.Errorf("%s: %q, want %q", test.script, got, test.want)
		}
	}
}

func TestGitDirOfSHA256(t *testing.T) {
	dir := t.TempDir()
	sh(t, dir, "git init -q --object-format=sha256 .; echo a > a; git add a; git commit -qm first")
	copied := t.TempDir()
	sh(t, copied, fmt.Sprintf("cp -r %s .git; cp %s/a .", gitDirOf(t, dir), dir))
	if got := sh(t, copied, "git fsck --strict; git status --porcelain; git log --format=%s"); got != "first" {
		t.Errorf("%q", got)
	}
}

// After a small commit, most files of .git stay the same, so they are not sent to the builder again.
func TestGitDirAfterSmallCommit(t *testing.T) {
	dir := manyFiles(t, 2_000)
	before := listFiles(t, gitDirOf(t, dir))
	sh(t, dir, `git fast-import --quiet <<'EOF'
commit refs/heads/main
committer a <a@b> 1700000001 +0000
data 1
x
from refs/heads/main^0
M 644 inline d1/f1
data 7
changed
EOF`)
	after := strings.Split(listFiles(t, gitDirOf(t, dir)), "\n")
	changed := 0
	for _, line := range after {
		if !strings.Contains(before+"\n", line+"\n") {
			changed++
		}
	}
	// Replacing a blob, two trees and a commit changes at most eight packs, each with its index. HEAD, index and shallow
	// change too.
	if changed > 19 || changed < 4 {
		t.Errorf("%d of %d files changed", changed, len(after))
	}
}

func TestWriteGitDirFails(t *testing.T) {
	for _, test := range []struct {
		name, script string
		phrases      []string
	}{
		{
			"missing object",
			`git clone -q ORIGIN c; cd c; git unpack-objects -q < $(ls .git/objects/pack/*.pack) || true
				id=$(git rev-parse HEAD:a/b/file); rm -rf .git/objects/${id:0:2}/${id:2}`,
			[]string{"read object ", "missing", "fetch the commit again"},
		},
		{
			"missing tree", "git clone -q ORIGIN c; cd c; id=$(git rev-parse HEAD:a); rm -rf .git/objects/${id:0:2}/${id:2}",
			[]string{"git ls-tree"},
		},
		{
			"partial clone without its origin",
			"git clone -q --filter=blob:none --no-checkout file://ORIGIN c; git -C c remote set-url origin file:///nowhere",
			[]string{"fetch the objects that the partial clone lacks: git pack-objects", "check out without a filter"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			origin, parent := newRepository(t), t.TempDir()
			sh(t, parent, strings.ReplaceAll(test.script, "ORIGIN", origin))
			tree, err := OpenCheckout(t.Context(), filepath.Join(parent, "c"))
			if err != nil {
				t.Fatal(err)
			}
			checkError(t, tree.WriteGitDir(t.Context(), filepath.Join(t.TempDir(), "git")), test.phrases...)
		})
	}
	tree, err := OpenCheckout(t.Context(), newRepository(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.WriteGitDir(t.Context(), "/dev/null/git"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("error = %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("timed out")
	cancel(cause)
	if err := tree.WriteGitDir(ctx, filepath.Join(t.TempDir(), "git")); !errors.Is(err, cause) {
		t.Errorf("error = %v, want the cause", err)
	}
}

func TestGitDirWithoutCommit(t *testing.T) {
	dir := t.TempDir()
	tree, err := OpenCheckout(t.Context(), dir)
	if err != nil || tree.SHA != "" {
		t.Fatalf("%+v, %v", tree, err)
	}
	checkError(t, tree.WriteGitDir(t.Context(), filepath.Join(t.TempDir(), "git")), "commit something first")
}

// manyFiles returns a repository with a commit of n files.
func manyFiles(t testing.TB, n int) string {
	dir := t.TempDir()
	sh(t, dir, fmt.Sprintf(`git init -q; (
		echo 'commit refs/heads/main'; echo 'committer a <a@b> 1700000000 +0000'; echo 'data 1'; echo x
		awk 'BEGIN {
			for (i = 0; i < %[1]d; i++) {
				s = sprintf("file %%d %%d\n", i, i * 7919)
				printf "M 644 inline d%%d/f%%d\ndata %%d\n%%s\n", i %% (%[1]d / 50), i, length(s), s
			}
		}'
	) | git fast-import --quiet`, n))
	return dir
}

// BenchmarkGitDir writes the .git of a commit with 100,000 objects.
func BenchmarkGitDir(b *testing.B) {
	tree, err := OpenCheckout(b.Context(), manyFiles(b, 98_000))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := tree.WriteGitDir(b.Context(), filepath.Join(b.TempDir(), "git")); err != nil {
			b.Fatal(err)
		}
	}
}

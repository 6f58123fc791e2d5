package source

import (
	"path/filepath"
	"strings"
	"testing"

	standin "github.com/org/sandbox-actions/internal/localcloud/github"
)

// lfsFunctions are shell functions for repositories with Git LFS, which need no git-lfs: `pointer TEXT` prints the
// pointer of an object with that text, and `lfs PATH TEXT` also stores the object and writes the pointer to PATH.
const lfsFunctions = `pointer() {
		printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n' \
			"$(printf %s "$1" | sha256sum | cut -d' ' -f1)" ${#1}
	}
	lfs() {
		mkdir -p "$(dirname "$1")"; pointer "$2" >"$1"
		local id; id=$(printf %s "$2" | sha256sum | cut -d' ' -f1)
		local folder; folder=$(git rev-parse --git-dir)/lfs/objects/${id:0:2}/${id:2:2}
		mkdir -p "$folder"; printf %s "$2" >"$folder/$id"
	}
	`

// addRepository creates octo/NAME on the hub with a script, and returns the SHA of its commit.
func addRepository(t *testing.T, name, script string, private bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	sh(t, filepath.Dir(dir), lfsFunctions+"git init -q "+name+"; cd "+name+"\n"+script+`
		git add -A; git commit -qm x`)
	hub.Change(func(o *standin.Options) {
		o.Repositories = append(o.Repositories, standin.Repository{Owner: "octo", Name: name, Dir: dir, Private: private})
	})
	t.Cleanup(func() {
		hub.Change(func(o *standin.Options) {
			for i, r := range o.Repositories {
				if r.Dir == dir {
					o.Repositories = append(o.Repositories[:i:i], o.Repositories[i+1:]...)
					break
				}
			}
		})
	})
	return sh(t, dir, "git rev-parse HEAD")
}

const trackBin = "echo '*.bin filter=lfs diff=lfs merge=lfs -text' >.gitattributes; "

func TestFetchLFS(t *testing.T) {
	sha := addRepository(
		t,
		"large",
		`printf '%s\n' '*.bin filter=lfs diff=lfs merge=lfs -text' '[attr]large filter=lfs -text' \
			'docs/*.pdf large' 'examples/*.bin -filter' '*.txt text eol=crlf' >.gitattributes
		lfs a.bin one; lfs "b c/ä.bin" two; chmod +x a.bin; lfs docs/x.pdf three; lfs again.bin one
		mkdir -p sub examples; echo '*.dat filter=lfs' >sub/.gitattributes; lfs sub/y.dat four; lfs y.dat five
		pointer none >examples/pointer.bin; pointer '' >empty.bin; : >nothing.bin; echo 'not a pointer' >text.bin
		ln -s a.bin link.bin; echo text >crlf.txt`,
		true,
	)
	before := len(hub.Requests())
	var log []string
	r := fromHub("large", goodToken)
	r.Logf = func(format string, _ ...any) { log = append(log, format) }
	tree, err := r.Fetch(t.Context(), Commit{SHA: sha, Ref: "refs/heads/main"}, filepath.Join(t.TempDir(), "s"),
		FetchOptions{LFS: true})
	if err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]string{
		"cat a.bin again.bin 'b c/ä.bin' docs/x.pdf sub/y.dat": "oneonetwothreefour",
		"stat -c %a a.bin again.bin":                           "755\n644",
		"head -1 y.dat examples/pointer.bin | grep -c version": "2",
		"cat empty.bin nothing.bin; cat text.bin":              "not a pointer",
		"readlink link.bin":                                    "a.bin",
		"echo *; ls -A | wc -l": "a.bin again.bin b c crlf.txt docs empty.bin examples link.bin nothing.bin sub " +
			"text.bin y.dat\n13",
	} {
		if got := sh(t, tree.Dir, "export LC_ALL=C; "+script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	contentTime := sh(t, tree.Dir, "stat -c %y a.bin")
	downloads := 0
	for _, request := range hub.Requests()[before:] {
		if strings.HasPrefix(request.Path, standin.LFSObjects) {
			downloads++
			if request.HasToken {
				t.Error("the storage got the token")
			}
		}
	}
	if downloads != 4 || len(log) != 1 || len(tree.Unfetched.Pointers) > 0 {
		t.Errorf("%d downloads, log %q, %+v", downloads, log, tree.Unfetched)
	}
	extra, err := tree.Extra(t.Context(), tree.Dir, 10) // the workspace has the same content
	if err != nil || len(extra) > 0 {
		t.Errorf("extra = %q, %v", extra, err)
	}
	sh(t, tree.Dir, "printf 1ne >a.bin")
	if extra, err = tree.Extra(t.Context(), tree.Dir, 10); err != nil || strings.Join(extra, " ") != "a.bin" {
		t.Errorf("extra = %q, %v", extra, err)
	}

	before = len(hub.Requests())
	tree, err = fetch(t, fromHub("large", goodToken), sha)
	if err != nil {
		t.Fatal(err)
	}
	pointerTime := sh(t, tree.Dir, "stat -c %y a.bin") // a builder finds changed files by size and time
	if pointerTime == contentTime {
		t.Errorf("the pointer and the content have the time %s", pointerTime)
	}
	const want = "a.bin again.bin b c/ä.bin docs/x.pdf empty.bin sub/y.dat"
	if got := strings.Join(tree.Unfetched.Pointers, " "); got != want {
		t.Errorf("without LFS: pointers = %s, want %s", got, want)
	}
	for _, request := range hub.Requests()[before:] {
		if strings.Contains(request.Path, "lfs") {
			t.Errorf("without LFS: request %+v", request)
		}
	}
}

func TestFetchLFSFails(t *testing.T) {
	large := addRepository(t, "large", trackBin+"lfs a.bin content; lfs dir/b.bin content", true)
	missing := addRepository(t, "missing", trackBin+"pointer nothing >a.bin", false)
	extension := addRepository(t, "extension",
		trackBin+"pointer x | sed '2iext-0-crypt sha256:'$(printf 0%.0s {1..64}) >a.bin", false)
	elsewhere := func(address string) string {
		return trackBin + "lfs a.bin x; git config -f .lfsconfig lfs.url " + address
	}
	refused := addRepository(t, "refused", elsewhere("http://192.0.2.1/lfs"), false)
	own := addRepository(t, "own", elsewhere(hub.ServerURL()+"/octo/large/info/lfs"), false)
	for _, test := range []struct {
		name, repository, sha string
		fault                 standin.Fault
		phrase                string // of the error; "": Fetch succeeds
	}{
		{"batch: 500 once", "large", large, standin.Fault{Path: "/info/lfs/", Status: 500, Times: 1}, ""},
		{"object: 500 once", "large", large, standin.Fault{Path: standin.LFSObjects, Status: 500, Times: 1}, ""},
		{"object: cut once", "large", large, standin.Fault{Path: standin.LFSObjects, Truncate: 3, Times: 1}, ""},
		{"object: wrong bytes once", "large", large,
			standin.Fault{Path: standin.LFSObjects, CorruptLastByte: true, Times: 1}, ""},
		{"object: wrong bytes", "large", large, standin.Fault{Path: standin.LFSObjects, CorruptLastByte: true},
			"download Git LFS files: download a.bin: checksum mismatch"},
		{"no budget", "large", large, standin.LFSBudget(),
			"raise the Git LFS budget of the repository's owner, or set lfs: false"},
		{"rate limit", "large", large, standin.Fault{Path: "/info/lfs/", Status: 429}, "try again in a few minutes"},
		{"missing object", "missing", missing, standin.Fault{}, "does not provide a.bin: 404 Object does not exist"},
		{"extension", "extension", extension, standin.Fault{}, "a.bin: the Git LFS extension crypt is not supported"},
		{"server of .lfsconfig without TLS", "refused", refused, standin.Fault{},
			"lfs.url in .lfsconfig: http URLs are not supported"},
		{"server of .lfsconfig without the object", "own", own, standin.Fault{},
			hub.ServerURL() + "/octo/large/info/lfs does not"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.fault.Path != "" {
				injectFaults(t, test.fault)
			}
			tree, err := fromHub(test.repository, goodToken).Fetch(t.Context(), Commit{SHA: test.sha},
				filepath.Join(t.TempDir(), "s"), FetchOptions{LFS: true})
			if test.phrase != "" {
				checkError(t, err, test.phrase, "fetch "+test.sha)
			} else if err != nil || sh(t, tree.Dir, "cat a.bin dir/b.bin") != "contentcontent" {
				t.Errorf("%+v, %v", tree, err)
			}
		})
	}
}

func TestFetchLFSWithFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root on Linux to mount a small file system; run without -short")
	}
	sha := addRepository(t, "large", trackBin+"lfs a.bin $(head -c 1000000 /dev/zero | tr '\\0' x)", false)
	dir := t.TempDir()
	if out, err := shell(dir, "mount -t tmpfs -o size=400k small ."); err != nil {
		t.Fatalf("%s: run the tests as root on Linux (sudo make test)", out)
	}
	defer sh(t, "/", "umount -l "+dir)
	_, err := fromHub("large", "").Fetch(t.Context(), Commit{SHA: sha}, filepath.Join(dir, "s"), FetchOptions{LFS: true})
	checkError(t, err, "download a.bin", "free disk space, or set RUNNER_TEMP")
}

// A commit cannot make Fetch write the content of an object outside of its directory.
func TestFetchHostileLFS(t *testing.T) {
	outside := t.TempDir()
	sh(t, outside, lfsFunctions+"pointer content >file.bin; chmod 600 file.bin")
	untouched := listFiles(t, outside)
	sha := addRepository(
		t,
		"hostile-lfs",
		trackBin+"lfs a.bin content; git add .; blob=$(git hash-object -w a.bin); rm a.bin"+`
		sub=$(printf '100644 blob %s\tfile.bin\n' $blob | git mktree)
		link=$(printf `+outside+` | git hash-object -w --stdin)
		attributes=$(git hash-object -w .gitattributes)
		tree=$(printf '100644 blob %s\t.gitattributes\n120000 blob %s\ta\n040000 tree %s\ta\n' $attributes $link $sub |
			git mktree)
		git commit-tree -m hostile $tree >.git/hostile`,
		false,
	)
	hostile := sh(t, filepath.Join(repositoryDir(t, "hostile-lfs")), "cat .git/hostile")
	if hostile == sha {
		t.Fatal("no hostile commit")
	}
	_, err := fromHub("hostile-lfs", "").Fetch(t.Context(), Commit{SHA: hostile}, filepath.Join(t.TempDir(), "s"),
		FetchOptions{LFS: true})
	if got := listFiles(t, outside); got != untouched {
		t.Errorf("%v; a file outside has changed:\n%s\nwas\n%s", err, got, untouched)
	}
}

// repositoryDir returns the directory of octo/NAME.
func repositoryDir(t *testing.T, name string) (dir string) {
	t.Helper()
	hub.Change(func(o *standin.Options) {
		for _, r := range o.Repositories {
			if r.Name == name {
				dir = r.Dir
			}
		}
	})
	return dir
}

// The .git directory of a commit with Git LFS files is the same for a clone and for fetched files, and git without
// git-lfs reports no changes with either content.
func TestGitDirLFS(t *testing.T) {
	sha := addRepository(t, "large", trackBin+"lfs a.bin content; echo text >file", false)
	tree, err := fromHub("large", "").Fetch(t.Context(), Commit{SHA: sha}, filepath.Join(t.TempDir(), "s"),
		FetchOptions{LFS: true})
	if err != nil {
		t.Fatal(err)
	}
	gitDir := filepath.Join(t.TempDir(), "git")
	if err := tree.WriteGitDir(t.Context(), gitDir); err != nil {
		t.Fatal(err)
	}
	clone := repositoryDir(t, "large")
	if got, want := listFiles(t, gitDir), listFiles(t, gitDirOf(t, clone)); got != want {
		t.Errorf(".git of the fetched commit:\n%s\nof the clone:\n%s", got, want)
	}
	for name, dir := range map[string]string{"content": tree.Dir, "pointers": clone} {
		script := "export GIT_DIR=" + gitDir + " GIT_WORK_TREE=" + dir + "; "
		if got := sh(t, dir, script+"git status --porcelain; git diff --name-only; git fsck"); got != "" {
			t.Errorf("%s: git reports\n%s", name, got)
		}
	}
	script := "export GIT_DIR=" + gitDir + " GIT_WORK_TREE=$PWD; echo x >>file; " +
		"git update-index --no-assume-unchanged a.bin; git add a.bin; "
	if got := sh(t, tree.Dir, script+"git diff --name-only; git diff --cached --name-only"); got != "file\na.bin" {
		t.Errorf("after changes: git reports %s", got)
	}
}

func TestFindUnfetched(t *testing.T) {
	outside := t.TempDir()
	sh(t, outside, lfsFunctions+"pointer x >c.bin")
	for _, test := range []struct{ name, script, submodules, pointers string }{
		{"plain", "echo x >file", "", ""},
		{"LFS files", trackBin + "lfs a.bin x; lfs dir/b.bin y; echo x >c.bin; pointer x >other", "", "a.bin dir/b.bin"},
		{"fetched LFS files", trackBin + "lfs a.bin x; git add .; printf x >a.bin", "", ""},
		{"untracked files", trackBin + "echo a.bin >.git/info/exclude; pointer x >a.bin", "", ""},
		{"deleted file", trackBin + "lfs a.bin x; git add .; rm a.bin", "", ""},
		{"file behind a link", trackBin + "lfs d/c.bin x; git add .; rm -r d; ln -s " + outside + " d", "", ""},
		{"submodules", link("a", "x", strings.Repeat("1", 40)) + link("b/c", "x", strings.Repeat("2", 40)) + "echo x >a/file",
			"b/c", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, lfsFunctions+"git init -q; "+test.script+`
				git diff --cached --quiet && git add .; git commit -qm x --allow-empty`)
			tree, err := OpenCheckout(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			found, err := tree.FindUnfetched(t.Context())
			if err != nil || strings.Join(found.Submodules, " ") != test.submodules ||
				strings.Join(found.Pointers, " ") != test.pointers {
				t.Errorf("%+v, %v; want %s and %s", found, err, test.submodules, test.pointers)
			}
		})
	}
}

// The content of a Git LFS file is not a change, although git compares it with the pointer.
func TestDirtyLFS(t *testing.T) {
	for _, test := range []struct {
		name, script string
		dirty        bool
	}{
		{"content", "printf content >a.bin", false},
		{"pointer", "true", false},
		{"other content", "printf contents >a.bin", true},
		{"executable", "printf content >a.bin; chmod +x a.bin", true},
		{"staged", "printf content >a.bin; git add a.bin", true},
		{"deleted", "rm a.bin", true},
		{"link", "rm a.bin; printf content >b; ln -s b a.bin", true},
		{"another file", "printf content >a.bin; echo x >b", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			sh(t, dir, lfsFunctions+"git init -q; "+trackBin+"lfs a.bin content; git add .; git commit -qm x; "+test.script)
			if tree, err := OpenCheckout(t.Context(), dir); err != nil || tree.Dirty != test.dirty {
				t.Errorf("dirty = %t, %v; want %t", tree.Dirty, err, test.dirty)
			}
		})
	}
}

package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
)

// Tree is a folder of files to build.
type Tree struct {
	Dir        string // where the files are
	SHA        string // the commit; "" when Dir is in no git repository, or in one without a commit
	Ref        string // refs/heads/…, refs/tags/…; "" when the commit was named by its SHA
	Dirty      bool   // files differ from the commit
	Repository string // owner/name, as the remote's URL says; "" when it does not

	git git // where the commit's objects are
}

// OpenCheckout is dir as it is: with what was changed and not committed.
func OpenCheckout(ctx context.Context, dir string) (Tree, error) {
	t := Tree{Dir: dir, git: git{dir: dir}}
	if err := t.git.recent(ctx); err != nil {
		return Tree{}, err
	}
	sha, err := t.git.run(ctx, nil, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if failed := new(gitError); errors.As(err, &failed) {
		return t, nil // no repository, or no commit yet
	} else if err != nil {
		return Tree{}, err
	}
	t.SHA = strings.TrimSpace(string(sha))
	if t.git, err = t.git.distrust(ctx); err != nil {
		return Tree{}, fmt.Errorf("read the repository's settings: %w", err)
	}
	if ref, err := t.git.run(ctx, nil, "symbolic-ref", "--quiet", "HEAD"); err == nil {
		t.Ref = strings.TrimSpace(string(ref))
	}
	if url, err := t.git.run(ctx, nil, "config", "--get", "remote.origin.url"); err == nil {
		t.Repository = ownerAndName(strings.TrimSpace(string(url)))
	}
	status, err := t.git.run(ctx, nil, "status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty")
	if err != nil {
		return Tree{}, fmt.Errorf("look for changed files: %w", err)
	}
	t.Dirty = len(status) > 0
	return t, nil
}

var remoteForm = regexp.MustCompile(`^(?:https?://(?:[^/@]+@)?[^/]+/|ssh://[^/]+/|[^/@:]+@[^/:]+:)([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+?)(?:\.git)?/?$`)

func ownerAndName(url string) string {
	if m := remoteForm.FindStringSubmatch(url); m != nil && isName(m[1]) && isName(m[2]) {
		return m[1] + "/" + m[2]
	}
	return ""
}

// Fetch gets the files of one commit into dir, which it makes: depth 1, by the exact SHA. The objects are beside it, in dir + ".git", and not
// among the files, as in a git context of docker's. The token is in no URL, no argument and no file.
//
// Permissions and times of the files are made from their content, so that the same commit is the same folder everywhere, and what an earlier
// commit had too is known to the builder.
func (r Repository) Fetch(ctx context.Context, c Commit, dir string) (Tree, error) {
	doing := fmt.Sprintf("fetch %s of %s/%s", c.SHA, r.Owner, r.Name)
	if !shaPattern.MatchString(c.SHA) {
		return Tree{}, fmt.Errorf("%s: that is no full SHA", doing)
	}
	if err := r.check(); err != nil {
		return Tree{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Tree{}, fmt.Errorf("%s: %w", doing, err)
	}
	server := strings.TrimSuffix(r.ServerURL, "/")
	objects := dir + ".git"
	g := git{dir: dir, env: []string{
		"GIT_DIR=" + objects, "GIT_WORK_TREE=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
	}}
	if err := g.recent(ctx); err != nil {
		return Tree{}, fmt.Errorf("%s: %w", doing, err)
	}
	start := []string{"init", "--quiet", "--template="}
	if len(c.SHA) == 64 {
		start = append(start, "--object-format=sha256")
	}
	if _, err := g.run(ctx, nil, start...); err != nil {
		return Tree{}, fmt.Errorf("%s: %w", doing, err)
	}
	withToken := g
	if r.Token != "" {
		basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + r.Token))
		withToken.settings = []string{"http." + server + "/.extraheader", "Authorization: Basic " + basic, "http.followRedirects", "false"}
	}
	url := server + "/" + r.Owner + "/" + r.Name
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		_, err := withToken.run(ctx, nil, "fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance", url, c.SHA)
		if err != nil && !passing(err) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries))
	if err != nil {
		return Tree{}, explainFetch(ctx, doing, server, r.Token != "", err)
	}
	if _, err := g.run(ctx, nil, "checkout", "--quiet", "--force", "--detach", c.SHA); err != nil {
		return Tree{}, explainFetch(ctx, doing, server, r.Token != "", err)
	}
	t := Tree{Dir: dir, SHA: c.SHA, Ref: c.Ref, git: g}
	head, err := g.run(ctx, nil, "rev-parse", "HEAD")
	if err != nil {
		return Tree{}, fmt.Errorf("%s: %w", doing, err)
	}
	if got := strings.TrimSpace(string(head)); got != c.SHA {
		return Tree{}, fmt.Errorf("%s: git checked out %s: try again", doing, got)
	}
	if err := t.settle(ctx); err != nil {
		return Tree{}, fmt.Errorf("%s: %w", doing, err)
	}
	return t, nil
}

// passing reports whether the network may do better next time.
func passing(err error) bool {
	text := err.Error()
	for _, sign := range []string{
		"Could not resolve host", "Failed to connect", "Connection reset", "Connection refused", "Connection timed out", "Operation timed out", "Operation too slow",
		"early EOF", "RPC failed", "unexpected disconnect", "hung up unexpectedly", "Empty reply", "error: 429", "error: 50", "TLS connection was non-properly terminated",
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}

func explainFetch(ctx context.Context, doing, server string, hasToken bool, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	text := err.Error()
	cure := "see what git says"
	contains := func(signs ...string) bool {
		for _, sign := range signs {
			if strings.Contains(text, sign) {
				return true
			}
		}
		return false
	}
	switch {
	case contains("error: 429"):
		cure = "tried " + fmt.Sprint(maxTries) + " times: the server asks to slow down: try again in a few minutes"
	case passing(err):
		cure = "tried " + fmt.Sprint(maxTries) + " times: check the network, and that " + server + " (GITHUB_SERVER_URL) answers"
	case contains("could not read Username", "Authentication failed", "error: 401", "error: 403") && hasToken:
		cure = "the token may not read it: give a github_token with contents: read that has not expired"
	case contains("could not read Username", "Authentication failed", "error: 401", "error: 403"):
		cure = "it is private, or not there: give a github_token with contents: read"
	case contains("error: 301", "error: 302", "error: 307", "error: 308"):
		cure = "it was renamed or moved, and a token is not sent after it: give the name that it has now"
	case contains("not found", "error: 404"):
		cure = "there is no such repository, or the token may not see it: check the name and the github_token"
	case contains("not our ref", "remote ref", "no such remote"):
		cure = "the server no longer has that commit: push it again, or give a ref that is there"
	case contains("is this a git repository", "dumb http transport", "protocol error", "bad line length", "invalid server response", "expected flush"):
		cure = "that is no answer of a git server: check " + server + " (GITHUB_SERVER_URL)"
	case contains("invalid path"):
		cure = "the commit has a file that git does not write, for it could act: remove it"
	case contains("No space left", "Out of diskspace", "disk quota", "Disk quota"):
		cure = "the disk is full: free some space, or set RUNNER_TEMP to a folder on another disk"
	}
	return fmt.Errorf("%s: %w: %s", doing, err, cure)
}

// entry is one line of a commit's tree, with everything below it.
type entry struct {
	mode string // 100644, 100755, 120000, 040000, 160000
	kind string // blob, tree, commit (a submodule)
	id   string
	path string
}

// entries lists all of the commit's files and folders, by path.
func (t Tree) entries(ctx context.Context) ([]entry, error) {
	out, err := t.git.run(ctx, nil, "ls-tree", "-r", "-t", "-z", "--full-tree", t.SHA)
	if err != nil {
		return nil, err
	}
	var list []entry
	for line := range bytes.SplitSeq(out, []byte{0}) {
		if len(line) == 0 {
			continue
		}
		head, path, ok := strings.Cut(string(line), "\t")
		fields := strings.Fields(head)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("git ls-tree: %q is no line of a tree", line)
		}
		list = append(list, entry{mode: fields[0], kind: fields[1], id: fields[2], path: path})
	}
	return list, nil
}

// settle gives each file the permissions and the time that follow from the commit.
func (t Tree) settle(ctx context.Context) error {
	list, err := t.entries(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]entry, len(list))
	for _, e := range list {
		known[e.path] = e
	}
	// What is on the disk leads, and not what the commit says, which may be of bad intent: so no link is followed.
	var folders []string
	err = filepath.WalkDir(t.Dir, func(path string, file os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(t.Dir, path)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		switch {
		case file.IsDir():
			folders = append(folders, path)
			return os.Chmod(path, 0o755)
		case known[name].mode == "100755":
			mode = 0o755
		}
		if file.Type().IsRegular() {
			if err := os.Chmod(path, mode); err != nil {
				return err
			}
		}
		return setTime(path, known[name].id)
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(folders) { // after what is in them
		name, err := filepath.Rel(t.Dir, path)
		if err != nil {
			return err
		}
		if err := setTime(path, known[name].id); err != nil {
			return err
		}
	}
	return nil
}

// setTime makes a file's time from the id of what it holds, "" for a folder that has none. Who compares times to find what has changed (BuildKit's transfer of a context) then
// finds just that; one fixed time for all would make it miss a change that keeps the size.
func setTime(path, id string) error {
	sum, err := hex.DecodeString(id)
	if err != nil {
		return err
	}
	moment := time.Unix(1_000_000_000, 0)
	if len(sum) >= 4 {
		moment = moment.Add(time.Duration(binary.BigEndian.Uint32(sum) % 1_000_000_000))
	}
	spec, err := unix.TimeToTimespec(moment)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time of", Path: path, Err: err}
	}
	return nil
}

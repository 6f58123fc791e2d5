package source

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/git"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Submodules selects the submodules to fetch.
type Submodules string

// Values of [Submodules], as in actions/checkout.
const (
	NoSubmodules        Submodules = "false"
	DirectSubmodules    Submodules = "true"      // those of the commit
	RecursiveSubmodules Submodules = "recursive" // and those of its submodules
)

const (
	maxSubmodules      = 1000 // of all levels
	parallelSubmodules = 4
	maxShownPath       = 200
)

// remote is a repository on a git server.
type remote struct {
	url   string // HTTPS, except on the job's GitHub server; without credentials
	token string // "" on any other server than the job's GitHub server
}

// SubmoduleError reports a submodule that cannot be fetched.
type SubmoduleError struct {
	Path string
	URL  string // "" if .gitmodules has none
	Hint string // may be ""
	Err  error
}

func (e *SubmoduleError) Error() string {
	text := "submodule " + safetext.Line(e.Path, maxShownPath)
	if e.URL != "" {
		text += " from " + safetext.Line(e.URL, maxShownPath)
	}
	text += ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *SubmoduleError) Unwrap() error { return e.Err }

// fetchSubmodules fetches the submodules of a tree, or records in it which ones are not fetched.
func (f *fetcher) fetchSubmodules(ctx context.Context, t *Tree, from remote, entries []treeEntry, depth int) error {
	links := slices.DeleteFunc(slices.Clone(entries), func(e treeEntry) bool { return e.kind != "commit" })
	if len(links) == 0 {
		return nil
	}
	wanted := f.options.Submodules == RecursiveSubmodules || f.options.Submodules == DirectSubmodules && depth == 0
	if !wanted {
		for _, link := range links {
			t.Unfetched.Submodules = append(t.Unfetched.Submodules, link.path)
		}
		return nil
	}
	if f.submodules.Add(int64(len(links))) > maxSubmodules {
		return fmt.Errorf("more than %d submodules (set submodules: true to fetch only those of the commit)", maxSubmodules)
	}
	modules, err := t.modules(ctx, entries)
	if err != nil {
		return err
	}
	dir, gitDir := t.Dir, t.gitDir
	var mu sync.Mutex // guards t
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelSubmodules)
	for i, link := range links {
		module := modules[link.path]
		if module.update == "none" { // `git submodule update` leaves it out, too
			f.r.logf("Submodule %s is not fetched: .gitmodules has update = none", safetext.Line(link.path, maxShownPath))
			continue
		}
		group.Go(func() error {
			moduleDir := filepath.Join(gitDir, "modules", strconv.Itoa(i))
			left, err := f.fetchSubmodule(ctx, from, link, module.url, dir, moduleDir, depth+1)
			mu.Lock()
			defer mu.Unlock()
			t.Unfetched.add(link.path, left)
			return err
		})
	}
	return group.Wait()
}

// fetchSubmodule fetches one submodule into its directory below root, and returns what was not fetched of it.
func (f *fetcher) fetchSubmodule(
	ctx context.Context, from remote, link treeEntry, address, root, gitDir string, depth int,
) (Unfetched, error) {
	failure := &SubmoduleError{Path: link.path, URL: address}
	if address == "" {
		failure.Err = errors.New("no URL in .gitmodules")
		failure.Hint = "add it with `git submodule add`, or remove the directory with `git rm --cached`"
		return Unfetched{}, failure
	}
	dir := filepath.Join(root, link.path)
	if failure.Err = checkDirectory(root, link.path); failure.Err != nil {
		return Unfetched{}, failure
	}
	var source remote
	if source, failure.Err = f.r.resolveRemote(from, address); failure.Err != nil {
		return Unfetched{}, failure
	}
	failure.URL = source.url
	t, err := f.fetchTree(ctx, source, Commit{SHA: link.id}, dir, gitDir, depth)
	if err == nil {
		err = setTimeFromID(dir, link.id)
	}
	if err == nil || errors.As(err, new(*SubmoduleError)) || context.Cause(ctx) != nil {
		return t.Unfetched, err
	}
	failure.Err, failure.Hint = err, f.r.submoduleHint(source, err)
	return Unfetched{}, failure
}

// checkDirectory returns an error unless name is an empty directory below dir that is reached without symbolic links.
func checkDirectory(dir, name string) error {
	full := dir
	for part := range strings.SplitSeq(name, "/") {
		full = filepath.Join(full, part)
		info, err := os.Lstat(full)
		if err != nil {
			return err
		}
		if !info.IsDir() || !filepath.IsLocal(part) {
			return errors.New("the commit has another file in its place (remove one of them)")
		}
	}
	files, err := os.ReadDir(full)
	if err == nil && len(files) > 0 {
		err = errors.New("the commit has files in its directory (remove them)")
	}
	return err
}

// submodule is a section of .gitmodules.
type submodule struct{ path, url, update string }

// modules returns the submodules in .gitmodules by path.
func (t Tree) modules(ctx context.Context, entries []treeEntry) (map[string]submodule, error) {
	isFile := func(e treeEntry) bool {
		return e.path == ".gitmodules" && e.kind == "blob" && strings.HasPrefix(e.mode, "100")
	}
	if !slices.ContainsFunc(entries, isFile) {
		return nil, nil
	}
	config, err := t.readConfig(ctx, ".gitmodules")
	if err != nil {
		return nil, err
	}
	byPath := map[string]submodule{}
	for key, value := range config {
		if name, ok := strings.CutSuffix(key, ".path"); ok && strings.HasPrefix(name, "submodule.") {
			byPath[value] = submodule{path: value, url: config[name+".url"], update: config[name+".update"]}
		}
	}
	return byPath, nil
}

var scpPattern = regexp.MustCompile(`^(?:[^@/:]+@)?([^@/:]+):([^:].*)$`) // [USER@]HOST:PATH

// resolveRemote returns the repository of a URL in a file of a commit, which an outsider may have written. The URL may
// be relative to the repository from. SSH URLs of the job's GitHub server become HTTPS URLs, and only that server gets
// the token. On other servers, only HTTPS URLs are accepted, without credentials.
func (r Repository) resolveRemote(from remote, address string) (remote, error) {
	server, err := url.Parse(r.serverURL())
	if err != nil {
		return remote{}, err
	}
	if strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
		return from.relative(address)
	}
	text := address
	if scp := scpPattern.FindStringSubmatch(address); scp != nil && !strings.Contains(address, "://") {
		text = "ssh://" + scp[1] + "/" + strings.TrimPrefix(scp[2], "/")
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || parsed.RawQuery != "" || parsed.Fragment != "" {
		return remote{}, errors.New("unsupported URL (use an https:// URL)")
	}
	clean := strings.Trim(path.Clean("/"+parsed.Path), "/")
	isSSH := parsed.Scheme == "ssh" || parsed.Scheme == "git+ssh"
	// https://docs.github.com/en/authentication/troubleshooting-ssh/using-ssh-over-the-https-port
	sshHost := strings.TrimPrefix(strings.ToLower(parsed.Hostname()), "ssh.")
	sameHost := strings.EqualFold(parsed.Host, server.Host) || isSSH && strings.EqualFold(sshHost, server.Hostname())
	switch {
	case sameHost && (isSSH || parsed.Scheme == "https" || parsed.Scheme == "http" || parsed.Scheme == "git"):
		return remote{server.JoinPath(clean).String(), r.Token}, nil
	case parsed.Scheme == "https":
		return remote{(&url.URL{Scheme: "https", Host: parsed.Host, Path: "/" + clean}).String(), ""}, nil
	}
	return remote{}, fmt.Errorf("%s URLs are not supported here (use an https:// URL)", safetext.Line(parsed.Scheme, 20))
}

// relative resolves a URL that begins with ./ or ../ like git, which counts from the repository's own URL.
func (from remote) relative(address string) (remote, error) {
	parsed, err := url.Parse(from.url)
	if err != nil {
		return remote{}, err
	}
	depth := len(strings.Split(strings.Trim(parsed.Path, "/"), "/"))
	rest := address
	for {
		if next, ok := strings.CutPrefix(rest, "../"); ok {
			rest, depth = next, depth-1
		} else if next, ok := strings.CutPrefix(rest, "./"); ok {
			rest = next
		} else {
			break
		}
	}
	if depth < 0 || !filepath.IsLocal(rest) {
		return remote{}, errors.New("the relative URL leaves the server (correct it in .gitmodules)")
	}
	parsed.Path = path.Join("/", parsed.Path, address)
	from.url = parsed.String()
	return from, nil
}

// submoduleHint returns how the user can fix a failed fetch of a submodule, or "" if that is unknown.
func (r Repository) submoduleHint(from remote, err error) string {
	failure, ok := errors.AsType[*git.Error](err)
	if !ok {
		return r.fetchHint(err)
	}
	isServer := strings.HasPrefix(from.url, r.serverURL()+"/")
	switch failure.Cause {
	case git.Unauthorized, git.NotFound:
		if !isServer {
			return "it does not exist, or it is private: only public repositories of other servers are supported"
		}
		return "it does not exist, or the token cannot read it: set github_token to a token with contents: read for both " +
			"repositories; the job's own token reads only its repository"
	case git.MissingCommit:
		return "its repository no longer has the commit: push it, or update the submodule"
	case git.Network, git.NotGit:
		if !isServer {
			return "check the network, and that the server answers"
		}
	}
	return r.fetchHint(err)
}

// Unfetched lists what is missing in the files of a tree.
type Unfetched struct {
	Submodules []string // paths of submodules
	Pointers   []string // paths of Git LFS files that contain only pointers
}

// add adds what is missing in the submodule at a path.
func (u *Unfetched) add(dir string, in Unfetched) {
	for _, name := range in.Submodules {
		u.Submodules = append(u.Submodules, dir+"/"+name)
	}
	for _, name := range in.Pointers {
		u.Pointers = append(u.Pointers, dir+"/"+name)
	}
	slices.Sort(u.Submodules)
	slices.Sort(u.Pointers)
}

package github

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// gitIsolation makes git ignore the user's and the system's configuration.
var gitIsolation = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C"}

// git runs git in the repository and returns its trimmed output.
func (r Repository) git(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-C", r.Dir}, args...)
	cmd := exec.CommandContext(ctx, "git", args...)
	isGit := func(variable string) bool { return strings.HasPrefix(variable, "GIT_") }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isGit), gitIsolation...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %q: %w: %s", args, err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// serveGit serves /OWNER/NAME and /OWNER/NAME.git with git http-backend.
// https://git-scm.com/docs/git-http-backend
func (s *Server) serveGit(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) < 3 || parts[2] != "info/refs" && parts[2] != "git-upload-pack" && parts[2] != "git-receive-pack" {
		http.NotFound(w, r)
		return
	}
	needed := readContents
	if parts[2] == "git-receive-pack" || r.URL.Query().Get("service") == "git-receive-pack" {
		needed = writeContents
	}
	name := strings.TrimSuffix(parts[1], ".git")
	repository, status := s.authorize(r, parts[0], name, needed)
	if status != http.StatusOK {
		sendGitError(w, r, parts[0]+"/"+name, status, needed.write)
		return
	}
	if err := runBackend(w, r, repository, "/"+parts[0]+"/"+parts[1], needed.write); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// sendGitError sends an error response to git, with GitHub's status and text.
func sendGitError(w http.ResponseWriter, r *http.Request, repository string, status int, isPush bool) {
	if _, ok := requestToken(r); status == http.StatusNotFound && !ok {
		status = http.StatusUnauthorized // GitHub requires credentials before it reports a missing repository
	}
	switch {
	case status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		http.Error(w, "Invalid username or token. Password authentication is not supported for Git operations.", status)
	case status == http.StatusForbidden && isPush:
		http.Error(w, fmt.Sprintf("Permission to %s.git denied to github-actions[bot].", repository), status)
	case status == http.StatusForbidden:
		http.Error(w, "Write access to repository not granted.", status) // GitHub's text, also for reads
	default:
		http.Error(w, "Repository not found.", status)
	}
}

// backendConfig returns git settings (name, value, …) that make a repository behave like one on GitHub.
func backendConfig(push bool) []string {
	return []string{
		"safe.directory", "*",
		"uploadpack.allowAnySHA1InWant", "true", "uploadpack.allowFilter", "true",
		"http.receivepack", strconv.FormatBool(push),
		"receive.denyCurrentBranch", "ignore", // repositories on GitHub are bare
		"core.hooksPath", "/dev/null",
		"receive.autogc", "false",
		"receive.hideRefs", "refs/pull", // managed by GitHub
		"transfer.hideRefs", "refs/remotes", "transfer.hideRefs", "refs/stash", // exist only in checkouts
	}
}

func runBackend(w http.ResponseWriter, r *http.Request, repository Repository, root string, push bool) error {
	program, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	dir, err := repository.git(r.Context(), "rev-parse", "--path-format=absolute", "--git-common-dir")
	if err != nil {
		return err
	}
	if len(r.TransferEncoding) > 0 {
		// git sends large requests in chunks, but CGI requires a Content-Length.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 256<<20))
		if err != nil {
			return err
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
	env := []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol")}
	env = append(env, gitIsolation...)
	config := backendConfig(push)
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config)/2))
	for i := 0; i < len(config); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, config[i]),
			fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, config[i+1]))
	}
	(&cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Dir: dir, Root: root,
		Env: env, InheritEnv: []string{"PATH"}, Stderr: io.Discard,
	}).ServeHTTP(w, r)
	return nil
}

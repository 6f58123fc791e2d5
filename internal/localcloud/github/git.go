package github

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"strconv"
	"strings"
)

// git serves /OWNER/NAME and /OWNER/NAME.git by the real git http-backend, to fetch from and to push to.
// https://git-scm.com/docs/git-http-backend
func (s *Server) git(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) < 3 || parts[2] != "info/refs" && parts[2] != "git-upload-pack" && parts[2] != "git-receive-pack" {
		http.NotFound(w, r)
		return
	}
	needs := readContents
	if parts[2] == "git-receive-pack" || r.URL.Query().Get("service") == "git-receive-pack" {
		needs = writeContents
	}
	name := strings.TrimSuffix(parts[1], ".git")
	repository, status := s.entry(r, parts[0], name, needs)
	if _, given := tokenOf(r); status == http.StatusNotFound && !given {
		// Asked over git, GitHub wants a password before it says that something is not there.
		status = http.StatusUnauthorized
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		http.Error(w, "Invalid username or token. Password authentication is not supported for Git operations.", status)
		return
	case http.StatusForbidden:
		if needs.write {
			http.Error(w, fmt.Sprintf("Permission to %s/%s.git denied to github-actions[bot].", parts[0], name), status)
		} else {
			http.Error(w, "Write access to repository not granted.", status) // GitHub's words, for reading too
		}
		return
	case http.StatusNotFound:
		http.Error(w, "Repository not found.", status)
		return
	}
	if err := s.backend(w, r, repository, "/"+parts[0]+"/"+parts[1], needs.write); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *Server) backend(w http.ResponseWriter, r *http.Request, repository Repository, root string, push bool) error {
	program, err := exec.LookPath("git")
	if err != nil {
		return err
	}
	dir, err := repository.run(r.Context(), "rev-parse", "--path-format=absolute", "--git-common-dir")
	if err != nil {
		return err
	}
	if len(r.TransferEncoding) > 0 {
		// git sends many wants in chunks, and CGI wants the length first.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 256<<20))
		if err != nil {
			return err
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
	env := append([]string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol")}, settings...)
	rules := []string{
		"safe.directory", "*",
		"uploadpack.allowAnySHA1InWant", "true", "uploadpack.allowFilter", "true",
		// GitHub's are bare: a branch that a checkout has may be pushed to, too. Its hooks are not GitHub's, and pull requests' refs are.
		"http.receivepack", strconv.FormatBool(push), "receive.denyCurrentBranch", "ignore", "core.hooksPath", "/dev/null",
		"receive.autogc", "false", "receive.hideRefs", "refs/pull",
		// What only a checkout has, GitHub has not.
		"transfer.hideRefs", "refs/remotes", "transfer.hideRefs", "refs/stash",
	}
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(rules)/2))
	for i := 0; i < len(rules); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, rules[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, rules[i+1]))
	}
	(&cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Dir: dir, Root: root,
		Env: env, InheritEnv: []string{"PATH"}, Stderr: io.Discard,
	}).ServeHTTP(w, r)
	return nil
}

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// local is the commit that `make release` tagged here. It must hold the sums that are published with it.
func (r *hub) local(ctx context.Context) (string, error) {
	commit, err := r.git(ctx, "rev-parse", "--verify", "--end-of-options", "refs/tags/"+r.version+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("this clone has no tag %s: run scripts/release-commit.sh %s in it", r.version, r.path)
	}
	if sums, err := r.sumsOf(ctx, commit); err != nil || sums != string(r.checksums) {
		return "", fmt.Errorf("the tag %s of this clone is not the commit of %s: delete it, and run scripts/release-commit.sh %s", r.version, r.path, r.path)
	}
	return commit, nil
}

// tags are GitHub's, with the commit that each names.
func (r *hub) tags(ctx context.Context) (map[string]string, error) {
	list, err := r.git(ctx, "ls-remote", "--tags", r.home+".git")
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for line := range strings.Lines(list) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), "\trefs/tags/")
		// An annotated tag's commit comes after it, by the name with ^{}.
		tags[strings.TrimSuffix(name, "^{}")] = sha
	}
	return tags, nil
}

// push has a tag at GitHub name a commit, if it still names the one that it did: was, "" for none.
func (r *hub) push(ctx context.Context, commit, tag, was string) error {
	ref := "refs/tags/" + tag
	_, err := r.git(ctx, "push", "--quiet", "--force-with-lease="+ref+":"+was, r.home+".git", commit+":"+ref)
	return err
}

// fetch gets a commit from GitHub, of which this clone has most already.
func (r *hub) fetch(ctx context.Context, commit string) error {
	_, err := r.git(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", r.home+".git", commit)
	return err
}

// sumsOf are those that the commit of a release holds.
func (r *hub) sumsOf(ctx context.Context, commit string) (string, error) {
	sums, err := r.git(ctx, "cat-file", "blob", commit+":actions/checksums.txt")
	return sums + "\n", err
}

// git runs git in the current folder, without hooks and questions. The token is a setting in its environment: no argument, no file.
func (r *hub) git(ctx context.Context, args ...string) (string, error) {
	settings := []string{
		"core.hooksPath", "/dev/null", "credential.helper", "",
		"http." + r.server + "/.extraheader", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+r.token)),
	}
	command := exec.CommandContext(ctx, "git", args...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "GIT_") || strings.HasPrefix(variable, "GIT_SSL_") || strings.HasPrefix(variable, "GIT_PROXY_") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "LC_ALL=C", fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)/2))
	for i := 0; i < len(settings); i += 2 {
		command.Env = append(command.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, settings[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, settings[i+1]))
	}
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // git-remote-https ends with it
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 2 * time.Second
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && complaint.Len() == 0:
		return "", fmt.Errorf("git %s: %w", args[0], err)
	case err != nil:
		return "", &gitError{complaint.String()}
	}
	return strings.TrimSpace(out.String()), nil
}

// gitError is what git complained of.
type gitError struct{ said string }

func (e *gitError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.said), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "fatal:") || strings.HasPrefix(line, "remote:") || strings.HasPrefix(line, " !") {
			return "git: " + line
		}
	}
	return "git: " + lines[0]
}

var gitStatus = regexp.MustCompile(`The requested URL returned error: ([0-9]{3})|HTTP ([0-9]{3})`)

// status is the HTTP status that git was answered; 0 where it says none.
func (e *gitError) status() int {
	if found := gitStatus.FindStringSubmatch(e.said); found != nil {
		status, _ := strconv.Atoi(found[1] + found[2]) // three digits
		return status
	}
	for words, status := range map[string]int{
		"Authentication failed": 401, "could not read Username": 401, "denied to": 403, "not found": 404, "[rejected]": 409, "[remote rejected]": 409,
	} {
		if strings.Contains(e.said, words) {
			return status
		}
	}
	return 0
}

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

	"github.com/org/sandbox-actions/pkg/safetext"
)

// localCommit returns the commit of the version's tag in this clone. It fails unless the commit holds the release's
// checksums.
func (p *publisher) localCommit(ctx context.Context) (string, error) {
	commit, err := p.git(ctx, "rev-parse", "--verify", "--end-of-options", "refs/tags/"+p.version+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("this clone has no tag %s (run scripts/release-commit.sh %s)", p.version, p.path)
	}
	if checksums, err := p.checksumsOf(ctx, commit); err != nil || checksums != string(p.checksums) {
		return "", fmt.Errorf(
			"tag %s of this clone is not the release in %s (delete the tag, then run scripts/release-commit.sh %s)",
			p.version,
			p.path,
			p.path,
		)
	}
	return commit, nil
}

// remoteTags returns the repository's tags with their commits.
func (p *publisher) remoteTags(ctx context.Context) (map[string]string, error) {
	list, err := p.git(ctx, "ls-remote", "--tags", p.repositoryURL()+".git")
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for line := range strings.Lines(list) {
		sha, name, _ := strings.Cut(strings.TrimSpace(line), "\trefs/tags/")
		// The commit of an annotated tag follows the tag, with the name TAG^{}.
		tags[strings.TrimSuffix(name, "^{}")] = sha
	}
	return tags, nil
}

// pushTag points a tag of the repository to a commit. It fails if the tag no longer points to previous; "" means that
// the tag does not exist.
func (p *publisher) pushTag(ctx context.Context, commit, tag, previous string) error {
	ref := "refs/tags/" + tag
	_, err := p.git(
		ctx,
		"push",
		"--quiet",
		"--force-with-lease="+ref+":"+previous,
		p.repositoryURL()+".git",
		commit+":"+ref,
	)
	return err
}

// fetchCommit fetches a commit into this clone.
func (p *publisher) fetchCommit(ctx context.Context, commit string) error {
	_, err := p.git(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", p.repositoryURL()+".git", commit)
	return err
}

// checksumsOf returns the checksums.txt in a release's commit.
func (p *publisher) checksumsOf(ctx context.Context, commit string) (string, error) {
	checksums, err := p.git(ctx, "cat-file", "blob", commit+":actions/checksums.txt")
	return checksums + "\n", err
}

// git runs git in the current directory without hooks and prompts, and returns its trimmed output. The token is
// passed in the environment, never as an argument or in a file.
func (p *publisher) git(ctx context.Context, args ...string) (string, error) {
	credentials := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + p.token))
	command := exec.CommandContext(ctx, "git", args...)
	command.Env = append(gitEnviron(), gitConfig(
		"core.hooksPath", "/dev/null",
		"credential.helper", "",
		"http."+p.server+"/.extraheader", "Authorization: Basic "+credentials,
	)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // cancellation also ends git's own children
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 2 * time.Second
	err := command.Run()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil && stderr.Len() == 0:
		return "", fmt.Errorf("git %s: %w", args[0], err)
	case err != nil:
		return "", newGitError(stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// gitEnviron returns the environment without variables that change what git does, other than those for proxies and
// TLS.
func gitEnviron() []string {
	env := []string{"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "LC_ALL=C"}
	for _, variable := range os.Environ() {
		connection := strings.HasPrefix(variable, "GIT_SSL_") || strings.HasPrefix(variable, "GIT_PROXY_")
		if connection || !strings.HasPrefix(variable, "GIT_") && !strings.HasPrefix(variable, "LC_ALL=") {
			env = append(env, variable)
		}
	}
	return env
}

// gitConfig returns the variables that set pairs of a git setting and its value.
func gitConfig(pairs ...string) []string {
	env := []string{fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(pairs)/2)}
	for i := 0; i < len(pairs); i += 2 {
		env = append(
			env,
			fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, pairs[i]),
			fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, pairs[i+1]),
		)
	}
	return env
}

// gitError is a git command that failed.
type gitError struct {
	Message string // the line of git's output that names the cause, safe to print
	Status  int    // the HTTP status that it stands for; 0: unknown
}

func (e *gitError) Error() string { return "git: " + e.Message }

func newGitError(output string) *gitError {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	cause := lines[0]
	for _, line := range lines {
		if strings.HasPrefix(line, "fatal:") || strings.HasPrefix(line, "remote:") || strings.HasPrefix(line, " !") {
			cause = line
			break
		}
	}
	return &gitError{Message: safetext.Line(cause, 400), Status: gitStatus(output)}
}

var httpStatus = regexp.MustCompile(`The requested URL returned error: ([0-9]{3})|HTTP ([0-9]{3})`)

// gitStatus returns the HTTP status that git's output reports or implies; 0 if none.
func gitStatus(output string) int {
	if found := httpStatus.FindStringSubmatch(output); found != nil {
		status, _ := strconv.Atoi(found[1] + found[2]) // three digits
		return status
	}
	for _, known := range []struct {
		text   string
		status int
	}{
		{"Authentication failed", 401},
		{"could not read Username", 401},
		{"denied to", 403},
		{"not found", 404},
		{"[rejected]", 409},
		{"[remote rejected]", 409},
	} {
		if strings.Contains(output, known.text) {
			return known.status
		}
	}
	return 0
}

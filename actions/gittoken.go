package actions

import (
	"cmp"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// gitTokenSecret is the ID of the build secret with which BuildKit authenticates to git servers. With ".HOST" appended,
// it applies to one server (moby/buildkit v0.34.2, source/git/source.go).
const gitTokenSecret = "GIT_AUTH_TOKEN"

// addGitToken adds the input github_token to the build secrets if BuildKit fetches a git context from the GitHub server
// and the secrets have no token for it. docker/build-push-action does so for the event's repository (v7.3.0,
// src/context.ts).
//
// A Dockerfile can read every secret of its build. Therefore the Dockerfile must come from the run's repository: it
// does, unless the main context is the URL of another one.
func addGitToken(
	job job, spec inputs.BuildSpec, doppler credentials.Doppler, paths inputs.Paths, secrets map[string]string,
) {
	server, err := url.Parse(cmp.Or(job.Getenv("GITHUB_SERVER_URL"), "https://github.com"))
	if err != nil || server.Host == "" {
		return
	}
	repository, fromServer := hostedGit(server, paths.Context)
	isOwn := repository != "" && strings.EqualFold(repository, job.Event.Repository)
	if !filepath.IsAbs(paths.Context) && !isOwn {
		return
	}
	for _, from := range paths.Contexts {
		_, hosted := hostedGit(server, from)
		fromServer = fromServer || hosted
	}
	id := gitTokenSecret + "." + server.Host
	if !fromServer || secrets[gitTokenSecret] != "" || secrets[id] != "" {
		return
	}
	if token := credentials.GitHubToken(spec.GitHubToken, doppler.Over(job.Getenv), job.Runner.Mask); token != "" {
		secrets[id] = token
	}
}

// hostedGit returns the repository (owner/name) of a context that is a git URL on the GitHub server.
func hostedGit(server *url.URL, context string) (repository string, ok bool) {
	location, err := url.Parse(context)
	if err != nil || location.Scheme != server.Scheme || !strings.EqualFold(location.Host, server.Host) {
		return "", false
	}
	return strings.TrimSuffix(strings.Trim(location.Path, "/"), ".git"), true
}

package actions

import (
	"maps"
	"testing"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// The token must not reach the Dockerfile of another repository, nor a builder that needs no token.
func TestAddGitToken(t *testing.T) {
	const own, other = "https://ghe.example/a/b.git#main:dir", "https://ghe.example/c/d"
	const id = "GIT_AUTH_TOKEN.ghe.example"
	for _, test := range []struct {
		name    string
		context string
		named   string
		given   map[string]string
		want    bool
	}{
		{"context of the repository", own, "", nil, true},
		{"in another case", "https://GHE.example/A/B", "", nil, true},
		{"context of another repository", other, "", nil, false},
		{"context of another repository, named context of this one", other, own, nil, false},
		{"context on another server", "https://github.com/a/b.git", "", nil, false},
		{"context on another server, named context of this one", "https://github.com/a/b", own, nil, false},
		{"without encryption", "http://ghe.example/a/b.git", "", nil, false},
		{"SSH", "git@ghe.example:a/b.git", own, nil, false},
		{"directory", "/work", "/work/lib", nil, false},
		{"named context of another repository", "/work", other, nil, true},
		{"named context on another server", "/work", "https://github.com/a/b", nil, false},
		{"own token", own, "", map[string]string{"GIT_AUTH_TOKEN": "mine"}, false},
		{"own token for the server", own, "", map[string]string{id: "mine"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for repository, want := range map[string]bool{"a/b": test.want, "": test.want && test.context[0] == '/'} {
				job, _, _ := testJob(t, map[string]string{
					"GITHUB_SERVER_URL": "https://ghe.example", "GITHUB_REPOSITORY": repository,
				})
				paths := inputs.Paths{Context: test.context, Contexts: map[string]string{"named": test.named}}
				secrets := map[string]string{}
				maps.Copy(secrets, test.given)
				addGitToken(job, inputs.BuildSpec{GitHubToken: "ghs_x"}, credentials.Doppler{}, paths, secrets)
				if got := secrets[id] == "ghs_x"; got != want {
					t.Errorf("in repository %q: secrets %v, want the token: %t", repository, secrets, want)
				}
			}
		})
	}
}

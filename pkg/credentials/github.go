package credentials

import (
	"cmp"

	"github.com/org/sandbox-actions/pkg/source"
)

// GitHubToken returns the input github_token or, if it is empty, GITHUB_TOKEN. It masks the token.
func GitHubToken(input string, getenv func(string) string, mask func(secret string)) string {
	token := cmp.Or(input, getenv("GITHUB_TOKEN"))
	if token != "" {
		mask(token)
	}
	return token
}

// Repository returns a repository on the GitHub server in GITHUB_SERVER_URL and GITHUB_API_URL.
func Repository(owner, name, token string, getenv func(string) string) source.Repository {
	return source.Repository{
		Owner: owner, Name: name, Token: token,
		ServerURL: getenv("GITHUB_SERVER_URL"), APIURL: getenv("GITHUB_API_URL"),
	}
}

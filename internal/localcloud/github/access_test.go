package github

import (
	"testing"
)

func TestPermissions(t *testing.T) {
	s, _, _, second, _ := startPublisher(t)
	const integration = "Resource not accessible by integration"
	release := func(tag string) string { return `{"tag_name":"` + tag + `","draft":true}` }
	for _, test := range []struct {
		name, method, path, token, body string
		status                          int
		want                            string
	}{
		{"own private repository", "GET", "octo/app/commits/main", "app", "", 200, second},
		{"own private repository, with contents: read", "GET", "octo/app/commits/main", "app-reads", "", 200, second},
		{"own private repository, without contents permission", "GET", "octo/app/commits/main", "app-none", "", 403,
			integration},
		{"description of the own private repository", "GET", "octo/app", "app-none", "", 200, `"private":true`},
		{"another private repository", "GET", "octo/app/commits/main", "lib", "", 404, "Not Found"},
		{"another public repository", "GET", "octo/lib/commits/main", "app-none", "", 200, second},
		{"all repositories", "GET", "octo/app/commits/main", "writes", "", 200, second},
		{"release without a token", "POST", "octo/lib/releases", "", release("a"), 401, "Requires authentication"},
		{"release with an invalid token", "POST", "octo/lib/releases", "bad", release("a"), 401, "Bad credentials"},
		{"release in a private repository without a token", "POST", "octo/app/releases", "", release("a"), 404, "Not Found"},
		{"release with a read-only token", "POST", "octo/app/releases", "app-reads", release("a"), 403, integration},
		{"release with read access to all repositories", "POST", "octo/app/releases", "reads", release("a"), 403,
			integration},
		{"release in another public repository", "POST", "octo/lib/releases", "app", release("a"), 403, integration},
		{"release in another private repository", "POST", "octo/app/releases", "lib", release("a"), 404, "Not Found"},
		{"release", "POST", "octo/app/releases", "app", release("a"), 201, `"tag_name":"a"`},
		{"release with write access to all repositories", "POST", "octo/lib/releases", "writes", release("a"), 201,
			`"tag_name":"a"`},
		{"attestation with a read-only token", "POST", "octo/app/attestations", "app-reads", "{}", 403, integration},
		{"ref with a read-only token", "POST", "octo/app/git/refs", "app-reads", "{}", 403, integration},
		{"drafts with write access", "GET", "octo/app/releases", "app", "", 200, `"draft":true`},
		{"no drafts with read access", "GET", "octo/app/releases", "app-reads", "", 200, "[]\n"},
		{"no drafts with read access to all repositories", "GET", "octo/lib/releases", "reads", "", 200, "[]\n"},
		{"no drafts with a token for another repository", "GET", "octo/lib/releases", "app", "", 200, "[]\n"},
		{"no drafts without a token", "GET", "octo/lib/releases", "", "", 200, "[]\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkResponse(t, test.status, test.want, test.method, s.APIURL()+"/repos/"+test.path, test.token, test.body)
		})
	}
}

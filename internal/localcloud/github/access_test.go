package github

import (
	"strings"
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
		{"own private repository, to read", "GET", "octo/app/commits/main", "app-reads", "", 200, second},
		{"own private repository, without contents", "GET", "octo/app/commits/main", "app-none", "", 403, integration},
		{"that it is there", "GET", "octo/app", "app-none", "", 200, `"private":true`},
		{"another's private repository", "GET", "octo/app/commits/main", "lib", "", 404, "Not Found"},
		{"another's public repository", "GET", "octo/lib/commits/main", "app-none", "", 200, second},
		{"all repositories", "GET", "octo/app/commits/main", "writes", "", 200, second},
		{"a release without a token", "POST", "octo/lib/releases", "", release("a"), 401, "Requires authentication"},
		{"a release with a token that is not good", "POST", "octo/lib/releases", "bad", release("a"), 401, "Bad credentials"},
		{"a private release without a token", "POST", "octo/app/releases", "", release("a"), 404, "Not Found"},
		{"a release with a token for reading", "POST", "octo/app/releases", "app-reads", release("a"), 403, integration},
		{"a release with a token for reading all", "POST", "octo/app/releases", "reads", release("a"), 403, integration},
		{"a release in another's public repository", "POST", "octo/lib/releases", "app", release("a"), 403, integration},
		{"a release in another's private repository", "POST", "octo/app/releases", "lib", release("a"), 404, "Not Found"},
		{"a release", "POST", "octo/app/releases", "app", release("a"), 201, `"tag_name":"a"`},
		{"a release by who may write to all", "POST", "octo/lib/releases", "writes", release("a"), 201, `"tag_name":"a"`},
		{"an attestation with a token for reading", "POST", "octo/app/attestations", "app-reads", "{}", 403, integration},
		{"a ref with a token for reading", "POST", "octo/app/git/refs", "app-reads", "{}", 403, integration},
		{"drafts, to who may write", "GET", "octo/app/releases", "app", "", 200, `"draft":true`},
		{"no drafts to who reads", "GET", "octo/app/releases", "app-reads", "", 200, "[]\n"},
		{"no drafts to who reads all", "GET", "octo/lib/releases", "reads", "", 200, "[]\n"},
		{"no drafts to another", "GET", "octo/lib/releases", "app", "", 200, "[]\n"},
		{"no drafts to the public", "GET", "octo/lib/releases", "", "", 200, "[]\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if status, body := ask(t, test.method, s.APIURL()+"/repos/"+test.path, test.token, test.body); status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("%d %s\nwant %d %s", status, body, test.status, test.want)
			}
		})
	}
}

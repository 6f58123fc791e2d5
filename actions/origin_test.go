package actions

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/runner"
)

// A redirect to another server, as by somebody between us and GitHub, does not get the token; one on the same server, as of a repository that was
// renamed, is followed with it.
func TestTokenAndRedirects(t *testing.T) {
	const sha = "0123456789abcdef0123456789abcdef01234567"
	for _, test := range []struct {
		name     string
		redirect func(own, stranger string) string
		followed bool
	}{
		{"to a stranger", func(_, stranger string) string { return stranger }, false},
		{"on the server", func(own, _ string) string { return own }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var strangers []string // Authorization of what a stranger gets
			stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				strangers = append(strangers, r.Header.Get("Authorization"))
				fmt.Fprintf(w, `{"ref": "refs/heads/main", "object": {"type": "commit", "sha": %q}}`, sha)
			}))
			defer stranger.Close()
			var own *httptest.Server
			own = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("Authorization") != "Bearer ghs_canary":
					w.WriteHeader(http.StatusUnauthorized)
				case strings.HasPrefix(r.URL.Path, "/repositories/"):
					fmt.Fprintf(w, `{"ref": "refs/heads/main", "object": {"type": "commit", "sha": %q}}`, sha)
				default:
					http.Redirect(w, r, test.redirect(own.URL, stranger.URL)+"/repositories/1/git/ref/heads/main", http.StatusMovedPermanently)
				}
			}))
			defer own.Close()
			getenv := func(name string) string {
				return map[string]string{"GITHUB_API_URL": own.URL, "GITHUB_REPOSITORY": "acme/caller"}[name]
			}
			b := &build{Program: &Program{Runner: runner.New(io.Discard, io.Discard, getenv), Getenv: getenv}, in: &BuildInputs{GithubToken: "ghs_canary"}}
			repository, err := b.repository()
			if err != nil {
				t.Fatal(err)
			}
			got, err := repository.Resolve(t.Context(), "main")
			if (err == nil) != test.followed || got.SHA == sha != test.followed {
				t.Errorf("%+v, %v", got, err)
			}
			if len(strangers) > 0 {
				t.Errorf("a stranger was asked, with %q", strangers)
			}
		})
	}
}

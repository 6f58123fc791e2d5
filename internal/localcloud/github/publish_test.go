package github

import (
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/google/go-github/v62/github"
)

// startPublisher serves octo/app, which is private and a checkout of main, octo/lib, which is public and bare, and the
// empty repository octo/empty. octo/app and octo/lib have the commits first and second on main, and other on a branch.
// startPublisher returns the SHAs of these commits.
func startPublisher(t *testing.T) (s *Server, dir string, first, second, other string) {
	t.Helper()
	dir = t.TempDir()
	must(t, dir, `git init -q -b main app; cd app; echo 1 > file; git add .; git commit -qm first
		git checkout -qb other; echo 3 > file; git commit -qam other
		git checkout -q main; echo 2 > file; GIT_COMMITTER_DATE='1700000100 +0000' git commit -qam second
		git init -q --bare -b main ../lib; git push -q ../lib 'refs/*'; git init -q --bare ../empty`)
	write := map[string]string{"contents": "write", "attestations": "write"}
	s, err := Start(t.Context(), Options{
		Repositories: []Repository{
			{Owner: "octo", Name: "app", Dir: filepath.Join(dir, "app"), Private: true},
			{Owner: "octo", Name: "lib", Dir: filepath.Join(dir, "lib")},
			{Owner: "octo", Name: "empty", Dir: filepath.Join(dir, "empty")},
		},
		Tokens: []string{"reads"},
		JobTokens: []Token{
			{Value: "writes", Permissions: write},
			{Value: "deploys", Permissions: map[string]string{"contents": "read", "deployments": "write"}},
			{Value: "comments", Permissions: map[string]string{"contents": "read", "pull-requests": "write"}},
			{Value: "app", Repository: "octo/app", Permissions: write},
			{Value: "app-reads", Repository: "Octo/App", Permissions: map[string]string{"contents": "read"}},
			{Value: "app-none", Repository: "octo/app", Permissions: map[string]string{"issues": "write"}},
			{Value: "lib", Repository: "octo/lib", Permissions: write},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	sha := func(name string) string { return must(t, dir, "git -C app rev-parse "+name) }
	return s, dir, sha("main~1"), sha("main"), sha("other")
}

// publisher returns an API client with a token and the upload URL.
func publisher(t *testing.T, s *Server, token string) *api.Client {
	t.Helper()
	c := client(t, s, token)
	var err error
	if c.UploadURL, err = url.Parse(s.UploadURL() + "/"); err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends a request and returns the status and the body of the response.
func send(t *testing.T, method, address, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// checkResponse sends a request and checks that the response has the status, and that its body contains want.
func checkResponse(t *testing.T, status int, want, method, address, token, body string) {
	t.Helper()
	if gotStatus, got := send(t, method, address, token, body); gotStatus != status || !strings.Contains(got, want) {
		t.Errorf("%d %s\nwant %d %s", gotStatus, got, status, want)
	}
}

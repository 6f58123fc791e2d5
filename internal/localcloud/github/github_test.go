package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	api "github.com/google/go-github/v62/github"
)

// sh runs a script in dir, without the user's git configuration, and returns its trimmed output.
func sh(ctx context.Context, dir, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@d",
		"GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func must(t *testing.T, dir, script string) string {
	t.Helper()
	out, err := sh(t.Context(), dir, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// repositories is a directory with three repositories, which TestMain creates: public is a checkout, private is a bare
// repository with the same commits, and empty has no commits.
var repositories string

func TestMain(m *testing.M) {
	code, err := runWithRepositories(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runWithRepositories(m *testing.M) (code int, err error) {
	if repositories, err = os.MkdirTemp("", "repositories-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(repositories)
	// The branch many has 500 commits, so that two SHAs have the same first four digits. The file big is large enough for
	// a partial clone to omit it.
	out, err := sh(context.Background(), repositories, `git init -q -b trunk public; cd public
		echo one > file; head -c 100000 /dev/urandom > big; git add .; git commit -qm first
		git tag light; git tag -m 'a release' v1.0; git tag -m 'a tag of a tag' v1 v1.0; git tag of-a-tree 'HEAD^{tree}'
		git checkout -q -b feature/x; echo two > file; git commit -qam second; git update-ref refs/pull/1/head HEAD
		git checkout -q trunk; git merge -q --no-ff -m merge feature/x
		git update-ref refs/pull/1/merge HEAD; git reset -q --hard HEAD^
		git update-ref refs/pull/2/head feature/x; git update-ref refs/pull/3/head trunk
		git update-ref refs/remotes/origin/mine feature/x
		commit='commit refs/heads/many\ncommitter c <c@d> 1700000000 +0000\ndata 4\n%04d\n'
		for i in $(seq 500); do printf "$commit" $i; done | git fast-import --quiet
		git init -q --bare -b trunk ../private; git push -q ../private 'refs/*'; git init -q --bare ../empty`)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return m.Run(), nil
}

// startOctocat serves octo/public, octo/private and octo/empty.
func startOctocat(t *testing.T) (*Server, string) {
	t.Helper()
	dir := repositories
	s, err := Start(t.Context(), Options{
		Repositories: []Repository{
			{Owner: "octo", Name: "public", Dir: filepath.Join(dir, "public")},
			{Owner: "octo", Name: "private", Dir: filepath.Join(dir, "private"), Private: true},
			{Owner: "octo", Name: "empty", Dir: filepath.Join(dir, "empty")},
		},
		Tokens: []string{"good"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, filepath.Join(dir, "public")
}

func get(t *testing.T, address, authorization string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestAPI(t *testing.T) {
	s, repository := startOctocat(t)
	first, second := must(t, repository, "git rev-parse trunk"), must(t, repository, "git rev-parse feature/x")
	release, nested := must(t, repository, "git rev-parse v1.0"), must(t, repository, "git rev-parse v1")
	ambiguous := must(t, repository, "git rev-list many | cut -c1-4 | sort | uniq -d | head -1")
	if ambiguous == "" {
		t.Fatal("no ambiguous SHA")
	}
	for _, test := range []struct {
		name, path, authorization string
		status                    int
		want                      string // part of the body
	}{
		{"repository", "octo/public", "", 200, `"default_branch":"trunk"`},
		{"repository in another case", "OCTO/Public", "", 200, `"full_name":"octo/public"`},
		{"private", "octo/private", "Bearer good", 200, `"visibility":"private"`},
		{"private, with the older scheme", "octo/private", "token good", 200, `"private":true`},
		{"private without a token", "octo/private", "", 404,
			`{"message":"Not Found","documentation_url":"https://docs.github.com/rest/repos/repos#get-a-repository",` +
				`"status":"404"}`},
		{"private, with an invalid token", "octo/private", "Bearer bad", 401,
			`{"message":"Bad credentials","documentation_url":"https://docs.github.com/rest","status":"401"}`},
		{"public, with an invalid token", "octo/public", "Bearer bad", 401, "Bad credentials"},
		{"unknown repository", "octo/nothing", "Bearer good", 404, "Not Found"},
		{"unknown endpoint", "octo/public/nothing", "", 404, "Not Found"},

		{"branch ref", "octo/public/git/ref/heads/trunk", "", 200, `"object":{"type":"commit","sha":"` + first},
		{"branch ref with a slash", "octo/public/git/ref/heads/feature/x", "", 200, second},
		{"prefix of a branch", "octo/public/git/ref/heads/feature", "", 404, "Not Found"},
		{"lightweight tag", "octo/public/git/ref/tags/light", "", 200, `"object":{"type":"commit","sha":"` + first},
		{"annotated tag", "octo/public/git/ref/tags/v1.0", "", 200, `"object":{"type":"tag","sha":"` + release},
		{"tag of a tree", "octo/public/git/ref/tags/of-a-tree", "", 200, `"type":"tree"`},
		{"tag object", "octo/public/git/tags/" + release, "", 200, `"type":"commit","sha":"` + first},
		{"tag object of a tag", "octo/public/git/tags/" + nested, "", 200, `"type":"tag","sha":"` + release},
		{"tag object of a commit", "octo/public/git/tags/" + first, "", 404, "Not Found"},
		{"tag object that looks like an option", "octo/public/git/tags/--batch", "", 404, "Not Found"},
		{"merge commit of a pull request", "octo/public/git/ref/pull/1/merge", "", 200, `"ref":"refs/pull/1/merge"`},
		{"ref that exists only in checkouts", "octo/public/git/ref/remotes/origin/mine", "", 404, "Not Found"},
		{"ref of a private repository", "octo/private/git/ref/heads/trunk", "", 404, "git/refs#get-a-reference"},

		{"all tags", "octo/public/git/matching-refs/tags/", "", 200, `"ref":"refs/tags/v1.0"`},
		{"no matching refs", "octo/public/git/matching-refs/heads/zzz", "", 200, "[]"},

		{"branch", "octo/public/branches/feature/x", "", 200, `"name":"feature/x"`},
		{"unknown branch", "octo/public/branches/nothing", "", 404, "Branch not found"},

		{"commit", "octo/public/commits/" + first, "", 200, `"message":"first"`},
		{"commit in upper case", "octo/public/commits/" + strings.ToUpper(first), "", 200, first},
		{"short SHA", "octo/public/commits/" + second[:9], "", 200, `"parents":[{"sha":"` + first},
		{"commit by branch", "octo/public/commits/feature/x", "", 200, second},
		{"commit by tag", "octo/public/commits/v1", "", 200, first},
		{"commit by ref", "octo/public/commits/heads/trunk", "", 200, first},
		{"ambiguous SHA", "octo/public/commits/" + ambiguous, "", 422, `"No commit found for SHA: ` + ambiguous + `"`},
		{"unknown commit", "octo/public/commits/" + strings.Repeat("0", 40), "", 422, "commits/commits#get-a-commit"},
		{"commit that looks like an option", "octo/public/commits/--all", "", 422, "No commit found"},
		{"latest commits", "octo/public/commits?per_page=1&sha=feature/x", "", 200, `"sha":"` + second},
		{"commits of the default branch", "octo/public/commits", "", 200, `"sha":"` + first},

		{"pull request", "octo/public/pulls/1", "", 200, `"mergeable":true`},
		{"pull request with conflicts", "octo/public/pulls/2", "", 200, `"merge_commit_sha":null,"mergeable":false`},
		{"merged pull request", "octo/public/pulls/3", "", 200, `"merged":true`},
		{"unknown pull request", "octo/public/pulls/4", "", 404, "Not Found"},
		{"invalid number", "octo/public/pulls/x", "", 404, "Not Found"},

		{"ref of an empty repository", "octo/empty/git/ref/heads/main", "", 409, "Git Repository is empty."},
		{"commit of an empty repository", "octo/empty/commits/main", "", 409, "Git Repository is empty."},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, body := get(t, s.APIURL()+"/repos/"+test.path, test.authorization)
			if response.StatusCode != test.status || !strings.Contains(body, test.want) {
				t.Errorf("%s: %d %s\nwant %d %s", test.path, response.StatusCode, body, test.status, test.want)
			}
			if !json.Valid([]byte(body)) || response.Header.Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("%s is not JSON: %s", response.Header.Get("Content-Type"), body)
			}
		})
	}
	response, body := get(t, s.APIURL()+"/repos/octo/public/commits?per_page=2&sha=many", "")
	if strings.Count(body, `"message"`) != 2 {
		t.Errorf("%s: %s", response.Status, body)
	}
}

// client returns a client of the API.
func client(t *testing.T, s *Server, token string) *api.Client {
	t.Helper()
	c := api.NewClient(nil)
	if token != "" {
		c = c.WithAuthToken(token)
	}
	var err error
	if c.BaseURL, err = url.Parse(s.APIURL() + "/"); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRateLimits(t *testing.T) {
	s, _ := startOctocat(t)
	s.Change(func(o *Options) { o.RateLimit = 2; o.Tokens = append(o.Tokens, "another") })
	request := func(token string) error {
		_, response, err := client(t, s, token).Repositories.Get(t.Context(), "octo", "public")
		if err == nil && response.Rate.Limit != 2 {
			t.Errorf("%+v", response.Rate)
		}
		return err
	}
	for _, token := range []string{"", "good", "another"} {
		for i := range 2 {
			if err := request(token); err != nil {
				t.Errorf("request %d of %q: %v", i, token, err)
			}
		}
		limit := new(api.RateLimitError)
		err := request(token)
		if !errors.As(err, &limit) || limit.Rate.Remaining != 0 || time.Until(limit.Rate.Reset.Time) < 59*time.Minute {
			t.Errorf("third request of %q: %v", token, err)
		}
	}
	limits, _, err := client(t, s, "good").RateLimit.Get(t.Context())
	if err != nil || limits.Core.Limit != 2 || limits.Core.Remaining != 0 {
		t.Errorf("%+v, %v", limits, err)
	}

	s.Change(func(o *Options) { o.RateLimit = 0 })
	response, _ := get(t, s.APIURL()+"/repos/octo/public", "Bearer good")
	for name, want := range map[string]string{"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4997"} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	reset := time.Now().Add(time.Minute).Truncate(time.Second)
	for name, test := range map[string]struct {
		fault Fault
		is    func(error) bool
	}{
		"primary": {PrimaryLimit(403, reset), func(err error) bool {
			limit := new(api.RateLimitError)
			return errors.As(err, &limit) && limit.Rate.Reset.Equal(api.Timestamp{Time: reset})
		}},
		"secondary": {SecondaryLimit(403, time.Minute), func(err error) bool {
			limit := new(api.AbuseRateLimitError)
			return errors.As(err, &limit) && limit.GetRetryAfter() == time.Minute
		}},
		"primary, 429": {PrimaryLimit(429, reset), func(err error) bool {
			response := new(api.ErrorResponse)
			return errors.As(err, &response) && response.Response.StatusCode == 429 &&
				response.Response.Header.Get("X-RateLimit-Remaining") == "0"
		}},
	} {
		s.Fail(test.fault)
		if _, _, err := client(t, s, "good").Repositories.Get(t.Context(), "octo", "public"); !test.is(err) {
			t.Errorf("%s: %T %v", name, err, err)
		}
		s.ClearFaults()
	}

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.APIURL()+"/repos/octo/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "")
	response, err = http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("request without User-Agent: %s, want 403", response.Status)
	}
}

func TestGit(t *testing.T) {
	s, repository := startOctocat(t)
	const token = "-c http.extraheader='Authorization: Basic eC1hY2Nlc3MtdG9rZW46Z29vZA=='" // x-access-token:good
	const badToken = "-c http.extraheader='Authorization: Basic eC1hY2Nlc3MtdG9rZW46YmFk'"
	second := must(t, repository, "git rev-parse feature/x")
	for _, test := range []struct{ name, script, want, fails string }{
		{"clone", "git clone -q URL/octo/public c; cd c; git log --format=%s; git fsck", "first", ""},
		{"clone with .git in the URL", "git clone -q URL/octo/public.git c; git -C c symbolic-ref HEAD",
			"refs/heads/trunk", ""},
		{"clone with protocol version 0",
			"git -c protocol.version=0 clone -q URL/octo/public c; git -C c log --format=%s", "first", ""},
		{"private without a token", "git clone -q URL/octo/private c", "", "Authentication failed"},
		{"private without a token and a prompt", "GIT_ASKPASS= git clone -q URL/octo/private c", "",
			"could not read Username"},
		{"private", "git TOKEN clone -q URL/octo/private c; git -C c log --format=%s", "first", ""},
		{"private, with the token in the URL",
			"git clone -q $(echo URL | sed s,//,//x-access-token:good@,)/octo/private c; git -C c log --format=%s", "first", ""},
		{"invalid token", "git BAD clone -q URL/octo/private c", "", "Authentication failed"},
		{"invalid token for a public repository", "git BAD clone -q URL/octo/public c", "", "Authentication failed"},
		{"unknown repository", "git TOKEN clone -q URL/octo/nothing c", "", "not found"},
		{"unknown repository, without a token", "git clone -q URL/octo/nothing c", "", "Authentication failed"},
		{"shallow", "git TOKEN clone -q --depth 1 -b feature/x URL/octo/private c; git -C c rev-list --count HEAD", "1", ""},
		{"exact SHA",
			"git init -q c; cd c; git TOKEN fetch -q --depth 1 URL/octo/private " + second +
				"; git log --format=%s FETCH_HEAD", "second", ""},
		{"unknown exact SHA",
			"git init -q c; cd c; git fetch -q --depth 1 URL/octo/public 1234567890123456789012345678901234567890", "",
			"not our ref"},
		{"partial",
			"git clone -q --filter=blob:none --no-checkout URL/octo/public c; " +
				"git -C c rev-list --objects --missing=print HEAD | grep -c '^?'", "2", ""},
		{"partial, with checkout", "git clone -q --filter=blob:limit=1k URL/octo/public c; wc -c < c/big", "100000", ""},
		{"refs", "git ls-remote URL/octo/public | cut -f2 | grep -v -e many -e tags | tr '\\n' ' '",
			"HEAD refs/heads/feature/x refs/heads/trunk " +
				"refs/pull/1/head refs/pull/1/merge refs/pull/2/head refs/pull/3/head", ""},
		{"file in the repository", "curl -sf URL/octo/public/config", "", ""},
		{"file outside the repository", "curl -sfL --path-as-is URL/octo/public/../private/info/refs", "", ""},
		{"dumb protocol", "curl -sf URL/octo/public/objects/info/packs", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			script := strings.NewReplacer("URL", s.ServerURL(), "TOKEN", token, "BAD", badToken).Replace(test.script)
			got, err := sh(t.Context(), t.TempDir(), script)
			if (err != nil) != (test.want == "") || !strings.Contains(got, test.fails) || test.want != "" && got != test.want {
				t.Errorf("%s: %v\n%s", script, err, got)
			}
		})
	}
	for _, r := range s.Requests() {
		isPrivateFetch := strings.HasSuffix(r.Path, "/git-upload-pack") && strings.Contains(r.Path, "private")
		if isPrivateFetch && r.Status == 200 && !r.HasToken {
			t.Errorf("%+v", r)
		}
	}
}

// A partial clone fetches many missing objects with one request that exceeds git's buffer, so git sends it in chunks.
func TestChunkedGitRequest(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, `git init -q --bare -b trunk r
		(printf 'commit refs/heads/trunk\ncommitter c <c@d> 1700000000 +0000\ndata 0\n'
		for i in $(seq 1000 2500); do printf 'M 644 inline f%d\ndata 4\n%d\n' $i $i; done) | git -C r fast-import --quiet`)
	repository := Repository{Owner: "octo", Name: "many", Dir: filepath.Join(dir, "r")}
	s, err := Start(t.Context(), Options{Repositories: []Repository{repository}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got := must(t, dir, `git clone -q --filter=blob:none --no-checkout `+s.ServerURL()+`/octo/many c; cd c
		git ls-tree -r HEAD | cut -f1 | cut -d' ' -f3 | git -c http.postBuffer=65536 pack-objects --quiet --stdout | wc -c
		git rev-list --objects --missing=print HEAD | grep -c '^?' || true`)
	if requests := len(s.Requests()); !strings.HasSuffix(got, "\n0") || requests > 20 {
		t.Errorf("%d requests, want at most 20; missing objects: %s", requests, got)
	}
}

func TestGitWorktree(t *testing.T) {
	dir := t.TempDir()
	must(t, dir, "git init -q -b trunk r; cd r; git commit -q --allow-empty -m first; git worktree add -q --detach ../w")
	repository := Repository{Owner: "octo", Name: "w", Dir: filepath.Join(dir, "w")}
	s, err := Start(t.Context(), Options{Repositories: []Repository{repository}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := must(t, dir, "git clone -q -b trunk "+s.ServerURL()+"/octo/w c; git -C c log --format=%s"); got != "first" {
		t.Error(got)
	}
	if _, body := get(t, s.APIURL()+"/repos/octo/w", ""); !strings.Contains(body, `"default_branch":"main"`) {
		t.Error(body)
	}
}

// idToken requests an OIDC token as the runner's toolkit does.
func idToken(t *testing.T, s *Server, audience, bearer string) (string, int) {
	t.Helper()
	response, body := get(t, s.IDTokenRequestURL()+"&audience="+url.QueryEscape(audience), bearer)
	var token struct {
		Count int    `json:"count"`
		Value string `json:"value"`
	}
	if err := json.Unmarshal([]byte(body), &token); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return token.Value, response.StatusCode
}

func TestOIDC(t *testing.T) {
	s, _ := startOctocat(t)
	provider, err := oidc.NewProvider(t.Context(), s.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "https://depot.dev", SupportedSigningAlgs: []string{oidc.RS256}})
	for _, bearer := range []string{"", "Bearer ", "Bearer wrong", "Basic " + s.IDTokenRequestToken()} {
		if token, status := idToken(t, s, "https://depot.dev", bearer); status != http.StatusUnauthorized || token != "" {
			t.Errorf("Authorization %q: status %d", bearer, status)
		}
	}
	for _, test := range []struct {
		name   string
		claims map[string]string
		want   map[string]any
	}{
		{"dispatch", nil, map[string]any{
			"sub": "repo:octo/public:ref:refs/heads/main", "repository": "octo/public", "repository_owner": "octo",
			"repository_visibility": "public",
			"ref":                   "refs/heads/main", "event_name": "workflow_dispatch", "runner_environment": "github-hosted",
			"job_workflow_ref": "octo/public/.github/workflows/build.yml@refs/heads/main",
		}},
		{"another repository", map[string]string{"repository": "caller/app", "sha": "1"}, map[string]any{
			"sub": "repo:caller/app:ref:refs/heads/main", "repository_owner": "caller", "sha": "1", "workflow_sha": "1",
			"workflow_ref": "caller/app/.github/workflows/build.yml@refs/heads/main",
		}},
		{"environment", map[string]string{"environment": "prd"},
			map[string]any{"sub": "repo:octo/public:environment:prd", "environment": "prd"}},
		{"pull request", map[string]string{"event_name": "pull_request", "ref": "refs/pull/1/merge"},
			map[string]any{"sub": "repo:octo/public:pull_request"}},
		{"custom subject", map[string]string{"sub": "repository_owner:octo"},
			map[string]any{"sub": "repository_owner:octo"}},
	} {
		s.Change(func(o *Options) { o.Claims = test.claims })
		token, _ := idToken(t, s, "https://depot.dev", "bearer "+s.IDTokenRequestToken())
		verified, err := verifier.Verify(t.Context(), token)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		got := map[string]any{}
		if err := verified.Claims(&got); err != nil {
			t.Fatal(err)
		}
		for name, want := range test.want {
			if got[name] != want {
				t.Errorf("%s: %s is %v, want %v", test.name, name, got[name], want)
			}
		}
	}
	s.Change(func(o *Options) { o.Claims["repository"] = "a/b" }) // Change makes Claims non-nil
	if got := s.claims("", nil)["aud"]; got != "https://github.com/a" {
		t.Errorf("the default audience is %v", got)
	}

	mint := func(name string, value any) string {
		token, err := s.Mint("https://depot.dev", func(claims map[string]any) { claims[name] = value })
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	forged, err := s.Forge("https://depot.dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, token, want string }{
		{"signed with another key", forged, "failed to verify signature"},
		{"expired", mint("exp", time.Now().Add(-time.Minute).Unix()), "token is expired"},
		{"not valid yet", mint("nbf", time.Now().Add(time.Hour).Unix()), "before the nbf"},
		{"another audience", mint("aud", "https://github.com/octo"), "expected audience"},
		{"another issuer", mint("iss", "https://token.actions.githubusercontent.com"), "issued by a different provider"},
		{"tampered", mint("a", "b")[:40] + "A" + mint("a", "b")[41:], ""},
	} {
		if _, err := verifier.Verify(t.Context(), test.token); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestFaults(t *testing.T) {
	s, _ := startOctocat(t)
	s.Fail(Fault{Path: "/git/ref/", Times: 2, Status: 502, Body: "<html>", Header: map[string]string{"Retry-After": "1"}})
	var got []string
	for range 3 {
		response, body := get(t, s.APIURL()+"/repos/octo/public/git/ref/heads/trunk", "")
		got = append(got, fmt.Sprintf("%d %s %.6s", response.StatusCode, response.Header.Get("Retry-After"), body))
	}
	if want := []string{"502 1 <html>", "502 1 <html>", `200  {"ref"`}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s.Fail(Fault{Path: "/pulls/", Hangup: true})
	_, err := http.Get(s.APIURL() + "/repos/octo/public/pulls/1")
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("closed connection: %v", err)
	}
	s.Fail(Fault{NoResponse: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	address := s.ServerURL() + "/octo/public/git-upload-pack"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("0000"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		response, err := http.DefaultClient.Do(r)
		if err == nil {
			err = response.Body.Close()
		}
		done <- err
	}()
	for last := (Request{}); last.Method != http.MethodPost; { // until the pending request is recorded
		list := s.Requests()
		last = list[len(list)-1]
		if last.Status != 0 && last.Method == http.MethodPost {
			t.Errorf("%+v", last)
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.ClearFaults()
	if response, _ := get(t, s.APIURL()+"/repos/octo/public/pulls/1", ""); response.StatusCode != 200 {
		t.Error(response.Status)
	}
	requests := s.Requests()
	if first := requests[0]; first != (Request{"GET", "/api/v3/repos/octo/public/git/ref/heads/trunk", 502, false}) {
		t.Errorf("%+v", first)
	}
}

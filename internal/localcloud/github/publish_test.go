package github

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/google/go-github/v62/github"
)

// startPublisher serves octo/app, a private checkout on the branch main, and octo/lib, public and bare, with the same commits: first, second on
// main, and other, which is on a branch of its own. Returned with it are their SHAs.
func startPublisher(t *testing.T) (s *Server, dir string, first, second, other string) {
	t.Helper()
	dir = t.TempDir()
	must(t, dir, `git init -q -b main app; cd app; echo 1 > file; git add .; git commit -qm first; git checkout -qb other; echo 3 > file; git commit -qam other
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

// publisher is go-github, with a token and the host for uploads.
func publisher(t *testing.T, s *Server, token string) *api.Client {
	t.Helper()
	c := client(t, s, token)
	var err error
	if c.UploadURL, err = url.Parse(s.UploadURL() + "/"); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends JSON, and returns the status and the body of the answer.
func ask(t *testing.T, method, address, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

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
		{"no drafts to who reads", "GET", "octo/app/releases", "app-reads", "", 200, "[]"},
		{"no drafts to who reads all", "GET", "octo/lib/releases", "reads", "", 200, "[]"},
		{"no drafts to another", "GET", "octo/lib/releases", "app", "", 200, "[]"},
		{"no drafts to the public", "GET", "octo/lib/releases", "", "", 200, "[]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if status, body := ask(t, test.method, s.APIURL()+"/repos/"+test.path, test.token, test.body); status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("%d %s\nwant %d %s", status, body, test.status, test.want)
			}
		})
	}
}

func TestPush(t *testing.T) {
	s, dir, first, _, other := startPublisher(t)
	must(t, dir, "git clone -q -b main app local; cd local; echo 4 > file; git commit -qam fourth; git tag -am annotated v1; echo hook > ../app/.git/hooks/pre-receive; chmod +x ../app/.git/hooks/pre-receive")
	fourth := must(t, dir, "git -C local rev-parse HEAD")
	must(t, dir, "head -c 3000000 /dev/urandom > local/big; cd local; git checkout -q -b big; git add big; git commit -qm big")
	for _, test := range []struct {
		name, token, repository, refs string
		fails                         string
		ref, want                     string
	}{
		{"without a token", "", "octo/lib", "main", "Authentication failed", "", ""},
		{"a token that is not good", "bad", "octo/lib", "main", "Authentication failed", "", ""},
		{"a token for reading all", "reads", "octo/app", "main", "Permission to octo/app.git denied to github-actions[bot].", "", ""},
		{"a token for reading", "app-reads", "octo/app", "main", "The requested URL returned error: 403", "", ""},
		{"a token without contents", "app-none", "octo/app", "main", "error: 403", "", ""},
		{"a token of another, public", "app", "octo/lib", "main", "error: 403", "", ""},
		{"a token of another, private", "lib", "octo/app", "main", "not found", "", ""},
		{"the branch that a checkout has", "app", "octo/app", "main", "", "refs/heads/main", fourth},
		{"a bare one", "writes", "octo/lib", "main", "", "refs/heads/main", fourth},
		{"an annotated tag, with its branch", "app", "octo/app", "v1 main:refs/heads/new", "", "refs/tags/v1^{commit}", fourth},
		{"more than the buffer", "app", "octo/app", "big", "", "refs/heads/big:file", must(t, dir, "git -C local rev-parse big:file")},
		{"not forward", "app", "octo/app", first + ":refs/heads/main", "non-fast-forward", "refs/heads/main", fourth},
		{"not forward, by force", "app", "octo/app", "+" + first + ":refs/heads/new", "", "refs/heads/new", first},
		{"a pull request's ref", "app", "octo/app", other + ":refs/pull/1/head", "deny updating a hidden ref", "", ""},
		{"the end of a branch", "app", "octo/app", ":refs/heads/new", "", "", ""},
		{"the end of the default branch", "app", "octo/app", ":refs/heads/main", "refusing to delete the current branch", "refs/heads/main", fourth},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := s.ServerURL()
			if test.token != "" {
				address = strings.Replace(address, "//", "//x-access-token:"+test.token+"@", 1)
			}
			out, err := sh(t.Context(), filepath.Join(dir, "local"), "git fetch -q ../app other; git push "+address+"/"+test.repository+" "+test.refs)
			if (err != nil) != (test.fails != "") || !strings.Contains(out, test.fails) {
				t.Errorf("%v\n%s", err, out)
			}
			if test.ref == "" {
				return
			}
			_, name, _ := strings.Cut(test.repository, "/")
			if got := must(t, dir, "git -C "+name+" rev-parse '"+test.ref+"'"); got != test.want {
				t.Errorf("%s is %s, want %s", test.ref, got, test.want)
			}
		})
	}
	if out, err := sh(t.Context(), dir, "git ls-remote "+strings.Replace(s.ServerURL(), "//", "//x:app-none@", 1)+"/octo/app"); err == nil || !strings.Contains(out, "Write access to repository not granted.") {
		t.Errorf("to read without contents: %v %s", err, out)
	}
}

func TestRefs(t *testing.T) {
	s, dir, first, second, other := startPublisher(t)
	must(t, dir, "git -C app tag -am annotated annotated")
	tag := must(t, dir, "git -C app rev-parse annotated")
	set := func(sha string, force bool) string { return fmt.Sprintf(`{"sha":%q,"force":%v}`, sha, force) }
	create := func(ref, sha string) string { return fmt.Sprintf(`{"ref":%q,"sha":%q}`, ref, sha) }
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"create", "POST", "", create("refs/tags/v1", first), 201, `"ref":"refs/tags/v1"`},
		{"create what is there", "POST", "", create("refs/tags/v1", second), 422, `"message":"Reference already exists"`},
		{"create an annotated tag", "POST", "", create("refs/tags/v2", tag), 201, `"type":"tag","sha":"` + tag},
		{"create a branch that is a tag", "POST", "", create("refs/heads/v2", tag), 422, "Reference update failed"},
		{"create below a branch", "POST", "", create("refs/heads/main/x", first), 422, "Reference update failed"},
		{"create a pull request's", "POST", "", create("refs/pull/1/head", first), 422, "Reference update failed"},
		{"create by a short SHA", "POST", "", create("refs/tags/v3", first[:8]), 422, "The sha parameter must be exactly 40 characters and contain only [0-9a-f]."},
		{"create by a SHA that is not there", "POST", "", create("refs/tags/v3", strings.Repeat("1", 40)), 422, "Object does not exist"},
		{"create without a SHA", "POST", "", `{"ref":"refs/tags/v3"}`, 422, `\"sha\" wasn't supplied.`},
		{"create without a ref", "POST", "", `{"sha":"` + first + `"}`, 422, `\"ref\" wasn't supplied.`},
		{"create a short ref", "POST", "", create("tags/v3", first), 422, "Reference name must contain at least three slash-separated components."},
		{"create no ref", "POST", "", create("refs/tags/v 3", first), 422, "refs/tags/v 3 is not a valid ref name."},
		{"create by garbage", "POST", "", "{", 400, "Problems parsing JSON"},
		{"forward", "PATCH", "/tags/v1", set(second, false), 200, second},
		{"backward", "PATCH", "/tags/v1", set(first, false), 422, `"message":"Update is not a fast forward"`},
		{"backward, by force", "PATCH", "/tags/v1", set(first, true), 200, first},
		{"aside", "PATCH", "/heads/main", set(other, false), 422, "Update is not a fast forward"},
		{"aside, by force", "PATCH", "/tags/v1", set(other, true), 200, other},
		{"one that is not there", "PATCH", "/tags/v9", set(first, true), 422, "Reference does not exist"},
		{"one that says refs twice", "PATCH", "/refs/tags/v1", set(first, true), 422, "Reference does not exist"},
		{"an expression", "PATCH", "/heads/main~1", set(first, true), 422, "Reference does not exist"},
		{"to an object that is not there", "PATCH", "/tags/v1", set(strings.Repeat("1", 40), true), 422, "Object does not exist"},
		{"delete", "DELETE", "/tags/v1", "", 204, ""},
		{"delete twice", "DELETE", "/tags/v1", "", 422, "Reference does not exist"},
		{"delete the default branch", "DELETE", "/heads/main", "", 422, "Reference update failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if status, body := ask(t, test.method, s.APIURL()+"/repos/octo/app/git/refs"+test.path, "app", test.body); status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("%d %s\nwant %d %s", status, body, test.status, test.want)
			}
		})
	}
	c := publisher(t, s, "app")
	if _, _, err := c.Git.CreateRef(t.Context(), "octo", "app", &api.Reference{Ref: api.String("heads/go"), Object: &api.GitObject{SHA: &first}}); err != nil {
		t.Error(err)
	}
	if ref, _, err := c.Git.UpdateRef(t.Context(), "octo", "app", &api.Reference{Ref: api.String("heads/go"), Object: &api.GitObject{SHA: &second}}, false); err != nil || ref.GetObject().GetSHA() != second {
		t.Errorf("%v %v", ref, err)
	}
	if _, err := c.Git.DeleteRef(t.Context(), "octo", "app", "heads/go"); err != nil {
		t.Error(err)
	}
	if out := must(t, dir, "git -C app for-each-ref --format='%(refname)' refs/heads/go refs/tags/v1"); out != "" {
		t.Errorf("%s is still there", out)
	}
}

func TestReleases(t *testing.T) {
	s, dir, first, second, _ := startPublisher(t)
	must(t, dir, "git -C app tag tagged "+first)
	var draft, latest string // the paths of two releases
	find := func(tag string) string {
		t.Helper()
		_, body := ask(t, "GET", s.APIURL()+"/repos/octo/app/releases", "app", "")
		var list []struct {
			ID  int64
			Tag string `json:"tag_name"`
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			if x.Tag == tag {
				return fmt.Sprintf("/%d", x.ID)
			}
		}
		t.Fatalf("no release %s: %s", tag, body)
		return ""
	}
	const notATag = `"errors":[{"resource":"Release","code":"custom","field":"tag_name","message":"tag_name is not a valid tag"},` +
		`{"resource":"Release","code":"custom","message":"Published releases must have a valid tag"}`
	const badTarget = `{"resource":"Release","code":"invalid","field":"target_commitish"}]`
	const notLatest = `"errors":[{"resource":"Release","code":"custom","message":"Latest release cannot be draft or prerelease."}]`
	for _, test := range []struct {
		name, method, token string
		path                func() string
		body                string
		status              int
		want                string
	}{
		{"latest of none", "GET", "app", path("/latest"), "", 404, "Not Found"},
		{"without a tag", "POST", "app", path(""), `{"name":"x"}`, 422, `\"tag_name\" wasn't supplied.`},
		{"with no tag's name", "POST", "app", path(""), `{"tag_name":"v 1"}`, 422, notATag + "]"},
		{"of a branch that is not there", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"nothing"}`, 422, notATag + "," + badTarget},
		{"of a short SHA", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"` + first[:9] + `"}`, 422, badTarget},
		{"of HEAD", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"HEAD"}`, 422, badTarget},
		{"of an expression", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"main~1"}`, 422, badTarget},
		{"a draft of a tag", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"tagged","draft":true}`, 422, `"errors":[` + badTarget},
		{"a pre-release that is the latest", "POST", "app", path(""), `{"tag_name":"v1.0.0","prerelease":true,"make_latest":"true"}`, 422, notLatest},

		{"draft", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"` + first + `","draft":true,"name":"One","body":"notes"}`, 201, `"published_at":null`},
		{"a second draft of the tag", "POST", "app", path(""), `{"tag_name":"v1.0.0","draft":true,"name":"Two"}`, 201, `"name":"Two"`},
		{"draft by tag", "GET", "app", path("/tags/v1.0.0"), "", 404, "Not Found"},
		{"draft by ID", "GET", "app", func() string { draft = find("v1.0.0"); return draft }, "", 200, "/releases/tag/untagged-"},
		{"draft by ID to who reads", "GET", "reads", func() string { return draft }, "", 404, "Not Found"},
		{"draft as the latest", "PATCH", "app", func() string { return draft }, `{"make_latest":"true"}`, 422, notLatest},
		{"draft makes no tag", "GET", "app", func() string { return "/../git/ref/tags/v1.0.0" }, "", 404, "Not Found"},
		{"its target is changed", "PATCH", "app", func() string { return draft }, `{"target_commitish":"` + first + `"}`, 200, `"name":"Two"`},
		{"published", "PATCH", "app", func() string { return draft }, `{"draft":false}`, 200, `"tag_name":"v1.0.0"`},
		{"publishing makes the tag", "GET", "app", path("/../git/ref/tags/v1.0.0"), "", 200, `"type":"commit","sha":"` + first},
		{"by tag", "GET", "reads", path("/tags/v1.0.0"), "", 200, `"html_url":"` + s.ServerURL() + `/octo/app/releases/tag/v1.0.0"`},
		{"latest", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"the tag again", "POST", "app", path(""), `{"tag_name":"v1.0.0"}`, 422,
			`{"message":"Validation Failed","errors":[{"resource":"Release","code":"already_exists","field":"tag_name"}],"documentation_url":"https://docs.github.com/rest/releases/releases#create-a-release","status":"422"}`},

		{"of a tag that is there", "POST", "app", path(""), `{"tag_name":"tagged","target_commitish":"main","make_latest":"false"}`, 201, `"created_at":"2023-11-14T22:13:20Z"`},
		{"that tag stays", "GET", "app", path("/../git/ref/tags/tagged"), "", 200, first},
		{"not said to be the latest", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"pre-release", "POST", "app", path(""), `{"tag_name":"v1.1.0-rc.1","prerelease":true}`, 201, `"target_commitish":"main"`},
		{"pre-release is not the latest", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"the default branch", "GET", "app", path("/../git/ref/tags/v1.1.0-rc.1"), "", 200, second},
		{"by a tag with a slash", "POST", "app", path(""), `{"tag_name":"a/v1"}`, 201, `"tag_name":"a/v1"`},
		{"by tag with a slash", "GET", "reads", path("/tags/a/v1"), "", 200, `"tag_name":"a/v1"`},
		{"by tag with a slash, escaped", "GET", "reads", path("/tags/a%2Fv1"), "", 200, `"tag_name":"a/v1"`},
		{"latest is the one that was published last", "GET", "reads", path("/latest"), "", 200, `"tag_name":"a/v1"`},
		{"said to be the latest", "PATCH", "app", func() string { return draft }, `{"make_latest":"true"}`, 200, ""},
		{"latest is what it is said to be", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"by age", "PATCH", "app", func() string { return draft }, `{"make_latest":"legacy"}`, 200, ""},
		{"latest is that of the newest commit", "GET", "reads", path("/latest"), "", 200, `"tag_name":"a/v1"`},
		{"edited", "PATCH", "app", func() string { return draft }, `{"body":"more"}`, 200, `"body":"more"`},

		{"deleted", "DELETE", "app", func() string { latest = find("a/v1"); return latest }, "", 204, ""},
		{"deleted twice", "DELETE", "app", func() string { return latest }, "", 404, "Not Found"},
		{"the tag of the deleted", "GET", "app", path("/../git/ref/tags/a/v1"), "", 200, second},
		{"its tag is deleted", "DELETE", "app", path("/../git/refs/tags/v1.0.0"), "", 204, ""},
		{"without its tag it is a draft", "GET", "app", path("/tags/v1.0.0"), "", 404, "Not Found"},
		{"without its tag it is a draft, by ID", "GET", "app", func() string { return draft }, "", 200, `"draft":true`},
		{"no number", "GET", "app", path("/x"), "", 404, "Not Found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := s.APIURL() + "/repos/octo/app/releases" + test.path()
			if i := strings.Index(address, "/releases/../"); i > 0 {
				address = address[:i] + address[i+len("/releases/.."):]
			}
			if status, body := ask(t, test.method, address, test.token, test.body); status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("%d %s\nwant %d %s", status, body, test.status, test.want)
			}
		})
	}
	if status, body := ask(t, "POST", s.APIURL()+"/repos/octo/empty/releases", "writes", `{"tag_name":"v1"}`); status != 422 || !strings.Contains(body, "Repository is empty.") {
		t.Errorf("%d %s", status, body)
	}
}

func sum(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

func path(p string) func() string { return func() string { return p } }

// What go-github does with releases, from a draft to the bytes of an asset.
func TestReleaseByGoGitHub(t *testing.T) {
	s, dir, first, _, _ := startPublisher(t)
	c := publisher(t, s, "app")
	releases := c.Repositories
	draft, _, err := releases.CreateRelease(t.Context(), "octo", "app", &api.RepositoryRelease{TagName: api.String("v1.0.0"), TargetCommitish: &first, Draft: api.Bool(true)})
	if err != nil || !draft.GetDraft() || draft.GetUploadURL() != fmt.Sprintf("%s/repos/octo/app/releases/%d/assets{?name,label}", s.UploadURL(), draft.GetID()) {
		t.Fatalf("%v %v", draft, err)
	}
	upload := func(name, content string) (*api.ReleaseAsset, error) {
		file := filepath.Join(dir, "asset")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		a, _, err := releases.UploadReleaseAsset(t.Context(), "octo", "app", draft.GetID(), &api.UploadOptions{Name: name, Label: "a program", MediaType: "application/x-executable"}, f)
		return a, err
	}
	program, err := upload("action-build-linux-amd64", "program")
	if err != nil || program.GetSize() != 7 || program.GetState() != "uploaded" || program.GetContentType() != "application/x-executable" || program.GetLabel() != "a program" {
		t.Fatalf("%v %v", program, err)
	}
	answer := new(api.ErrorResponse)
	if _, err := upload("action-build-linux-amd64", "other"); !errors.As(err, &answer) || answer.Response.StatusCode != 422 || len(answer.Errors) != 1 || answer.Errors[0].Code != "already_exists" || answer.Errors[0].Field != "name" {
		t.Errorf("the same name: %v", err)
	}
	if _, err := upload("empty", ""); !errors.As(err, &answer) || answer.Message != "Bad Content-Length: " { // go-github sends it in chunks
		t.Errorf("an empty file: %v", err)
	}
	if status, body := ask(t, "POST", strings.Replace(draft.GetUploadURL(), "{?name,label}", "?name=empty", 1), "app", ""); status != 422 || !strings.Contains(body, "size must be greater than or equal to 1") {
		t.Errorf("an empty file: %d %s", status, body)
	}
	if a, err := upload("my notes (1).txt", "x"); err != nil || a.GetName() != "my.notes.1.txt" {
		t.Errorf("%v %v", a, err)
	}
	if list, answer, err := releases.ListReleaseAssets(t.Context(), "octo", "app", draft.GetID(), &api.ListOptions{PerPage: 1}); err != nil || len(list) != 1 || answer.NextPage != 2 {
		t.Errorf("%v %v %v", list, answer, err)
	}
	if list, answer, err := releases.ListReleaseAssets(t.Context(), "octo", "app", draft.GetID(), &api.ListOptions{PerPage: 1, Page: 2}); err != nil || len(list) != 1 || answer.NextPage != 0 || list[0].GetName() != "my.notes.1.txt" {
		t.Errorf("%v %v %v", list, answer, err)
	}
	// A draft's assets are there for who may write, and for nobody else.
	read := func(token string) (string, error) {
		content, _, err := publisher(t, s, token).Repositories.DownloadReleaseAsset(t.Context(), "octo", "app", program.GetID(), http.DefaultClient)
		if err != nil {
			return "", err
		}
		defer content.Close()
		body, err := io.ReadAll(content)
		return string(body), err
	}
	if got, err := read("app"); err != nil || got != "program" {
		t.Errorf("%q %v", got, err)
	}
	if got, err := read("reads"); err == nil {
		t.Errorf("a draft's asset to who reads: %q", got)
	}
	if _, _, err := releases.EditRelease(t.Context(), "octo", "app", draft.GetID(), &api.RepositoryRelease{Draft: api.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	if got, err := read("app-reads"); err != nil || got != "program" {
		t.Errorf("%q %v", got, err)
	}
	release, _, err := releases.GetLatestRelease(t.Context(), "octo", "app")
	if err != nil || len(release.Assets) != 2 || release.Assets[0].GetBrowserDownloadURL() != s.ServerURL()+"/octo/app/releases/download/v1.0.0/action-build-linux-amd64" {
		t.Fatalf("%v %v", release, err)
	}
	if _, body := ask(t, "GET", program.GetURL(), "app-reads", ""); !strings.Contains(body, `"digest":"sha256:`+sum("program")+`"`) {
		t.Errorf("%s", body)
	}
	if _, err := releases.DeleteReleaseAsset(t.Context(), "octo", "app", program.GetID()); err != nil {
		t.Error(err)
	}
	if _, _, err := releases.GetReleaseAsset(t.Context(), "octo", "app", program.GetID()); err == nil {
		t.Error("it is still there")
	}
	if _, err := releases.DeleteRelease(t.Context(), "octo", "app", draft.GetID()); err != nil {
		t.Error(err)
	}
	if list, _, err := releases.ListReleases(t.Context(), "octo", "app", nil); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	if status, body := ask(t, "POST", s.UploadURL()+"/repos/octo/app/releases/99/assets?name=a", "app", "x"); status != 404 {
		t.Errorf("%d %s", status, body)
	}
}

package github

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	api "github.com/google/go-github/v62/github"
)

func TestReleases(t *testing.T) {
	s, dir, first, second, _ := startPublisher(t)
	must(t, dir, "cd app; git tag tagged "+first+"; git tag tree 'HEAD^{tree}'")
	var draft, latest string // paths of two releases
	find := func(tag string) string {
		t.Helper()
		_, body := send(t, "GET", s.APIURL()+"/repos/octo/app/releases", "app", "")
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
	const notATag = `"errors":[` +
		`{"resource":"Release","code":"custom","field":"tag_name","message":"tag_name is not a valid tag"},` +
		`{"resource":"Release","code":"custom","message":"Published releases must have a valid tag"}`
	const badTarget = `{"resource":"Release","code":"invalid","field":"target_commitish"}]`
	const notLatest = `"errors":[{"resource":"Release","code":"custom",` +
		`"message":"Latest release cannot be draft or prerelease."}]`
	for _, test := range []struct {
		name, method, token string
		path                func() string
		body                string
		status              int
		want                string
	}{
		{"latest without releases", "GET", "app", path("/latest"), "", 404, "Not Found"},
		{"no tag", "POST", "app", path(""), `{"name":"x"}`, 422, `\"tag_name\" wasn't supplied.`},
		{"invalid tag", "POST", "app", path(""), `{"tag_name":"v 1"}`, 422, notATag + "]"},
		{"unknown branch", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"nothing"}`,
			422, notATag + "," + badTarget},
		{"short SHA", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"` + first[:9] + `"}`, 422,
			badTarget},
		{"HEAD", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"HEAD"}`, 422, badTarget},
		{"revision expression", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"main~1"}`, 422, badTarget},
		{"tag as target", "POST", "app", path(""), `{"tag_name":"v1.0.0","target_commitish":"tagged","draft":true}`, 422,
			`"errors":[` + badTarget},
		{"pre-release as the latest", "POST", "app", path(""),
			`{"tag_name":"v1.0.0","prerelease":true,"make_latest":"true"}`, 422, notLatest},

		{"draft", "POST", "app", path(""),
			`{"tag_name":"v1.0.0","target_commitish":"` + first + `","draft":true,"name":"One","body":"notes"}`, 201,
			`"published_at":null`},
		{"second draft of the tag", "POST", "app", path(""), `{"tag_name":"v1.0.0","draft":true,"name":"Two"}`, 201,
			`"name":"Two"`},
		{"draft by tag", "GET", "app", path("/tags/v1.0.0"), "", 404, "Not Found"},
		{"draft by ID", "GET", "app", func() string { draft = find("v1.0.0"); return draft }, "", 200,
			"/releases/tag/untagged-"},
		{"draft by ID with read access", "GET", "reads", func() string { return draft }, "", 404, "Not Found"},
		{"draft as the latest", "PATCH", "app", func() string { return draft }, `{"make_latest":"true"}`, 422, notLatest},
		{"draft creates no tag", "GET", "app", func() string { return "/../git/ref/tags/v1.0.0" }, "", 404, "Not Found"},
		{"change the target", "PATCH", "app", func() string { return draft }, `{"target_commitish":"` + first + `"}`,
			200, `"name":"Two"`},
		{"publish", "PATCH", "app", func() string { return draft }, `{"draft":false}`, 200, `"tag_name":"v1.0.0"`},
		{"publishing creates the tag", "GET", "app", path("/../git/ref/tags/v1.0.0"), "", 200,
			`"type":"commit","sha":"` + first},
		{"get by tag", "GET", "reads", path("/tags/v1.0.0"), "", 200,
			`"html_url":"` + s.ServerURL() + `/octo/app/releases/tag/v1.0.0"`},
		{"latest", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"second release of the tag", "POST", "app", path(""), `{"tag_name":"v1.0.0"}`, 422,
			`{"message":"Validation Failed","errors":[{"resource":"Release","code":"already_exists","field":"tag_name"}],` +
				`"documentation_url":"https://docs.github.com/rest/releases/releases#create-a-release","status":"422"}`},

		{"existing tag", "POST", "app", path(""),
			`{"tag_name":"tagged","target_commitish":"main","make_latest":"false"}`, 201, `"created_at":"2023-11-14T22:13:20Z"`},
		{"existing tag is unchanged", "GET", "app", path("/../git/ref/tags/tagged"), "", 200, first},
		{"make_latest false keeps the latest", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"pre-release", "POST", "app", path(""), `{"tag_name":"v1.1.0-rc.1","prerelease":true}`, 201,
			`"target_commitish":"main"`},
		{"pre-release is not the latest", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"target defaults to the default branch", "GET", "app", path("/../git/ref/tags/v1.1.0-rc.1"), "", 200, second},
		{"tag with a slash", "POST", "app", path(""), `{"tag_name":"a/v1"}`, 201, `"tag_name":"a/v1"`},
		{"get by tag with a slash", "GET", "reads", path("/tags/a/v1"), "", 200, `"tag_name":"a/v1"`},
		{"get by tag with an escaped slash", "GET", "reads", path("/tags/a%2Fv1"), "", 200, `"tag_name":"a/v1"`},
		{"latest is the last published", "GET", "reads", path("/latest"), "", 200, `"tag_name":"a/v1"`},
		{"mark as latest", "PATCH", "app", func() string { return draft }, `{"make_latest":"true"}`, 200, ""},
		{"latest is the marked one", "GET", "reads", path("/latest"), "", 200, `"tag_name":"v1.0.0"`},
		{"mark none as latest", "PATCH", "app", func() string { return draft }, `{"make_latest":"legacy"}`, 200, ""},
		{"latest has the newest commit", "GET", "reads", path("/latest"), "", 200, `"tag_name":"a/v1"`},
		{"edit", "PATCH", "app", func() string { return draft }, `{"body":"more"}`, 200, `"body":"more"`},

		{"delete", "DELETE", "app", func() string { latest = find("a/v1"); return latest }, "", 204, ""},
		{"delete again", "DELETE", "app", func() string { return latest }, "", 404, "Not Found"},
		{"deleting a release keeps the tag", "GET", "app", path("/../git/ref/tags/a/v1"), "", 200, second},
		{"tag below another tag", "POST", "app", path(""), `{"tag_name":"tagged/v1"}`, 422, "tag_name is not a valid tag"},
		{"tag of a tree", "POST", "app", path(""), `{"tag_name":"tree"}`, 422, notATag + "]"},
		{"existing tag with an invalid target", "POST", "app", path(""),
			`{"tag_name":"tagged","target_commitish":"nothing","draft":true}`, 422, `"errors":[` + badTarget},
		{"delete the tag", "DELETE", "app", path("/../git/refs/tags/v1.0.0"), "", 204, ""},
		{"release without its tag is a draft", "GET", "app", path("/tags/v1.0.0"), "", 404, "Not Found"},
		{"release without its tag is a draft, by ID", "GET", "app", func() string { return draft }, "", 200,
			`"draft":true`},
		{"invalid ID", "GET", "app", path("/x"), "", 404, "Not Found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := s.APIURL() + "/repos/octo/app/releases" + test.path()
			if i := strings.Index(address, "/releases/../"); i > 0 {
				address = address[:i] + address[i+len("/releases/.."):]
			}
			checkResponse(t, test.status, test.want, test.method, address, test.token, test.body)
		})
	}
	checkResponse(t, 422, "Repository is empty.",
		"POST", s.APIURL()+"/repos/octo/empty/releases", "writes", `{"tag_name":"v1"}`)
}

// An interrupted upload leaves an asset in the state starter, as GitHub documents. Clients must delete it before they
// upload again.
func TestInterruptedUpload(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	c := publisher(t, s, "app")
	release, _, err := c.Repositories.CreateRelease(t.Context(), "octo", "app",
		&api.RepositoryRelease{TagName: api.String("v1.0.0")})
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("repos/octo/app/releases/%d/assets?name=program", release.GetID())
	upload := func(content io.Reader, size int64) (*api.ReleaseAsset, error) {
		request, err := c.NewUploadRequest(path, content, size, "application/octet-stream")
		if err != nil {
			t.Fatal(err)
		}
		a := &api.ReleaseAsset{}
		_, err = c.Do(t.Context(), request, a)
		return a, err
	}
	if _, err := upload(io.MultiReader(strings.NewReader("pro"), iotest.ErrReader(io.ErrClosedPipe)), 7); err == nil {
		t.Fatal("the upload was not interrupted")
	}
	var left *api.ReleaseAsset
	for left == nil { // until the server detects the interruption
		list, _, err := c.Repositories.ListReleaseAssets(t.Context(), "octo", "app", release.GetID(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			left = list[0]
		}
	}
	if left.GetState() != "starter" || left.GetSize() != 0 {
		t.Errorf("%v", left)
	}
	if response, body := get(t, left.GetBrowserDownloadURL(), ""); response.StatusCode != 404 {
		t.Errorf("%s %s", response.Status, body)
	}
	if _, err := upload(strings.NewReader("program"), 7); err == nil || !strings.Contains(err.Error(), "already_exists") {
		t.Errorf("upload with the name of an interrupted upload: %v", err)
	}
	if _, err := c.Repositories.DeleteReleaseAsset(t.Context(), "octo", "app", left.GetID()); err != nil {
		t.Error(err)
	}
	if a, err := upload(strings.NewReader("program"), 7); err != nil || a.GetState() != "uploaded" {
		t.Errorf("%v %v", a, err)
	}
}

func sum(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

func path(p string) func() string { return func() string { return p } }

// go-github can publish a release: create a draft, upload assets, publish it and download an asset.
func TestReleaseWithGoGitHub(t *testing.T) {
	s, dir, first, _, _ := startPublisher(t)
	c := publisher(t, s, "app")
	releases := c.Repositories
	draft, _, err := releases.CreateRelease(t.Context(), "octo", "app", &api.RepositoryRelease{
		TagName: api.String("v1.0.0"), TargetCommitish: &first, Draft: api.Bool(true),
	})
	uploadURL := fmt.Sprintf("%s/repos/octo/app/releases/%d/assets{?name,label}", s.UploadURL(), draft.GetID())
	if err != nil || !draft.GetDraft() || draft.GetUploadURL() != uploadURL {
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
		options := &api.UploadOptions{Name: name, Label: "a program", MediaType: "application/x-executable"}
		a, _, err := releases.UploadReleaseAsset(t.Context(), "octo", "app", draft.GetID(), options, f)
		return a, err
	}
	program, err := upload("action-build-linux-amd64", "program")
	if err != nil || program.GetSize() != 7 || program.GetState() != "uploaded" ||
		program.GetContentType() != "application/x-executable" || program.GetLabel() != "a program" {
		t.Fatalf("%v %v", program, err)
	}
	failed := new(api.ErrorResponse)
	_, err = upload("action-build-linux-amd64", "other")
	if !errors.As(err, &failed) || failed.Response.StatusCode != 422 || len(failed.Errors) != 1 ||
		failed.Errors[0].Code != "already_exists" || failed.Errors[0].Field != "name" {
		t.Errorf("upload with an existing name: %v", err)
	}
	// go-github sends an empty file without Content-Length.
	if _, err := upload("empty", ""); !errors.As(err, &failed) || failed.Message != "Bad Content-Length: " {
		t.Errorf("empty file: %v", err)
	}
	address := strings.Replace(draft.GetUploadURL(), "{?name,label}", "?name=empty", 1)
	checkResponse(t, 422, "size must be greater than or equal to 1", "POST", address, "app", "")
	if a, err := upload("my notes (1).txt", "x"); err != nil || a.GetName() != "my.notes.1.txt" {
		t.Errorf("%v %v", a, err)
	}
	for number, want := range []struct {
		name string
		next int
	}{{"action-build-linux-amd64", 2}, {"my.notes.1.txt", 0}} {
		list, response, err := releases.ListReleaseAssets(t.Context(), "octo", "app", draft.GetID(),
			&api.ListOptions{PerPage: 1, Page: number + 1})
		if err != nil || len(list) != 1 || list[0].GetName() != want.name || response.NextPage != want.next {
			t.Errorf("page %d: %v %v %v", number+1, list, response, err)
		}
	}
	// Only a token with write access can read the assets of a draft.
	read := func(token string) (string, error) {
		content, _, err := publisher(t, s, token).Repositories.DownloadReleaseAsset(t.Context(), "octo", "app",
			program.GetID(), http.DefaultClient)
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
		t.Errorf("read access can download an asset of a draft: %q", got)
	}
	_, _, err = releases.EditRelease(t.Context(), "octo", "app", draft.GetID(),
		&api.RepositoryRelease{Draft: api.Bool(false)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read("app-reads"); err != nil || got != "program" {
		t.Errorf("%q %v", got, err)
	}
	release, _, err := releases.GetLatestRelease(t.Context(), "octo", "app")
	download := s.ServerURL() + "/octo/app/releases/download/v1.0.0/action-build-linux-amd64"
	if err != nil || len(release.Assets) != 2 || release.Assets[0].GetBrowserDownloadURL() != download {
		t.Fatalf("%v %v", release, err)
	}
	checkResponse(t, 200, `"digest":"sha256:`+sum("program")+`"`, "GET", program.GetURL(), "app-reads", "")
	// curl receives one field per line in GitHub's order, which shell scripts rely on.
	lines := must(t, dir, "curl -s -H 'Authorization: Bearer app' "+release.GetURL()+
		` | grep -o -e '^ *"url": "[^"]*/assets/[0-9]*"' -e '^ *"name": "[^"]*"' | cut -d'"' -f2 | tr '\n' ' '`)
	if lines != "url name url name" {
		t.Errorf("%s", lines)
	}
	if _, err := releases.DeleteReleaseAsset(t.Context(), "octo", "app", program.GetID()); err != nil {
		t.Error(err)
	}
	if _, _, err := releases.GetReleaseAsset(t.Context(), "octo", "app", program.GetID()); err == nil {
		t.Error("the deleted asset still exists")
	}
	if _, err := releases.DeleteRelease(t.Context(), "octo", "app", draft.GetID()); err != nil {
		t.Error(err)
	}
	if list, _, err := releases.ListReleases(t.Context(), "octo", "app", nil); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	checkResponse(t, 404, "", "POST", s.UploadURL()+"/repos/octo/app/releases/99/assets?name=a", "app", "x")
}

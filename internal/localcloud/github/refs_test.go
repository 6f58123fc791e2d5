package github

import (
	"fmt"
	"strings"
	"testing"

	api "github.com/google/go-github/v62/github"
)

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
		{"create an existing ref", "POST", "", create("refs/tags/v1", second), 422, `"message":"Reference already exists"`},
		{"create an annotated tag", "POST", "", create("refs/tags/v2", tag), 201, `"type":"tag","sha":"` + tag},
		{"create a branch at an annotated tag", "POST", "", create("refs/heads/v2", tag), 422, "Reference update failed"},
		{"create below a branch", "POST", "", create("refs/heads/main/x", first), 422, "Reference update failed"},
		{"create the ref of a pull request", "POST", "", create("refs/pull/1/head", first), 422, "Reference update failed"},
		{"create with a short SHA", "POST", "", create("refs/tags/v3", first[:8]), 422,
			"The sha parameter must be exactly 40 characters and contain only [0-9a-f]."},
		{"create with an unknown SHA", "POST", "", create("refs/tags/v3", strings.Repeat("1", 40)), 422,
			"Object does not exist"},
		{"create without a SHA", "POST", "", `{"ref":"refs/tags/v3"}`, 422, `\"sha\" wasn't supplied.`},
		{"create without a ref", "POST", "", `{"sha":"` + first + `"}`, 422, `\"ref\" wasn't supplied.`},
		{"create a short ref", "POST", "", create("tags/v3", first), 422,
			"Reference name must contain at least three slash-separated components."},
		{"create an invalid ref", "POST", "", create("refs/tags/v 3", first), 422, "refs/tags/v 3 is not a valid ref name."},
		{"create with invalid JSON", "POST", "", "{", 400, "Problems parsing JSON"},
		{"fast-forward", "PATCH", "/tags/v1", set(second, false), 200, second},
		{"to an ancestor", "PATCH", "/tags/v1", set(first, false), 422, `"message":"Update is not a fast forward"`},
		{"to an ancestor, forced", "PATCH", "/tags/v1", set(first, true), 200, first},
		{"to another branch", "PATCH", "/heads/main", set(other, false), 422, "Update is not a fast forward"},
		{"to another branch, forced", "PATCH", "/tags/v1", set(other, true), 200, other},
		{"unknown ref", "PATCH", "/tags/v9", set(first, true), 422, "Reference does not exist"},
		{"path with refs twice", "PATCH", "/refs/tags/v1", set(first, true), 422, "Reference does not exist"},
		{"revision expression", "PATCH", "/heads/main~1", set(first, true), 422, "Reference does not exist"},
		{"to an unknown object", "PATCH", "/tags/v1", set(strings.Repeat("1", 40), true), 422,
			"Object does not exist"},
		{"delete", "DELETE", "/tags/v1", "", 204, ""},
		{"delete again", "DELETE", "/tags/v1", "", 422, "Reference does not exist"},
		{"delete the default branch", "DELETE", "/heads/main", "", 422, "Reference update failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := s.APIURL() + "/repos/octo/app/git/refs" + test.path
			checkResponse(t, test.status, test.want, test.method, address, "app", test.body)
		})
	}
	c := publisher(t, s, "app")
	branch := func(sha string) *api.Reference {
		return &api.Reference{Ref: api.String("heads/go"), Object: &api.GitObject{SHA: &sha}}
	}
	if _, _, err := c.Git.CreateRef(t.Context(), "octo", "app", branch(first)); err != nil {
		t.Error(err)
	}
	ref, _, err := c.Git.UpdateRef(t.Context(), "octo", "app", branch(second), false)
	if err != nil || ref.GetObject().GetSHA() != second {
		t.Errorf("%v %v", ref, err)
	}
	if _, err := c.Git.DeleteRef(t.Context(), "octo", "app", "heads/go"); err != nil {
		t.Error(err)
	}
	if out := must(t, dir, "git -C app for-each-ref --format='%(refname)' refs/heads/go refs/tags/v1"); out != "" {
		t.Errorf("refs still exist: %s", out)
	}
}

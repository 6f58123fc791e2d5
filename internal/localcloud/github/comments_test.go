package github

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	api "github.com/google/go-github/v62/github"
)

// Comments need a pull request, the permission, and a body of at most 65,536 characters.
func TestComments(t *testing.T) {
	s, dir, first, _, _ := startPublisher(t)
	must(t, dir, "git -C app update-ref refs/pull/7/head "+first)
	for _, test := range []struct {
		name, token string
		number      int
		body        string
		status      int
		message     string
	}{
		{name: "created", token: "comments", number: 7, body: "hello"},
		{name: "longest", token: "comments", number: 7, body: strings.Repeat("ä", 65_536)},
		{name: "too long", token: "comments", number: 7, body: strings.Repeat("x", 65_537), status: 422, message: "too long"},
		{name: "blank", token: "comments", number: 7, body: " ", status: 422, message: "blank"},
		{name: "no pull request", token: "comments", number: 8, body: "x", status: 404, message: "Not Found"},
		{name: "no permission", token: "deploys", number: 7, body: "x", status: 403, message: "not accessible by integration"},
		{name: "other repository", token: "lib", number: 7, body: "x", status: 404, message: "Not Found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			comment := &api.IssueComment{Body: &test.body}
			created, _, err := client(t, s, test.token).Issues.CreateComment(t.Context(), "octo", "app", test.number, comment)
			if test.status == 0 {
				if err != nil || created.GetBody() != test.body || created.GetUser().GetLogin() != "github-actions[bot]" {
					t.Errorf("got %v, %v", created.GetUser(), err)
				}
				return
			}
			refused := (*api.ErrorResponse)(nil)
			if !errors.As(err, &refused) || refused.Response.StatusCode != test.status ||
				!strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want %d %q", err, test.status, test.message)
			}
		})
	}
	if got := len(s.Comments("octo", "app")); got != 2 {
		t.Errorf("there are %d comments", got)
	}
}

// A token with the permission may edit and delete the comments of others. Lists have pages.
func TestCommentsOfOthers(t *testing.T) {
	s, dir, first, _, _ := startPublisher(t)
	must(t, dir, "git -C app update-ref refs/pull/7/head "+first)
	for range 31 {
		s.AddComment(Repository{Owner: "octo", Name: "app"}, Comment{Pull: 7, Author: "octocat", Body: "hello"})
	}
	c := client(t, s, "comments")
	listed, response, err := c.Issues.ListComments(t.Context(), "octo", "app", 7, nil)
	if err != nil || len(listed) != 30 || response.NextPage != 2 {
		t.Fatalf("got %d comments, %v", len(listed), err)
	}
	edit := &api.IssueComment{Body: api.String("edited")}
	if _, _, err := c.Issues.EditComment(t.Context(), "octo", "app", listed[0].GetID(), edit); err != nil {
		t.Error(err)
	}
	if _, err := c.Issues.DeleteComment(t.Context(), "octo", "app", listed[1].GetID()); err != nil {
		t.Error(err)
	}
	comments := s.Comments("octo", "app")
	if len(comments) != 30 || comments[0].Body != "edited" || comments[0].Author != "octocat" {
		t.Errorf("got %d comments, the first is %+v", len(comments), comments[0])
	}
	if _, _, err := client(t, s, "deploys").Issues.ListComments(t.Context(), "octo", "app", 7, nil); err == nil {
		t.Error("a token without the permission reads the comments of a private repository")
	}
}

func TestViewer(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	for token, want := range map[string]int{"comments": 200, "no-such": 401} {
		c := client(t, s, token)
		request, err := c.NewRequest(http.MethodPost, s.ServerURL()+"/api/graphql",
			map[string]string{"query": "query { viewer { login } }"})
		if err != nil {
			t.Fatal(err)
		}
		var body strings.Builder
		response, err := c.Do(t.Context(), request, &body)
		if response.StatusCode != want || (err == nil) != strings.Contains(body.String(), `"github-actions[bot]"`) {
			t.Errorf("%s: got %d %q, %v", token, response.StatusCode, body.String(), err)
		}
	}
}

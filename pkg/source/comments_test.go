package source

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/fakeclock"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

const (
	jobToken  = "comments-token"
	noComment = "no-comments-token"
)

// startPulls starts a stand-in with the pull request 7 of octo/app, and returns clients with and without the permission.
func startPulls(t *testing.T) (s *standin.Server, allowed, denied Repository) {
	t.Helper()
	app := standin.Repository{Owner: "octo", Name: "app", Dir: t.TempDir()}
	sh(t, app.Dir, "git init -q -b main; git commit -q --allow-empty -m first; git update-ref refs/pull/7/head HEAD")
	read := map[string]string{"contents": "read"}
	write := map[string]string{"contents": "read", "pull-requests": "write"}
	s, err := standin.Start(t.Context(), standin.Options{
		Repositories: []standin.Repository{app},
		JobTokens:    []standin.Token{{Value: jobToken, Permissions: write}, {Value: noComment, Permissions: read}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	client := Repository{
		Owner: "octo", Name: "app", Token: jobToken, APIURL: s.APIURL(), ServerURL: s.ServerURL(),
		HTTP: httpclient.Config{Clock: &fakeclock.Clock{}},
	}
	denied = client
	denied.Token = noComment
	return s, client, denied
}

// texts returns the authors and the bodies of the comments on octo/app, without their first line.
func texts(s *standin.Server) (list []string) {
	for _, c := range s.Comments("octo", "app") {
		_, body, _ := strings.Cut(c.Body, "\n")
		list = append(list, c.Author+": "+body)
	}
	return list
}

func TestPutComment(t *testing.T) {
	s, client, _ := startPulls(t)
	app := standin.Repository{Owner: "octo", Name: "app"}
	forged := Comment{Key: "job=a", Run: 1, Body: "forged"}.text()
	for range 150 { // more than a page
		s.AddComment(app, standin.Comment{Pull: 7, Author: "octocat", Body: forged})
	}
	s.AddComment(app, standin.Comment{Pull: 7, Author: "github-actions[bot]", Body: "> " + forged})
	s.AddComment(app, standin.Comment{Pull: 8, Author: "github-actions[bot]", Body: forged})
	before := texts(s)
	bot := func(bodies ...string) (list []string) {
		for _, body := range bodies {
			list = append(list, "github-actions[bot]: "+body)
		}
		return list
	}
	for _, step := range []struct {
		name    string
		comment Comment
		err     error
		want    []string // after the comments from before
	}{
		{"created", Comment{Key: "job=a", Run: 20, Attempt: 1, Body: "one"}, nil, bot("one")},
		{"updated", Comment{Key: "job=a", Run: 21, Attempt: 1, Body: "two"}, nil, bot("two")},
		{"another job", Comment{Key: "job=ab", Run: 21, Attempt: 1, Body: "other"}, nil, bot("two", "other")},
		{"older run", Comment{Key: "job=a", Run: 20, Attempt: 3, Body: "old"}, ErrNewerComment, bot("two", "other")},
		{"same run again", Comment{Key: "job=a", Run: 21, Attempt: 2, Body: "three"}, nil, bot("three", "other")},
		{"older attempt", Comment{Key: "job=a", Run: 21, Attempt: 1, Body: "old"}, ErrNewerComment, bot("three", "other")},
		{"new run", Comment{Key: "job=a", Run: 100, Attempt: 1, Body: "four"}, nil, bot("four", "other")},
	} {
		if err := client.PutComment(t.Context(), 7, step.comment); !errors.Is(err, step.err) {
			t.Errorf("%s: got %v, want %v", step.name, err, step.err)
		}
		if got := texts(s); !slices.Equal(got, append(slices.Clone(before), step.want...)) {
			t.Errorf("%s: the comments are %q", step.name, got[len(before):])
		}
	}
}

// Two runs that find no comment leave one: the result of the later run.
func TestPutCommentTwice(t *testing.T) {
	for _, other := range []struct {
		run  int64
		want string
	}{{1, "github-actions[bot]: mine"}, {3, "github-actions[bot]: theirs"}} {
		s, client, _ := startPulls(t)
		theirs := Comment{Key: "job=a", Run: other.run, Body: "theirs"}
		added := false
		client.HTTP.Base = transportFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/comments") && !added {
				added = true
				s.AddComment(standin.Repository{Owner: "octo", Name: "app"},
					standin.Comment{Pull: 7, Author: "github-actions[bot]", Body: theirs.text()})
			}
			return http.DefaultTransport.RoundTrip(r)
		})
		err := client.PutComment(t.Context(), 7, Comment{Key: "job=a", Run: 2, Body: "mine"})
		if (err == nil) != (other.run == 1) || err != nil && !errors.Is(err, ErrNewerComment) {
			t.Errorf("run %d: %v", other.run, err)
		}
		if got := texts(s); !slices.Equal(got, []string{other.want}) {
			t.Errorf("run %d: the comments are %q", other.run, got)
		}
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPutCommentFailures(t *testing.T) {
	s, client, denied := startPulls(t)
	comment := Comment{Key: "job=a", Run: 1, Body: "x"}
	if err := denied.PutComment(t.Context(), 7, comment); httpclient.Status(err) != http.StatusForbidden {
		t.Errorf("without the permission: %v", err)
	}
	if err := client.PutComment(t.Context(), 8, comment); httpclient.Status(err) != http.StatusNotFound {
		t.Errorf("without the pull request: %v", err)
	}
	long := Comment{Key: "job=a", Run: 1, Body: strings.Repeat("x", 65_536)}
	if err := client.PutComment(t.Context(), 7, long); httpclient.Status(err) != http.StatusUnprocessableEntity {
		t.Errorf("too long: %v", err)
	}
	s.Fail(standin.Fault{Path: "/graphql", Times: 1, Status: 200, Body: `{"errors":[{"message":"no"}]}`})
	if err := client.PutComment(t.Context(), 7, comment); !errors.Is(err, httpclient.ErrFormat) {
		t.Errorf("without a user: %v", err)
	}
	limit := standin.SecondaryLimit(http.StatusForbidden, 1)
	limit.Times = 1
	for _, fault := range []standin.Fault{
		limit, {Path: "/comments", Method: http.MethodGet, Times: 1, Status: 502},
		{Path: "/comments", Method: http.MethodPost, Times: 1, Status: http.StatusTooManyRequests},
	} {
		s.Fail(fault)
	}
	if err := client.PutComment(t.Context(), 7, comment); err != nil {
		t.Errorf("after retries: %v", err)
	}
	s.Fail(standin.Fault{Path: "/graphql", Times: 1, Status: 502})
	s.Fail(standin.Fault{Path: "/issues/comments/", Times: 1, Hangup: true})
	comment.Body = "y"
	if err := client.PutComment(t.Context(), 7, comment); err != nil {
		t.Errorf("after a lost connection: %v", err)
	}
	if got := texts(s); !slices.Equal(got, []string{"github-actions[bot]: y"}) {
		t.Errorf("the comments are %q", got)
	}
}

func TestGraphQLURL(t *testing.T) {
	for api, want := range map[string]string{
		"": "https://api.github.com/graphql", "https://api.acme.ghe.com/": "https://api.acme.ghe.com/graphql",
		"https://github.example/api/v3": "https://github.example/api/graphql",
	} {
		if got := (Repository{APIURL: api}).graphQLURL(); got != want {
			t.Errorf("%s: got %s, want %s", api, got, want)
		}
	}
}

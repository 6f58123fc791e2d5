package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/go-github/v62/github"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Comment is a comment that a tool keeps up to date on a pull request. The tool finds it by its first line, which GitHub
// does not show, and by its author: others can write the same line.
type Comment struct {
	Key     string // identifies the comment among those of the tool; without white space and -->
	Run     int64  // a later run has a higher number
	Attempt int64  // of the run
	Body    string // Markdown; with the first line at most 65,536 characters
}

// ErrNewerComment is returned by [Repository.PutComment] if a later run has written the comment.
var ErrNewerComment = errors.New("a later run has updated the comment")

const commentMark = "<!-- sandbox-actions "

func (c Comment) mark() string { return commentMark + c.Key + " " }

func (c Comment) text() string {
	return fmt.Sprintf("%srun=%d.%d -->\n%s", c.mark(), c.Run, c.Attempt, c.Body)
}

// isOlderThan reports whether the comment with the text was written by a later run.
func (c Comment) isOlderThan(text string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(text, c.mark()), "\n")
	var run, attempt int64
	_, err := fmt.Sscanf(first, "run=%d.%d -->", &run, &attempt)
	return err == nil && (run > c.Run || run == c.Run && attempt > c.Attempt)
}

// PutComment updates the comment with the key on a pull request, or creates it. It changes only comments of the token's
// user. It needs a token with pull-requests: write.
func (r Repository) PutComment(ctx context.Context, pull int, c Comment) error {
	if err := r.validate(); err != nil {
		return err
	}
	viewer, err := r.viewer(ctx)
	if err != nil {
		return err
	}
	existing, err := r.findComment(ctx, pull, viewer, c.mark())
	if err != nil {
		return err
	}
	if existing != nil {
		return r.updateComment(ctx, existing, c)
	}
	created, err := r.createComment(ctx, pull, c.text())
	if err != nil {
		return err
	}
	// A run at the same time may have created the comment, too. The first one stays.
	first, err := r.findComment(ctx, pull, viewer, c.mark())
	if err != nil || first == nil || first.GetID() == created.GetID() {
		return err
	}
	if err := r.deleteComment(ctx, created.GetID()); err != nil {
		return err
	}
	return r.updateComment(ctx, first, c)
}

// viewer returns the login of the token's user: github-actions[bot] for a job's GITHUB_TOKEN. It uses the GraphQL API,
// because the REST API does not return the user of an app's token.
func (r Repository) viewer(ctx context.Context) (string, error) {
	var answer struct {
		Data struct {
			Viewer struct {
				Login string `json:"login"`
			} `json:"viewer"`
		} `json:"data"`
	}
	const op = "read the token's user"
	ctx = httpclient.Idempotent(ctx)
	_, err := call(ctx, r, op, func(c *github.Client) (any, *github.Response, error) {
		request, err := c.NewRequest(
			http.MethodPost,
			r.graphQLURL(),
			map[string]string{"query": "query { viewer { login } }"},
		)
		if err != nil {
			return nil, nil, err
		}
		response, err := c.Do(ctx, request, &answer)
		return nil, response, err
	})
	if err == nil && answer.Data.Viewer.Login == "" {
		err = r.unexpected(op, "the response has no login")
	}
	return answer.Data.Viewer.Login, err
}

// graphQLURL returns the URL of the GraphQL API, which is beside the REST API on GitHub Enterprise Server.
// https://docs.github.com/en/enterprise-server/graphql/guides/forming-calls-with-graphql#the-graphql-endpoint
func (r Repository) graphQLURL() string {
	return strings.TrimSuffix(r.apiURL(), "/v3") + "/graphql"
}

// findComment returns the first comment of the author that begins with mark, or nil.
func (r Repository) findComment(ctx context.Context, pull int, author, mark string) (*github.IssueComment, error) {
	type listed struct {
		comments []*github.IssueComment
		next     int
	}
	for page := 1; page != 0; {
		list, err := call(ctx, r, "list the comments of #"+strconv.Itoa(pull),
			func(c *github.Client) (listed, *github.Response, error) {
				comments, response, err := c.Issues.ListComments(ctx, r.Owner, r.Name, pull, &github.IssueListCommentsOptions{
					ListOptions: github.ListOptions{Page: page, PerPage: 100},
				})
				if err != nil {
					return listed{}, response, err
				}
				return listed{comments, response.NextPage}, response, nil
			})
		if err != nil {
			return nil, err
		}
		for _, comment := range list.comments {
			if comment.GetUser().GetLogin() == author && strings.HasPrefix(comment.GetBody(), mark) {
				return comment, nil
			}
		}
		page = list.next
	}
	return nil, nil
}

func (r Repository) createComment(ctx context.Context, pull int, text string) (*github.IssueComment, error) {
	return call(ctx, r, "comment on #"+strconv.Itoa(pull),
		func(c *github.Client) (*github.IssueComment, *github.Response, error) {
			return c.Issues.CreateComment(ctx, r.Owner, r.Name, pull, &github.IssueComment{Body: &text})
		})
}

func (r Repository) updateComment(ctx context.Context, existing *github.IssueComment, c Comment) error {
	if c.isOlderThan(existing.GetBody()) {
		return ErrNewerComment
	}
	ctx = httpclient.Idempotent(ctx)
	_, err := call(ctx, r, "update the comment", func(g *github.Client) (*github.IssueComment, *github.Response, error) {
		text := c.text()
		return g.Issues.EditComment(ctx, r.Owner, r.Name, existing.GetID(), &github.IssueComment{Body: &text})
	})
	return err
}

func (r Repository) deleteComment(ctx context.Context, id int64) error {
	_, err := call(ctx, r, "delete the second comment", func(c *github.Client) (any, *github.Response, error) {
		response, err := c.Issues.DeleteComment(ctx, r.Owner, r.Name, id)
		return nil, response, err
	})
	return err
}

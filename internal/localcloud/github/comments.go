package github

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// https://docs.github.com/en/rest/issues/comments. A token with issues: write may also comment on pull requests; the
// stand-in requires pull-requests: write. Such a token may edit and delete the comments of others.
var commentEndpoints = []endpoint{
	{"GET /issues/{number}/comments", readPulls, (*call).listComments, "issues/comments#list-issue-comments"},
	{"POST /issues/{number}/comments", writePulls, withBody((*call).createComment),
		"issues/comments#create-an-issue-comment"},
	{"PATCH /issues/comments/{id}", writePulls, withBody((*call).updateComment),
		"issues/comments#update-an-issue-comment"},
	{"DELETE /issues/comments/{id}", writePulls, (*call).deleteComment, "issues/comments#delete-an-issue-comment"},
}

// jobUser is the author of what a job does with its GITHUB_TOKEN.
const jobUser = "github-actions[bot]"

// Comment is a comment on a pull request.
type Comment struct {
	ID           int64
	Pull         int
	Author, Body string
}

// Comments returns the comments of a repository in order of creation.
func (s *Server) Comments(owner, name string) []Comment {
	s.storeMu.Lock()
	defer s.storeMu.Unlock()
	var list []Comment
	if store := s.stores[storeKey(owner+"/"+name)]; store != nil {
		for _, c := range store.comments {
			list = append(list, *c)
		}
	}
	return list
}

// AddComment adds a comment of any author, and sets its ID.
func (s *Server) AddComment(repository Repository, c Comment) {
	s.storeMu.Lock()
	defer s.storeMu.Unlock()
	store := s.storeOf(repository)
	c.ID = s.newID()
	store.comments = append(store.comments, &c)
}

type commentBody struct {
	Body string `json:"body"`
}

// validate applies the limit of GitHub, which its documentation does not state: 65,536 characters.
// https://github.com/orgs/community/discussions/27190
func (b commentBody) validate() error {
	const maxBody = 65_536
	problem := fieldError{Resource: "IssueComment", Code: "unprocessable", Field: "data"}
	switch {
	case strings.TrimSpace(b.Body) == "":
		problem.Message = "Body cannot be blank"
	case utf8.RuneCountInString(b.Body) > maxBody:
		problem.Message = fmt.Sprintf("Body is too long (maximum is %d characters)", maxBody)
	default:
		return nil
	}
	return invalidFields(problem)
}

// pull returns the number of the pull request in the path. A repository here has no issues.
func (c *call) pull() (int, error) {
	number, err := strconv.Atoi(c.request.PathValue("number"))
	if err != nil {
		return 0, errNotFound
	}
	if _, err := c.repository.commit(c.ctx(), fmt.Sprintf("refs/pull/%d/head", number)); err != nil {
		return 0, errNotFound
	}
	return number, nil
}

func (c *call) listComments() (any, error) {
	number, err := c.pull()
	if err != nil {
		return nil, err
	}
	list := page{}
	for _, comment := range c.store().comments { // in ascending order of their IDs, as GitHub's
		if comment.Pull == number {
			list = append(list, c.showComment(comment))
		}
	}
	return list, nil
}

func (c *call) createComment(body commentBody) (any, error) {
	number, err := c.pull()
	if err != nil {
		return nil, err
	}
	if err := body.validate(); err != nil {
		return nil, err
	}
	store := c.store()
	comment := &Comment{c.newID(), number, jobUser, body.Body}
	store.comments = append(store.comments, comment)
	return c.showComment(comment), nil
}

// comment returns the position in its store of the comment in the path.
func (c *call) comment() (*store, int, error) {
	store := c.store()
	i := slices.IndexFunc(store.comments, func(comment *Comment) bool {
		return strconv.FormatInt(comment.ID, 10) == c.request.PathValue("id")
	})
	if i < 0 {
		return nil, 0, errNotFound
	}
	return store, i, nil
}

func (c *call) updateComment(body commentBody) (any, error) {
	store, i, err := c.comment()
	if err != nil {
		return nil, err
	}
	if err := body.validate(); err != nil {
		return nil, err
	}
	store.comments[i].Body = body.Body
	return c.showComment(store.comments[i]), nil
}

func (c *call) deleteComment() (any, error) {
	store, i, err := c.comment()
	if err != nil {
		return nil, err
	}
	store.comments = slices.Delete(store.comments, i, i+1)
	return nil, nil
}

func (c *call) showComment(comment *Comment) map[string]any {
	kind := "User"
	if strings.HasSuffix(comment.Author, "[bot]") {
		kind = "Bot"
	}
	return map[string]any{
		"id": comment.ID, "url": c.apiURL(fmt.Sprintf("/issues/comments/%d", comment.ID)), "body": comment.Body,
		"user": map[string]string{"login": comment.Author, "type": kind},
	}
}

// serveGraphQL serves the query of the viewer. REST has no such endpoint for the tokens of apps: GET /user answers 403.
// https://docs.github.com/en/graphql/reference/queries#user
func (s *Server) serveGraphQL(w http.ResponseWriter, r *http.Request) {
	const documentation = "https://docs.github.com/graphql"
	var body struct {
		Query string `json:"query"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		sendError(w, r, apiError{status: http.StatusBadRequest, message: "Problems parsing JSON"}, documentation)
		return
	}
	token, ok := requestToken(r)
	isJob := slices.ContainsFunc(s.currentOptions().JobTokens, func(t Token) bool { return t.Value == token })
	switch {
	case !ok:
		sendError(w, r, apiError{status: http.StatusForbidden, message: "API rate limit exceeded"}, documentation)
	case !isJob:
		sendError(w, r, apiError{status: http.StatusUnauthorized, message: "Bad credentials"}, documentation)
	case strings.Join(strings.Fields(body.Query), "") != "query{viewer{login}}":
		sendJSON(w, r, http.StatusOK, map[string]any{"errors": []map[string]string{{"message": "Parse error"}}})
	default:
		viewer := map[string]any{"viewer": map[string]string{"login": jobUser}}
		sendJSON(w, r, http.StatusOK, map[string]any{"data": viewer})
	}
}

package github

import (
	"context"
	"regexp"
	"strings"
)

var refEndpoints = []endpoint{
	{"GET /git/matching-refs/{ref...}", readContents, (*call).listMatchingRefs, "git/refs#list-matching-references"},
	{"GET /git/ref/{ref...}", readContents, (*call).getRef, "git/refs#get-a-reference"},
	{"POST /git/refs", writeContents, withBody((*call).createRef), "git/refs#create-a-reference"},
	{"PATCH /git/refs/{ref...}", writeContents, withBody((*call).updateRef), "git/refs#update-a-reference"},
	{"DELETE /git/refs/{ref...}", writeContents, (*call).deleteRef, "git/refs#delete-a-reference"},
}

type gitObject struct {
	Type string `json:"type"`
	SHA  string `json:"sha"`
	URL  string `json:"url"`
}

type reference struct {
	Ref    string    `json:"ref"`
	URL    string    `json:"url"`
	Object gitObject `json:"object"`
}

// references returns the refs with a prefix. It includes only kinds of refs that exist on GitHub, since a checkout has
// more.
func (c *call) references(prefix string) ([]reference, error) {
	out, err := c.repository.git(c.ctx(), "for-each-ref", "--format=%(refname) %(objecttype) %(objectname)",
		"refs/heads", "refs/tags", "refs/pull")
	if err != nil {
		return nil, errNotFound
	}
	if out == "" {
		return nil, errEmpty
	}
	list := []reference{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], prefix) {
			target := gitObject{f[1], f[2], c.apiURL("/git/" + f[1] + "s/" + f[2])}
			list = append(list, reference{f[0], c.apiURL("/git/" + f[0]), target})
		}
	}
	return list, nil
}

func (c *call) getRef() (any, error) {
	ref := "refs/" + c.request.PathValue("ref")
	list, err := c.references(ref)
	if err != nil {
		return nil, err
	}
	for _, found := range list {
		if found.Ref == ref {
			return found, nil
		}
	}
	return nil, errNotFound
}

func (c *call) listMatchingRefs() (any, error) {
	return c.references("refs/" + c.request.PathValue("ref"))
}

type createRefBody struct{ Ref, SHA string }

func (c *call) createRef(body createRefBody) (any, error) {
	if body.Ref == "" {
		return nil, missingField("ref")
	}
	if strings.Count(body.Ref, "/") < 2 {
		return nil, unprocessable("Reference name must contain at least three slash-separated components.")
	}
	_, err := c.repository.git(c.ctx(), "check-ref-format", body.Ref)
	if err != nil || !strings.HasPrefix(body.Ref, "refs/") {
		return nil, unprocessable(body.Ref + " is not a valid ref name.")
	}
	if err := c.checkObject(body.SHA); err != nil {
		return nil, err
	}
	if c.repository.hasRef(c.ctx(), body.Ref) {
		return nil, unprocessable("Reference already exists")
	}
	return c.setRef(body.Ref, body.SHA, strings.Repeat("0", 40))
}

type updateRefBody struct {
	SHA   string
	Force bool
}

// updateRef fast-forwards a ref, or sets it to any object with force.
func (c *call) updateRef(body updateRefBody) (any, error) {
	ref, err := c.existingRef()
	if err != nil {
		return nil, err
	}
	previous, err := c.repository.git(c.ctx(), "rev-parse", ref)
	if err != nil {
		return nil, errNoRef
	}
	if err := c.checkObject(body.SHA); err != nil {
		return nil, err
	}
	if !body.Force {
		if _, err := c.repository.git(c.ctx(), "merge-base", "--is-ancestor", previous, body.SHA); err != nil {
			return nil, unprocessable("Update is not a fast forward")
		}
	}
	return c.setRef(ref, body.SHA, previous)
}

func (c *call) deleteRef() (any, error) {
	ref, err := c.existingRef()
	if err != nil {
		return nil, err
	}
	if !isWritable(ref) || ref == "refs/heads/"+c.repository.defaultBranch(c.ctx()) {
		return nil, errRefUpdate
	}
	if _, err := c.repository.git(c.ctx(), "update-ref", "-d", ref); err != nil {
		return nil, errRefUpdate
	}
	return nil, nil
}

var (
	errNoRef     = unprocessable("Reference does not exist")
	errRefUpdate = unprocessable("Reference update failed")
)

// existingRef returns the ref in the request path.
func (c *call) existingRef() (string, error) {
	ref := "refs/" + c.request.PathValue("ref")
	if !c.repository.hasRef(c.ctx(), ref) {
		return "", errNoRef
	}
	return ref, nil
}

// setRef moves a ref from previous to sha. Git rejects a branch that does not point to a commit, and a ref below
// another ref.
func (c *call) setRef(ref, sha, previous string) (any, error) {
	if !isWritable(ref) {
		return nil, errRefUpdate
	}
	if _, err := c.repository.git(c.ctx(), "update-ref", ref, sha, previous); err != nil {
		return nil, errRefUpdate
	}
	list, err := c.references(ref)
	if err != nil || len(list) == 0 {
		return nil, errRefUpdate
	}
	return list[0], nil
}

// isWritable reports whether users can change a ref. GitHub manages the refs of pull requests.
func isWritable(ref string) bool {
	return strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/")
}

func (r Repository) hasRef(ctx context.Context, ref string) bool {
	_, err := r.git(ctx, "show-ref", "--verify", "--quiet", "--", ref)
	return err == nil
}

var fullSHA = regexp.MustCompile(`^[0-9a-f]{40}$`)

// checkObject returns an error unless sha is the full SHA of an existing object.
func (c *call) checkObject(sha string) error {
	if sha == "" {
		return missingField("sha")
	}
	if !fullSHA.MatchString(sha) {
		return unprocessable("The sha parameter must be exactly 40 characters and contain only [0-9a-f].")
	}
	if _, err := c.repository.git(c.ctx(), "cat-file", "-e", sha); err != nil {
		return unprocessable("Object does not exist")
	}
	return nil
}

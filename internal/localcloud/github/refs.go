package github

import (
	"context"
	"net/http"
	"regexp"
	"strings"
)

func (s *Server) refEndpoints() []endpoint {
	return []endpoint{
		{"GET /git/matching-refs/{ref...}", readContents, s.matching, "git/refs#list-matching-references"},
		{"GET /git/ref/{ref...}", readContents, s.ref, "git/refs#get-a-reference"},
		{"POST /git/refs", writeContents, s.createRef, "git/refs#create-a-reference"},
		{"PATCH /git/refs/{ref...}", writeContents, s.updateRef, "git/refs#update-a-reference"},
		{"DELETE /git/refs/{ref...}", writeContents, s.deleteRef, "git/refs#delete-a-reference"},
	}
}

type object struct {
	Type string `json:"type"`
	SHA  string `json:"sha"`
	URL  string `json:"url"`
}

type reference struct {
	Ref    string `json:"ref"`
	URL    string `json:"url"`
	Object object `json:"object"`
}

// references lists what begins so, of all that was pushed or that GitHub made: not what a checkout has besides.
func (s *Server) references(ctx context.Context, r Repository, prefix string) ([]reference, *refusal) {
	out, err := r.run(ctx, "for-each-ref", "--format=%(refname) %(objecttype) %(objectname)", "refs/heads", "refs/tags", "refs/pull")
	if err != nil {
		return nil, notFound
	}
	if out == "" {
		return nil, empty
	}
	list := []reference{}
	api := s.APIURL() + "/repos/" + r.Owner + "/" + r.Name + "/git/"
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], prefix) {
			list = append(list, reference{f[0], api + f[0], object{f[1], f[2], api + f[1] + "s/" + f[2]}})
		}
	}
	return list, nil
}

func (s *Server) ref(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	full := "refs/" + request.PathValue("ref")
	list, refused := s.references(ctx, r, full)
	if refused != nil {
		return nil, refused
	}
	for _, found := range list {
		if found.Ref == full {
			return found, nil
		}
	}
	return nil, notFound
}

func (s *Server) matching(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	list, refused := s.references(ctx, r, "refs/"+request.PathValue("ref"))
	if refused != nil {
		return nil, refused
	}
	return list, nil
}

func (s *Server) createRef(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	var wanted struct{ Ref, SHA string }
	if refused := decode(request, &wanted); refused != nil {
		return nil, refused
	}
	if wanted.Ref == "" {
		return nil, missing("ref")
	}
	if strings.Count(wanted.Ref, "/") < 2 {
		return nil, unprocessable("Reference name must contain at least three slash-separated components.")
	}
	if _, err := r.run(ctx, "check-ref-format", wanted.Ref); err != nil || !strings.HasPrefix(wanted.Ref, "refs/") {
		return nil, unprocessable(wanted.Ref + " is not a valid ref name.")
	}
	if refused := r.hasObject(ctx, wanted.SHA); refused != nil {
		return nil, refused
	}
	if r.has(ctx, wanted.Ref) {
		return nil, unprocessable("Reference already exists")
	}
	return s.setRef(ctx, r, wanted.Ref, wanted.SHA, strings.Repeat("0", 40))
}

// updateRef moves a ref forward; by force to anywhere.
func (s *Server) updateRef(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	var wanted struct {
		SHA   string
		Force bool
	}
	if refused := decode(request, &wanted); refused != nil {
		return nil, refused
	}
	ref := "refs/" + request.PathValue("ref")
	if !r.has(ctx, ref) {
		return nil, unprocessable("Reference does not exist")
	}
	old, err := r.run(ctx, "rev-parse", ref)
	if err != nil {
		return nil, unprocessable("Reference does not exist")
	}
	if refused := r.hasObject(ctx, wanted.SHA); refused != nil {
		return nil, refused
	}
	if !wanted.Force {
		if _, err := r.run(ctx, "merge-base", "--is-ancestor", old, wanted.SHA); err != nil {
			return nil, unprocessable("Update is not a fast forward")
		}
	}
	return s.setRef(ctx, r, ref, wanted.SHA, old)
}

func (s *Server) deleteRef(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	ref := "refs/" + request.PathValue("ref")
	if !r.has(ctx, ref) {
		return nil, unprocessable("Reference does not exist")
	}
	if !writable(ref) || ref == "refs/heads/"+r.defaultBranch(ctx) {
		return nil, unprocessable("Reference update failed")
	}
	if _, err := r.run(ctx, "update-ref", "-d", ref); err != nil {
		return nil, unprocessable("Reference update failed")
	}
	return nil, nil
}

// setRef does what git allows: a branch names a commit, and no ref is a folder of another.
func (s *Server) setRef(ctx context.Context, r Repository, ref, sha, old string) (any, *refusal) {
	if !writable(ref) {
		return nil, unprocessable("Reference update failed")
	}
	if _, err := r.run(ctx, "update-ref", ref, sha, old); err != nil {
		return nil, unprocessable("Reference update failed")
	}
	list, refused := s.references(ctx, r, ref)
	if refused != nil || len(list) == 0 {
		return nil, unprocessable("Reference update failed")
	}
	return list[0], nil
}

// writable are branches and tags. Pull requests' refs are GitHub's own, and what else a checkout has is not on GitHub.
func writable(ref string) bool {
	return strings.HasPrefix(ref, "refs/heads/") || strings.HasPrefix(ref, "refs/tags/")
}

var fullSHA = regexp.MustCompile(`^[0-9a-f]{40}$`)

func (r Repository) hasObject(ctx context.Context, sha string) *refusal {
	if sha == "" {
		return missing("sha")
	}
	if !fullSHA.MatchString(sha) {
		return unprocessable("The sha parameter must be exactly 40 characters and contain only [0-9a-f].")
	}
	if _, err := r.run(ctx, "cat-file", "-e", sha); err != nil {
		return unprocessable("Object does not exist")
	}
	return nil
}

package github

import (
	"net/http"
	"slices"
	"strings"
)

// Token is one with the permissions of a workflow's job: its GITHUB_TOKEN.
// https://docs.github.com/en/actions/concepts/security/github_token
type Token struct {
	Value       string
	Repository  string            // OWNER/NAME, the only one that it is for; "" for every one
	Permissions map[string]string // as the workflow writes them: "contents": "write"
}

// need is what a request asks for: something that a workflow's permissions name, to read it or to change it.
type need struct {
	scope string // "" for what everybody may know who knows of the repository
	write bool
}

var (
	readMetadata, readContents, readAttestations = need{}, need{scope: "contents"}, need{scope: "attestations"}
	writeContents, writeAttestations             = need{"contents", true}, need{"attestations", true}
)

// tokenOf is the token that a request carries: as git's password, or as the API's bearer.
func tokenOf(r *http.Request) (string, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	_, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return token, ok
}

// entry finds a repository for who may do what is needed, or says why not: 401, 403, or 404 for what the sender may not even know of.
func (s *Server) entry(r *http.Request, owner, name string, n need) (Repository, int) {
	o := s.now()
	token, given := tokenOf(r)
	reads := slices.Contains(o.Tokens, token)
	var job Token
	if i := slices.IndexFunc(o.JobTokens, func(t Token) bool { return t.Value == token }); i >= 0 {
		job = o.JobTokens[i]
	}
	if given && !reads && job.Value == "" {
		return Repository{}, http.StatusUnauthorized
	}
	i := slices.IndexFunc(o.Repositories, func(r Repository) bool { return r.is(owner + "/" + name) })
	if i < 0 {
		return Repository{}, http.StatusNotFound
	}
	repository := o.Repositories[i]
	own := job.Value != "" && (job.Repository == "" || repository.is(job.Repository))
	permission := job.Permissions[n.scope]
	switch {
	case repository.Private && !reads && !own:
		return Repository{}, http.StatusNotFound
	case n.write && !given:
		return Repository{}, http.StatusUnauthorized
	case n.write && (!own || permission != "write"):
		return Repository{}, http.StatusForbidden
	case n.scope != "" && repository.Private && !reads && permission != "read" && permission != "write":
		return Repository{}, http.StatusForbidden
	}
	return repository, http.StatusOK
}

// mayWrite says whether who asks may change the contents: such a one sees drafts.
func (s *Server) mayWrite(r *http.Request, repository Repository) bool {
	_, status := s.entry(r, repository.Owner, repository.Name, writeContents)
	return status == http.StatusOK
}

// is says whether a repository has that name, OWNER/NAME in any letters.
func (r Repository) is(name string) bool { return strings.EqualFold(r.Owner+"/"+r.Name, name) }

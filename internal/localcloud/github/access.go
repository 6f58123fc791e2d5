package github

import (
	"net/http"
	"slices"
	"strings"
)

// Token is a job's GITHUB_TOKEN.
// https://docs.github.com/en/actions/concepts/security/github_token
type Token struct {
	Value       string
	Repository  string            // OWNER/NAME of the only repository it can access; "": all repositories
	Permissions map[string]string // as in a workflow, for example "contents": "write"
}

// permission is a permission that a request requires.
type permission struct {
	scope string // name in a workflow; "": only access to the repository
	write bool

	inPublic bool // whether reading a public repository requires it, too
}

var (
	readMetadata      = permission{}
	readContents      = permission{scope: "contents"}
	writeContents     = permission{scope: "contents", write: true}
	readAttestations  = permission{scope: "attestations"}
	writeAttestations = permission{scope: "attestations", write: true}
	readDeployments   = permission{scope: "deployments"}
	writeDeployments  = permission{scope: "deployments", write: true}
	readPulls         = permission{scope: "pull-requests"}
	writePulls        = permission{scope: "pull-requests", write: true}
	readActions       = permission{scope: "actions"}
	downloadArtifacts = permission{scope: "actions", inPublic: true}
)

// requestToken returns the token of a request. Git sends it as a password, API clients send it as a bearer token.
func requestToken(r *http.Request) (token string, ok bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	_, token, ok = strings.Cut(r.Header.Get("Authorization"), " ")
	return token, ok
}

// authorize returns the repository and the status 200 if the request's token has the permission. Otherwise the status
// is 401, 403, or 404 for a repository that the token cannot see.
func (s *Server) authorize(r *http.Request, owner, name string, p permission) (Repository, int) {
	o := s.currentOptions()
	token, hasToken := requestToken(r)
	readsAll := slices.Contains(o.Tokens, token)
	var job Token
	if i := slices.IndexFunc(o.JobTokens, func(t Token) bool { return t.Value == token }); i >= 0 {
		job = o.JobTokens[i]
	}
	if hasToken && !readsAll && job.Value == "" {
		return Repository{}, http.StatusUnauthorized
	}
	i := slices.IndexFunc(o.Repositories, func(r Repository) bool { return r.isNamed(owner + "/" + name) })
	if i < 0 {
		return Repository{}, http.StatusNotFound
	}
	repository := o.Repositories[i]
	ownJob := job.Value != "" && (job.Repository == "" || repository.isNamed(job.Repository))
	granted := job.Permissions[p.scope]
	switch {
	case repository.Private && !readsAll && !ownJob:
		return Repository{}, http.StatusNotFound
	case p.write && !hasToken:
		return Repository{}, http.StatusUnauthorized
	case p.write && (!ownJob || granted != "write"):
		return Repository{}, http.StatusForbidden
	case p.scope != "" && (repository.Private || p.inPublic) && !readsAll &&
		(!ownJob || granted != "read" && granted != "write"):
		return Repository{}, http.StatusForbidden
	}
	return repository, http.StatusOK
}

// canWrite reports whether the request's token can write to the repository. Only such tokens can read drafts.
func (s *Server) canWrite(r *http.Request, repository Repository) bool {
	_, status := s.authorize(r, repository.Owner, repository.Name, writeContents)
	return status == http.StatusOK
}

// isNamed reports whether name is the repository's OWNER/NAME, ignoring case.
func (r Repository) isNamed(name string) bool { return strings.EqualFold(r.fullName(), name) }

func (r Repository) fullName() string { return r.Owner + "/" + r.Name }

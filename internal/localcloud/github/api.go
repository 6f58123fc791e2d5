package github

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// endpoint is an endpoint of the REST API. https://docs.github.com/en/rest
type endpoint struct {
	pattern       string // method and path below a repository
	permission    permission
	handle        func(*call) (any, error) // returns a redirect, a page, nil (no content), or a value to send as JSON
	documentation string                   // path below https://docs.github.com/rest
}

// call is a request to an endpoint.
type call struct {
	*Server
	repository Repository
	request    *http.Request
	unlock     func() // unlocks the store; nil while the call has not locked it
}

func (c *call) ctx() context.Context { return c.request.Context() }

// apiURL returns the URL of a path below the repository.
func (c *call) apiURL(path string) string {
	return c.APIURL() + "/repos/" + c.repository.fullName() + path
}

// store returns the repository's releases and attestations, and locks them until the call ends.
func (c *call) store() *store {
	store, unlock := c.lockStore(c.ctx(), c.repository)
	c.unlock = unlock
	return store
}

// release returns the release with the ID, and its store. A draft requires write access.
func (c *call) release(id string) (*store, *release, error) {
	store := c.store()
	for _, release := range store.releases {
		if strconv.FormatInt(release.id, 10) == id && c.isVisible(release) {
			return store, release, nil
		}
	}
	return nil, nil, errNotFound
}

func (c *call) isVisible(release *release) bool {
	return !release.draft || c.canWrite(c.request, c.repository)
}

// withRelease passes the release in the request path to an endpoint.
func withRelease(handle func(*call, *store, *release) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		store, release, err := c.release(c.request.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return handle(c, store, release)
	}
}

// withAsset passes the asset in the request path, and its release, to an endpoint.
func withAsset(handle func(*call, *release, *asset) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		for _, release := range c.store().releases {
			for _, asset := range release.assets {
				if strconv.FormatInt(asset.id, 10) == c.request.PathValue("id") && c.isVisible(release) {
					return handle(c, release, asset)
				}
			}
		}
		return nil, errNotFound
	}
}

// withBody decodes the JSON body and passes it to an endpoint.
func withBody[T any](handle func(*call, T) (any, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		var body T
		if err := json.NewDecoder(c.request.Body).Decode(&body); err != nil {
			return nil, &apiError{status: http.StatusBadRequest, message: "Problems parsing JSON"}
		}
		return handle(c, body)
	}
}

// handleAPI serves the API below /api/v3 and uploads below /api/uploads, as GitHub Enterprise Server does.
func (s *Server) handleAPI(mux *http.ServeMux) {
	for _, e := range slices.Concat(
		repositoryEndpoints, refEndpoints, releaseEndpoints, assetEndpoints, attestationEndpoints,
		deploymentEndpoints, commentEndpoints, artifactEndpoints,
	) {
		method, path, _ := strings.Cut(e.pattern, " ")
		mux.HandleFunc(method+" /api/v3/repos/{owner}/{name}"+path, s.limitRate(s.serveEndpoint(e)))
	}
	const uploads = "POST /api/uploads/repos/{owner}/{name}/releases/{id}/assets"
	mux.HandleFunc(uploads, s.limitRate(s.serveEndpoint(uploadEndpoint)))
	mux.HandleFunc("GET /api/v3/rate_limit", s.serveRateLimit)
	mux.HandleFunc("POST /api/graphql", s.limitRate(s.serveGraphQL))
	mux.HandleFunc("/api/v3/", s.limitRate(func(w http.ResponseWriter, r *http.Request) {
		sendError(w, r, *errNotFound, "https://docs.github.com/rest")
	}))
}

// redirect is a response that redirects the client to a URL.
type redirect string

// page is a complete list. The response contains the page of it that the client requests.
type page []any

// countedPage is a page in an object that also has the number of all items.
type countedPage struct {
	name  string
	items page
}

func (s *Server) serveEndpoint(e endpoint) http.HandlerFunc {
	documentation := "https://docs.github.com/rest/" + e.documentation
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := s.callEndpoint(e, r)
		if err != nil {
			failed := new(apiError)
			if !errors.As(err, &failed) {
				failed = &apiError{status: http.StatusInternalServerError, message: err.Error()}
			}
			discardBody(r)
			sendError(w, r, *failed, documentation)
			return
		}
		switch body := body.(type) {
		case redirect:
			http.Redirect(w, r, string(body), http.StatusFound)
		case page:
			sendJSON(w, r, http.StatusOK, body.requested(w, r))
		case countedPage:
			sendJSON(w, r, http.StatusOK, map[string]any{
				"total_count": len(body.items), body.name: slices.Concat(page{}, body.items.requested(w, r)),
			})
		case nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			status := http.StatusOK
			if r.Method == http.MethodPost {
				status = http.StatusCreated
			}
			sendJSON(w, r, status, body)
		}
	}
}

// callEndpoint authorizes a request, calls the endpoint and returns its result.
func (s *Server) callEndpoint(e endpoint, r *http.Request) (any, error) {
	repository, status := s.authorize(r, r.PathValue("owner"), r.PathValue("name"), e.permission)
	switch status {
	case http.StatusUnauthorized:
		if _, ok := requestToken(r); ok {
			return nil, &apiError{status: status, message: "Bad credentials"}
		}
		return nil, &apiError{status: status, message: "Requires authentication"}
	case http.StatusForbidden:
		if _, ok := requestToken(r); !ok { // https://github.com/brewsci/homebrew-bio/pull/1332
			return nil, &apiError{status: status, message: "You must have the actions scope to download artifacts."}
		}
		return nil, &apiError{status: status, message: "Resource not accessible by integration"}
	case http.StatusNotFound:
		return nil, errNotFound
	}
	c := &call{Server: s, repository: repository, request: r}
	defer func() {
		if c.unlock != nil {
			c.unlock()
		}
	}()
	return e.handle(c)
}

// requested returns the page that the client requests, and sets the Link header to the URL of the next page.
// https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
func (p page) requested(w http.ResponseWriter, r *http.Request) []any {
	query := r.URL.Query()
	size, err := strconv.Atoi(query.Get("per_page"))
	if err != nil || size < 1 {
		size = 30
	}
	size = min(size, 100)
	number, err := strconv.Atoi(query.Get("page"))
	if err != nil || number < 1 {
		number = 1
	}
	from := min((number-1)*size, len(p))
	to := min(from+size, len(p))
	if to < len(p) {
		query.Set("page", strconv.Itoa(number+1))
		w.Header().Set("Link", fmt.Sprintf("<http://%s%s?%s>; rel=\"next\"", r.Host, r.URL.Path, query.Encode()))
	}
	return p[from:to]
}

// apiError is an error response.
type apiError struct {
	status  int
	message string
	errors  []fieldError
}

func (e *apiError) Error() string { return e.message }

// fieldError describes an invalid field of a request.
type fieldError struct {
	Resource string `json:"resource"`
	Code     string `json:"code"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message,omitempty"`
}

var (
	errNotFound = &apiError{status: http.StatusNotFound, message: "Not Found"}
	errEmpty    = &apiError{status: http.StatusConflict, message: "Git Repository is empty."}
)

// unprocessable returns an error for a well-formed request that GitHub cannot process.
func unprocessable(message string) *apiError {
	return &apiError{status: http.StatusUnprocessableEntity, message: message}
}

// invalidFields returns an error for a request with invalid fields.
func invalidFields(fields ...fieldError) *apiError {
	return &apiError{status: http.StatusUnprocessableEntity, message: "Validation Failed", errors: fields}
}

// missingField returns an error for a request without a required field.
func missingField(name string) *apiError {
	return unprocessable(fmt.Sprintf("Invalid request.\n\n%q wasn't supplied.", name))
}

func sendError(w http.ResponseWriter, r *http.Request, e apiError, documentation string) {
	if e.status == http.StatusUnauthorized {
		documentation = "https://docs.github.com/rest"
	}
	sendJSON(w, r, e.status, errorBody(e, documentation))
}

// errorBody returns an error in the format of GitHub's API.
func errorBody(e apiError, documentation string) json.RawMessage {
	body, _ := json.Marshal(struct { // never fails: all fields are strings
		Message       string       `json:"message"`
		Errors        []fieldError `json:"errors,omitempty"`
		Documentation string       `json:"documentation_url"`
		Status        string       `json:"status"`
	}{e.message, e.errors, documentation, strconv.Itoa(e.status)})
	return body
}

// sendJSON sends body as JSON. Like GitHub, it indents the JSON for curl.
func sendJSON(w http.ResponseWriter, r *http.Request, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	if strings.HasPrefix(r.UserAgent(), "curl/") {
		encoder.SetIndent("", "  ")
	}
	_ = encoder.Encode(body) // fails if the client has disconnected
}

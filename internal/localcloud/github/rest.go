package github

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// endpoint is one of what https://docs.github.com/en/rest describes.
type endpoint struct {
	pattern       string // the method, and the path below a repository
	need          need
	answer        func(context.Context, Repository, *http.Request) (any, *refusal)
	documentation string
}

// handleREST serves the API below /api/v3 and its uploads below /api/uploads, as GitHub Enterprise Server does.
func (s *Server) handleREST(mux *http.ServeMux) {
	for _, e := range slices.Concat(s.readEndpoints(), s.refEndpoints(), s.releaseEndpoints(), s.assetEndpoints(), s.attestationEndpoints()) {
		method, path, _ := strings.Cut(e.pattern, " ")
		mux.HandleFunc(method+" /api/v3/repos/{owner}/{name}"+path, s.limited(s.answer(e)))
	}
	upload := endpoint{"POST", writeContents, s.upload, "releases/assets#upload-a-release-asset"}
	mux.HandleFunc("POST /api/uploads/repos/{owner}/{name}/releases/{id}/assets", s.limited(s.answer(upload)))
	mux.HandleFunc("GET /api/v3/rate_limit", s.rateLimit)
	mux.HandleFunc("/api/v3/", s.limited(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, *notFound, "https://docs.github.com/rest")
	}))
}

// redirect is an answer that is elsewhere, page one of which a part is sent at a time.
type (
	redirect string
	page     []any
)

// answer lets in who may, and sends what the endpoint says.
func (s *Server) answer(e endpoint) http.HandlerFunc {
	documentation := "https://docs.github.com/rest/" + e.documentation
	return func(w http.ResponseWriter, r *http.Request) {
		repository, status := s.entry(r, r.PathValue("owner"), r.PathValue("name"), e.need)
		var body any
		var refused *refusal
		switch status {
		case http.StatusUnauthorized:
			refused = &refusal{status: status, message: "Requires authentication"}
			if _, given := tokenOf(r); given {
				refused.message = "Bad credentials"
			}
		case http.StatusForbidden:
			refused = &refusal{status: status, message: "Resource not accessible by integration"}
		case http.StatusNotFound:
			refused = notFound
		default:
			body, refused = e.answer(r.Context(), repository, r)
		}
		if refused != nil {
			discard(r)
			refuse(w, r, *refused, documentation)
			return
		}
		switch answer := body.(type) {
		case redirect:
			http.Redirect(w, r, string(answer), http.StatusFound)
		case page:
			send(w, r, http.StatusOK, answer.part(w, r))
		case nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			status := http.StatusOK
			if r.Method == http.MethodPost {
				status = http.StatusCreated
			}
			send(w, r, status, answer)
		}
	}
}

// part is the part that is asked for; the header Link names the next one.
// https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
func (p page) part(w http.ResponseWriter, r *http.Request) []any {
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

type refusal struct {
	status  int
	message string
	errors  []fieldError
}

// fieldError says what is wrong with a field of what was sent.
type fieldError struct {
	Resource string `json:"resource"`
	Code     string `json:"code"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message,omitempty"`
}

var (
	notFound = &refusal{status: http.StatusNotFound, message: "Not Found"}
	empty    = &refusal{status: http.StatusConflict, message: "Git Repository is empty."}
)

// unprocessable refuses a request that can not be done.
func unprocessable(message string) *refusal {
	return &refusal{status: http.StatusUnprocessableEntity, message: message}
}

// invalid refuses a request for what its fields hold.
func invalid(errors ...fieldError) *refusal {
	return &refusal{status: http.StatusUnprocessableEntity, message: "Validation Failed", errors: errors}
}

// missing refuses a request without a field that it must have.
func missing(field string) *refusal {
	return unprocessable(fmt.Sprintf("Invalid request.\n\n%q wasn't supplied.", field))
}

// decode reads a request's JSON.
func decode(r *http.Request, into any) *refusal {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return &refusal{status: http.StatusBadRequest, message: "Problems parsing JSON"}
	}
	return nil
}

func refuse(w http.ResponseWriter, r *http.Request, refused refusal, documentation string) {
	if refused.status == http.StatusUnauthorized {
		documentation = "https://docs.github.com/rest"
	}
	send(w, r, refused.status, errorBody(refused, documentation))
}

// send sends JSON; to curl, in lines that people can read.
func send(w http.ResponseWriter, r *http.Request, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	if strings.HasPrefix(r.UserAgent(), "curl/") {
		encoder.SetIndent("", "  ")
	}
	_ = encoder.Encode(body) // the client may be gone
}

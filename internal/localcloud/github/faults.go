package github

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// Fault is an answer that GitHub gives instead of the right one. The first fault that fits a request decides it.
type Fault struct {
	Method  string // "" for all
	Path    string // requests whose path holds it; "" for all. [Objects] is in those of the host that has the assets
	Times   int    // 0: every one
	Status  int
	Body    string
	Header  map[string]string
	Silence bool // no answer until the client gives up
	Hangup  bool // the connection is closed instead

	// What was asked for is done with these two, and spoiled on the way back.
	Truncate int  // the connection is closed after so many bytes of the body
	Flip     bool // the last byte of the body is another
}

// PrimaryLimit is the API's answer to who has used up the requests of an hour. status is 403 or 429.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func PrimaryLimit(status int, reset time.Time) Fault {
	return Fault{
		Path: "/api/v3/", Status: status, Body: string(errorBody(refusal{status: status, message: "API rate limit exceeded for user ID 1."}, rateLimits)),
		Header: map[string]string{
			"Content-Type": "application/json; charset=utf-8", "X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0",
			"X-RateLimit-Used": "5000", "X-RateLimit-Resource": "core", "X-RateLimit-Reset": strconv.FormatInt(reset.Unix(), 10),
		},
	}
}

// SecondaryLimit is the API's answer to who asks too fast. status is 403 or 429; 0 for no Retry-After.
func SecondaryLimit(status int, retryAfter time.Duration) Fault {
	f := Fault{
		Path: "/api/v3/", Status: status,
		Body: string(errorBody(refusal{
			status: status, message: "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
		}, rateLimits+"#about-secondary-rate-limits")),
		Header: map[string]string{"Content-Type": "application/json; charset=utf-8", "X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4000"},
	}
	if retryAfter > 0 {
		f.Header["Retry-After"] = strconv.Itoa(int(retryAfter.Seconds()))
	}
	return f
}

// Fail makes requests go wrong from now on.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal ends all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

func (s *Server) fail(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, ok := s.nextFault(r)
		switch {
		case !ok:
			next.ServeHTTP(w, r)
		case fault.Silence:
			discard(r)
			<-r.Context().Done()
		case fault.Hangup:
			panic(http.ErrAbortHandler)
		case fault.Truncate > 0 || fault.Flip:
			spoil(w, r, next, fault)
		default:
			discard(r)
			for name, value := range fault.Header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(fault.Status)
			_, _ = io.WriteString(w, fault.Body) // the client may be gone
		}
	})
}

// spoil sends an answer with its true length, but not its true body.
func spoil(w http.ResponseWriter, r *http.Request, next http.Handler, fault Fault) {
	whole := httptest.NewRecorder()
	next.ServeHTTP(whole, r)
	body := whole.Body.Bytes()
	maps.Copy(w.Header(), whole.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(whole.Code)
	if fault.Flip && len(body) > 0 {
		body[len(body)-1] ^= 1
	}
	if fault.Truncate > 0 && fault.Truncate < len(body) {
		_, _ = w.Write(body[:fault.Truncate]) // the client may be gone
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// nextFault is the fault for a request, used up by one.
func (s *Server) nextFault(r *http.Request) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !strings.Contains(r.URL.Path, f.Path) || f.Method != "" && f.Method != r.Method {
			continue
		}
		taken := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return taken, true
	}
	return Fault{}, false
}

const rateLimits = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"

// errorBody is how GitHub's API words an error.
func errorBody(r refusal, documentation string) json.RawMessage {
	body, _ := json.Marshal(struct { // strings: nothing to fail
		Message       string       `json:"message"`
		Errors        []fieldError `json:"errors,omitempty"`
		Documentation string       `json:"documentation_url"`
		Status        string       `json:"status"`
	}{r.message, r.errors, documentation, strconv.Itoa(r.status)})
	return body
}

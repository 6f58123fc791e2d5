package github

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// Fault is an injected failure. The first fault that matches a request applies.
type Fault struct {
	Method     string // HTTP method; "": any
	Path       string // part of the request path; "": any. [Objects], [Artifacts] and [LFSObjects] match the asset host
	Times      int    // number of requests that fail; 0: all
	Status     int
	Body       string
	Header     map[string]string
	NoResponse bool // do not respond until the client disconnects
	Hangup     bool // close the connection without a response

	// Truncate and CorruptLastByte handle the request and damage only the response.
	Truncate        int  // close the connection after this number of body bytes
	CorruptLastByte bool // change the last byte of the body
}

const rateLimitDocs = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"

// PrimaryLimit returns the API's response when a token has used its requests per hour. status is 403 or 429.
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func PrimaryLimit(status int, reset time.Time) Fault {
	limited := apiError{status: status, message: "API rate limit exceeded for user ID 1."}
	return Fault{
		Path: "/api/v3/", Status: status, Body: string(errorBody(limited, rateLimitDocs)),
		Header: map[string]string{
			"Content-Type": "application/json; charset=utf-8", "X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0",
			"X-RateLimit-Used": "5000", "X-RateLimit-Resource": "core",
			"X-RateLimit-Reset": strconv.FormatInt(reset.Unix(), 10),
		},
	}
}

// SecondaryLimit returns the API's response to too many requests in quick succession. status is 403 or 429. A
// retryAfter of 0 omits the Retry-After header.
func SecondaryLimit(status int, retryAfter time.Duration) Fault {
	limited := apiError{
		status:  status,
		message: "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
	}
	f := Fault{
		Path: "/api/v3/", Status: status, Body: string(errorBody(limited, rateLimitDocs+"#about-secondary-rate-limits")),
		Header: map[string]string{
			"Content-Type": "application/json; charset=utf-8", "X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4000",
		},
	}
	if retryAfter > 0 {
		f.Header["Retry-After"] = strconv.Itoa(int(retryAfter.Seconds()))
	}
	return f
}

// LFSBudget returns the Batch API's response if the account has used its bandwidth or storage for Git LFS.
// https://github.com/onekey-sec/unblob/issues/1183
func LFSBudget() Fault {
	return Fault{
		Path: "/info/lfs/objects/batch", Status: http.StatusForbidden, Header: map[string]string{"Content-Type": lfsType},
		Body: `{"message":"This repository exceeded its LFS budget. The account responsible for the budget should ` +
			`increase it to restore access."}`,
	}
}

// Fail adds a fault.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

func (s *Server) injectFaults(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, ok := s.nextFault(r)
		switch {
		case !ok:
			next.ServeHTTP(w, r)
		case fault.NoResponse:
			discardBody(r)
			<-r.Context().Done()
		case fault.Hangup:
			panic(http.ErrAbortHandler)
		case fault.Truncate > 0 || fault.CorruptLastByte:
			damageResponse(w, r, next, fault)
		default:
			discardBody(r)
			for name, value := range fault.Header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(fault.Status)
			_, _ = io.WriteString(w, fault.Body) // fails if the client has disconnected
		}
	})
}

// damageResponse handles the request and sends the response with its original Content-Length and a damaged body.
func damageResponse(w http.ResponseWriter, r *http.Request, next http.Handler, fault Fault) {
	response := httptest.NewRecorder()
	next.ServeHTTP(response, r)
	body := response.Body.Bytes()
	maps.Copy(w.Header(), response.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(response.Code)
	if fault.CorruptLastByte && len(body) > 0 {
		body[len(body)-1] ^= 1
	}
	if fault.Truncate > 0 && fault.Truncate < len(body) {
		_, _ = w.Write(body[:fault.Truncate]) // fails if the client has disconnected
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// nextFault returns the first matching fault and counts one use of it.
func (s *Server) nextFault(r *http.Request) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !strings.Contains(r.URL.Path, f.Path) || f.Method != "" && f.Method != r.Method {
			continue
		}
		fault := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return fault, true
	}
	return Fault{}, false
}

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

// Fault is a failure that the stand-in simulates. The first fault that matches a request applies.
type Fault struct {
	Method  string // "": all
	Path    string // a part of the request's path; "": all. [Objects] matches requests to the host of the assets
	Times   int    // requests that fail; 0: all
	Status  int
	Body    string
	Header  map[string]string
	Silence bool // sends no response until the client gives up
	Hangup  bool // closes the connection without a response

	// With one of these the request is carried out, and its response is damaged.
	Truncate int  // closes the connection after so many bytes of the body
	Flip     bool // changes the last byte of the body
}

const rateLimitDocs = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"

// PrimaryLimit is the API's response when a token has used its requests per hour. status is 403 or 429.
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

// SecondaryLimit is the API's response to requests in quick succession. status is 403 or 429. A retryAfter of 0 omits
// the header.
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

// Fail adds a fault.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

func (s *Server) injectFaults(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, ok := s.takeFault(r)
		switch {
		case !ok:
			next.ServeHTTP(w, r)
		case fault.Silence:
			discardBody(r)
			<-r.Context().Done()
		case fault.Hangup:
			panic(http.ErrAbortHandler)
		case fault.Truncate > 0 || fault.Flip:
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

// damageResponse sends a response with its true length and a damaged body.
func damageResponse(w http.ResponseWriter, r *http.Request, next http.Handler, fault Fault) {
	response := httptest.NewRecorder()
	next.ServeHTTP(response, r)
	body := response.Body.Bytes()
	maps.Copy(w.Header(), response.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(response.Code)
	if fault.Flip && len(body) > 0 {
		body[len(body)-1] ^= 1
	}
	if fault.Truncate > 0 && fault.Truncate < len(body) {
		_, _ = w.Write(body[:fault.Truncate]) // fails if the client has disconnected
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// takeFault returns the fault of a request and counts it.
func (s *Server) takeFault(r *http.Request) (Fault, bool) {
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

package github

import (
	"net/http"
	"strconv"
	"time"
)

// rate counts the requests of a token in the current hour.
type rate struct {
	limit, used int
	reset       time.Time
}

var errRateLimit = &apiError{status: http.StatusForbidden, message: "API rate limit exceeded for user ID 1."}

// limitRate counts each request and rejects it if the limit is exceeded.
func (s *Server) limitRate(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "" {
			http.Error(w, "Request forbidden by administrative rules. "+
				"Please make sure your request has a User-Agent header", http.StatusForbidden)
			return
		}
		allowed, current := s.countRequests(r, 1)
		for name, value := range map[string]int64{
			"Limit": int64(current.limit), "Remaining": int64(current.limit - current.used),
			"Used": int64(current.used), "Reset": current.reset.Unix(),
		} {
			w.Header().Set("X-RateLimit-"+name, strconv.FormatInt(value, 10))
		}
		w.Header().Set("X-RateLimit-Resource", "core")
		if !allowed {
			sendError(w, r, *errRateLimit, rateLimitDocs)
			return
		}
		next(w, r)
	}
}

func (s *Server) serveRateLimit(w http.ResponseWriter, r *http.Request) {
	_, current := s.countRequests(r, 0)
	core := map[string]any{
		"limit": current.limit, "used": current.used,
		"remaining": current.limit - current.used, "reset": current.reset.Unix(),
	}
	sendJSON(w, r, http.StatusOK, map[string]any{"resources": map[string]any{"core": core}, "rate": core})
}

// countRequests adds n to the request count of the token. It reports whether the total is within the limit.
func (s *Server) countRequests(r *http.Request, n int) (allowed bool, current rate) {
	token, _ := requestToken(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := s.rates[token]
	if counted == nil || time.Now().After(counted.reset) {
		counted = &rate{reset: time.Now().Add(time.Hour)}
		s.rates[token] = counted
	}
	counted.limit = s.options.RateLimit
	if counted.limit == 0 {
		counted.limit = 5000
	}
	if counted.used+n > counted.limit {
		counted.used = counted.limit
		return false, *counted
	}
	counted.used += n
	return true, *counted
}

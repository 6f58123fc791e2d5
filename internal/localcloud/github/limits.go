package github

import (
	"net/http"
	"strconv"
	"time"
)

// rate is how often one has asked in an hour.
type rate struct {
	limit, used int
	reset       time.Time
}

// limited counts a request, and answers it when there are some left.
func (s *Server) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "" {
			http.Error(w, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header", http.StatusForbidden)
			return
		}
		ok, now := s.spend(r, 1)
		for name, value := range map[string]int64{
			"Limit": int64(now.limit), "Remaining": int64(now.limit - now.used), "Used": int64(now.used), "Reset": now.reset.Unix(),
		} {
			w.Header().Set("X-RateLimit-"+name, strconv.FormatInt(value, 10))
		}
		w.Header().Set("X-RateLimit-Resource", "core")
		if !ok {
			refuse(w, r, refusal{status: http.StatusForbidden, message: "API rate limit exceeded for user ID 1."}, rateLimits)
			return
		}
		next(w, r)
	}
}

func (s *Server) rateLimit(w http.ResponseWriter, r *http.Request) {
	_, now := s.spend(r, 0)
	core := map[string]any{"limit": now.limit, "used": now.used, "remaining": now.limit - now.used, "reset": now.reset.Unix()}
	send(w, r, http.StatusOK, map[string]any{"resources": map[string]any{"core": core}, "rate": core})
}

// spend takes n of the requests that the sender has left, and says how many that are.
func (s *Server) spend(r *http.Request, n int) (bool, rate) {
	token, _ := tokenOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.rates[token]
	if now == nil || time.Now().After(now.reset) {
		now = &rate{reset: time.Now().Add(time.Hour)}
		s.rates[token] = now
	}
	now.limit = s.options.RateLimit
	if now.limit == 0 {
		now.limit = 5000
	}
	if now.used+n > now.limit {
		now.used = now.limit
		return false, *now
	}
	now.used += n
	return true, *now
}

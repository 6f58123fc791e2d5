package depotapi

import (
	"context"
	"net/http"
	"path"
	"strings"
	"time"
)

// Call is one request, as tests ask for it.
type Call struct {
	Time   time.Time
	Method string // CreateBuild, GetBuildKitConnection, …; claim and exchange for a fork's challenge
	HTTP   string // HTTP/1.1 or HTTP/2.0
	Status int    // of the answer; 0 while there is none

	Token    TokenKind
	Project  string
	BuildID  string
	Platform string // linux/amd64

	Tags             []string // of CreateBuild's options, like the next three
	Push, Load, Save bool

	State       string // of GetBuildKitConnection: pending or active
	Result      string // of FinishBuild: success, error or canceled
	ResultError string // what FinishBuild's error says
}

// Calls lists every request since the start, in the order in which they came.
func (s *Server) Calls() []Call {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	calls := make([]Call, len(s.calls))
	for i, c := range s.calls {
		calls[i] = *c
	}
	return calls
}

type callKey struct{}

// callOf is the record of the request at hand. Only who has locked the server may touch it: see note.
func callOf(ctx context.Context) *Call {
	return ctx.Value(callKey{}).(*Call)
}

// note adds to the record of the request at hand.
func (s *Server) note(ctx context.Context, add func(*Call)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	add(callOf(ctx))
}

// record notes every request, from its beginning on, so that those that never end are seen too.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := &Call{Time: time.Now(), Method: methodOf(r.URL.Path), HTTP: r.Proto}
		s.mutex.Lock()
		s.calls = append(s.calls, call)
		s.mutex.Unlock()
		r = r.WithContext(context.WithValue(r.Context(), callKey{}, call))
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		s.note(r.Context(), func(c *Call) { c.Status = answer.status })
	})
}

func methodOf(url string) string {
	if strings.HasPrefix(url, exchangePath) {
		return path.Base(exchangePath)
	}
	return path.Base(url)
}

// answer remembers the status that was sent.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers the status.
func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach what is below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

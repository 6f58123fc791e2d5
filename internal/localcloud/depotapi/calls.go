package depotapi

import (
	"context"
	"net/http"
	"path"
	"strings"
	"time"
)

// Call is the record of one request.
type Call struct {
	Time   time.Time
	Method string // CreateBuild, GetBuildKitConnection, …; claim and exchange for a fork's challenge
	HTTP   string // HTTP/1.1 or HTTP/2.0
	Status int    // of the answer; 0 before it

	Token    TokenKind
	Project  string
	BuildID  string
	Platform string // linux/amd64

	Tags             []string // of CreateBuild's options, like the next three
	Push, Load, Save bool

	State       string // of GetBuildKitConnection: pending or active
	Result      string // of FinishBuild: success, error or canceled
	ResultError string // the error that FinishBuild reports
}

// Calls returns every request since the start, in order of arrival.
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

// callOf returns the record of the current request. The server's mutex guards it: see note.
func callOf(ctx context.Context) *Call {
	return ctx.Value(callKey{}).(*Call)
}

// note updates the record of the current request.
func (s *Server) note(ctx context.Context, add func(*Call)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	add(callOf(ctx))
}

// record records every request on arrival, so that those without an answer are recorded, too.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := &Call{Time: time.Now(), Method: methodOf(r.URL.Path), HTTP: r.Proto}
		s.mutex.Lock()
		s.calls = append(s.calls, call)
		s.mutex.Unlock()
		r = r.WithContext(context.WithValue(r.Context(), callKey{}, call))
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(recorder, r)
		s.note(r.Context(), func(c *Call) { c.Status = recorder.status })
	})
}

func methodOf(url string) string {
	if strings.HasPrefix(url, exchangePath) {
		return path.Base(exchangePath)
	}
	return path.Base(url)
}

// statusRecorder records the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

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
	Method string // CreateBuild, GetBuildKitConnection, …; claim and exchange for the challenge of a fork
	HTTP   string // HTTP/1.1 or HTTP/2.0
	Status int    // of the response; 0 until it is sent

	Token    TokenKind
	Project  string
	BuildID  string
	Platform string // linux/amd64

	Tags, SaveTags   []string // options of CreateBuild, like the next three
	Push, Load, Save bool

	State       string // of GetBuildKitConnection: pending or active
	Attempt     string // of a claim: the attempt of the workflow run
	Result      string // of FinishBuild: success, error or canceled
	ResultError string // the error that FinishBuild reports
}

// Calls returns all requests in order of arrival.
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

// callOf returns the record of the current request. The caller must hold the server's mutex.
func callOf(ctx context.Context) *Call {
	return ctx.Value(callKey{}).(*Call)
}

// note updates the record of the current request.
func (s *Server) note(ctx context.Context, add func(*Call)) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	add(callOf(ctx))
}

// record records each request on arrival, so that Calls includes requests without a response.
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

// statusRecorder records the status of a response.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

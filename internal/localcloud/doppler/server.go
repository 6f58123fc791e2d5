// Package doppler stands in for Doppler's API (v3) on loopback. It implements projects with root and branch configs,
// secrets with references, tokens for one or more configs, and OIDC. Messages and statuses are those that users of the
// real API have reported; comments mark guesses.
// Protocol: https://docs.doppler.com/reference/api, and github.com/DopplerHQ/cli.
package doppler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Project is a set of configs.
type Project struct {
	Name    string // slug, which identifies the project
	Title   string // display name. Default: Name
	Configs []Config
}

// Config is a set of secrets. The root config of an environment has the environment's name (dev). A branch config has a
// name with that prefix (dev_personal) and inherits the root config's secrets.
type Config struct {
	Name       string
	Secrets    map[string]string     // raw, with references ${NAME}, ${config.NAME} and ${project.config.NAME}
	Visibility map[string]Visibility // by name of the secret. Default: Masked
}

// Visibility is who may read a secret's value: https://docs.doppler.com/docs/secret-visibility
type Visibility string

// The visibilities, from the least to the most strict.
const (
	Unmasked   Visibility = "unmasked"
	Masked     Visibility = "masked"
	Restricted Visibility = "restricted" // null for tokens of a user, omitted from their downloads
)

// strictness orders the visibilities.
var strictness = []Visibility{Unmasked, Masked, Restricted}

// Options configures the stand-in.
type Options struct {
	Projects   []Project
	Tokens     []Token
	Identities []Identity
	Issuer     string // URL of the OIDC issuer that identities trust; "": none
	Limit      int    // requests per minute and token (Doppler: 240 or more, depending on the plan); 0: unlimited
}

// Request is a recorded request.
type Request struct {
	Method, Path    string
	Project, Config string // query parameters
	Status          int    // of the response; 0 until it is sent
	Token           Kind   // kind of the token; "": missing or unknown token
}

// Fault is an injected failure. If neither Status nor NoResponse is set, the request succeeds.
type Fault struct {
	Method          string        // HTTP method; "": any
	Path            string        // part of the request path; "": any
	Times           int           // number of requests it applies to; 0: all
	Before          func()        // runs before the request is handled, for example to act as another client
	Delay           time.Duration // delays the request
	Status          int           // response status
	Body            string        // "": an error in Doppler's format
	Header          map[string]string
	NoResponse      bool // do not respond until the client disconnects
	ReplaceResponse bool // handle the request first, and replace only the response
}

// Server is a running stand-in.
type Server struct {
	url      string
	server   *http.Server
	served   chan struct{}
	identity identities

	limit int

	mu       sync.Mutex
	window   time.Time      // start of the current minute of the rate limit
	counts   map[string]int // requests in the window, by token
	projects []*project
	tokens   []Token
	requests []*Request
	faults   []Fault
	writes   []Write
}

// Start starts the stand-in on a free loopback port.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{
		served: make(chan struct{}), limit: o.Limit, tokens: slices.Clone(o.Tokens),
		identity: identities{issuer: o.Issuer, list: o.Identities},
	}
	for _, p := range o.Projects {
		s.projects = append(s.projects, newProject(p))
	}
	for _, t := range o.Tokens {
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("start Doppler: %w", err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start Doppler: %w", err)
	}
	s.url = "http://" + listener.Addr().String()
	mux := http.NewServeMux()
	s.handleAuth(mux)
	s.handleConfigs(mux)
	s.handleSecrets(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		errorf(http.StatusNotFound, "Could not find requested resource").send(w)
	})
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(mux)}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // returns after Close
	}()
	return s, nil
}

// Close stops the stand-in.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.served
	return err
}

// URL returns the base URL of the API, for DOPPLER_API_HOST.
func (s *Server) URL() string { return s.url }

// Requests returns the requests in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = *r
	}
	return list
}

// Fail adds a fault. The first fault that matches a request applies.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// nextFault returns the first matching fault, or the zero Fault, and counts one use of it.
func (s *Server) nextFault(method, path string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !strings.Contains(path, f.Path) || f.Method != "" && f.Method != method {
			continue
		}
		if f.Times == 1 {
			s.faults = slices.Delete(s.faults, i, i+1)
		} else if f.Times > 1 {
			s.faults[i].Times--
		}
		return f
	}
	return Fault{}
}

// record records each request on arrival and applies the faults.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http detects a closed connection only after it has read the body.
		body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		query := r.URL.Query()
		recorded := &Request{Method: r.Method, Path: r.URL.Path, Project: query.Get("project"), Config: query.Get("config")}
		if token, ok := s.token(r); ok {
			recorded.Token = token.Kind()
		}
		s.mu.Lock()
		s.requests = append(s.requests, recorded)
		s.mu.Unlock()
		response := &recorder{ResponseWriter: w}
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			recorded.Status = response.status
		}()
		f := s.nextFault(r.Method, r.URL.Path)
		if f.Before != nil {
			f.Before()
		}
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
		if wait := s.rateLimit(r.Header.Get("Authorization")); wait > 0 {
			response.Header().Set("Retry-After", strconv.Itoa(wait))
			errorf(http.StatusTooManyRequests, "Exceeded rate limit").send(response)
			return
		}
		if f.Status == 0 && !f.NoResponse {
			next.ServeHTTP(response, r)
			return
		}
		if f.ReplaceResponse {
			next.ServeHTTP(discardResponse{}, r)
		}
		if f.NoResponse {
			<-r.Context().Done()
			return
		}
		for name, value := range f.Header {
			response.Header().Set(name, value)
		}
		if f.Body == "" {
			errorf(f.Status, "%s", http.StatusText(f.Status)).send(response)
			return
		}
		response.WriteHeader(f.Status)
		_, _ = response.Write([]byte(f.Body)) // the client may have disconnected
	})
}

// rateLimit counts a request with a token. If the token exceeds the limit, it returns the seconds to wait, otherwise 0.
func (s *Server) rateLimit(token string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.window) >= time.Minute {
		s.window, s.counts = now, map[string]int{}
	}
	s.counts[token]++
	if s.limit == 0 || s.counts[token] <= s.limit {
		return 0
	}
	return int((time.Minute - now.Sub(s.window)).Seconds()) + 1
}

// recorder records the status of a response.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader records the status.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// discardResponse is a ResponseWriter that discards the response.
type discardResponse struct{}

func (discardResponse) Header() http.Header         { return http.Header{} }
func (discardResponse) Write(p []byte) (int, error) { return len(p), nil }
func (discardResponse) WriteHeader(int)             {}

// apiError is an error response of the API.
type apiError struct {
	status  int
	message string
}

func errorf(status int, format string, args ...any) *apiError {
	return &apiError{status, fmt.Sprintf(format, args...)}
}

func (e *apiError) Error() string { return e.message }

func (e *apiError) send(w http.ResponseWriter) {
	send(w, e.status, map[string]any{"messages": []string{e.message}, "success": false})
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have disconnected
}

// handle registers an endpoint that requires a token. f returns the fields of a successful response.
func (s *Server) handle(mux *http.ServeMux, pattern string, f func(*http.Request, Token) (map[string]any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		token, ok := s.token(r)
		if !ok {
			errorf(http.StatusUnauthorized, "Invalid Auth token").send(w)
			return
		}
		body, err := f(r, token)
		if err != nil {
			sendError(w, err)
			return
		}
		body["success"] = true
		send(w, http.StatusOK, body)
	})
}

func sendError(w http.ResponseWriter, err error) {
	sent := new(apiError)
	if !errors.As(err, &sent) {
		sent = errorf(http.StatusInternalServerError, "%s", err)
	}
	sent.send(w)
}

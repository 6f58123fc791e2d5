// Package doppler stands in for Doppler's API (v3) on loopback: projects with root and branch configs, secrets with references between them,
// tokens that open one config or many, entry by OIDC. Its words and status codes are those that users of the real one have reported;
// what is not known of it is said where it is decided here.
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
	Name    string // its slug, which identifies it
	Title   string // the name that people see; "": Name
	Configs []Config
}

// Config is a set of secrets. The root config of an environment has its name (dev); a branch config's name begins with it (dev_personal), and
// what it does not set itself it has from the root.
type Config struct {
	Name    string
	Secrets map[string]string // raw: ${NAME}, ${config.NAME} and ${project.config.NAME} refer to others
}

// Options says what there is.
type Options struct {
	Projects   []Project
	Tokens     []Token
	Identities []Identity
	Issuer     string // URL of the OIDC issuer whose tokens open identities; "": none do
	Limit      int    // requests of one token in a minute, as Doppler's plans have it (240 and more); 0 for none
}

// Request is one request, as tests ask for it.
type Request struct {
	Method, Path    string
	Project, Config string // as the URL names them
	Status          int    // of the answer; 0 while there is none
	Token           Kind   // "" for none, or one that nobody knows
}

// Fault is something that goes wrong on demand. Without Status and Silence the request is answered as ever.
type Fault struct {
	Method  string        // requests of this method; "" for all
	Path    string        // requests whose path holds it; "" for all
	Times   int           // 0: every one
	Before  func()        // runs first: what somebody else does meanwhile
	Delay   time.Duration // before anything else is done
	Status  int
	Body    string // "": an error in Doppler's form
	Header  map[string]string
	Silence bool // no answer until the client gives up
	Late    bool // the request is carried out, and then Status or Silence hides it
}

// Server is the running stand-in.
type Server struct {
	url      string
	server   *http.Server
	served   chan struct{}
	identity identities

	limit int

	mu       sync.Mutex
	window   time.Time      // when counting began
	counts   map[string]int // requests since then, by token
	projects []*project
	tokens   []Token
	requests []*Request
	faults   []Fault
	writes   []Write
}

// Start serves on a loopback port of the system's choice.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{served: make(chan struct{}), limit: o.Limit, tokens: slices.Clone(o.Tokens), identity: identities{issuer: o.Issuer, list: o.Identities}}
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
		refuse(http.StatusNotFound, "Could not find requested resource").send(w)
	})
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(mux)}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // ends by Close
	}()
	return s, nil
}

// Close ends the stand-in.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.served
	return err
}

// URL is DOPPLER_API_HOST.
func (s *Server) URL() string { return s.url }

// Requests lists what was asked for, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = *r
	}
	return list
}

// Fail makes requests go wrong from now on. The first fault that fits a request decides it.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// Heal ends all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

func (s *Server) fault(method, path string) Fault {
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

// record notes every request, from its beginning on, and lets the faults have their way.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only who has read a request to its end is told that its client has gone.
		body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		query := r.URL.Query()
		note := &Request{Method: r.Method, Path: r.URL.Path, Project: query.Get("project"), Config: query.Get("config")}
		if token, ok := s.token(r); ok {
			note.Token = token.Kind()
		}
		s.mu.Lock()
		s.requests = append(s.requests, note)
		s.mu.Unlock()
		counted := &answer{ResponseWriter: w}
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			note.Status = counted.status
		}()
		f := s.fault(r.Method, r.URL.Path)
		if f.Before != nil {
			f.Before()
		}
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
		if wait := s.count(r.Header.Get("Authorization")); wait > 0 {
			counted.Header().Set("Retry-After", strconv.Itoa(wait))
			refuse(http.StatusTooManyRequests, "Exceeded rate limit").send(counted)
			return
		}
		if f.Status == 0 && !f.Silence {
			next.ServeHTTP(counted, r)
			return
		}
		if f.Late {
			next.ServeHTTP(&answer{ResponseWriter: nowhere{}}, r)
		}
		if f.Silence {
			<-r.Context().Done()
			return
		}
		for name, value := range f.Header {
			counted.Header().Set(name, value)
		}
		if f.Body == "" {
			refuse(f.Status, "%s", http.StatusText(f.Status)).send(counted)
			return
		}
		counted.WriteHeader(f.Status)
		_, _ = counted.Write([]byte(f.Body)) // the client may be gone
	})
}

// count says for how many seconds a token has to wait; 0: it need not.
func (s *Server) count(token string) int {
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

// nowhere is where an answer goes that the client shall not have.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}

// refusal is an error as Doppler sends it.
type refusal struct {
	status  int
	message string
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

func (r *refusal) Error() string { return r.message }

func (r *refusal) send(w http.ResponseWriter) {
	send(w, r.status, map[string]any{"messages": []string{r.message}, "success": false})
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// handle serves what needs a token: f answers with the fields of a success, or with an error.
func (s *Server) handle(mux *http.ServeMux, pattern string, f func(*http.Request, Token) (map[string]any, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		token, ok := s.token(r)
		if !ok {
			refuse(http.StatusUnauthorized, "Invalid Auth token").send(w)
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
	refused := new(refusal)
	if !errors.As(err, &refused) {
		refused = refuse(http.StatusInternalServerError, "%s", err)
	}
	refused.send(w)
}

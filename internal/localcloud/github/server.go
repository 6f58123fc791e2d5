// Package github stands in for GitHub on loopback. It implements the REST endpoints that resolve refs, publish
// releases, record deployments, comment on pull requests and read artifacts of runs, git and Git LFS over HTTP, release
// downloads, and the OIDC issuer of Actions. It serves real git repositories and keeps the rest in memory.
package github

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Repository is a git repository that the stand-in serves.
type Repository struct {
	Owner, Name string
	Dir         string // bare repository, checkout or worktree. Pushes change only its git directory
	Private     bool
}

// Options configures the repositories, tokens and OIDC claims of the stand-in.
type Options struct {
	Repositories        []Repository
	Tokens              []string          // tokens that can read all repositories
	JobTokens           []Token           // tokens with the permissions of a workflow's job
	Claims              map[string]string // override the default claims of OIDC tokens: repository, ref, environment, …
	RateLimit           int               // API requests per hour for each token, or without a token. Default: 5000
	DownloadURLLifetime time.Duration     // of signed URLs. Default: 5 minutes for assets, 1 minute for artifacts
}

// Request is a recorded request.
type Request struct {
	Method, Path string
	Status       int // of the response; 0 until it is sent
	HasToken     bool
}

// Server is a running stand-in.
type Server struct {
	url       string
	assetsURL string // URL of the asset host
	servers   []*http.Server
	serving   sync.WaitGroup
	oidcKey   *rsa.PrivateKey
	oidcToken string // bearer token with which a job requests OIDC tokens
	urlKey    []byte // signs asset URLs

	mu       sync.Mutex
	options  Options
	rates    map[string]*rate // by token
	requests []*Request
	faults   []*Fault
	closed   bool
	handling sync.WaitGroup

	notBefore, expires time.Duration // of OIDC tokens; 0: the defaults

	storeMu sync.Mutex
	stores  map[string]*store // by repository
	lastID  int64
}

// Start starts GitHub and its asset host on two free loopback ports.
func Start(ctx context.Context, o Options) (*Server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("github: %w", err)
	}
	s := &Server{
		oidcKey: key, oidcToken: rand.Text(), urlKey: []byte(rand.Text()),
		options: o, rates: map[string]*rate{}, stores: map[string]*store{},
	}
	mux := http.NewServeMux()
	s.handleAPI(mux)
	s.handleOIDC(mux)
	mux.HandleFunc("/", s.serveWeb)
	for _, handler := range []http.Handler{mux, http.HandlerFunc(s.serveObject)} {
		if err := s.serve(ctx, handler); err != nil {
			return nil, errors.Join(fmt.Errorf("github: %w", err), s.Close())
		}
	}
	return s, nil
}

// serve starts the GitHub server on the first call, and the asset host on the second call. The asset host has a
// different host name (localhost), so that clients do not send it the credentials for GitHub.
func (s *Server) serve(ctx context.Context, handler http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if s.url == "" {
		s.url = "http://" + listener.Addr().String()
	} else {
		s.assetsURL = "http://" + strings.Replace(listener.Addr().String(), "127.0.0.1", "localhost", 1)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(s.injectFaults(handler))}
	s.servers = append(s.servers, server)
	s.serving.Go(func() { _ = server.Serve(listener) }) // returns after Close
	return nil
}

// Close stops the stand-in and aborts pending requests.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for _, server := range s.servers {
		errs = append(errs, server.Close())
	}
	s.serving.Wait()
	s.handling.Wait()
	return errors.Join(errs...)
}

// ServerURL returns the base URL of clone URLs, for GITHUB_SERVER_URL.
func (s *Server) ServerURL() string { return s.url }

// APIURL returns the base URL of the REST API, for GITHUB_API_URL.
func (s *Server) APIURL() string { return s.url + "/api/v3" }

// UploadURL returns the base URL of asset uploads, as on GitHub Enterprise Server.
func (s *Server) UploadURL() string { return s.url + "/api/uploads" }

// Change replaces the options with a copy that change has edited.
func (s *Server) Change(change func(*Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.options
	o.Repositories, o.Tokens, o.Claims = slices.Clone(o.Repositories), slices.Clone(o.Tokens), maps.Clone(o.Claims)
	o.JobTokens = slices.Clone(o.JobTokens)
	if o.Claims == nil {
		o.Claims = map[string]string{}
	}
	change(&o)
	s.options = o
}

func (s *Server) currentOptions() Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options
}

// Requests returns the requests in order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = *r
	}
	return list
}

// record records each request on arrival, so that Requests includes requests without a response.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, hasToken := requestToken(r)
		request := &Request{Method: r.Method, Path: r.URL.Path, HasToken: hasToken}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return
		}
		s.handling.Add(1)
		s.requests = append(s.requests, request)
		s.mu.Unlock()
		defer s.handling.Done()
		next.ServeHTTP(&statusRecorder{ResponseWriter: w, record: func(status int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if request.Status == 0 {
				request.Status = status
			}
		}}, r)
	})
}

// statusRecorder records the status before it sends the response, so that a client that has the response finds it
// recorded.
type statusRecorder struct {
	http.ResponseWriter
	record func(status int)
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusRecorder) WriteHeader(status int) {
	w.record(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *statusRecorder) Write(p []byte) (int, error) {
	w.record(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// discardBody reads the request body, because net/http detects a disconnect only after it has read the body.
func discardBody(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

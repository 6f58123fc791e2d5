// Package github stands in for GitHub on loopback: the REST endpoints for resolving refs and publishing releases, git
// over HTTP, downloads of releases, and the OIDC issuer of Actions. Repositories are real ones, served by git.
// Releases, their assets and attestations are kept in memory until Close.
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

// Repository is one repository.
type Repository struct {
	Owner, Name string
	Dir         string // of a bare repository, a checkout or a worktree. Pushes change only its .git
	Private     bool
}

// Options describe what GitHub knows.
type Options struct {
	Repositories []Repository
	Tokens       []string          // can read all repositories
	JobTokens    []Token           // have the permissions of a workflow's job
	Claims       map[string]string // of OIDC tokens, over the defaults: repository, ref, environment, …
	RateLimit    int               // API requests per hour and token, or for all without a token; 0: 5000
	DownloadFor  time.Duration     // validity of an asset's signed URL; 0: 5 minutes
}

// Request is one request that the stand-in received.
type Request struct {
	Method, Path string
	Status       int // of the response; 0 before it is sent
	HasToken     bool
}

// Server is the running stand-in.
type Server struct {
	url       string
	assetsURL string // of the host that stores assets
	servers   []*http.Server
	serving   sync.WaitGroup
	oidcKey   *rsa.PrivateKey
	oidcToken string // authorizes a job to request OIDC tokens
	urlKey    []byte // signs the URLs of assets

	mu       sync.Mutex
	options  Options
	rates    map[string]*rate // by token
	requests []*Request
	faults   []*Fault
	closed   bool
	handling sync.WaitGroup

	storeMu sync.Mutex
	stores  map[string]*store // by repository
	lastID  int64
}

// Start serves on two loopback ports.
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

// serve starts the server of GitHub, then, on the second call, the host of the assets. The latter has another host
// name (localhost), so that clients do not send it the credentials of the former.
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

// ServerURL is GITHUB_SERVER_URL: the base of clone URLs.
func (s *Server) ServerURL() string { return s.url }

// APIURL is GITHUB_API_URL.
func (s *Server) APIURL() string { return s.url + "/api/v3" }

// UploadURL is the base URL of asset uploads, as on GitHub Enterprise Server.
func (s *Server) UploadURL() string { return s.url + "/api/uploads" }

// Change edits a copy of the options, which then replaces them.
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

// Requests lists the requests in the order in which they arrived.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = *r
	}
	return list
}

// record lists a request when it arrives, so that one without a response is listed, too.
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

// statusRecorder records the status before it sends it: a client that has the response finds it recorded.
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

// discardBody reads a request's body. Only then does the server notice that the client disconnects.
func discardBody(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

// Package github stands in for GitHub on loopback: the REST endpoints that resolving a ref and publishing a release need, git over HTTP, the
// downloads of releases, and the OIDC issuer of Actions. What it knows of a repository comes from a real one, by real git; releases, their
// assets and attestations are kept in memory until Close.
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
	Dir         string // of the real repository: bare, a checkout or a worktree. What is pushed is written there, into .git only
	Private     bool
}

// Options says what GitHub knows.
type Options struct {
	Repositories []Repository
	Tokens       []string          // may read all of them
	JobTokens    []Token           // may do what each says
	Claims       map[string]string // of OIDC tokens, over the defaults: repository, ref, environment, …
	RateLimit    int               // requests to the API in an hour, for each token and for all who have none; 0: 5000
	DownloadFor  time.Duration     // a signed address of an asset is good for so long; 0: 5 minutes
}

// Request is one request, as tests ask for it.
type Request struct {
	Method, Path string
	Status       int // of the answer; 0 while there is none
	HasToken     bool
}

// Server is the running stand-in.
type Server struct {
	url     string
	objects string // the URL of the host that has the assets
	servers []*http.Server
	serving sync.WaitGroup
	key     *rsa.PrivateKey
	bearer  string // opens the OIDC endpoint, as a runner's job has it
	signer  []byte // of the assets' addresses

	mu       sync.Mutex
	options  Options
	rates    map[string]*rate // by token
	requests []*Request
	faults   []*Fault
	closed   bool
	handling sync.WaitGroup

	making sync.Mutex       // held by a request that reads or changes what is made
	made   map[string]*made // by repository
	lastID int64
}

// Start serves on loopback ports of the system's choice.
func Start(ctx context.Context, o Options) (*Server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("github: %w", err)
	}
	s := &Server{
		key: key, bearer: rand.Text(), signer: []byte(rand.Text()), options: o, rates: map[string]*rate{}, made: map[string]*made{},
	}
	mux := http.NewServeMux()
	s.handleREST(mux)
	s.handleOIDC(mux)
	mux.HandleFunc("/", s.web)
	for _, handler := range []http.Handler{mux, http.HandlerFunc(s.object)} {
		if err := s.serve(ctx, handler); err != nil {
			return nil, errors.Join(fmt.Errorf("github: %w", err), s.Close())
		}
	}
	return s, nil
}

// serve serves GitHub itself first, then the host that has the assets. That one is named otherwise: to a client it is another host, not
// another port of the same.
func (s *Server) serve(ctx context.Context, handler http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if s.url == "" {
		s.url = "http://" + listener.Addr().String()
	} else {
		s.objects = "http://" + strings.Replace(listener.Addr().String(), "127.0.0.1", "localhost", 1)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(s.fail(handler))}
	s.servers = append(s.servers, server)
	s.serving.Go(func() { _ = server.Serve(listener) }) // ends by Close
	return nil
}

// Close ends the stand-in, and with it every request at hand.
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

// ServerURL is GITHUB_SERVER_URL: where git fetches from.
func (s *Server) ServerURL() string { return s.url }

// APIURL is GITHUB_API_URL.
func (s *Server) APIURL() string { return s.url + "/api/v3" }

// UploadURL is where the assets of releases are sent to, as GitHub Enterprise Server has it.
func (s *Server) UploadURL() string { return s.url + "/api/uploads" }

// Change changes what GitHub knows from now on: change gets the options to edit, slices and maps being its own.
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

func (s *Server) now() Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options
}

// Requests lists what was asked for, in the order in which it came.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Request, len(s.requests))
	for i, r := range s.requests {
		list[i] = *r
	}
	return list
}

// record notes every request from its beginning on, so that those that never end are seen too.
func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, hasToken := tokenOf(r)
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
		next.ServeHTTP(&answer{ResponseWriter: w, sent: func(status int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if request.Status == 0 {
				request.Status = status
			}
		}}, r)
	})
}

// answer tells which status is sent, before it is: who has the answer finds it in the record.
type answer struct {
	http.ResponseWriter
	sent func(status int)
}

// WriteHeader tells the status.
func (a *answer) WriteHeader(status int) {
	a.sent(status)
	a.ResponseWriter.WriteHeader(status)
}

// Write tells the status 200 where no other was sent.
func (a *answer) Write(p []byte) (int, error) {
	a.sent(http.StatusOK)
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach what is below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// discard reads a request's body to its end: until then the server does not see the client leave.
func discard(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

// Package depotapi stands in for Depot's API on loopback. It implements the service depot.cli.v1.BuildService for
// depot-go v0.5.1 and the Depot CLI 2.102.12, and connects clients to real BuildKit daemons.
//
// It authenticates callers like Depot, assigns machines to builds, records every call for tests, and injects faults.
// Protocol: proto/depot/cli/v1/build.proto in github.com/depot/depot-go. pull.go and projects.go declare messages that
// only the CLI uses.
package depotapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/depot/depot-go/proto/depot/cli/v1/cliv1connect"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
)

// Options configures the projects, tokens, machines and registry of the stand-in.
type Options struct {
	Projects []Project
	// OrganizationTokens and UserTokens (of the organization's members) can build in every project.
	OrganizationTokens, UserTokens []string
	// RunnerTokens are the tokens that Depot's own runners put into DEPOT_JIT_TOKEN and DEPOT_CACHE_TOKEN. They can build
	// in every project.
	RunnerTokens []string
	// Issuer is the URL of the trusted OIDC issuer (https://token.actions.githubusercontent.com on GitHub), and CIIssuer
	// that of Depot CI (https://identity.depot.dev). If both are "", OIDC tokens are rejected. The server fetches an
	// issuer's keys on first use, so the issuer can start later.
	Issuer, CIIssuer string
	// FindInLog reports whether the public log of a fork's run shows a code. nil means that it shows every code at once.
	FindInLog func(code string) bool
	// LogInterval is the time between searches of the log. Default: 1 s.
	LogInterval time.Duration
	// Machines opens connections to BuildKit daemons.
	Machines Machines
	// Registry stores the images that builds save.
	Registry Registry
	// Pending is the number of pending responses, per build and platform, before a machine is active. Default: 1.
	Pending int
	// Wait is the polling interval that a pending response recommends to the client. Default: 20 ms.
	Wait time.Duration
	// Lifetime is the lifetime of a build's certificates. Default: 10 minutes.
	Lifetime time.Duration
	// Limit is the maximum duration of a build. Answers to health reports contain the resulting time, after which the
	// client must cancel the build: see Server.Cancel. 0 means no limit.
	Limit time.Duration
}

// Project is one Depot project.
type Project struct {
	ID     string
	Tokens []string // can build in this project only
	// Trust lists the GitHub repositories (owner/name) with workflows that can build in this project with OIDC.
	Trust []string
}

// Machines opens connections to the BuildKit daemon of a platform (linux/amd64), as [builders.Builders] does.
type Machines interface {
	OpenWithClock(platform string, lifetime, skew time.Duration) (*builders.Connection, error)
}

// Registry stores saved images as HOST/PROJECT:BUILD. The user name is always x-token.
type Registry struct {
	Host string // host:port, such as ORGANIZATION.registry.depot.dev; "" means that the organization has no registry
	// Credential returns a password that can pull from a project's repository and, if push is set, push to it.
	Credential func(project string, push bool) (password string, err error)
}

// Audience is the required audience of OIDC tokens.
const Audience = "https://depot.dev"

// Server is a running stand-in.
type Server struct {
	options  Options
	listener net.Listener
	http     *http.Server
	issuers  []*identity

	mutex   sync.Mutex
	builds  map[string]*build     // by ID
	forks   map[string]*challenge // by ID
	calls   []*Call
	faults  []*Fault
	stopped bool
	serving sync.WaitGroup
}

// Start starts a server on a free loopback port. It supports HTTP/1.1, which depot-go uses, and HTTP/2 without TLS,
// which the CLI uses.
func Start(o Options) (*Server, error) {
	if o.Pending == 0 {
		o.Pending = 1
	}
	if o.Wait == 0 {
		o.Wait = 20 * time.Millisecond
	}
	if o.Lifetime == 0 {
		o.Lifetime = 10 * time.Minute
	}
	if o.LogInterval == 0 {
		o.LogInterval = time.Second
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("depotapi: %w", err)
	}
	s := &Server{
		options:  o,
		listener: listener,
		builds:   map[string]*build{},
		forks:    map[string]*challenge{},
	}
	for _, issuer := range []string{o.Issuer, o.CIIssuer} {
		if issuer != "" {
			s.issuers = append(s.issuers, &identity{issuer: issuer})
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{Handler: s.handler(), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	s.serving.Go(func() { _ = s.http.Serve(listener) })
	return s, nil
}

// URL returns the base URL of the API, for DEPOT_API_URL.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Close stops the server and closes all connections to machines.
func (s *Server) Close() error {
	err := s.http.Close()
	s.serving.Wait()
	s.mutex.Lock()
	s.stopped = true
	var connections []*builders.Connection
	for _, b := range s.builds {
		connections = append(connections, b.takeConnections()...)
	}
	s.mutex.Unlock()
	for _, c := range connections {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (s *Server) handler() http.Handler {
	service := http.NewServeMux()
	service.Handle(cliv1connect.NewBuildServiceHandler(&buildService{server: s}))
	s.handlePull(service)
	s.handleProjects(service)
	s.handleFork(service)
	return s.record(s.fail(service))
}

// apiError returns an error response of Depot's API. Connect maps the code to an HTTP status.
func apiError(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// project returns the project with an ID.
func (s *Server) project(id string) (Project, bool) {
	for _, p := range s.options.Projects {
		if p.ID == id {
			return p, true
		}
	}
	return Project{}, false
}

// credential returns a password for the registry repository of a project.
func (s *Server) credential(project string, push bool) (string, error) {
	if s.options.Registry.Host == "" {
		return "", apiError(connect.CodeFailedPrecondition, "this organization has no registry")
	}
	password, err := s.options.Registry.Credential(project, push)
	if err != nil {
		return "", apiError(connect.CodeInternal, "create a registry credential: %w", err)
	}
	return password, nil
}

// Package depotapi is the stand-in for Depot's API: the service depot.cli.v1.BuildService, as depot-go v0.5.1 and
// the Depot CLI 2.102.12 speak it, on loopback, in front of real machines.
//
// It authenticates as Depot does, lends machines for the time of a build, remembers every call for tests to ask,
// and fails on demand. Protocol: github.com/depot/depot-go, proto/depot/cli/v1/build.proto; the messages that only
// the CLI has are in pull.go and projects.go.
package depotapi

import (
	"context"
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

// Options is what Depot knows: its customers, and where its machines and its registry are.
type Options struct {
	Projects []Project
	// OrganizationTokens may build in every project; UserTokens too: they are people's, of the same organization.
	OrganizationTokens, UserTokens []string
	// Issuer is the URL of the OIDC issuer whose tokens are accepted (https://token.actions.githubusercontent.com on
	// GitHub). Empty: none is. It is asked for its keys at the first token, so it may start later.
	Issuer string
	// Machines lend a BuildKit to a build.
	Machines Machines
	// Registry keeps what builds save.
	Registry Registry
	// Pending is how often a machine is said to be pending, per build and platform, before it is active. Default: 1.
	Pending int
	// Wait is what a pending answer tells the client to wait. Default: 20 ms.
	Wait time.Duration
	// Lifetime of a build's certificates. Default: 10 minutes.
	Lifetime time.Duration
	// Limit is how long a build may take: Depot says so with every health report, and cancels the build then. 0: for
	// ever.
	Limit time.Duration
}

// Project is one Depot project.
type Project struct {
	ID     string
	Tokens []string // may build in this project only
	// Trust lists the GitHub repositories, owner/name, whose workflows may build here with an OIDC token.
	Trust []string
}

// Machines lend a BuildKit for a platform (linux/amd64). [builders.Builders] are such.
type Machines interface {
	Open(platform string, lifetime time.Duration) (*builders.Connection, error)
}

// Registry is where `save` keeps images: HOST/PROJECT:BUILD. Its user name is always x-token.
type Registry struct {
	Host string // host:port; empty: this Depot has none
	// Credential makes a password for a project's repository, to pull from it, or to push to it as well.
	Credential func(project string, push bool) (password string, err error)
}

// Audience is what an OIDC token for Depot has to be made for.
const Audience = "https://depot.dev"

// Server is the running API.
type Server struct {
	options  Options
	listener net.Listener
	http     *http.Server
	identity identity

	mutex   sync.Mutex
	builds  map[string]*build     // by ID
	forks   map[string]*challenge // by code
	calls   []*Call
	faults  []*Fault
	stopped bool
	serving sync.WaitGroup
}

// Start serves on a loopback port of the system's choice, over HTTP/1.1 and over HTTP/2 without TLS: depot-go uses
// the first, the CLI the second.
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
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("depotapi: %w", err)
	}
	s := &Server{
		options:  o,
		listener: listener,
		identity: identity{issuer: o.Issuer},
		builds:   map[string]*build{},
		forks:    map[string]*challenge{},
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{Handler: s.handler(), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	s.serving.Go(func() { _ = s.http.Serve(listener) })
	return s, nil
}

// URL is the API's address: what DEPOT_API_URL holds.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Close stops serving and takes back every machine.
func (s *Server) Close() error {
	err := s.http.Close()
	s.serving.Wait()
	s.mutex.Lock()
	s.stopped = true
	var lent []*builders.Connection
	for _, b := range s.builds {
		lent = append(lent, b.takeBack()...)
	}
	s.mutex.Unlock()
	for _, c := range lent {
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

// refuse is an answer of Depot's API: a code, which over HTTP is a status, and a sentence.
func refuse(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// project by its ID.
func (s *Server) project(id string) (Project, bool) {
	for _, p := range s.options.Projects {
		if p.ID == id {
			return p, true
		}
	}
	return Project{}, false
}

// credential for the registry, in the name of a project.
func (s *Server) credential(_ context.Context, project string, push bool) (string, error) {
	if s.options.Registry.Host == "" {
		return "", refuse(connect.CodeFailedPrecondition, "this organization has no registry")
	}
	password, err := s.options.Registry.Credential(project, push)
	if err != nil {
		return "", refuse(connect.CodeInternal, "make a registry credential: %w", err)
	}
	return password, nil
}

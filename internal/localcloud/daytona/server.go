// Package daytona stands in for Daytona's API on loopback: organizations, keys, push access and snapshots, by the rules of the server
// v0.190.0 (https://github.com/daytonaio/daytona, apps/api). A snapshot's image is really pulled from a real registry and really started on a
// real Docker Engine.
package daytona

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// Permissions that a key can have, of those that matter here. Access to push is for who may write snapshots or sandboxes.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
	WriteSandboxes  = "write:sandboxes"
)

// Organization is a customer.
type Organization struct {
	ID, Name   string
	Keys       []Key
	UserTokens []string // of its members: shaped as JWT, good for every organization that lists them
	Regions    []Region // that it may use; the first is the default
	Suspended  string   // why it is; "" when it is not

	MaxCPU, MaxMemory, MaxDisk int     // per sandbox: cores, GB, GB. Default: 4, 8, 10
	Snapshots                  int     // how many it may have. Default: 30
	MaxSnapshotGB              float64 // of one snapshot. Default: 20
}

// Key is an API key, which belongs to one organization.
type Key struct {
	Name, Value string
	Permissions []string
	Expires     time.Time // zero: never
}

// Region is where runners are.
type Region struct {
	ID, Name                   string
	Empty                      bool // no runner is there
	MaxCPU, MaxMemory, MaxDisk int  // per sandbox in this region; 0: as the organization's
}

// Options says what Daytona knows and has.
type Options struct {
	Organizations []Organization
	Registry      *registry.Registry // where robots push to and runners pull from
	Project       string             // of the registry, that robots may push to. Default: sbox-transient
	Engine        string             // the runner's Docker Engine, as in DOCKER_HOST; "": images are pulled and not started
	AccessLife    time.Duration      // of access to push. Default: 1 hour
	Late          int                // how often the registry denies an image after it was pushed, as Harbor's catalogue may
	Linger        int                // how often each state must have been read before the next comes; 0: none waits for a reader
	Alive         time.Duration      // how long a container must run to be alive. Default: 500 ms
}

// Server is the running stand-in.
type Server struct {
	options  Options
	listener net.Listener
	server   *http.Server
	front    *http.Server // of the registry
	host     string       // of the registry's front
	puller   string       // the password of the runner, who may do all in the registry
	engine   *dockerengine.Engine
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu        sync.Mutex
	snapshots []*snapshot
	requests  []Request
	faults    []Fault
	late      map[string]int // by repository: how often its images are denied from now on
	expired   bool           // access to push, until new is asked for
}

// Start serves on loopback ports of the system's choice.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Registry == nil {
		return nil, errors.New("daytona: a registry is needed")
	}
	if o.Project == "" {
		o.Project = "sbox-transient"
	}
	if o.AccessLife == 0 {
		o.AccessLife = time.Hour
	}
	if o.Alive == 0 {
		o.Alive = 500 * time.Millisecond
	}
	s := &Server{options: o, puller: rand.Text(), late: map[string]int{}}
	if o.Engine != "" {
		engine, err := dockerengine.Open(ctx, func(name string) string {
			return map[string]string{"DOCKER_HOST": o.Engine}[name]
		})
		if err != nil {
			return nil, fmt.Errorf("daytona: the runner's engine: %w", err)
		}
		s.engine = engine
	}
	var err error
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("daytona: %w", err)
	}
	front, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("daytona: %w", err), s.listener.Close())
	}
	s.host = front.Addr().String()
	o.Registry.AddAccount(registry.Account{User: runner, Password: s.puller, Push: true})
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(false, s.api())}
	s.front = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(true, s.harbor())}
	s.running.Go(func() { _ = s.server.Serve(s.listener) }) // both end by Close
	s.running.Go(func() { _ = s.front.Serve(front) })
	return s, nil
}

// URL is the API's base: DAYTONA_API_URL.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/api" }

// RegistryHost is where images are pushed to, and where those of snapshots are: host:port, plain HTTP.
func (s *Server) RegistryHost() string { return s.host }

// Close ends the stand-in and what its runner does.
func (s *Server) Close() error {
	s.mu.Lock()
	s.cancel() // the runner begins nothing new
	s.mu.Unlock()
	err := errors.Join(s.server.Close(), s.front.Close())
	s.running.Wait()
	if s.engine != nil {
		err = errors.Join(err, s.engine.Close())
	}
	return err
}

// api routes the calls. What a call may be made with is the real server's: organizations are for users only, the current key for keys.
func (s *Server) api() http.Handler {
	mux := http.NewServeMux()
	for pattern, c := range map[string]call{
		"GET /api/api-keys/current":                     {tokens: keys, answer: s.currentKey},
		"GET /api/organizations/{organization}":         {tokens: users, answer: s.organization},
		"GET /api/organizations/{organization}/usage":   {tokens: users, answer: s.usage},
		"GET /api/regions":                              {answer: s.regions},
		"GET /api/docker-registry/registry-push-access": {any: []string{WriteSnapshots, WriteSandboxes}, answer: s.pushAccess},
		"POST /api/snapshots":                           {any: []string{WriteSnapshots}, answer: s.create},
		"GET /api/snapshots":                            {answer: s.list},
		"GET /api/snapshots/{id}":                       {answer: s.get},
		"DELETE /api/snapshots/{id}":                    {any: []string{DeleteSnapshots}, answer: s.remove},
		"POST /api/snapshots/{id}/activate":             {any: []string{WriteSnapshots}, answer: s.activate},
		"POST /api/snapshots/{id}/deactivate":           {any: []string{WriteSnapshots}, answer: s.deactivate, status: http.StatusNoContent},
		"GET /api/snapshots/{id}/build-logs-url":        {answer: s.buildLogsURL},
		"GET /api/snapshots/{id}/build-logs":            {answer: s.buildLogs},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			who, err := s.authorize(r, c)
			if err != nil {
				refuse(w, r, err)
				return
			}
			body, err := c.answer(who, r)
			if err != nil {
				refuse(w, r, err)
				return
			}
			send(w, c.status, body)
		})
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, refusal{http.StatusNotFound, fmt.Sprintf("Cannot %s %s", r.Method, r.URL.Path)})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { // outside of the API everything is the dashboard
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!doctype html><title>Daytona</title>"))
	})
	return mux
}

// call is how one call is answered. A string is sent as plain text, nil as an empty answer.
type call struct {
	tokens tokens
	any    []string // permissions of a key, one of which is needed
	answer func(caller, *http.Request) (any, error)
	status int // 0: 200
}

// refusal is an answer that is none.
type refusal struct {
	status  int
	message string
}

func (r refusal) Error() string { return r.message }

// refuse sends an error in Daytona's form. What is no refusal is a mistake within, of which Daytona says nothing.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	refused := refusal{http.StatusInternalServerError, "An unexpected error occurred."}
	errors.As(err, &refused)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(refused.status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
		"path": r.URL.RequestURI(), "timestamp": stamp(time.Now()), "statusCode": refused.status,
		"error": http.StatusText(refused.status), "message": refused.message,
	})
}

func send(w http.ResponseWriter, status int, body any) {
	switch body := body.(type) {
	case nil:
		w.WriteHeader(max(status, http.StatusOK))
	case string:
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write([]byte(body))
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_ = json.NewEncoder(w).Encode(body)
	}
}

// stamp is a time as JavaScript writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// newID is a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

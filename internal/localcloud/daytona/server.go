// Package daytona is a stand-in for Daytona's API on loopback: organizations, keys, push access and snapshots, with the
// rules of the server v0.190.0 (https://github.com/daytonaio/daytona, apps/api). It pulls a snapshot's image from a
// real registry and starts it on a real Docker Engine.
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

// Permissions of keys, as far as they matter here. Push access requires one to write snapshots or sandboxes.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
	WriteSandboxes  = "write:sandboxes"
)

// Organization owns keys and snapshots.
type Organization struct {
	ID, Name   string
	Keys       []Key
	UserTokens []string // of its members: in the form of a JWT; valid for every organization that lists them
	Regions    []Region // the first is the default
	Suspended  string   // the reason; "": not suspended

	MaxCPU, MaxMemory, MaxDisk int     // per sandbox: cores, GB, GB. Default: 4, 8, 10
	Snapshots                  int     // the quota. Default: 30
	MaxSnapshotGB              float64 // of one snapshot. Default: 20
}

// Key is an API key, which belongs to one organization.
type Key struct {
	Name, Value string
	Permissions []string
	Expires     time.Time // zero: never
}

// Region is a location of runners.
type Region struct {
	ID, Name                   string
	Empty                      bool // without a runner
	MaxCPU, MaxMemory, MaxDisk int  // per sandbox; 0: the organization's
}

// Options configures the stand-in.
type Options struct {
	Organizations []Organization
	Registry      *registry.Registry // that clients push to and the runner pulls from
	Project       string             // of the registry, for pushed images. Default: sbox-transient
	Engine        string             // DOCKER_HOST of the runner; "": it pulls images and does not start them
	AccessLife    time.Duration      // lifetime of push access. Default: 1 hour
	Late          int                // how many reads do not find an image after its push, as with Harbor's catalog
	Linger        int                // how many reads each state waits for before the next; 0: none
	Alive         time.Duration      // how long a container must run to count as started. Default: 500 ms
}

// Server is the running stand-in.
type Server struct {
	options  Options
	listener net.Listener
	server   *http.Server
	front    *http.Server // proxy of the registry
	host     string       // of front
	puller   string       // the runner's password, with full access to the registry
	engine   *dockerengine.Engine
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu        sync.Mutex
	snapshots []*snapshot
	requests  []Request
	faults    []Fault
	late      map[string]int // by repository: how many more reads do not find its images
	expired   bool           // push access is revoked until the next request for it
}

// Start serves on free loopback ports.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Registry == nil {
		return nil, errors.New("start Daytona: no registry")
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
			return nil, fmt.Errorf("start Daytona: open the runner's engine: %w", err)
		}
		s.engine = engine
	}
	var err error
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start Daytona: %w", err)
	}
	front, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Daytona: %w", err), s.listener.Close())
	}
	s.host = front.Addr().String()
	o.Registry.AddAccount(registry.Account{User: runner, Password: s.puller, Push: true})
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(false, s.api())}
	s.front = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.record(true, s.harbor())}
	s.running.Go(func() { _ = s.server.Serve(s.listener) }) // both return after Close
	s.running.Go(func() { _ = s.front.Serve(front) })
	return s, nil
}

// URL returns the base URL of the API, for DAYTONA_API_URL.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/api" }

// RegistryHost returns host:port of the registry (plain HTTP), which holds pushed images and those of snapshots.
func (s *Server) RegistryHost() string { return s.host }

// Close stops the stand-in and its runner.
func (s *Server) Close() error {
	s.mu.Lock()
	s.cancel() // the runner starts nothing new
	s.mu.Unlock()
	err := errors.Join(s.server.Close(), s.front.Close())
	s.running.Wait()
	if s.engine != nil {
		err = errors.Join(err, s.engine.Close())
	}
	return err
}

// api routes the calls. As on the real server, only users can read organizations, and only keys the current key.
func (s *Server) api() http.Handler {
	mux := http.NewServeMux()
	for pattern, c := range map[string]call{
		"GET /api/api-keys/current":                   {tokens: keys, answer: s.currentKey},
		"GET /api/organizations/{organization}":       {tokens: users, answer: s.organization},
		"GET /api/organizations/{organization}/usage": {tokens: users, answer: s.usage},
		"GET /api/regions":                            {answer: s.regions},
		"GET /api/docker-registry/registry-push-access": {
			any: []string{WriteSnapshots, WriteSandboxes}, answer: s.pushAccess,
		},
		"POST /api/snapshots":               {any: []string{WriteSnapshots}, answer: s.create},
		"GET /api/snapshots":                {answer: s.list},
		"GET /api/snapshots/{id}":           {answer: s.get},
		"DELETE /api/snapshots/{id}":        {any: []string{DeleteSnapshots}, answer: s.remove},
		"POST /api/snapshots/{id}/activate": {any: []string{WriteSnapshots}, answer: s.activate},
		"POST /api/snapshots/{id}/deactivate": {
			any: []string{WriteSnapshots}, answer: s.deactivate, status: http.StatusNoContent,
		},
		"GET /api/snapshots/{id}/build-logs-url": {answer: s.buildLogsURL},
		"GET /api/snapshots/{id}/build-logs":     {answer: s.buildLogs},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			who, err := s.authorize(r, c)
			if err != nil {
				sendError(w, r, err)
				return
			}
			body, err := c.answer(who, r)
			if err != nil {
				sendError(w, r, err)
				return
			}
			send(w, c.status, body)
		})
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		sendError(w, r, apiError{http.StatusNotFound, fmt.Sprintf("Cannot %s %s", r.Method, r.URL.Path)})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { // the dashboard serves all other paths
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!doctype html><title>Daytona</title>"))
	})
	return mux
}

// call describes an endpoint. It sends a string as plain text, and nil as an empty response.
type call struct {
	tokens tokens
	any    []string // a key needs one of these permissions
	answer func(caller, *http.Request) (any, error)
	status int // 0: 200
}

// apiError is an error that the API reports.
type apiError struct {
	status  int
	message string
}

func (e apiError) Error() string { return e.message }

// sendError sends an error in Daytona's format. For an error that is not an apiError Daytona gives no details.
func sendError(w http.ResponseWriter, r *http.Request, err error) {
	sent := apiError{http.StatusInternalServerError, "An unexpected error occurred."}
	errors.As(err, &sent)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(sent.status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have disconnected
		"path": r.URL.RequestURI(), "timestamp": stamp(time.Now()), "statusCode": sent.status,
		"error": http.StatusText(sent.status), "message": sent.message,
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

// stamp formats a time as JavaScript does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

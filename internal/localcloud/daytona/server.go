// Package daytona stands in for Daytona's API on loopback. It implements organizations, API keys, push access,
// snapshots and sandboxes with the rules of server v0.190.0 (https://github.com/daytonaio/daytona, apps/api and
// apps/runner). It pulls the image of a snapshot from a real registry and, optionally, to a real Docker Engine.
package daytona

import (
	"cmp"
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

// The key permissions that the stand-in checks. Push access requires write:snapshots or write:sandboxes.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
	WriteSandboxes  = "write:sandboxes"
	DeleteSandboxes = "delete:sandboxes"
)

// Organization owns keys and snapshots.
type Organization struct {
	ID, Name   string
	Keys       []Key
	UserTokens []string // JWTs of its members; a token is valid for every organization that lists it
	Regions    []Region
	Default    string // ID of the default region; "": the first
	Suspended  string // reason of the suspension; "": not suspended

	MaxCPU, MaxMemory, MaxDisk int     // limits per sandbox in cores, GB and GB. Default: 4, 8, 10
	Snapshots                  int     // snapshot quota. Default: 30
	MaxSnapshotGB              float64 // maximum size of a snapshot. Default: 20
}

// Key is an API key of one organization.
type Key struct {
	Name, Value string
	Permissions []string
	Expires     time.Time // zero: never
}

// Region is a location with runners.
type Region struct {
	ID, Name                   string
	NoRunners                  bool     // the region has no runners
	Classes                    []string // sandbox classes of the runners. Default: container
	GPUs                       int      // GPU quota and GPUs of the runners
	MaxCPU, MaxMemory, MaxDisk int      // per sandbox; 0: the organization's
	NoQuotas                   bool     // no quotas apply, and the usage does not list the region
	Project                    string   // registry project of a region with its own registry. Default: Options.Project
}

// Options configures the stand-in.
type Options struct {
	Organizations     []Organization
	Registry          *registry.Registry // clients push to it and the runner pulls from it
	Project           string             // registry project for pushed images. Default: sbox-transient
	Engine            string             // DOCKER_HOST of the runner; "": sandboxes have only states
	Simulation        *Simulation        // what sandboxes do without an engine; nil: the toolbox responds with 501
	AccessLifetime    time.Duration      // lifetime of push access. Default: 1 hour
	InspectTimeout    time.Duration      // limit for the inspection of an image. Default: 30 seconds
	StartTimeout      time.Duration      // time that POST /sandbox waits for the sandbox. Default: 30 seconds
	Cron              time.Duration      // interval of Tick. Default: 20 ms; negative: only the caller calls Tick
	Clock             func() time.Time   // default: time.Now
	ReadsUntilVisible int                // reads after a push that do not find the image, as with Harbor's catalog
	ReadsPerState     int                // reads of each state before the next one; 0: none
	Newer             bool               // respond as the servers of clients 0.205.0 to 0.220.0
}

// Server is a running stand-in.
type Server struct {
	options  Options
	listener net.Listener
	server   *http.Server
	front    *http.Server // proxy to the registry
	host     string       // of front
	puller   string       // the runner's registry password and user agent
	engine   *dockerengine.Engine
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu          sync.Mutex
	snapshots   []*snapshot
	requests    []Request
	faults      []Fault
	sandboxes   []*sandbox
	warmPools   []*warmPool
	jobs        map[string]bool // resources with an unfinished job of the runner
	abandoned   []string        // keys of jobs that end at the next Tick
	hiddenReads map[string]int  // remaining reads that do not find images, by repository
	previews    []*http.Server
	expired     bool // push access is revoked until a client requests it again
}

// Start starts the API and the registry proxy on free loopback ports.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Registry == nil {
		return nil, errors.New("start Daytona: Options.Registry is not set")
	}
	o.Project = cmp.Or(o.Project, "sbox-transient")
	o.AccessLifetime = cmp.Or(o.AccessLifetime, time.Hour)
	o.InspectTimeout = cmp.Or(o.InspectTimeout, 30*time.Second)
	o.StartTimeout = cmp.Or(o.StartTimeout, 30*time.Second)
	o.Cron = cmp.Or(o.Cron, 20*time.Millisecond)
	s := &Server{options: o, puller: rand.Text(), hiddenReads: map[string]int{}, jobs: map[string]bool{}}
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
	if o.Cron > 0 {
		s.running.Go(s.runCron)
	}
	return s, nil
}

// URL returns the base URL of the API, for DAYTONA_API_URL.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() + "/api" }

// now returns the time of the server.
func (s *Server) now() time.Time {
	if s.options.Clock != nil {
		return s.options.Clock()
	}
	return time.Now()
}

// RegistryHost returns the host:port of the registry for pushed images and snapshots. It uses plain HTTP.
func (s *Server) RegistryHost() string { return s.host }

// Close stops the stand-in and its runner.
func (s *Server) Close() error {
	s.mu.Lock()
	s.cancel() // with the lock held, so that the runner starts no more work
	s.mu.Unlock()
	err := errors.Join(s.server.Close(), s.front.Close())
	for _, preview := range s.previews {
		err = errors.Join(err, preview.Close())
	}
	s.running.Wait()
	for _, box := range s.sandboxes {
		if box.container != nil {
			s.removeContainer(box.container)
		}
	}
	if s.engine != nil {
		err = errors.Join(err, s.engine.Close())
	}
	return err
}

// api returns the handler of the API. As on the real server, only user tokens can read organizations, and only API keys
// can read the current key.
func (s *Server) api() http.Handler {
	mux := http.NewServeMux()
	for pattern, c := range map[string]call{
		"GET /api/api-keys/current":                   {tokens: keysOnly, answer: s.currentKey},
		"GET /api/organizations/{organization}":       {tokens: usersOnly, answer: s.organization},
		"GET /api/organizations/{organization}/usage": {tokens: usersOnly, answer: s.usage},
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
		"POST /api/sandbox":                      {any: []string{WriteSandboxes}, answer: s.createSandbox},
		"GET /api/sandbox":                       {answer: s.listSandboxes},
		"GET /api/sandbox/{id}":                  {answer: s.getSandbox},
		"DELETE /api/sandbox/{id}":               {any: []string{DeleteSandboxes}, answer: s.destroySandbox},
		"GET /api/warm-pools":                    {answer: s.listWarmPools},

		"GET /api/sandbox/{id}/ports/{port}/preview-url": {answer: s.previewURL},

		"POST /api/toolbox/{id}/process/execute":                {answer: s.execute},
		"GET /api/toolbox/{id}/process/session/entrypoint":      {answer: s.entrypointSession},
		"GET /api/toolbox/{id}/process/session/entrypoint/logs": {answer: s.entrypointSession},
		"GET /api/toolbox/{id}/files/info":                      {answer: s.fileInfo},
		"GET /api/toolbox/{id}/files/download":                  {answer: s.download},
		"POST /api/toolbox/{id}/files/upload":                   {answer: s.upload},
	} {
		if pattern == "GET /api/warm-pools" && !s.options.Newer {
			continue
		}
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
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { // the dashboard
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!doctype html><title>Daytona</title>"))
	})
	return parseBody(mux)
}

// call describes an endpoint. A string result is sent as plain text, and nil as an empty response.
type call struct {
	tokens tokens
	any    []string // an API key needs one of these permissions; empty: none
	answer func(caller, *http.Request) (any, error)
	status int // 0: 200
}

// apiError is an error response of the API.
type apiError struct {
	status  int
	message string
}

func (e apiError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// sendError sends an error in Daytona's format. If err is not an apiError, the response has no details.
func sendError(w http.ResponseWriter, r *http.Request, err error) {
	sent := apiError{http.StatusInternalServerError, "An unexpected error occurred."}
	errors.As(err, &sent)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(sent.status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have disconnected
		"path": r.URL.RequestURI(), "timestamp": formatTime(time.Now()), "statusCode": sent.status,
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
	case response:
		if content, isFile := body.body.([]byte); isFile || body.body == nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.WriteHeader(body.status)
			_, _ = w.Write(content)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(body.status)
		_ = json.NewEncoder(w).Encode(body.body)
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_ = json.NewEncoder(w).Encode(body)
	}
}

// orNull returns null for the zero value.
func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// formatTime formats a time as JavaScript does.
func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// newID returns a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never returns an error
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

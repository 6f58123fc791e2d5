package daytona

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// Request is a recorded request.
type Request struct {
	Method, Path string
	Registry     bool // sent to the registry, not to the API
	Status       int  // of the response; 0: none was sent
	HasToken     bool
	Organization string // the header X-Daytona-Organization-ID
	Bytes        int64  // of the request's body
}

// Fault is an injected failure: an API response, a snapshot state, or a registry error.
type Fault struct {
	Method string // HTTP method of the requests that fail; "": any
	Path   string // part of the request path; "": any
	Times  int    // number of requests that fail; 0: all

	Status          int    // response status
	Message         string // sent in Daytona's error format, unless Body is set
	Body            string
	Header          map[string]string
	NoResponse      bool // do not respond until the client disconnects
	Hangup          bool // close the connection without a response
	ReplaceResponse bool // handle the request first, and replace only the response

	Snapshot SnapshotFault // applies to snapshots created after Fail
	Sandbox  SandboxFault  // applies to sandboxes created after Fail
	Registry RegistryFault
}

// SnapshotFault is a failure while the runner processes a snapshot.
type SnapshotFault string

// The snapshot failures.
const (
	Stuck            SnapshotFault = "stuck"              // no runner is available: stays pending
	UnknownState     SnapshotFault = "unknown state"      // has a state of newer servers, snapshotting, after pulling
	FailsAfterActive SnapshotFault = "fails after active" // fails after a client has read that it is active

	// SlowInspect keeps the snapshot pending until a client deletes or deactivates it. The snapshot then becomes active.
	SlowInspect SnapshotFault = "slow inspection"
	// InspectTimesOut also keeps the job of the image name unfinished until the next Tick.
	InspectTimesOut     SnapshotFault = "inspection times out"
	ImageNotFound       SnapshotFault = "image not found"      // the registry does not find the image yet
	RegistryUnavailable SnapshotFault = "registry unavailable" // a 503 of the registry for the inspection
	RunnerUnavailable   SnapshotFault = "runner unavailable"   // a 502 of the runner for the inspection
	PullUnavailable     SnapshotFault = "pull unavailable"     // a 502 of the runner for the pull
	StuckPulling        SnapshotFault = "stuck pulling"        // stays pulling, see handlePulling
	UnknownBlob         SnapshotFault = "unknown blob"         // the internal registry lost a blob during the push to it
	PushUnavailable     SnapshotFault = "push unavailable"     // the same with the text of Docker 29
)

// SandboxFault is a failure while the runner starts a sandbox.
type SandboxFault string

// The sandbox failures.
const (
	NoShell   SandboxFault = "no shell"   // fails after the response to POST, as with an image without a shell
	SlowStart SandboxFault = "slow start" // stays creating, so that POST /sandbox takes StartTimeout

	RunnerFails SandboxFault = "runner fails" // a 502 of the runner
)

// RegistryFault is a failure of the registry.
type RegistryFault string

// The registry failures.
const (
	PushDenied    RegistryFault = "push denied"    // responds to writes with 403
	BlobUnknown   RegistryFault = "blob unknown"   // responds to reads of blobs with 404
	AccessExpires RegistryFault = "access expires" // the next write revokes push access until a new request for it
)

// Requests returns the requests in order, except those of the runner to the registry.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
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
	s.faults, s.expired = nil, false
}

// nextFault returns the first matching fault and counts one use of it.
func (s *Server) nextFault(matches func(Fault) bool) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nextFaultLocked(matches)
}

// nextFaultLocked implements nextFault. The caller must hold s.mu.
func (s *Server) nextFaultLocked(matches func(Fault) bool) (Fault, bool) {
	for i, f := range s.faults {
		if !matches(f) {
			continue
		}
		if f.Times == 1 {
			s.faults = slices.Delete(s.faults, i, i+1)
		} else if f.Times > 1 {
			s.faults[i].Times--
		}
		return f, true
	}
	return Fault{}, false
}

type recorder struct {
	http.ResponseWriter
	status int
	silent bool // no response was sent
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64 // a proxy may continue to read after it has responded
}

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// record records each request and applies the faults.
func (s *Server) record(registry bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if registry && s.isRunner(r) {
			next.ServeHTTP(w, r)
			return
		}
		response := &recorder{ResponseWriter: w}
		var read atomic.Int64
		r.Body = countedBody{r.Body, &read}
		defer func() {
			if response.status == 0 && !response.silent {
				response.status = http.StatusOK
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.requests = append(s.requests, Request{
				Method: r.Method, Path: r.URL.Path, Registry: registry, Status: response.status,
				HasToken:     r.Header.Get("Authorization") != "",
				Organization: r.Header.Get("X-Daytona-Organization-ID"), Bytes: read.Load(),
			})
		}()
		f, ok := s.nextFault(func(f Fault) bool {
			return !registry && f.Snapshot == "" && f.Sandbox == "" && f.Registry == "" &&
				(f.Method == "" || f.Method == r.Method) && strings.Contains(r.URL.Path, f.Path)
		})
		if !ok {
			next.ServeHTTP(response, r)
			return
		}
		if f.ReplaceResponse {
			next.ServeHTTP(discardResponse{http.Header{}}, r)
		}
		_, _ = io.Copy(io.Discard, r.Body) // net/http detects a closed connection only after it has read the body
		switch {
		case f.NoResponse:
			response.silent = true
			<-r.Context().Done()
		case f.Hangup:
			response.silent = true
			panic(http.ErrAbortHandler)
		default:
			for name, value := range f.Header {
				w.Header().Set(name, value)
			}
			if f.Body == "" {
				sendError(response, r, apiError{f.Status, f.Message})
				return
			}
			response.WriteHeader(f.Status)
			_, _ = response.Write([]byte(f.Body)) // the client may have disconnected
		}
	})
}

// discardResponse is a ResponseWriter that discards the response.
type discardResponse struct{ header http.Header }

func (d discardResponse) Header() http.Header         { return d.header }
func (d discardResponse) Write(p []byte) (int, error) { return len(p), nil }
func (d discardResponse) WriteHeader(int)             {}

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
	Registry     bool // to the registry, not to the API
	Status       int  // of the response; 0: none was sent
	HasToken     bool
	Organization string // the header X-Daytona-Organization-ID
	Bytes        int64  // of the request's body
}

// Fault is an injected failure: a response of the API, a state of a snapshot, or an error of the registry.
type Fault struct {
	Method string // only requests with this method; "": all
	Path   string // only requests whose path contains it; "": all
	Times  int    // how many requests fail; 0: all

	Status  int    // of the response
	Message string // sent in Daytona's error format, unless Body is set
	Body    string
	Header  map[string]string
	Silence bool // no response until the client gives up
	Break   bool // the connection closes without a response
	After   bool // the request is carried out first; only its response is replaced

	Snapshot SnapshotFault // of snapshots that are created from now on
	Registry RegistryFault
}

// SnapshotFault is a failure while a snapshot is processed.
type SnapshotFault string

// Failures of snapshots.
const (
	Stuck   SnapshotFault = "stuck"   // stays pending
	Strange SnapshotFault = "strange" // passes through a state that clients do not know, between pulling and active
	Falls   SnapshotFault = "falls"   // fails after a client has read that it is active
)

// RegistryFault is a failure of the registry.
type RegistryFault string

// Failures of the registry.
const (
	RefusesPush RegistryFault = "refuses push" // answers writes with 403
	LosesBlob   RegistryFault = "loses blob"   // answers reads of blobs with 404
	Expires     RegistryFault = "expires"      // the next write revokes push access, until a client requests a new one
)

// Requests lists the requests in order, without those of the runner to the registry.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Fail injects a failure from now on. The first that matches a request applies.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.expired = nil, false
}

// fault returns the first matching fault and counts one use of it.
func (s *Server) fault(matches func(Fault) bool) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeFault(matches)
}

// takeFault is fault for callers that hold the lock.
func (s *Server) takeFault(matches func(Fault) bool) (Fault, bool) {
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
	silent bool // no response is sent
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
	n *atomic.Int64 // a proxy may read on after it has responded
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
		f, ok := s.fault(func(f Fault) bool {
			return !registry && f.Snapshot == "" && f.Registry == "" &&
				(f.Method == "" || f.Method == r.Method) && strings.Contains(r.URL.Path, f.Path)
		})
		if !ok {
			next.ServeHTTP(response, r)
			return
		}
		if f.After {
			next.ServeHTTP(discardResponse{http.Header{}}, r)
		}
		_, _ = io.Copy(io.Discard, r.Body) // net/http notices a closed connection only after the body
		switch {
		case f.Silence:
			response.silent = true
			<-r.Context().Done()
		case f.Break:
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

// discardResponse drops a response.
type discardResponse struct{ header http.Header }

func (d discardResponse) Header() http.Header         { return d.header }
func (d discardResponse) Write(p []byte) (int, error) { return len(p), nil }
func (d discardResponse) WriteHeader(int)             {}

package daytona

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

// Request is one request, as tests ask for it.
type Request struct {
	Method, Path string
	Registry     bool // to the registry, not to the API
	Status       int  // 0: none was sent
	HasToken     bool
	Organization string // the header X-Daytona-Organization-ID
	Bytes        int64  // of the request's body
}

// Fault is something that goes wrong on demand: an answer of the API, a state of a snapshot, or a trouble of the registry.
type Fault struct {
	Method string // requests of this method; "" for all
	Path   string // and whose path holds it; "" for all
	Times  int    // 0: every one

	Status  int    // the answer
	Message string // in Daytona's form, unless there is a Body
	Body    string
	Header  map[string]string
	Silence bool // no answer until the client gives up
	Break   bool // the connection ends without an answer
	After   bool // what was asked for is done before that, and only the answer is lost

	Snapshot SnapshotFault // of those that are created from now on
	Registry RegistryFault
}

// SnapshotFault is what is wrong with the life of a snapshot.
type SnapshotFault string

// What can be wrong with a snapshot.
const (
	Stuck   SnapshotFault = "stuck"   // pending for ever
	Strange SnapshotFault = "strange" // in a state that no client knows, between pulling and active
	Falls   SnapshotFault = "falls"   // once active is seen, it is in error
)

// RegistryFault is what is wrong with the registry.
type RegistryFault string

// What can be wrong with the registry.
const (
	RefusesPush RegistryFault = "refuses push" // 403 to whoever writes
	LosesBlob   RegistryFault = "loses blob"   // 404 to whoever reads one
	Expires     RegistryFault = "expires"      // with the next request that writes, access is over until new is asked for
)

// Requests lists what was asked for, in order. What the runner asks the registry for is not in it.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Fail makes things go wrong from now on.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// Heal ends all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.expired = nil, false
}

// fault is the first one that fits, used up by one.
func (s *Server) fault(fits func(Fault) bool) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeFault(fits)
}

// takeFault is fault for who has locked the server.
func (s *Server) takeFault(fits func(Fault) bool) (Fault, bool) {
	for i, f := range s.faults {
		if !fits(f) {
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
	silent bool // nothing will be sent
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
	n *atomic.Int64 // a proxy may go on reading when the answer is there
}

func (b countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// record notes each request and lets it fail where it shall.
func (s *Server) record(registry bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if registry && s.own(r) {
			next.ServeHTTP(w, r)
			return
		}
		answer := &recorder{ResponseWriter: w}
		var read atomic.Int64
		r.Body = countedBody{r.Body, &read}
		defer func() {
			if answer.status == 0 && !answer.silent {
				answer.status = http.StatusOK
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.requests = append(s.requests, Request{
				Method: r.Method, Path: r.URL.Path, Registry: registry, Status: answer.status,
				HasToken: r.Header.Get("Authorization") != "", Organization: r.Header.Get("X-Daytona-Organization-ID"), Bytes: read.Load(),
			})
		}()
		f, ok := s.fault(func(f Fault) bool {
			return !registry && f.Snapshot == "" && f.Registry == "" && (f.Method == "" || f.Method == r.Method) && strings.Contains(r.URL.Path, f.Path)
		})
		if !ok {
			next.ServeHTTP(answer, r)
			return
		}
		if f.After {
			next.ServeHTTP(discard{http.Header{}}, r)
		}
		_, _ = io.Copy(io.Discard, r.Body) // or the server would not see the client leave
		switch {
		case f.Silence:
			answer.silent = true
			<-r.Context().Done()
		case f.Break:
			answer.silent = true
			panic(http.ErrAbortHandler)
		default:
			for name, value := range f.Header {
				w.Header().Set(name, value)
			}
			if f.Body == "" {
				refuse(answer, r, refusal{f.Status, f.Message})
				return
			}
			answer.WriteHeader(f.Status)
			_, _ = answer.Write([]byte(f.Body)) // the client may be gone
		}
	})
}

// discard is where an answer goes that is lost.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

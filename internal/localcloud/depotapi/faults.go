package depotapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
)

// Fault makes calls fail. The first fault that matches a call applies.
type Fault struct {
	Method string // of the calls that fail (CreateBuild); "" means all
	Times  int    // how many calls fail; 0 means all

	Delay   time.Duration   // before the answer
	Hold    <-chan struct{} // delays the answer until it is closed; may be nil
	Silence bool            // no answer until the client disconnects
	Hangup  bool            // the connection is closed without an answer

	// Code and Message are an error of the API: resource_exhausted is 429 over HTTP, unavailable 503.
	Code    connect.Code
	Message string

	// Status and Body are an answer that does not come from the API, such as a proxy's error page.
	Status int
	Body   string

	Header map[string]string // of the answer, for example Retry-After

	// Machine makes the machine of a GetBuildKitConnection answer unusable.
	Machine MachineFault
}

// MachineFault is a way in which a machine is unusable.
type MachineFault string

// The kinds of unusable machines.
const (
	NeverActive     MachineFault = "never active"     // always pending
	Unreachable     MachineFault = "unreachable"      // active, without a listener
	RefusesClient   MachineFault = "refuses client"   // the client's certificate is for another build
	UntrustedServer MachineFault = "untrusted server" // the CA did not sign the server's certificate
	NoCertificates  MachineFault = "no certificates"  // active, without certificates
	GarbledKey      MachineFault = "garbled key"      // the client's private key is malformed
	BadAddress      MachineFault = "bad address"      // the machine's address has no scheme
)

// Fail adds a fault.
func (s *Server) Fail(f Fault) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.faults = nil
}

type faultKey struct{}

// faultOf returns the fault of the current request; its zero value means none.
func faultOf(ctx context.Context) Fault {
	f, _ := ctx.Value(faultKey{}).(Fault)
	return f
}

// nextFault returns the fault for a call of a method, and counts it.
func (s *Server) nextFault(method string) Fault {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for i, f := range s.faults {
		if f.Method != "" && f.Method != method {
			continue
		}
		applied := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return applied
	}
	return Fault{}
}

func (s *Server) fail(next http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var method string
		s.note(r.Context(), func(c *Call) { method = c.Method })
		f := s.nextFault(method)
		if f.Delay > 0 || f.Hold != nil { // the server notices a disconnect only after the body is read
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		if f.Delay > 0 {
			select {
			case <-time.After(f.Delay):
			case <-r.Context().Done():
				return
			}
		}
		if f.Hold != nil {
			select {
			case <-f.Hold:
			case <-r.Context().Done():
				return
			}
		}
		for name, value := range f.Header {
			w.Header().Set(name, value)
		}
		switch {
		case f.Hangup:
			panic(http.ErrAbortHandler)
		case f.Silence:
			_, _ = io.Copy(io.Discard, r.Body) // otherwise the server does not notice the disconnect
			<-r.Context().Done()
		case f.Code != 0:
			_, _ = io.Copy(io.Discard, r.Body)
			_ = errorWriter.Write(w, r, connect.NewError(f.Code, errors.New(f.Message)))
		case f.Status != 0:
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(f.Status)
			_, _ = io.WriteString(w, f.Body)
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, f)))
		}
	})
}

// spoil makes an active connection unusable.
func (s *Server) spoil(
	c *cliv1.GetBuildKitConnectionResponse_ActiveConnection,
	fault MachineFault,
	platform string,
) error {
	switch fault {
	case NoCertificates:
		c.CaCert, c.Cert = nil, nil
	case GarbledKey:
		c.Cert.Key = "-----BEGIN PRIVATE KEY-----\nZ2FyYmxlZA==\n-----END PRIVATE KEY-----\n"
	case BadAddress:
		c.Endpoint = strings.TrimPrefix(c.Endpoint, "tcp://")
	case Unreachable:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return apiError(connect.CodeInternal, "find a free port: %w", err)
		}
		c.Endpoint = "tcp://" + l.Addr().String()
		return l.Close()
	case RefusesClient, UntrustedServer:
		other, err := s.options.Machines.Open(platform, s.options.Lifetime)
		if err != nil {
			return apiError(connect.CodeInternal, "open a machine: %w", err)
		}
		if fault == RefusesClient {
			c.Cert = &cliv1.Cert{Cert: other.Cert, Key: other.Key}
		} else {
			c.CaCert = &cliv1.Cert{Cert: other.CACert}
		}
		return other.Close()
	}
	return nil
}

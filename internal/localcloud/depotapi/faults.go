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

// Fault is a failure of calls. The first fault that matches a call applies.
type Fault struct {
	Method string // method of the calls that fail, for example CreateBuild; "": any
	Times  int    // number of calls that fail; 0: all

	Delay      time.Duration   // delays the response
	Hold       <-chan struct{} // delays the response until the channel is closed; may be nil
	NoResponse bool            // do not respond until the client disconnects
	Hangup     bool            // close the connection without a response

	// Code and Message define an API error. Over HTTP, resource_exhausted is 429 and unavailable is 503.
	Code    connect.Code
	Message string

	// Status and Body define a response that does not come from the API, such as a proxy's error page.
	Status int
	Body   string

	Header map[string]string // response header, for example Retry-After

	// Machine makes the machine in a GetBuildKitConnection response unusable.
	Machine MachineFault
}

// MachineFault is a reason why a machine is unusable.
type MachineFault string

// The machine faults.
const (
	NeverActive     MachineFault = "never active"     // always pending
	Unreachable     MachineFault = "unreachable"      // active, without a listener
	ClientRejected  MachineFault = "client rejected"  // the client certificate is for another build
	UntrustedServer MachineFault = "untrusted server" // the CA did not sign the server's certificate
	NoCertificates  MachineFault = "no certificates"  // active, without certificates
	MalformedKey    MachineFault = "malformed key"    // the private key of the client is malformed
	InvalidAddress  MachineFault = "invalid address"  // the machine's address has no scheme

	// The clock of the machine, and that by which its certificates are valid, is 20 minutes ahead or behind.
	ClockAhead  MachineFault = "clock ahead"
	ClockBehind MachineFault = "clock behind"
)

// skew returns the error of a machine's clock.
func (f MachineFault) skew() time.Duration {
	switch f {
	case ClockAhead:
		return 20 * time.Minute
	case ClockBehind:
		return -20 * time.Minute
	}
	return 0
}

// Fail adds a fault.
func (s *Server) Fail(f Fault) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
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

// nextFault returns the fault that applies to a call of a method, and counts one use of it.
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
		if f.Delay > 0 || f.Hold != nil { // net/http detects a disconnect only after it has read the body
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
		case f.NoResponse:
			_, _ = io.Copy(io.Discard, r.Body) // net/http detects a disconnect only after it has read the body
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

// applyMachineFault makes an active connection unusable.
func (s *Server) applyMachineFault(
	c *cliv1.GetBuildKitConnectionResponse_ActiveConnection,
	fault MachineFault,
	platform string,
) error {
	switch fault {
	case NoCertificates:
		c.CaCert, c.Cert = nil, nil
	case MalformedKey:
		c.Cert.Key = "-----BEGIN PRIVATE KEY-----\nZ2FyYmxlZA==\n-----END PRIVATE KEY-----\n"
	case InvalidAddress:
		c.Endpoint = strings.TrimPrefix(c.Endpoint, "tcp://")
	case Unreachable:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return apiError(connect.CodeInternal, "find a free port: %w", err)
		}
		c.Endpoint = "tcp://" + l.Addr().String()
		return l.Close()
	case ClientRejected, UntrustedServer:
		other, err := s.options.Machines.OpenWithClock(platform, s.options.Lifetime, 0)
		if err != nil {
			return apiError(connect.CodeInternal, "open a machine: %w", err)
		}
		if fault == ClientRejected {
			c.Cert = &cliv1.Cert{Cert: other.Cert, Key: other.Key}
		} else {
			c.CaCert = &cliv1.Cert{Cert: other.CACert}
		}
		return other.Close()
	}
	return nil
}

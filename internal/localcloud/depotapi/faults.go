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

// Fault is something that goes wrong on demand. The first fault that fits a call decides it.
type Fault struct {
	Method string // which calls (CreateBuild); empty: all
	Times  int    // how many of them; 0: every one

	Delay   time.Duration   // before anything else
	Hold    <-chan struct{} // no answer before it is closed; nil: at once
	Silence bool            // no answer, until the client gives up
	Hangup  bool            // the connection is closed instead of an answer; what was asked for may have been done

	// Code and Message are an error of the API's: resource_exhausted is HTTP's 429, unavailable its 503.
	Code    connect.Code
	Message string

	// Status and Body are an answer that is not the API's at all, such as a proxy's error page.
	Status int
	Body   string

	Header map[string]string // of the answer, for example Retry-After

	// Machine spoils what GetBuildKitConnection says.
	Machine MachineFault
}

// MachineFault is what is wrong with a machine.
type MachineFault string

// What can be wrong with a machine.
const (
	NeverActive     MachineFault = "never active"     // pending for ever
	Unreachable     MachineFault = "unreachable"      // active, and nothing listens there
	RefusesClient   MachineFault = "refuses client"   // the client's certificate is another build's
	UntrustedServer MachineFault = "untrusted server" // the server's certificate has another authority
	NoCertificates  MachineFault = "no certificates"  // active, and nothing to prove who we are with
	GarbledKey      MachineFault = "garbled key"      // the client's private key is none
	BadAddress      MachineFault = "bad address"      // the machine's address is none
)

// Fail makes calls go wrong from now on, beside those that already do.
func (s *Server) Fail(f Fault) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal ends all faults.
func (s *Server) Heal() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.faults = nil
}

type faultKey struct{}

// faultOf is what goes wrong with the request at hand; its zero value, nothing.
func faultOf(ctx context.Context) Fault {
	f, _ := ctx.Value(faultKey{}).(Fault)
	return f
}

// next is the fault for a call of this method, used up by one.
func (s *Server) nextFault(method string) Fault {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for i, f := range s.faults {
		if f.Method != "" && f.Method != method {
			continue
		}
		taken := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return taken
	}
	return Fault{}
}

func (s *Server) fail(next http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var method string
		s.note(r.Context(), func(c *Call) { method = c.Method })
		f := s.nextFault(method)
		if f.Delay > 0 || f.Hold != nil { // what is not read yet would hide from the server that the client leaves
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
			_, _ = io.Copy(io.Discard, r.Body) // or the server would not see the client leave
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

// spoil makes an active connection one that does not work.
func (s *Server) spoil(
	c *cliv1.GetBuildKitConnectionResponse_ActiveConnection,
	trouble MachineFault,
	platform string,
) error {
	switch trouble {
	case NoCertificates:
		c.CaCert, c.Cert = nil, nil
	case GarbledKey:
		c.Cert.Key = "-----BEGIN PRIVATE KEY-----\nZ2FyYmxlZA==\n-----END PRIVATE KEY-----\n"
	case BadAddress:
		c.Endpoint = strings.TrimPrefix(c.Endpoint, "tcp://")
	case Unreachable:
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return refuse(connect.CodeInternal, "find a free port: %w", err)
		}
		c.Endpoint = "tcp://" + l.Addr().String()
		return l.Close()
	case RefusesClient, UntrustedServer:
		other, err := s.options.Machines.Open(platform, s.options.Lifetime)
		if err != nil {
			return refuse(connect.CodeInternal, "lend a machine: %w", err)
		}
		if trouble == RefusesClient {
			c.Cert = &cliv1.Cert{Cert: other.Cert, Key: other.Key}
		} else {
			c.CaCert = &cliv1.Cert{Cert: other.CACert}
		}
		return other.Close()
	}
	return nil
}

package dockerengine

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
)

// An engine that was open may be starting again. Before that, a refused connection means that none is running.
func TestRedial(t *testing.T) {
	for _, test := range []struct {
		name   string
		opened bool
		err    error
		dials  int
	}{
		{"refused", true, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 3},
		{"no socket", true, &net.OpError{Op: "dial", Err: fs.ErrNotExist}, 3},
		{"not opened", false, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 1},
		{"unknown host", true, &net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var opened atomic.Bool
			opened.Store(test.opened)
			dials := 0
			conn, peer := net.Pipe()
			defer peer.Close()
			got, err := redial(func(context.Context, string, string) (net.Conn, error) {
				if dials++; dials < 3 {
					return nil, test.err
				}
				return conn, nil
			}, &opened)(t.Context(), "tcp", "127.0.0.1:1")
			if dials != test.dials || (got == conn) != (dials == 3) || dials < 3 && !errors.Is(err, test.err) {
				t.Errorf("got %v, %v after %d dials", got, err, dials)
			}
		})
	}
}

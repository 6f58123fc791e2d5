package daytona

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"
)

// This file follows getPortPreviewUrl of daytonaio/daytona v0.190.0, apps/api/src/sandbox/services/sandbox.service.ts,
// and apps/proxy/pkg/proxy. The proxy of the service has a host name for each port of a sandbox; that of the stand-in
// has a port on loopback instead.

// previewURL returns the address of a port of a sandbox.
func (s *Server) previewURL(who caller, r *http.Request) (any, error) {
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || port < 1 {
		return nil, badRequest("Invalid port")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	box, err := s.findSandbox(who, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, s.ctx.Err()
	}
	listener, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: s.preview(box, uint16(port))}
	s.previews = append(s.previews, server)
	s.running.Go(func() { _ = server.Serve(listener) }) // returns after Close
	return map[string]any{"sandboxId": box.id, "url": "http://" + listener.Addr().String(), "token": box.token}, nil
}

// preview forwards requests with the token of a sandbox to one of its ports. Without the token, it redirects to the
// login page, as for a browser (Authenticate of apps/proxy/pkg/proxy/auth.go).
func (s *Server) preview(box *sandbox, port uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("X-Daytona-Preview-Token")
		r.Header.Del("X-Daytona-Preview-Token")
		if subtle.ConstantTimeCompare([]byte(token), []byte(box.token)) != 1 {
			http.Redirect(w, r, s.URL()+"/login", http.StatusTemporaryRedirect)
			return
		}
		s.mu.Lock()
		started := box.container
		box.active = s.now()
		s.mu.Unlock()
		if started == nil {
			http.Error(w, "the sandbox is not running", http.StatusBadGateway)
			return
		}
		address, err := s.address(r.Context(), started, port)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address.String()}).ServeHTTP(w, r)
	})
}

package daytona

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

// runner is the runner's user name in the registry.
const runner = "daytona-runner"

// pushAccess creates a robot account that can push to a project until its access expires (getRegistryPushAccess of
// apps/api/src/docker-registry/services/docker-registry.service.ts). The region may be another organization's. Without
// one, the project is the default one, also if the organization's default region has its own.
func (s *Server) pushAccess(_ caller, r *http.Request) (any, error) {
	project := s.options.Project
	if id := r.FormValue("regionId"); id != "" {
		if _, ok := s.anyRegion(id); !ok {
			return nil, http.ErrNotSupported // unknown region: Daytona responds with 500 and no details
		}
		project = s.projectOf(id)
	}
	id := newID()
	robot := registry.Account{
		User: "robot$" + project + "+temp-push-robot-" + id[:8] + id[9:13], Password: newID() + newID(),
		Prefix: project + "/", Push: true, Expires: time.Now().Add(s.options.AccessLifetime),
	}
	s.options.Registry.AddAccount(robot)
	s.mu.Lock()
	s.expired = false
	s.mu.Unlock()
	return map[string]any{
		"username": robot.User, "secret": robot.Password, "registryUrl": s.host,
		"registryId": "00000000-0000-4000-8000-000000000001",
		"project":    project, "expiresAt": formatTime(robot.Expires),
	}, nil
}

// projectOf returns the registry project for the images of a region.
func (s *Server) projectOf(region string) string {
	r, _ := s.anyRegion(region)
	return cmp.Or(r.Project, s.options.Project)
}

// isRunner reports whether the runner sent the request.
func (s *Server) isRunner(r *http.Request) bool { return strings.HasPrefix(r.UserAgent(), s.puller) }

var (
	blobs     = regexp.MustCompile(`^/v2/(.+)/blobs/sha256:`)
	manifests = regexp.MustCompile(`^/v2/(.+)/manifests/`)
)

// harbor returns the registry that clients use: a proxy to the real registry that injects faults and hides an image for
// the first reads after its push.
func (s *Server) harbor() http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: s.options.Registry.Addr})
			r.Out.Host = r.In.Host // makes the registry's links point to the proxy
		},
		ModifyResponse: func(answer *http.Response) error {
			// The proxy also serves tokens, because clients reject a realm at another loopback address.
			if challenge := answer.Header.Get("WWW-Authenticate"); challenge != "" {
				answer.Header.Set("WWW-Authenticate", strings.ReplaceAll(challenge, s.options.Registry.Addr, s.host))
			}
			pushed := manifests.FindStringSubmatch(answer.Request.URL.Path)
			if pushed != nil && answer.Request.Method == http.MethodPut && answer.StatusCode == http.StatusCreated &&
				!s.isRunner(answer.Request) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.hiddenReads[pushed[1]] = s.options.ReadsUntilVisible
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, code, stalls := s.registryFault(r)
		if stalls {
			_, _ = io.Copy(io.Discard, r.Body) // net/http notices that the client has disconnected only after that
			<-r.Context().Done()
			return
		}
		if status != 0 {
			w.Header().Set("Content-Type", "application/json")
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+s.host+`/token",service="registry"`)
			}
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have disconnected
				"errors": []any{map[string]string{"code": code, "message": code}},
			})
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// registryFault returns the status and the error code of the fault that applies to a request, or 0 if none does. stalls
// means no response.
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
func (s *Server) registryFault(r *http.Request) (status int, code string, stalls bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead || r.URL.Path == "/token"
	if name := manifests.FindStringSubmatch(r.URL.Path); reads && name != nil && s.hiddenReads[name[1]] > 0 {
		s.hiddenReads[name[1]]--
		return http.StatusNotFound, "MANIFEST_UNKNOWN", false
	}
	byRunner := s.isRunner(r)
	if r.Method == http.MethodDelete && !byRunner { // robots can only push, see pushAccess
		return http.StatusUnauthorized, "UNAUTHORIZED", false
	}
	f, ok := s.nextFaultLocked(func(f Fault) bool {
		switch f.Registry {
		case PushDenied, PushStalls, AccessExpires:
			return !reads && !byRunner
		case BlobUnknown:
			return r.Method == http.MethodGet && blobs.MatchString(r.URL.Path)
		}
		return false
	})
	if ok && f.Registry == AccessExpires {
		s.expired = true
	}
	switch {
	case s.expired && !byRunner:
		return http.StatusUnauthorized, "UNAUTHORIZED", false
	case ok && f.Registry == PushDenied:
		return http.StatusForbidden, "DENIED", false
	case ok && f.Registry == BlobUnknown:
		return http.StatusNotFound, "BLOB_UNKNOWN", false
	}
	return 0, "", ok && f.Registry == PushStalls
}

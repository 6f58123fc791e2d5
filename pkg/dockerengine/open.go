package dockerengine

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/docker/cli/cli/connhelper"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// finder opens the first engine that responds.
type finder struct {
	getenv          func(string) string
	responseTimeout time.Duration // default 5 s
	sshTimeout      time.Duration // default 35 s, including the login
	idleTimeout     time.Duration // of the engine; default 5 min
}

func newFinder(getenv func(string) string) finder {
	return finder{getenv, 5 * time.Second, 35 * time.Second, 5 * time.Minute}
}

// Open connects to the Docker Engine that the docker command would use, or to a well-known one. If DOCKER_HOST (with
// DOCKER_TLS_VERIFY, DOCKER_TLS, DOCKER_CERT_PATH) or DOCKER_CONTEXT is set, Open tries only that engine. Otherwise it
// tries, in order: Docker's current context, the default socket, rootless Docker, OrbStack, Colima, Docker Desktop and
// Podman. The error lists all attempts with their causes. See
// https://docs.docker.com/engine/manage-resources/contexts/ and
// https://docs.docker.com/reference/cli/docker/#environment-variables.
func Open(ctx context.Context, getenv func(string) string) (*Engine, error) {
	return newFinder(getenv).open(ctx, candidates(getenv))
}

// open connects to the first candidate that responds.
func (f finder) open(ctx context.Context, candidates []candidate) (*Engine, error) {
	var tried []string
	denied := false
	var last error
	for _, c := range candidates {
		e, err := f.connect(ctx, c)
		if err == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connect to a Docker Engine: %w", context.Cause(ctx))
		}
		last, denied = err, denied || errors.Is(err, fs.ErrPermission)
		where := c.name
		if c.endpoint.Host != "" {
			where = fmt.Sprintf("%s (%s)", c.endpoint.Host, c.name)
		}
		tried = append(tried, where+": "+err.Error())
	}
	hint := "start Docker with sudo systemctl start docker, Docker Desktop, OrbStack or Colima, or set DOCKER_HOST"
	switch {
	case denied:
		hint = `add your user to the docker group with sudo usermod -aG docker "$USER", then log in again`
	case len(candidates) == 1:
		hint = cmp.Or(connectionHint(last, candidates[0].endpoint.Host),
			"start that engine, or unset the variable to use the default engine")
	}
	return nil, fmt.Errorf("cannot connect to a Docker Engine: %s (%s)", strings.Join(tried, "; "), hint)
}

// connectionHint returns what the user can do about a failed connection to host, or "" if the cause is unknown.
func connectionHint(err error, host string) string {
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return "replace ca.pem in DOCKER_CERT_PATH, or the one of the context, by the certificate authority of the engine"
	}
	return httpclient.NetworkHint(err, host)
}

// connect connects to a candidate's engine and negotiates the API version.
func (f finder) connect(ctx context.Context, c candidate) (*Engine, error) {
	if c.err != nil {
		return nil, c.err
	}
	timeout, dial := f.responseTimeout, dialHost(c.endpoint.Host)
	if helper, err := connhelper.GetConnectionHelper(c.endpoint.Host); err != nil {
		return nil, err
	} else if helper != nil {
		timeout, dial = f.sshTimeout, helper.Dialer
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := checkSocket(ctx, c.endpoint.Host, timeout); err != nil {
		return nil, err
	}
	options, err := c.endpoint.ClientOpts()
	if err != nil {
		return nil, err
	}
	var opened atomic.Bool
	dial = redial(dial, &opened)
	// client.WithAPIVersionFromEnv would read the process's environment instead of getenv.
	options = append(options, client.WithAPIVersion(f.getenv("DOCKER_API_VERSION")),
		client.WithUserAgent("sandbox-actions"), client.WithDialContext(reportDialed(dial)),
		client.WithResponseHook(limitResponse))
	api, err := client.New(options...)
	if err != nil {
		return nil, err
	}
	_, err = retry(ctx, func() (client.PingResult, error) {
		return api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	})
	if err != nil {
		api.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("timed out after %s", timeout)
		}
		return nil, withoutURL(err)
	}
	opened.Store(true)
	return &Engine{Host: c.endpoint.Host, From: c.name, client: api, idleTimeout: f.idleTimeout}, nil
}

// maxResponse is the maximum size of a response that describes something, in bytes.
const maxResponse = 16 << 20

// limitResponse bounds the memory for a response, which the client decodes as a whole. Responses to other methods than
// GET may be streams of JSON messages.
func limitResponse(r *http.Response) {
	if r.Request.Method == http.MethodGet && r.Header.Get("Content-Type") == "application/json" {
		r.Body = httpclient.LimitBody(r.Body, maxResponse)
	}
}

// checkSocket connects to a Unix socket and returns the cause of a failure, which the client's errors omit.
func checkSocket(ctx context.Context, host string, timeout time.Duration) error {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file")
	case errors.Is(err, fs.ErrPermission):
		return fs.ErrPermission
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("timed out after %s", timeout)
	}
	return err
}

// Package dockerengine speaks to the local Docker Engine, wherever it is: a daemon of this machine, a virtual machine's
// (Docker Desktop, OrbStack, Colima), another machine's over TLS or ssh, or Podman's stand-in for one.
package dockerengine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/connhelper"
	dockercontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/moby/moby/client"
)

// How long an address may take to answer that it is there: over ssh a login comes first.
const (
	answerTimeout = 5 * time.Second
	sshTimeout    = 35 * time.Second
)

// Engine is a Docker Engine that has answered.
type Engine struct {
	Host string // its address, as in DOCKER_HOST

	// Progress, if set, is told during Load how far each layer is that is sent.
	Progress func(Layer)

	client      *client.Client
	content     content       // of its image store
	silence     time.Duration // how long the engine or an image's source may say nothing
	archiveOnly bool          // load without a pull from our loopback
}

// Open finds the Docker Engine that docker itself would use, and a few more. DOCKER_HOST (with DOCKER_TLS_VERIFY,
// DOCKER_TLS, DOCKER_CERT_PATH) and DOCKER_CONTEXT rule alone. Without them it tries docker's current context, the
// default socket, that of a rootless daemon, OrbStack's, Colima's, Docker Desktop's and Podman's, and takes the first that
// answers. The error says what was tried, why each did not do, and what to start. See
// https://docs.docker.com/engine/manage-resources/contexts/ and
// https://docs.docker.com/reference/cli/docker/#environment-variables.
func Open(ctx context.Context, getenv func(string) string) (*Engine, error) {
	return first(ctx, find(getenv), getenv)
}

// Close frees the connections to the engine.
func (e *Engine) Close() error { return errors.Join(e.content.close(), e.client.Close()) }

// first is the first candidate that answers.
func first(ctx context.Context, candidates []candidate, getenv func(string) string) (*Engine, error) {
	var tried []string
	denied := false
	for _, c := range candidates {
		e, err := c.open(ctx, getenv)
		if err == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("looking for a Docker Engine: %w", context.Cause(ctx))
		}
		denied = denied || errors.Is(err, fs.ErrPermission)
		where := c.name
		if c.endpoint.Host != "" {
			where = fmt.Sprintf("%s (%s)", c.endpoint.Host, c.name)
		}
		tried = append(tried, where+": "+err.Error())
	}
	remedy := "start Docker (sudo systemctl start docker, Docker Desktop, OrbStack or Colima), or name an engine in DOCKER_HOST"
	switch {
	case denied:
		remedy = `let your user use the socket: sudo usermod -aG docker "$USER" puts it into the docker group, then log in again`
	case len(candidates) == 1:
		remedy = "start that engine, or unset the variable to use the default one"
	}
	return nil, fmt.Errorf("no Docker Engine answers (%s): %s", strings.Join(tried, "; "), remedy)
}

// candidate is an address where an engine may be.
type candidate struct {
	name     string // where we have it from
	endpoint docker.Endpoint
	err      error // why there is no address
}

// find lists where an engine may be, in the order in which to try. One candidate alone was asked for by name.
func find(getenv func(string) string) []candidate {
	home := getenv("HOME")
	configDir := getenv("DOCKER_CONFIG")
	if configDir == "" {
		configDir = filepath.Join(home, ".docker")
	}
	if host := getenv("DOCKER_HOST"); host != "" {
		return []candidate{fromHost(host, configDir, getenv)}
	}
	current := getenv("DOCKER_CONTEXT")
	if current != "" && current != "default" {
		return []candidate{fromContext(current, "DOCKER_CONTEXT "+current, configDir)}
	}

	var list []candidate
	if current == "" {
		file, err := config.Load(configDir)
		switch {
		case err != nil:
			list = append(list, candidate{name: "docker's current context", err: err})
		case file.CurrentContext != "" && file.CurrentContext != "default":
			list = append(list, fromContext(file.CurrentContext, "docker's context "+file.CurrentContext, configDir))
		}
	}
	for _, socket := range []struct{ name, dir, path string }{
		{"default socket", "/", "var/run/docker.sock"},
		{"rootless Docker", getenv("XDG_RUNTIME_DIR"), "docker.sock"},
		{"OrbStack", home, ".orbstack/run/docker.sock"},
		{"Colima", home, ".colima/default/docker.sock"},
		{"Docker Desktop", home, ".docker/run/docker.sock"},
		{"rootless Podman", getenv("XDG_RUNTIME_DIR"), "podman/podman.sock"},
		{"Podman", "/", "run/podman/podman.sock"},
	} {
		host := "unix://" + filepath.Join(socket.dir, socket.path)
		if socket.dir == "" || len(list) > 0 && list[0].endpoint.Host == host {
			continue
		}
		c := candidate{name: socket.name}
		c.endpoint.Host = host
		list = append(list, c)
	}
	return list
}

// fromHost is DOCKER_HOST's engine, with the certificates that docker would use for it.
func fromHost(host, configDir string, getenv func(string) string) candidate {
	if !strings.Contains(host, "://") {
		host = "tcp://" + host
	}
	c := candidate{name: "DOCKER_HOST"}
	c.endpoint.Host = host
	verify := getenv("DOCKER_TLS_VERIFY") != ""
	if !strings.HasPrefix(host, "tcp://") || !verify && getenv("DOCKER_TLS") == "" {
		return c
	}
	dir := getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = configDir
	}
	c.endpoint.SkipTLSVerify = !verify
	c.endpoint.TLSData, c.err = dockercontext.TLSDataFromFiles(
		filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	return c
}

// fromContext is the engine of a context that docker keeps in its configuration, see docker context ls.
func fromContext(context, name, configDir string) candidate {
	contexts := store.New(filepath.Join(configDir, "contexts"), store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} })))
	c := candidate{name: name}
	metadata, err := contexts.GetMetadata(context)
	if err != nil {
		c.err = fmt.Errorf("%w: docker context ls shows which there are", err)
		return c
	}
	meta, err := docker.EndpointFromContext(metadata)
	if err != nil {
		c.err = err
		return c
	}
	c.endpoint, c.err = docker.WithTLSData(contexts, context, meta)
	if c.err == nil && c.endpoint.Host == "" {
		c.err = errors.New("the context names no host")
	}
	return c
}

// open asks the engine whether it is there, and agrees with it on the API's version.
func (c candidate) open(ctx context.Context, getenv func(string) string) (*Engine, error) {
	if c.err != nil {
		return nil, c.err
	}
	timeout := answerTimeout
	if helper, err := connhelper.GetConnectionHelper(c.endpoint.Host); err != nil {
		return nil, err
	} else if helper != nil {
		timeout = sshTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := dial(ctx, c.endpoint.Host); err != nil {
		return nil, err
	}
	options, err := c.endpoint.ClientOpts()
	if err != nil {
		return nil, err
	}
	// Unlike the option of the same name for the environment, this one looks where we were told to.
	options = append(options, client.WithAPIVersion(getenv("DOCKER_API_VERSION")), client.WithUserAgent("sandbox-actions"))
	api, err := client.New(options...)
	if err != nil {
		return nil, err
	}
	if _, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		api.Close()
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("no answer within %s", timeout)
		}
		return nil, cause(err)
	}
	return &Engine{Host: c.endpoint.Host, client: api, silence: 5 * time.Minute}, nil
}

// dial says why a socket can not be reached: the client's own errors leave it out.
func dial(ctx context.Context, host string) error {
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
		return errors.New("nothing listens there")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", answerTimeout)
	}
	return err
}

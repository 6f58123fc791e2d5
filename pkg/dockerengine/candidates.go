package dockerengine

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	dockercontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
)

// candidate is a possible address of an engine.
type candidate struct {
	name     string // source of the address
	endpoint docker.Endpoint
	err      error // set if the address could not be determined
}

// candidates returns the addresses to try, in order: only one if an environment variable selects the engine.
func candidates(getenv func(string) string) []candidate {
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
		isContext := len(list) > 0 && list[0].endpoint.Host == host
		if socket.dir == "" || isContext {
			continue
		}
		c := candidate{name: socket.name}
		c.endpoint.Host = host
		list = append(list, c)
	}
	return list
}

// fromHost returns the engine at DOCKER_HOST, with the TLS certificates that docker would use.
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

// fromContext returns the engine of a docker context.
func fromContext(context, name, configDir string) candidate {
	contexts := store.New(filepath.Join(configDir, "contexts"), store.NewConfig(
		func() any { return &map[string]any{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} })))
	c := candidate{name: name}
	metadata, err := contexts.GetMetadata(context)
	if err != nil {
		c.err = fmt.Errorf("%w (list contexts with docker context ls)", err)
		return c
	}
	meta, err := docker.EndpointFromContext(metadata)
	if err != nil {
		c.err = err
		return c
	}
	c.endpoint, c.err = docker.WithTLSData(contexts, context, meta)
	if c.err == nil && c.endpoint.Host == "" {
		c.err = errors.New("the context has no host")
	}
	return c
}

package daytona

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// This file follows daytonaio/daytona v0.190.0: apps/runner/pkg/docker/container_configs.go, which makes the daemon the
// first process of a sandbox, and apps/daemon, whose toolbox API the server forwards requests to.

// container is the container of a sandbox.
type container struct {
	*dockerengine.Container
	session *session // of the entry point; nil: none
}

// session is a process that the daemon runs.
type session struct {
	command string // quoted for a shell

	mu   sync.Mutex
	log  bytes.Buffer
	exit *int // nil while it runs
}

func (p *session) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(data)
}

// startContainer starts a container that runs an entry point without CMD. If the entry point ends, the container goes
// on. The daemon of the stand-in is a shell.
func (s *Server) startContainer(image string, entrypoint []string) (*container, error) {
	created, err := s.engine.Create(s.ctx, dockerengine.ContainerSpec{
		Image: image, Entrypoint: []string{"/bin/sh", "-c", "while read -r _; do :; done"}, Stdin: true,
	})
	if err != nil {
		return nil, err
	}
	box := &container{Container: created}
	if err := box.Start(s.ctx); err != nil {
		s.removeContainer(box)
		return nil, err
	}
	if len(entrypoint) > 0 {
		words := []string{}
		for _, word := range entrypoint {
			words = append(words, "'"+strings.ReplaceAll(word, "'", `'"'"'`)+"'")
		}
		box.session = &session{command: strings.Join(words, " ")}
		s.running.Go(func() { s.runSession(box) })
	}
	return box, nil
}

func (s *Server) runSession(box *container) {
	exit, err := box.Exec(s.ctx, dockerengine.ExecSpec{
		Cmd:     []string{"/bin/sh", "-c", box.session.command},
		Streams: dockerengine.Streams{Out: box.session, Err: box.session},
	})
	box.session.mu.Lock()
	defer box.session.mu.Unlock()
	if err == nil {
		box.session.exit = &exit
	}
}

// removeContainer removes a container, also when the server is closing.
func (s *Server) removeContainer(box *container) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 20*time.Second)
	defer cancel()
	_ = box.Remove(ctx) // the engine's owner labels let a later process remove it
}

// response is a response of the toolbox API.
type response struct {
	status int
	body   any
}

func toolboxError(r *http.Request, status int, code, message string) response {
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/toolbox/"), "/")
	return response{status, map[string]any{
		"statusCode": status, "message": message, "code": code, "path": "/" + path, "method": r.Method,
		"timestamp": formatTime(time.Now()),
	}}
}

// containerOf returns the container of a sandbox of the client.
func (s *Server) containerOf(who caller, r *http.Request) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box, err := s.findSandbox(who, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case box.container == nil:
		return nil, apiError{http.StatusNotImplemented, "The stand-in runs sandboxes only with Options.Engine"}
	}
	return box.container, nil
}

// execute runs a command in a shell (apps/daemon/pkg/toolbox/process/execute.go).
func (s *Server) execute(who caller, r *http.Request) (any, error) {
	box, err := s.containerOf(who, r)
	if err != nil {
		return nil, err
	}
	body := decode(r)
	command, _ := body["command"].(string)
	if strings.TrimSpace(command) == "" {
		return toolboxError(r, http.StatusBadRequest, "BAD_REQUEST",
			"bad request: command cannot be empty or whitespace-only"), nil
	}
	ctx := r.Context()
	if seconds, _ := body["timeout"].(float64); seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	var output bytes.Buffer
	exit, err := box.Exec(ctx, dockerengine.ExecSpec{
		Cmd:     []string{"/bin/sh", "-c", "exec 2>&1\n" + command}, // keeps the order of both outputs
		Streams: dockerengine.Streams{Out: &output, Err: &output},
	})
	switch {
	case ctx.Err() != nil:
		return toolboxError(r, http.StatusRequestTimeout, "REQUEST_TIMEOUT",
			"request timeout: command execution timeout"), nil
	case err != nil:
		return nil, fmt.Errorf("run a command in a sandbox: %w", err)
	}
	return map[string]any{"exitCode": exit, "result": output.String()}, nil
}

// entrypointSession describes the session of the entry point (apps/daemon/pkg/toolbox/process/session).
func (s *Server) entrypointSession(who caller, r *http.Request) (any, error) {
	box, err := s.containerOf(who, r)
	switch {
	case err != nil:
		return nil, err
	case box.session == nil:
		return toolboxError(r, http.StatusNotFound, "NOT_FOUND", "not found: session not found"), nil
	}
	box.session.mu.Lock()
	defer box.session.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/logs") {
		return box.session.log.String(), nil
	}
	command := map[string]any{"id": "entrypoint_command", "command": box.session.command}
	if box.session.exit != nil {
		command["exitCode"] = *box.session.exit
	}
	return map[string]any{"sessionId": "entrypoint", "commands": []any{command}}, nil
}

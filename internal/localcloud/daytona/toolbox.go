package daytona

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// This file follows the toolbox API of daytonaio/daytona v0.190.0, apps/daemon, which the server forwards requests to.

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

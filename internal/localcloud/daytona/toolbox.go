package daytona

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// This file follows the toolbox API of daytonaio/daytona v0.190.0, apps/daemon, which apps/proxy forwards requests to.

// Simulation replaces the containers of sandboxes without an engine.
type Simulation struct {
	Exit       int    // of each command
	Output     string // of each command
	Entrypoint *int   // exit code of the entry point; nil: it runs
	Log        string // of the entry point, in the format of the daemon
}

// response is a response of the toolbox API.
type response struct {
	status int
	body   any // []byte: the content of a file; nil: none
}

func toolboxError(r *http.Request, status int, code, message string) response {
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/toolbox/"), "/")
	return response{status, map[string]any{
		"statusCode": status, "message": message, "code": code, "path": "/" + path, "method": r.Method,
		"timestamp": formatTime(time.Now()),
	}}
}

// toolboxOf returns the container of a sandbox of the client, or nil if it is simulated. Each request counts as
// activity (updateLastActivity of apps/proxy/pkg/proxy/get_sandbox_target.go).
func (s *Server) toolboxOf(who caller, r *http.Request) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box, err := s.findSandbox(who, r.PathValue("id"))
	switch {
	case err != nil:
		// The proxy reports a sandbox that the key cannot read like a wrong key (Authenticate of
		// apps/proxy/pkg/proxy/auth.go).
		return nil, apiError{http.StatusUnauthorized, "authentication failed: Bearer token is invalid"}
	case box.state != "started" || box.desired != "started":
		return nil, badRequest("bad request: failed to get runner info: no IP address found. Is the Sandbox started?")
	}
	box.active = s.now()
	if box.container == nil && s.options.Simulation == nil {
		return nil, apiError{http.StatusNotImplemented, "The stand-in runs sandboxes only with Options.Engine"}
	}
	return box.container, nil
}

// validEnv matches names of variables (ValidateEnvKeys of apps/daemon/pkg/common/env.go).
var validEnv = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// execute runs a command in a shell (apps/daemon/pkg/toolbox/process/execute.go).
func (s *Server) execute(who caller, r *http.Request) (any, error) {
	box, err := s.toolboxOf(who, r)
	if err != nil {
		return nil, err
	}
	body := decode(r)
	command, _ := body["command"].(string)
	if strings.TrimSpace(command) == "" {
		return toolboxError(r, http.StatusBadRequest, "BAD_REQUEST",
			"bad request: command cannot be empty or whitespace-only"), nil
	}
	if box == nil {
		return map[string]any{"exitCode": s.options.Simulation.Exit, "result": s.options.Simulation.Output}, nil
	}
	var env []string
	variables, _ := body["envs"].(map[string]any)
	for name, value := range variables {
		if !validEnv.MatchString(name) {
			return toolboxError(r, http.StatusBadRequest, "BAD_REQUEST",
				fmt.Sprintf("bad request: invalid environment variable name: %q", name)), nil
		}
		env = append(env, fmt.Sprintf("%s=%v", name, value))
	}
	ctx := r.Context()
	if seconds, _ := body["timeout"].(float64); seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
		defer cancel()
	}
	dir, _ := body["cwd"].(string)
	exit, output, err := box.run(ctx, command, dir, env)
	switch {
	case ctx.Err() != nil:
		return toolboxError(r, http.StatusRequestTimeout, "REQUEST_TIMEOUT",
			"request timeout: command execution timeout"), nil
	case err != nil:
		return nil, fmt.Errorf("run a command in a sandbox: %w", err)
	}
	return map[string]any{"exitCode": exit, "result": output}, nil
}

// entrypointSession describes the session of the entry point (apps/daemon/pkg/toolbox/process/session), or its log with
// marks, as for a client that sends no SDK version.
func (s *Server) entrypointSession(who caller, r *http.Request) (any, error) {
	box, err := s.toolboxOf(who, r)
	var entrypoint *session
	switch {
	case err != nil:
		return nil, err
	case box == nil:
		entrypoint = &session{command: "'simulated'", exit: s.options.Simulation.Entrypoint}
		entrypoint.log.WriteString(s.options.Simulation.Log)
	default:
		entrypoint = box.session
	}
	if entrypoint == nil {
		return toolboxError(r, http.StatusNotFound, "NOT_FOUND", "not found: session not found"), nil
	}
	entrypoint.mu.Lock()
	defer entrypoint.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/logs") {
		return entrypoint.log.String(), nil
	}
	command := map[string]any{"id": "entrypoint_command", "command": entrypoint.command}
	if entrypoint.exit != nil {
		command["exitCode"] = *entrypoint.exit
	}
	return map[string]any{"sessionId": "entrypoint", "commands": []any{command}}, nil
}

// fileInfo, download and upload follow apps/daemon/pkg/toolbox/fs. Their error responses have no body, because
// AbortWithError sends the status at once.

// fileErrors maps the exit codes of fileScript to statuses.
var fileErrors = map[int]int{10: http.StatusNotFound, 11: http.StatusForbidden, 12: http.StatusBadRequest}

// fileScript begins a script that works on the file $1 with the rights of the image's user.
const fileScript = `
cd ~ 2>/dev/null
[ -e "$1" ] || { [ -x "$(dirname "$1")" ] && exit 10; exit 11; }
`

// runOnFile runs a script in a container with the file of the request as $1.
func (s *Server) runOnFile(r *http.Request, box *container, script string, input io.Reader) (response, []byte, error) {
	file := r.URL.Query().Get("path")
	if file == "" {
		return response{status: http.StatusBadRequest}, nil, nil
	}
	if box == nil {
		return response{}, nil, apiError{http.StatusNotImplemented, "The stand-in has files only with Options.Engine"}
	}
	var out bytes.Buffer
	exit, err := box.Exec(r.Context(), dockerengine.ExecSpec{
		Cmd: []string{"/bin/sh", "-c", script, "sh", file}, Streams: dockerengine.Streams{In: input, Out: &out},
	})
	if err != nil {
		return response{}, nil, fmt.Errorf("read a file in a sandbox: %w", err)
	}
	if exit != 0 {
		status, ok := fileErrors[exit]
		if !ok {
			status = http.StatusBadRequest
		}
		return response{status: status}, nil, nil
	}
	return response{status: http.StatusOK}, out.Bytes(), nil
}

func (s *Server) fileInfo(who caller, r *http.Request) (any, error) {
	box, err := s.toolboxOf(who, r)
	if err != nil {
		return nil, err
	}
	answer, out, err := s.runOnFile(r, box, fileScript+`exec stat -L -c '%f %s %u %g %Y' -- "$1"`, nil)
	if err != nil || answer.status != http.StatusOK {
		return answer, err
	}
	fields := strings.Fields(string(out))
	if len(fields) != 5 {
		return nil, fmt.Errorf("unexpected output of stat: %q", out)
	}
	var numbers [5]int64
	for i, base := range []int{16, 10, 10, 10, 10} {
		if numbers[i], err = strconv.ParseInt(fields[i], base, 64); err != nil {
			return nil, err
		}
	}
	mode := fileMode(uint32(numbers[0]))
	modified := time.Unix(numbers[4], 0)
	return map[string]any{
		"name": path.Base(r.URL.Query().Get("path")), "size": numbers[1], "mode": mode.String(),
		"modTime": modified.String(), "modifiedAt": modified.Format(time.RFC3339), "isDir": mode.IsDir(),
		"owner": fields[2], "group": fields[3], "permissions": fmt.Sprintf("%04o", mode.Perm()),
	}, nil
}

// fileMode converts the mode of stat(2).
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m | map[uint32]fs.FileMode{
		0o040000: fs.ModeDir, 0o020000: fs.ModeDevice | fs.ModeCharDevice, 0o060000: fs.ModeDevice,
		0o010000: fs.ModeNamedPipe, 0o140000: fs.ModeSocket,
	}[mode&0o170000]
}

func (s *Server) download(who caller, r *http.Request) (any, error) {
	box, err := s.toolboxOf(who, r)
	if err != nil {
		return nil, err
	}
	answer, content, err := s.runOnFile(
		r,
		box,
		fileScript+`[ -d "$1" ] && exit 12; [ -r "$1" ] || exit 11; exec cat -- "$1"`,
		nil,
	)
	if err != nil || answer.status != http.StatusOK {
		return answer, err
	}
	return response{http.StatusOK, content}, nil
}

func (s *Server) upload(who caller, r *http.Request) (any, error) {
	box, err := s.toolboxOf(who, r)
	if err != nil {
		return nil, err
	}
	file, _, err := r.FormFile("file")
	if err != nil {
		return response{status: http.StatusBadRequest}, nil
	}
	defer file.Close()
	answer, _, err := s.runOnFile(r, box, `cd ~ 2>/dev/null; mkdir -p -- "$(dirname "$1")" && exec cat > "$1"`, file)
	return answer, err
}

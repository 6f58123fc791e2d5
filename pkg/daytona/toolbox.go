package daytona

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"
	toolbox "github.com/daytonaio/daytona/libs/toolbox-api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// This file calls the toolbox API, which the daemon of a sandbox serves (apps/daemon) behind a proxy (apps/proxy) that
// accepts the keys of the API. Everything that a sandbox returns is untrusted.

// toolboxFunc sends a request with the generated client, and returns the response with its body.
type toolboxFunc func(context.Context, *toolbox.APIClient) (*http.Response, error)

// in converts a toolboxFunc for the sandbox, for [Client.send] and [do].
func (c *Client) in(box Sandbox, spec call, send toolboxFunc) (call, sendFunc, error) {
	if box.ID == "" || box.toolbox == "" {
		return spec, nil, fmt.Errorf("%s: Daytona returned no toolboxProxyUrl (update sandbox-actions, or report this "+
			"version of Daytona)", spec.op)
	}
	spec.host = box.toolbox
	spec.hints = append(spec.hints, httpclient.Hint{On: httpclient.NoResponse, Text: "check the network, and that this " +
		"machine can reach " + box.toolbox})
	return spec, func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
		configuration := toolbox.NewConfiguration()
		configuration.Servers = toolbox.ServerConfigurations{{URL: box.toolbox + "/" + url.PathEscape(box.ID)}}
		configuration.HTTPClient, configuration.UserAgent = a.GetConfig().HTTPClient, userAgent
		configuration.DefaultHeader = a.GetConfig().DefaultHeader
		return send(ctx, toolbox.NewAPIClient(configuration))
	}, nil
}

// Command is a command that [Client.Execute] runs in a shell of a sandbox, as the user of the image.
type Command struct {
	Line       string // for the shell, which is zsh or bash if the image has one, otherwise sh
	Dir        string // "" means the WORKDIR of the image, or the user's home directory without one
	Env        map[string]string
	Timeout    time.Duration // rounded up to seconds; 0 means 10 s
	Idempotent bool          // safe to run again if the response is lost
}

// CommandResult is the result of a command that ended.
type CommandResult struct {
	ExitCode int    `json:"exitCode"` // -1 if it could not be started, for example because Dir does not exist
	Output   string `json:"result"`   // of both streams, in the order of the writes
}

func (CommandResult) check() error { return nil }

// ErrCommandTimeout means that Daytona ended a command after its timeout.
var ErrCommandTimeout = errors.New("the command did not end within its timeout")

// Execute runs a command and waits until it has ended. An exit code other than 0 is not an error. The error is
// [ErrCommandTimeout] if the command takes longer than its timeout.
func (c *Client) Execute(ctx context.Context, box Sandbox, command Command) (CommandResult, error) {
	timeout := command.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	seconds := int32((timeout + time.Second - 1) / time.Second)
	request := toolbox.NewExecuteRequest(command.Line)
	request.SetTimeout(seconds)
	if command.Dir != "" {
		request.SetCwd(command.Dir)
	}
	if len(command.Env) > 0 {
		request.SetEnvs(command.Env)
	}
	spec := call{
		op: "run a command in sandbox " + box.ID, idempotent: command.Idempotent,
		timeout: time.Duration(seconds)*time.Second + 20*time.Second, // for the network
	}
	spec, send, err := c.in(box, spec, func(ctx context.Context, t *toolbox.APIClient) (*http.Response, error) {
		return response(t.ProcessAPI.ExecuteCommand(ctx).Request(*request).Execute())
	})
	if err != nil {
		return CommandResult{}, err
	}
	result, err := do[CommandResult](ctx, c, spec, send)
	if httpclient.Status(err) == http.StatusRequestTimeout { // apps/daemon/pkg/toolbox/process/execute.go
		return CommandResult{}, fmt.Errorf("run a command in sandbox %s: %w (%ds)", box.ID, ErrCommandTimeout, seconds)
	}
	return result, err
}

// Entrypoint is the state of the entry point that a sandbox runs.
type Entrypoint struct {
	Command string // quoted for a shell
	Running bool
	Exit    int // the exit code, unless it is running
}

// sessionDTO is a session in a response. The session of the entry point has one command.
type sessionDTO struct {
	Commands []struct {
		Command  string `json:"command"`
		ExitCode *int   `json:"exitCode"` // absent while it runs
	} `json:"commands"`
}

func (s sessionDTO) check() error {
	if len(s.Commands) == 0 {
		return errors.New("commands are missing")
	}
	return nil
}

// Entrypoint returns the state of the entry point, and found false if the sandbox has none.
func (c *Client) Entrypoint(ctx context.Context, box Sandbox) (state Entrypoint, found bool, err error) {
	spec := call{op: "read the state of the entry point in sandbox " + box.ID}
	spec, send, err := c.in(box, spec, func(ctx context.Context, t *toolbox.APIClient) (*http.Response, error) {
		return response(t.ProcessAPI.GetEntrypointSession(ctx).Execute())
	})
	if err != nil {
		return Entrypoint{}, false, err
	}
	session, err := do[sessionDTO](ctx, c, spec, send)
	switch {
	case isNotFound(err):
		return Entrypoint{}, false, nil
	case err != nil:
		return Entrypoint{}, false, err
	}
	command := session.Commands[0]
	state = Entrypoint{Command: command.Command, Running: command.ExitCode == nil}
	if command.ExitCode != nil {
		state.Exit = *command.ExitCode
	}
	return state, true, nil
}

// The daemon marks each line of a log with the stream that it came from (libs/common-go/pkg/log). A client that sends
// no SDK version receives the marks (GetEntrypointLogs in apps/daemon/pkg/toolbox/process/session/log.go).
var logMarks = [][]byte{{1, 1, 1}, {2, 2, 2}}

// EntrypointLog returns what the entry point has written to both streams.
func (c *Client) EntrypointLog(ctx context.Context, box Sandbox) (string, error) {
	spec := call{op: "read the log of the entry point in sandbox " + box.ID}
	spec, send, err := c.in(box, spec, func(ctx context.Context, t *toolbox.APIClient) (*http.Response, error) {
		return response(t.ProcessAPI.GetEntrypointLogs(ctx).Execute())
	})
	if err != nil {
		return "", err
	}
	r, err := c.send(ctx, spec, send)
	if err != nil {
		return "", err
	}
	log, err := io.ReadAll(r.Body)
	for _, mark := range logMarks {
		log = bytes.ReplaceAll(log, mark, nil)
	}
	return string(log), err
}

// FileInfo describes a file in a sandbox, or the target of a symbolic link.
type FileInfo struct {
	Name        string    `json:"name"`
	Size        int64     `json:"size"`
	Mode        string    `json:"mode"`        // in the format of fs.FileMode: "-rwxr-xr-x"
	Permissions string    `json:"permissions"` // octal, without setuid, setgid and the sticky bit: "0755"
	Owner       string    `json:"owner"`       // user ID
	Group       string    `json:"group"`       // group ID
	IsDir       bool      `json:"isDir"`
	ModifiedAt  time.Time `json:"modifiedAt"`
}

// fileHints explain the errors of the file system API, which have no text (AbortWithError in
// apps/daemon/pkg/toolbox/fs).
var fileHints = []httpclient.Hint{
	{On: http.StatusNotFound, Text: "the file does not exist"},
	{On: http.StatusForbidden, Text: "the user of the image cannot read the file"},
	{On: http.StatusBadRequest, Text: "check that the path is that of a file, and that the user of the image can use it"},
}

func (f FileInfo) check() error { return require(field{"name", f.Name}, field{"mode", f.Mode}) }

// FileInfo returns information about a file. found is false if it does not exist.
func (c *Client) FileInfo(ctx context.Context, box Sandbox, file string) (info FileInfo, found bool, err error) {
	spec := call{op: fmt.Sprintf("read information about %s in sandbox %s", file, box.ID), hints: fileHints}
	spec, send, err := c.in(box, spec, func(ctx context.Context, t *toolbox.APIClient) (*http.Response, error) {
		return response(t.FileSystemAPI.GetFileInfo(ctx).Path(file).Execute())
	})
	if err != nil {
		return FileInfo{}, false, err
	}
	info, err = do[FileInfo](ctx, c, spec, send)
	if httpclient.Status(err) == http.StatusNotFound {
		return FileInfo{}, false, nil
	}
	return info, err == nil, err
}

// Download returns the content of a file of at most [httpclient.Policy.MaxBody] bytes. The generated client would leave
// a copy in the directory for temporary files.
func (c *Client) Download(ctx context.Context, box Sandbox, file string) ([]byte, error) {
	spec := call{
		op: fmt.Sprintf("download %s from sandbox %s", file, box.ID), timeout: time.Minute, hints: fileHints,
	}
	r, err := c.sendFile(ctx, box, spec, http.MethodGet, "/files/download", file, nil, "")
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r.Body)
}

// Upload writes a file, and creates its directory if it is missing. The generated client can only send files of this
// machine.
func (c *Client) Upload(ctx context.Context, box Sandbox, file string, content []byte) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", path.Base(file))
	if err == nil {
		_, err = part.Write(content)
	}
	if err := errors.Join(err, form.Close()); err != nil {
		return err
	}
	spec := call{
		op: fmt.Sprintf("upload %s to sandbox %s", file, box.ID), timeout: time.Minute, hints: fileHints, idempotent: true,
	}
	_, err = c.sendFile(ctx, box, spec, http.MethodPost, "/files/upload", file, body.Bytes(), form.FormDataContentType())
	return err
}

// sendFile sends a request of the file system API.
func (c *Client) sendFile(
	ctx context.Context, box Sandbox, spec call, method, endpoint, file string, body []byte, contentType string,
) (*http.Response, error) {
	spec, send, err := c.in(box, spec, func(ctx context.Context, t *toolbox.APIClient) (*http.Response, error) {
		base, err := t.GetConfig().ServerURLWithContext(ctx, "")
		if err != nil {
			return nil, err
		}
		address := base + endpoint + "?" + url.Values{"path": {file}}.Encode()
		request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		for name, value := range t.GetConfig().DefaultHeader {
			request.Header.Set(name, value)
		}
		if contentType != "" {
			request.Header.Set("Content-Type", contentType)
		}
		return t.GetConfig().HTTPClient.Do(request)
	})
	if err != nil {
		return nil, err
	}
	return c.send(ctx, spec, send)
}

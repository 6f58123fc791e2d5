package dockerengine

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// Streams are the standard streams of a process. A nil In is empty; a nil Out or Err discards the output. Output is not
// buffered: a slow writer slows down the process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Attachment is a running copy of a container's streams.
type Attachment struct {
	conn   client.HijackedResponse
	stop   func() bool
	copied chan error
}

// Attach starts copying the streams of the container's main process, until the process or ctx ends. Call it before
// Start to receive all output. With a TTY, all output goes to Out. At the end of In, Attach closes the container's
// standard input.
func (c *Container) Attach(ctx context.Context, streams Streams) (*Attachment, error) {
	step, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	conn, err := hijack(step, func(ctx context.Context) (client.ContainerAttachResult, error) {
		return c.engine.client.ContainerAttach(ctx, c.ID, client.ContainerAttachOptions{
			Stream: true, Stdin: streams.In != nil, Stdout: true, Stderr: true, DetachKeys: noDetachKeys,
		})
	}, func(r client.ContainerAttachResult) { r.Close() })
	if err != nil {
		return nil, c.wrapError(ctx, "attach to", err)
	}
	a := &Attachment{conn: conn.HijackedResponse, copied: make(chan error, 1)}
	a.stop = context.AfterFunc(ctx, a.conn.Close)
	go func() { a.copied <- c.wrapError(ctx, "read the output of", copyStreams(a.conn, streams, c.tty)) }()
	return a, nil
}

// Wait waits for the end of the output and returns an error if copying failed. Call it only once.
func (a *Attachment) Wait() error { return <-a.copied }

// Close stops copying. The container keeps running.
func (a *Attachment) Close() {
	a.stop()
	a.conn.Close()
}

// noDetachKeys replaces Docker's detach keys, Ctrl-P Ctrl-Q, which shells also use, with a sequence that is never
// typed.
const noDetachKeys = "ctrl-@,ctrl-@,ctrl-@,ctrl-@"

// copyStreams copies the streams until the end of the process's output.
func copyStreams(conn client.HijackedResponse, streams Streams, tty bool) error {
	if streams.In != nil {
		go func() {
			_, _ = io.Copy(conn.Conn, streams.In) // fails if the process does not read its input
			_ = conn.CloseWrite()
		}()
	}
	out, errOut := streams.Out, streams.Err
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	var err error
	if tty {
		_, err = io.Copy(out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errOut, conn.Reader)
	}
	return err
}

// LogOptions select the output that [Container.Logs] writes.
type LogOptions struct {
	Since  time.Time // on the engine's clock; zero for all output
	Follow bool      // also write new output until the container stops
}

// Logs writes the container's previous output. The engine keeps the last 16 to 32 MB, in an encoding that is larger
// than the text.
func (c *Container) Logs(ctx context.Context, options LogOptions, streams Streams) error {
	request := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: options.Follow}
	if !options.Since.IsZero() {
		request.Since = options.Since.Format(time.RFC3339Nano)
	}
	stream, err := c.engine.client.ContainerLogs(ctx, c.ID, request)
	if err != nil {
		return c.wrapError(ctx, "read the log of", err)
	}
	defer stream.Close()
	streams.In = nil
	if streams.Out == nil {
		streams.Out = io.Discard
	}
	if streams.Err == nil {
		streams.Err = io.Discard
	}
	if c.tty {
		_, err = io.Copy(streams.Out, stream)
	} else {
		_, err = stdcopy.StdCopy(streams.Out, streams.Err, stream)
	}
	return c.wrapError(ctx, "read the log of", err)
}

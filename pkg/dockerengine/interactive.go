package dockerengine

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/muesli/cancelreader"
	"golang.org/x/term"
)

// Interactive runs a container attached to a terminal and returns its exit code. It forwards all input to the
// container, including Ctrl-C, and resizes the container's terminal with out. If in or out is not a terminal, the
// container has none and its standard error goes to out as well. When Interactive returns, it has removed the
// container, restored the terminal and stopped reading from in.
func (e *Engine) Interactive(ctx context.Context, spec ContainerSpec, in, out *os.File) (exit int, err error) {
	spec.Stdin = true
	spec.TTY = term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
	if spec.TTY {
		spec.Size = sizeOf(out)
	}
	c, err := e.Create(ctx, spec)
	if err != nil {
		return 0, err
	}
	defer func() {
		if removed := c.Remove(ctx); err == nil {
			err = removed
		}
	}()
	streams := Streams{In: in, Out: out, Err: out}
	if spec.TTY {
		typed, err := cancelreader.NewReader(in)
		if err != nil {
			return 0, fmt.Errorf("attach the terminal: %w", err)
		}
		reader, writer := io.Pipe()
		var typing sync.WaitGroup
		typing.Go(func() {
			_, err := io.Copy(writer, typed)
			writer.CloseWithError(err)
		})
		defer func() {
			typed.Cancel()
			reader.Close()
			typing.Wait()
			typed.Close()
		}()
		streams.In = reader
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return 0, fmt.Errorf("attach the terminal: %w", err)
		}
		defer term.Restore(int(in.Fd()), before)
		resize, stop := context.WithCancel(ctx)
		defer stop()
		go c.followSize(resize, out)
	}
	return c.Run(ctx, streams)
}

// followSize resizes the container's terminal to the size of out until ctx ends. It retries until the container runs,
// because old engines ignore the size at creation.
func (c *Container) followSize(ctx context.Context, out *os.File) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for retry := time.After(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
		}
		retry = nil
		if err := c.Resize(ctx, sizeOf(out)); err != nil {
			retry = time.After(20 * time.Millisecond)
		}
	}
}

// sizeOf returns the size of a terminal, or the zero Size if it is unknown.
func sizeOf(terminal *os.File) Size {
	width, height, err := term.GetSize(int(terminal.Fd()))
	if err != nil {
		return Size{}
	}
	return Size{uint(width), uint(height)}
}

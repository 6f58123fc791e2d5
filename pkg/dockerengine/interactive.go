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

// Interactive runs a container for a person and answers its exit code: what is typed goes in, Ctrl-C included, and the
// container's terminal is as large as ours, whenever ours changes. Where in or out is no terminal the container has none, and its
// standard error joins out. When Interactive returns the container is removed, and our terminal is as it was and not read any more.
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
			return 0, fmt.Errorf("give the container the terminal: %w", err)
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
			return 0, fmt.Errorf("give the container the terminal: %w", err)
		}
		defer term.Restore(int(in.Fd()), before)
		resize, stop := context.WithCancel(ctx)
		defer stop()
		go c.follow(resize, out)
	}
	return c.Run(ctx, streams)
}

// follow keeps the container's terminal as large as out until ctx ends. The first time it tries until the container runs: the
// oldest engines do not take a size when they create it.
func (c *Container) follow(ctx context.Context, out *os.File) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for again := time.After(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			again = nil
		case <-again:
		}
		again = nil
		if err := c.Resize(ctx, sizeOf(out)); err != nil {
			again = time.After(20 * time.Millisecond)
		}
	}
}

func sizeOf(terminal *os.File) Size {
	width, height, err := term.GetSize(int(terminal.Fd()))
	if err != nil {
		return Size{} // the engine's own
	}
	return Size{uint(width), uint(height)}
}

package dockerengine

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// session is a container's program at a terminal of ours.
type session struct {
	keyboard *os.File // what is written to it is typed
	terminal *os.File
	screen   *lines
	before   *term.State // of the terminal
	ended    chan struct{}
	exit     int
	err      error
}

func begin(t *testing.T, ctx context.Context, e *Engine, cmd ...string) *session {
	t.Helper()
	keyboard, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(keyboard, &pty.Winsize{Cols: 91, Rows: 17}); err != nil {
		t.Fatal(err)
	}
	s := &session{keyboard: keyboard, terminal: terminal, screen: newLines(), ended: make(chan struct{})}
	if s.before, err = term.GetState(int(terminal.Fd())); err != nil {
		t.Fatal(err)
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		io.Copy(s.screen, keyboard)
	}()
	image := loaded(t, e)
	go func() {
		defer close(s.ended)
		s.exit, s.err = e.Interactive(ctx, ContainerSpec{Image: image, Cmd: cmd}, terminal, terminal)
	}()
	t.Cleanup(func() {
		<-s.ended
		terminal.Close()
		keyboard.Close()
		<-shown
	})
	return s
}

func TestInteractive(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		for _, test := range []struct {
			name, typed string
			exit        int
		}{
			{"Ctrl-C is the container's", "\x03", 130},
			{"Ctrl-D is the container's", "\x04", 9},
		} {
			t.Run(test.name, func(t *testing.T) {
				s := begin(t, t.Context(), e, "terminal")
				s.screen.await(t, "91x17")
				if err := pty.Setsize(s.keyboard, &pty.Winsize{Cols: 132, Rows: 43}); err != nil {
					t.Fatal(err)
				}
				// A terminal tells the processes for which it is the controlling one; for us it is another.
				if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
					t.Fatal(err)
				}
				s.screen.await(t, "132x43")
				io.WriteString(s.keyboard, "a\x10\x11b\r") // with docker's own keys for leaving, of which the terminal takes the second
				s.screen.await(t, "typed a\x10b")
				io.WriteString(s.keyboard, test.typed)
				<-s.ended
				if s.err != nil || s.exit != test.exit {
					t.Errorf("exit %d, want %d (%v): %s", s.exit, test.exit, s.err, s.screen)
				}
				if after, err := term.GetState(int(s.terminal.Fd())); err != nil || *after != *s.before {
					t.Errorf("the terminal is not as it was: %+v, %+v, %v", s.before, after, err)
				}
				gone(t, e)
			})
		}
		t.Run("cancelled", func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			s := begin(t, ctx, e, "stubborn")
			s.screen.await(t, "ready")
			why := errors.New("the window was closed")
			cancel(why)
			<-s.ended
			if !errors.Is(s.err, why) {
				t.Error(s.err)
			}
			gone(t, e)
		})
	})
}

// Without a terminal, as in a pipe.
func TestInteractiveWithout(t *testing.T) {
	onBoth(t, func(t *testing.T, e *Engine) {
		in, typed, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		io.WriteString(typed, "one\ntwo\n")
		typed.Close()
		exit, err := e.Interactive(t.Context(), ContainerSpec{Image: loaded(t, e), Cmd: []string{"cat"}}, in, out)
		if err != nil || exit != 0 {
			t.Errorf("exit %d, %v", exit, err)
		}
		if content, err := os.ReadFile(out.Name()); err != nil || string(content) != "one\ntwo\n" {
			t.Errorf("%q, %v", content, err)
		}
		if exit, err := e.Interactive(t.Context(), ContainerSpec{Image: "no/such:image"}, in, out); err == nil || !strings.Contains(err.Error(), "no such image") {
			t.Errorf("exit %d, %v", exit, err)
		}
		gone(t, e)
	})
}

// gone looks whether no container of ours is left.
func gone(t *testing.T, e *Engine) {
	t.Helper()
	if left, err := e.Containers(t.Context(), untilLabel); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

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

// session is a call of Interactive with a pseudo-terminal.
type session struct {
	keyboard *os.File // other end of the terminal: writing to it types
	terminal *os.File
	screen   *output
	before   *term.State // of the terminal
	ended    chan struct{}
	exit     int
	err      error
}

func startSession(t *testing.T, ctx context.Context, e *Engine, cmd ...string) *session {
	t.Helper()
	keyboard, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(keyboard, &pty.Winsize{Cols: 91, Rows: 17}); err != nil {
		t.Fatal(err)
	}
	s := &session{keyboard: keyboard, terminal: terminal, screen: newOutput(), ended: make(chan struct{})}
	if s.before, err = term.GetState(int(terminal.Fd())); err != nil {
		t.Fatal(err)
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		io.Copy(s.screen, keyboard)
	}()
	image := loadProbe(t, e)
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
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		for _, test := range []struct {
			name, typed string
			exit        int
		}{
			{"Ctrl-C", "\x03", 130},
			{"Ctrl-D", "\x04", 9},
		} {
			t.Run(test.name, func(t *testing.T) {
				s := startSession(t, t.Context(), e, "terminal")
				s.screen.await(t, "91x17")
				if err := pty.Setsize(s.keyboard, &pty.Winsize{Cols: 132, Rows: 43}); err != nil {
					t.Fatal(err)
				}
				// The kernel signals only processes with this controlling terminal, which excludes the test process.
				if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
					t.Fatal(err)
				}
				s.screen.await(t, "132x43")
				// Type Docker's detach keys. The terminal consumes the second one, Ctrl-Q.
				io.WriteString(s.keyboard, "a\x10\x11b\r")
				s.screen.await(t, "typed a\x10b")
				io.WriteString(s.keyboard, test.typed)
				<-s.ended
				if s.err != nil || s.exit != test.exit {
					t.Errorf("exit %d, want %d (%v): %s", s.exit, test.exit, s.err, s.screen)
				}
				if after, err := term.GetState(int(s.terminal.Fd())); err != nil || *after != *s.before {
					t.Errorf("the terminal was not restored: %+v, want %+v (%v)", after, s.before, err)
				}
				checkNoContainers(t, e)
			})
		}
		t.Run("canceled", func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			s := startSession(t, ctx, e, "stubborn")
			s.screen.await(t, "ready")
			cause := errors.New("the window was closed")
			cancel(cause)
			<-s.ended
			if !errors.Is(s.err, cause) {
				t.Error(s.err)
			}
			checkNoContainers(t, e)
		})
	})
}

func TestInteractiveWithoutTerminal(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
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
		spec := ContainerSpec{Image: loadProbe(t, e), Cmd: []string{"cat"}}
		exit, err := e.Interactive(t.Context(), spec, in, out)
		if err != nil || exit != 0 {
			t.Errorf("exit %d, %v", exit, err)
		}
		if content, err := os.ReadFile(out.Name()); err != nil || string(content) != "one\ntwo\n" {
			t.Errorf("got %q, %v", content, err)
		}
		_, err = e.Interactive(t.Context(), ContainerSpec{Image: "no/such:image"}, in, out)
		if err == nil || !strings.Contains(err.Error(), "image not found") {
			t.Error(err)
		}
		checkNoContainers(t, e)
	})
}

// checkNoContainers checks that all containers from Create have been removed.
func checkNoContainers(t *testing.T, e *Engine) {
	t.Helper()
	if left, err := e.Containers(t.Context(), untilLabel); err != nil || len(left) > 0 {
		t.Errorf("containers were not removed: %q (%v)", left, err)
	}
}

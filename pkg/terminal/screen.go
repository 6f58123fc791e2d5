package terminal

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"

	"github.com/org/sandbox-actions/pkg/humanize"
)

// Screen shows parts of a run live on a terminal, with BuildKit's display. Parts that run at the same time share the
// display, which ends with the last of them. What is written to the Screen in the meantime follows the display, because
// the display rewrites its lines. Its methods are safe for concurrent use. On a nil Screen, nothing is shown.
type Screen struct {
	out screenFile

	mu      sync.Mutex
	parts   int                      // that are shown
	shown   chan *client.SolveStatus // of the running display
	ended   chan struct{}
	waiting bytes.Buffer
	started int // tasks so far
}

// NewScreen returns a Screen on the terminal out. Characters other than ASCII are replaced unless isUnicode is set.
func NewScreen(out *os.File, isUnicode bool) *Screen {
	return &Screen{out: screenFile{out, isUnicode}}
}

// Write writes text, after the display if one is running.
func (s *Screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts > 0 {
		return s.waiting.Write(text)
	}
	return s.out.Write(text)
}

// Show shows a part of the run until status is closed. If no display is running, it starts one, with the title phase.
func (s *Screen) Show(phase string, status chan *client.SolveStatus) error {
	shown, err := s.open(phase)
	if err != nil {
		return err
	}
	defer s.close()
	for update := range status {
		shown <- update
	}
	return nil
}

func (s *Screen) open(phase string) (chan<- *client.SolveStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts == 0 {
		display, err := progressui.NewDisplay(displayFile{s.out}, progressui.AutoMode, progressui.WithPhase(phase))
		if err != nil {
			return nil, fmt.Errorf("display the progress: %w", err)
		}
		shown, ended := make(chan *client.SolveStatus), make(chan struct{})
		s.shown, s.ended = shown, ended
		go func() {
			defer close(ended)
			// Without cancellation, so that the end of a canceled run is displayed too.
			_, _ = display.UpdateFrom(context.Background(), shown)
		}()
	}
	s.parts++
	return s.shown, nil
}

func (s *Screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts--; s.parts > 0 {
		return
	}
	close(s.shown)
	<-s.ended
	_, _ = s.waiting.WriteTo(s.out) // a broken terminal cannot be reported anywhere
}

// Task is one part of a run on a [Screen], such as a push. Its methods are safe for concurrent use, and do nothing for a
// nil Task.
type Task struct {
	screen *Screen
	shown  chan<- *client.SolveStatus

	mu     sync.Mutex
	vertex client.Vertex
	states map[string]*client.VertexStatus
	state  string // of State; "" before the first
	last   string // state that follows the transfer
}

// Start shows a task. If no display is running, it starts one, with the title phase, such as Loading. last is the state
// that follows a complete transfer, such as unpack; "" for none.
func (s *Screen) Start(phase, name, last string) *Task {
	if s == nil {
		return nil
	}
	shown, err := s.open(phase)
	if err != nil {
		return nil // the log still has the messages about the task
	}
	s.mu.Lock()
	s.started++
	id := digest.Digest(fmt.Sprintf("task %d", s.started))
	s.mu.Unlock()
	now := time.Now()
	t := &Task{
		screen: s, shown: shown, vertex: client.Vertex{Digest: id, Name: name, Started: &now},
		states: map[string]*client.VertexStatus{}, last: last,
	}
	t.update(true)
	return t
}

// Transfer shows the progress of a transfer.
func (t *Task) Transfer(progress humanize.Transfer) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	status := t.status("layers")
	status.Current, status.Total = progress.Done, progress.Total
	updates := []*client.VertexStatus{status}
	if progress.Total > 0 && progress.Done >= progress.Total {
		t.complete(status.ID)
		if t.last != "" {
			updates = append(updates, t.status(t.last))
		}
	}
	t.update(false, updates...)
}

// State shows the state that a service reports, with the time since it began.
func (t *Task) State(name string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if name == t.state {
		return
	}
	t.update(false, append(t.complete(t.state), t.status(name))...)
	t.state = name
}

// End ends the task. It must be called once.
func (t *Task) End(err error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	now := time.Now()
	t.vertex.Completed = &now
	if err != nil { // without an error of the vertex, for which the display would print a log
		t.vertex.Name = "FAILED " + t.vertex.Name
	}
	var states []*client.VertexStatus
	for id := range t.states {
		states = append(states, t.complete(id)...)
	}
	t.update(true, states...)
	t.mu.Unlock()
	t.screen.close()
}

// status returns the status with an ID, and begins it if it is new.
func (t *Task) status(id string) *client.VertexStatus {
	if t.states[id] == nil {
		now := time.Now()
		t.states[id] = &client.VertexStatus{ID: id, Vertex: t.vertex.Digest, Started: &now}
	}
	return t.states[id]
}

// complete ends the status with an ID, if it is running.
func (t *Task) complete(id string) []*client.VertexStatus {
	status := t.states[id]
	if status == nil || status.Completed != nil {
		return nil
	}
	now := time.Now()
	status.Completed = &now
	return []*client.VertexStatus{status}
}

// update sends copies to the display, which keeps them.
func (t *Task) update(withVertex bool, statuses ...*client.VertexStatus) {
	update := &client.SolveStatus{}
	if withVertex {
		vertex := t.vertex
		update.Vertexes = append(update.Vertexes, &vertex)
	}
	for _, status := range statuses {
		sent := *status
		sent.Timestamp = time.Now()
		update.Statuses = append(update.Statuses, &sent)
	}
	t.shown <- update
}

// screenFile is a terminal to which only characters that it can show are written: BuildKit's display cuts long names in
// the middle of a character (moby/buildkit v0.34.2, util/progress/progressui/display.go, print).
type screenFile struct {
	*os.File
	isUnicode bool
}

func (f screenFile) Write(text []byte) (int, error) {
	shown := strings.ToValidUTF8(string(text), "?")
	if !f.isUnicode {
		shown = strings.Map(func(r rune) rune {
			if r > 0x7e {
				return '?'
			}
			return r
		}, shown)
	}
	if _, err := f.File.WriteString(shown); err != nil {
		return 0, err
	}
	return len(text), nil
}

// displayFile is the terminal of a display. It erases what is left of longer lines, from before the terminal was resized.
type displayFile struct{ screenFile }

func (f displayFile) Write(text []byte) (int, error) {
	if _, err := f.screenFile.Write(bytes.ReplaceAll(text, []byte("\n"), []byte("\x1b[K\n"))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// UseUnicode reports whether the locale of the environment is UTF-8, see locale(7).
func UseUnicode(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(getenv(name)); value != "" {
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}

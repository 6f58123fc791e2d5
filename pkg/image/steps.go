package image

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// stepRecorder records the steps of a builder and the last lines of their output. Its methods are safe for concurrent
// use.
type stepRecorder struct {
	clean func(line string) string // redacts secrets; may be nil

	mu    sync.Mutex
	steps map[digest.Digest]*recordedStep
	order []*recordedStep // in the order in which BuildKit reports them
}

type recordedStep struct {
	name    string
	err     string // "" for a step that did not fail
	running bool
	ended   bool
	output  outputTail
}

func (r *stepRecorder) record(status *client.SolveStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steps == nil {
		r.steps = map[digest.Digest]*recordedStep{}
	}
	for _, v := range status.Vertexes {
		step := r.steps[v.Digest]
		if step == nil {
			step = &recordedStep{output: outputTail{clean: r.clean}}
			r.steps[v.Digest] = step
			r.order = append(r.order, step)
		}
		step.name, step.err = v.Name, v.Error
		step.running, step.ended = v.Started != nil && v.Completed == nil, v.Completed != nil
	}
	for _, log := range status.Logs {
		if step := r.steps[log.Vertex]; step != nil {
			step.output.write(log.Stream, log.Data)
		}
	}
	for _, v := range status.Vertexes {
		if v.Completed != nil && v.Error == "" {
			r.steps[v.Digest].output = outputTail{clean: r.clean} // only failures need it
		}
	}
}

// failed returns the step with the given digest or, without one, the step that failed with the end of message. A step
// that was canceled is the consequence of another failure, so failed returns the step that failed first instead. The
// result is nil if the step is unknown.
func (r *stepRecorder) failed(vertex digest.Digest, message string) *recordedStep {
	r.mu.Lock()
	defer r.mu.Unlock()
	if step := r.steps[vertex]; step != nil && !isCanceled(step.err) {
		return step
	}
	for _, step := range r.order {
		if step.err != "" && !isCanceled(step.err) && (strings.HasSuffix(message, step.err) || isCanceled(message)) {
			return step
		}
	}
	return r.steps[vertex]
}

// isCanceled reports whether a message of BuildKit is that of a step which was canceled.
func isCanceled(message string) bool { return strings.HasSuffix(message, context.Canceled.Error()) }

// number returns the position of a step in its stage, as BuildKit shows it: 2/5, or builder 2/5.
func (s *recordedStep) number() string {
	if match := stepName.FindStringSubmatch(s.name); match != nil {
		return strings.TrimPrefix(match[1], "stage-0 ")
	}
	return ""
}

const (
	maxTailLines = 30
	maxTailLine  = 2 << 10 // bytes of a line; the rest is omitted
)

// outputTail keeps the last lines of the output of a step, of both streams in the order in which the lines end.
type outputTail struct {
	clean   func(line string) string
	lines   [][]byte
	partial map[int][]byte // unfinished lines by stream
}

func (t *outputTail) write(stream int, data []byte) {
	if t.partial == nil {
		t.partial = map[int][]byte{}
	}
	data = append(t.partial[stream], data...)
	for {
		line, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			break
		}
		t.add(line)
		data = rest
	}
	if len(data) > maxPartialLine { // a progress bar, or a line that is too long to show
		data = data[bytes.LastIndexByte(data, '\r')+1:]
		data = data[:min(len(data), maxPartialLine)]
	}
	t.partial[stream] = bytes.Clone(data)
}

func (t *outputTail) add(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	t.lines = append(t.lines, bytes.Clone(line[:min(len(line), maxPartialLine)]))
	if len(t.lines) > maxTailLines {
		t.lines = t.lines[1:]
	}
}

// last returns the last lines that are not empty, as a terminal shows them, with the unfinished ones at the end.
func (t *outputTail) last() (lines []string) {
	for stream := 1; stream <= 2; stream++ { // standard output and standard error
		t.add(t.partial[stream])
		delete(t.partial, stream)
	}
	for _, line := range t.lines {
		if text := visibleLine(string(line), t.clean); strings.TrimSpace(text) != "" {
			lines = append(lines, text)
		}
	}
	return lines
}

// terminalControl matches the control sequences of a terminal, such as colors and window titles (ECMA-48).
var terminalControl = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]+[0-~]|[0-Z\\^-~])`)

// visibleLine returns what a terminal shows of a line: no colors, and only the text after the last carriage return.
// It cleans the line before it omits the rest of a long one, so that no part of a secret remains.
func visibleLine(line string, clean func(string) string) string {
	line = strings.TrimRight(terminalControl.ReplaceAllString(line, ""), "\r")
	line = line[strings.LastIndexByte(line, '\r')+1:]
	if clean != nil {
		line = clean(line)
	}
	line = safetext.Visible(strings.ToValidUTF8(line, "\uFFFD"))
	if len(line) > maxTailLine {
		line = strings.ToValidUTF8(line[:maxTailLine], "") + "…"
	}
	return line
}

// StepMonitor follows the steps of a build while it runs. The zero value is ready to use.
type StepMonitor struct{ steps stepRecorder }

// Watch returns a display that records each status before it shows it.
func (m *StepMonitor) Watch(show Display) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		shown := make(chan *client.SolveStatus)
		ended := make(chan error, 1)
		go func() { ended <- show(ctx, shown) }()
		for s := range status {
			m.steps.record(&client.SolveStatus{Vertexes: s.Vertexes})
			select {
			case shown <- s:
			case err := <-ended:
				return err
			}
		}
		close(shown)
		return <-ended
	}
}

// String describes what a build is doing: "step `[2/5] RUN make` (3 of 7 steps done)". It is "" if no step is running.
func (m *StepMonitor) String() string {
	m.steps.mu.Lock()
	defer m.steps.mu.Unlock()
	var current string
	done, total := 0, 0
	for _, step := range m.steps.order {
		match := stepName.FindStringSubmatch(step.name)
		isStep := match != nil && match[2] != "FROM"
		if isStep {
			total++
			if step.ended {
				done++
			}
		}
		if step.running && (current == "" || match != nil) { // a step of the Dockerfile rather than one of the frontend
			current = step.name
		}
	}
	if current == "" {
		return ""
	}
	text := "step `" + safetext.Line(current, 120) + "`"
	if total > 0 {
		text += fmt.Sprintf(" (%d of %d steps done)", done, total)
	}
	return text
}

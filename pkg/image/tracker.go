package image

import (
	"bytes"
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// progressTracker records the progress of one platform's build and makes it safe to show.
type progressTracker struct {
	platform string // "" if it is the only one
	clean    func(string) string
	vertexes map[digest.Digest]*client.Vertex
	partial  map[logStream]*client.VertexLog // incomplete lines
	warnings []Warning
	logs     map[digest.Digest][]byte // the end of each step's output

	// delay is how much later than by the builder's clock an event arrives here: the difference of the clocks, and the
	// shortest time that an event took.
	delay    time.Duration
	hasDelay bool
}

// logStream is standard output (1) or standard error (2) of a step.
type logStream struct {
	vertex digest.Digest
	number int
}

// maxPartialLine is the maximum length of an incomplete line that is buffered, in bytes.
const maxPartialLine = 64 << 10

func newProgressTracker(clean func(string) string) *progressTracker {
	return &progressTracker{
		clean: clean, vertexes: map[digest.Digest]*client.Vertex{}, partial: map[logStream]*client.VertexLog{},
		logs: map[digest.Digest][]byte{},
	}
}

// track records status, and modifies it in place so that it is safe to show.
func (t *progressTracker) track(status *client.SolveStatus) {
	for _, v := range status.Vertexes {
		t.trackVertex(v)
		for _, event := range []*time.Time{v.Started, v.Completed} {
			if event == nil {
				continue
			}
			if delay := time.Since(*event); !t.hasDelay || delay < t.delay {
				t.delay, t.hasDelay = delay, true
			}
		}
	}
	for _, s := range status.Statuses {
		s.Vertex, s.ID, s.Name = t.key(s.Vertex), t.clean(s.ID), t.clean(s.Name)
	}
	logs := status.Logs
	status.Logs = nil
	for _, log := range logs {
		log.Vertex = t.key(log.Vertex)
		if log.Data = t.completeLines(log); len(log.Data) > 0 {
			status.Logs = append(status.Logs, log)
		}
	}
	for _, v := range status.Vertexes {
		if v.Completed != nil {
			status.Logs = append(status.Logs, t.flush(logStream{v.Digest, 1}, logStream{v.Digest, 2})...)
		}
	}
	t.keep(status.Logs)
	for _, w := range status.Warnings {
		t.trackWarning(w)
	}
}

// keep adds cleaned lines to the logs of their steps, of which it keeps the end.
func (t *progressTracker) keep(logs []*client.VertexLog) {
	for _, log := range logs {
		kept := append(t.logs[log.Vertex], log.Data...)
		if excess := len(kept) - MaxStepLog; excess > 0 {
			kept = kept[excess:]
			kept = bytes.Clone(kept[bytes.IndexByte(kept, '\n')+1:])
		}
		t.logs[log.Vertex] = kept
	}
}

func (t *progressTracker) trackVertex(v *client.Vertex) {
	v.Name = t.displayName(v.Name)
	v.Error = t.clean(strings.Join(strings.Fields(v.Error), " "))
	v.Digest = t.key(v.Digest)
	for i := range v.Inputs {
		v.Inputs[i] = t.key(v.Inputs[i])
	}
	if v.ProgressGroup != nil {
		v.ProgressGroup.Name = t.clean(v.ProgressGroup.Name)
		v.ProgressGroup.Id = t.platform + v.ProgressGroup.Id
	}
	old := t.vertexes[v.Digest]
	if old != nil && v.Completed == nil && (v.Started == nil || old.Started != nil) {
		return
	}
	recorded := *v
	if old != nil {
		recorded.Cached = v.Cached || old.Cached
	}
	t.vertexes[v.Digest] = &recorded
}

func (t *progressTracker) trackWarning(w *client.VertexWarning) {
	w.Vertex = t.key(w.Vertex)
	w.Short = []byte(t.clean(string(w.Short)))
	warning := Warning{Short: string(w.Short), URL: t.clean(w.URL)}
	var detail []string
	for i := range w.Detail {
		w.Detail[i] = []byte(t.clean(string(w.Detail[i])))
		detail = append(detail, string(w.Detail[i]))
	}
	warning.Detail = strings.Join(detail, " ")
	for _, lines := range w.Range {
		if warning.Line == 0 {
			warning.Line = int(lines.Start.Line)
		}
		warning.EndLine = max(warning.EndLine, int(lines.End.Line))
	}
	t.warnings = append(t.warnings, warning)
}

// completeLines returns the complete lines, cleaned, and buffers the rest: a secret that is written in two pieces must
// be cleaned as a whole.
func (t *progressTracker) completeLines(log *client.VertexLog) []byte {
	from := logStream{log.Vertex, log.Stream}
	data := log.Data
	if before := t.partial[from]; before != nil {
		data = append(before.Data, data...)
	}
	end := bytes.LastIndexAny(data, "\r\n")
	if end < 0 && len(data) > maxPartialLine {
		end = len(data) - 1
	}
	delete(t.partial, from)
	if end+1 < len(data) {
		rest := *log
		rest.Data = bytes.Clone(data[end+1:])
		t.partial[from] = &rest
	}
	var cleaned bytes.Buffer
	for _, line := range bytes.FieldsFunc(data[:end+1], func(c rune) bool { return c == '\r' || c == '\n' }) {
		cleaned.WriteString(t.clean(string(line)) + "\n")
	}
	return cleaned.Bytes()
}

// flush returns the incomplete lines of streams that have ended, or of all streams if it has no arguments.
func (t *progressTracker) flush(streams ...logStream) []*client.VertexLog {
	if streams == nil {
		streams = slices.SortedFunc(maps.Keys(t.partial), func(a, b logStream) int {
			return cmp.Or(cmp.Compare(a.vertex, b.vertex), cmp.Compare(a.number, b.number))
		})
	}
	var logs []*client.VertexLog
	for _, from := range streams {
		if log := t.partial[from]; log != nil {
			delete(t.partial, from)
			log.Data = []byte(t.clean(string(log.Data)) + "\n")
			logs = append(logs, log)
		}
	}
	return logs
}

// key returns a digest that is unique across platforms.
func (t *progressTracker) key(d digest.Digest) digest.Digest {
	if t.platform == "" || d == "" {
		return d
	}
	return digest.Digest(t.platform + " " + d.String())
}

// displayName adds the platform to a step's name: [linux/amd64 2/5] RUN ….
func (t *progressTracker) displayName(name string) string {
	name = t.clean(name)
	if t.platform == "" || strings.HasPrefix(name, "["+t.platform+" ") {
		return name
	}
	if rest, ok := strings.CutPrefix(name, "["); ok {
		return "[" + t.platform + " " + rest
	}
	return t.platform + " " + name
}

// stepName matches the steps of a Dockerfile, [2/5] RUN … or [stage 2/5] RUN …. It captures the stage with the number,
// and the instruction.
var stepName = regexp.MustCompile(`^\[((?:.* )?\d+/\d+)\] (\S+)`)

// addTo adds the recorded steps to stats, and the warnings that are not in seen.
func (t *progressTracker) addTo(stats *Stats, seen map[Warning]bool) {
	vertexes := slices.SortedFunc(maps.Values(t.vertexes), func(a, b *client.Vertex) int {
		if a.Started == nil || b.Started == nil {
			return cmp.Compare(a.Name, b.Name)
		}
		return cmp.Or(a.Started.Compare(*b.Started), cmp.Compare(a.Name, b.Name))
	})
	for _, v := range vertexes {
		step := Step{Name: v.Name, Cached: v.Cached, Error: v.Error, Log: string(t.logs[v.Digest])}
		if v.Started != nil && v.Completed != nil {
			step.Started = v.Started.Add(t.delay)
			step.Duration = v.Completed.Sub(*v.Started)
		}
		stats.Steps = append(stats.Steps, step)
		if match := stepName.FindStringSubmatch(v.Name); match != nil && match[2] != "FROM" {
			stats.Total++
			if v.Cached {
				stats.Cached++
			}
		}
	}
	for _, w := range t.warnings {
		if !seen[w] {
			seen[w] = true
			stats.Warnings = append(stats.Warnings, w)
		}
	}
}

package image

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// PlatformStatus is one builder at work.
type PlatformStatus struct {
	Platform string
	Status   chan *client.SolveStatus // as given to [Solve]
}

// Display shows a build while it runs. It reads until status is closed.
type Display func(ctx context.Context, status chan *client.SolveStatus) error

// Stats is what a build was made of.
type Stats struct {
	Cached, Total int // the Dockerfile's steps, without FROM; of all platforms
	Steps         []Step
	Warnings      []Warning
}

// Step is one thing that the builder did, in the order of their beginnings.
type Step struct {
	Name     string
	Started  time.Time // zero when it never did
	Duration time.Duration
	Cached   bool
	Error    string // "" when it went well
}

// Warning is what BuildKit's checks found in the Dockerfile.
type Warning struct {
	Line, EndLine int // from 1; 0 when it is about no line
	Short, URL    string
	Detail        string
}

// steps of a Dockerfile are named [2/5] RUN …, or [stage 2/5] RUN …
var stepName = regexp.MustCompile(`^\[(?:.* )?\d+/\d+\] (\S+)`)

// Progress shows what machines do until all are done, and adds it up. Every name and line that comes out of the build passes
// through clean first. Statuses are read to their ends whatever becomes of the display, so that no build waits for one.
func Progress(ctx context.Context, machines []PlatformStatus, clean func(line string) string, show Display) (Stats, error) {
	shown := make(chan *client.SolveStatus)
	failed := make(chan struct{})
	var display, group errgroup.Group
	display.Go(func() error {
		defer close(failed)
		return show(ctx, shown)
	})
	ledger := make([]*ledger, len(machines))
	for i, m := range machines {
		l := newLedger(clean)
		if len(machines) > 1 {
			l.platform = m.Platform
		}
		ledger[i] = l
		group.Go(func() error {
			pass := func(status *client.SolveStatus) {
				select {
				case shown <- status:
				case <-failed:
				}
			}
			for status := range m.Status {
				l.take(status)
				pass(status)
			}
			pass(&client.SolveStatus{Logs: l.unfinished()})
			return nil
		})
	}
	_ = group.Wait() // its functions answer nothing
	close(shown)
	err := display.Wait()
	var stats Stats
	seen := map[string]bool{}
	for _, l := range ledger {
		l.add(&stats, seen)
	}
	return stats, err
}

// ledger is one machine's book of what happened.
type ledger struct {
	platform string // "" when it is the only one
	clean    func(string) string
	vertexes map[digest.Digest]*client.Vertex
	rest     map[stream]*client.VertexLog // lines that have not ended
	warnings []Warning
}

// stream is one output of a step.
type stream struct {
	vertex digest.Digest
	number int
}

func newLedger(clean func(string) string) *ledger {
	return &ledger{clean: clean, vertexes: map[digest.Digest]*client.Vertex{}, rest: map[stream]*client.VertexLog{}}
}

// take books status, and changes it into what may be shown.
func (l *ledger) take(status *client.SolveStatus) {
	for _, v := range status.Vertexes {
		v.Name, v.Error = l.name(v.Name), l.clean(strings.Join(strings.Fields(v.Error), " "))
		v.Digest = l.key(v.Digest)
		for i := range v.Inputs {
			v.Inputs[i] = l.key(v.Inputs[i])
		}
		if v.ProgressGroup != nil {
			v.ProgressGroup.Name = l.clean(v.ProgressGroup.Name)
			v.ProgressGroup.Id = l.platform + v.ProgressGroup.Id
		}
		if old := l.vertexes[v.Digest]; old == nil || v.Started != nil && old.Started == nil || v.Completed != nil {
			kept := *v
			if old != nil {
				kept.Cached = v.Cached || old.Cached
			}
			l.vertexes[v.Digest] = &kept
		}
	}
	for _, s := range status.Statuses {
		s.Vertex, s.ID, s.Name = l.key(s.Vertex), l.clean(s.ID), l.clean(s.Name)
	}
	logs := status.Logs
	status.Logs = nil
	for _, log := range logs {
		log.Vertex = l.key(log.Vertex)
		if log.Data = l.lines(log); len(log.Data) > 0 {
			status.Logs = append(status.Logs, log)
		}
	}
	for _, v := range status.Vertexes {
		if v.Completed != nil {
			status.Logs = append(status.Logs, l.unfinished(stream{v.Digest, 1}, stream{v.Digest, 2})...)
		}
	}
	for _, w := range status.Warnings {
		w.Vertex = l.key(w.Vertex)
		w.Short = []byte(l.clean(string(w.Short)))
		warning := Warning{Short: string(w.Short), URL: l.clean(w.URL)}
		var detail []string
		for i := range w.Detail {
			w.Detail[i] = []byte(l.clean(string(w.Detail[i])))
			detail = append(detail, string(w.Detail[i]))
		}
		warning.Detail = strings.Join(detail, " ")
		for _, lines := range w.Range {
			if warning.Line == 0 {
				warning.Line = int(lines.Start.Line)
			}
			warning.EndLine = max(warning.EndLine, int(lines.End.Line))
		}
		l.warnings = append(l.warnings, warning)
	}
}

// lines returns the whole lines of what a step has written by now, cleaned: a secret written in two pieces is seen as one.
func (l *ledger) lines(log *client.VertexLog) []byte {
	from := stream{log.Vertex, log.Stream}
	data := log.Data
	if before := l.rest[from]; before != nil {
		data = append(before.Data, data...)
	}
	end := bytes.LastIndexAny(data, "\r\n")
	if end < 0 && len(data) > 64<<10 {
		end = len(data) - 1
	}
	delete(l.rest, from)
	if end+1 < len(data) {
		rest := *log
		rest.Data = bytes.Clone(data[end+1:])
		l.rest[from] = &rest
	}
	var clean bytes.Buffer
	for _, line := range bytes.FieldsFunc(data[:end+1], func(c rune) bool { return c == '\r' || c == '\n' }) {
		clean.WriteString(l.clean(string(line)) + "\n")
	}
	return clean.Bytes()
}

// unfinished ends the lines of steps that write no more: of those, or of all.
func (l *ledger) unfinished(streams ...stream) []*client.VertexLog {
	if streams == nil {
		streams = slices.SortedFunc(maps.Keys(l.rest), func(a, b stream) int {
			return cmp.Or(cmp.Compare(a.vertex, b.vertex), cmp.Compare(a.number, b.number))
		})
	}
	var logs []*client.VertexLog
	for _, from := range streams {
		if log := l.rest[from]; log != nil {
			delete(l.rest, from)
			log.Data = []byte(l.clean(string(log.Data)) + "\n")
			logs = append(logs, log)
		}
	}
	return logs
}

// key keeps the same step on two machines apart.
func (l *ledger) key(d digest.Digest) digest.Digest {
	if l.platform == "" || d == "" {
		return d
	}
	return digest.Digest(l.platform + " " + d.String())
}

func (l *ledger) name(name string) string {
	name = l.clean(name)
	if l.platform == "" || strings.HasPrefix(name, "["+l.platform+" ") {
		return name
	}
	if rest, ok := strings.CutPrefix(name, "["); ok {
		return "[" + l.platform + " " + rest
	}
	return l.platform + " " + name
}

func (l *ledger) add(stats *Stats, seen map[string]bool) {
	vertexes := slices.Collect(maps.Values(l.vertexes))
	slices.SortFunc(vertexes, func(a, b *client.Vertex) int {
		switch {
		case a.Started == nil || b.Started == nil:
			return cmp.Compare(a.Name, b.Name)
		default:
			return cmp.Or(a.Started.Compare(*b.Started), cmp.Compare(a.Name, b.Name))
		}
	})
	for _, v := range vertexes {
		step := Step{Name: v.Name, Cached: v.Cached, Error: v.Error}
		if v.Started != nil && v.Completed != nil {
			step.Started = *v.Started
			step.Duration = v.Completed.Sub(*v.Started)
		}
		stats.Steps = append(stats.Steps, step)
		if match := stepName.FindStringSubmatch(v.Name); match != nil && match[1] != "FROM" {
			stats.Total++
			if v.Cached {
				stats.Cached++
			}
		}
	}
	for _, w := range l.warnings {
		if id := fmt.Sprint(w); !seen[id] {
			seen[id] = true
			stats.Warnings = append(stats.Warnings, w)
		}
	}
}

// Terminal shows a build as BuildKit does: live on a terminal, line by line where out is none.
func Terminal(out *os.File) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		return display(ctx, out, progressui.AutoMode, status)
	}
}

// Plain shows a build line by line.
func Plain(out io.Writer) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		return display(ctx, out, progressui.PlainMode, status)
	}
}

func display(ctx context.Context, out io.Writer, mode progressui.DisplayMode, status chan *client.SolveStatus) error {
	d, err := progressui.NewDisplay(out, mode)
	if err != nil {
		return fmt.Errorf("show the build: %w", err)
	}
	// Not ctx: a build that is canceled still has an end to show.
	_, err = d.UpdateFrom(context.WithoutCancel(ctx), status)
	return err
}

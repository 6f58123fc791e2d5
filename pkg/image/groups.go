package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// LogGroups is where text is folded under titles, as the log of GitHub Actions does.
type LogGroups interface {
	Group(title string)
	EndGroup()
	Untrusted() io.WriteCloser // for text that others made
}

// pending bounds what is kept, in bytes, of a step that waits for its turn.
const pending = 4 << 20

// tailLines is how much of a step that failed is shown unfolded.
const tailLines = 30

// Groups shows each step of a build as one group. Steps run at the same time, but a log has one end: the step that is shown is
// followed live to its end, the others are kept until then. The last lines of a step that failed are shown again, unfolded.
func Groups(folder LogGroups) Display {
	return func(ctx context.Context, status chan *client.SolveStatus) error {
		g := &groups{folder: folder, out: folder.Untrusted(), steps: map[digest.Digest]*groupedStep{}}
		for s := range status {
			g.update(s)
		}
		g.show(true)
		return g.out.Close()
	}
}

type groups struct {
	folder LogGroups
	out    io.WriteCloser
	steps  map[digest.Digest]*groupedStep
	queue  []*groupedStep // begun and not yet shown to the end, in the order of their beginnings
	live   *groupedStep
}

type groupedStep struct {
	vertex   client.Vertex
	log      []byte // not yet shown
	tail     []byte // the last lines
	dropped  int
	finished bool
	queued   bool // or live
}

func (g *groups) update(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		step := g.steps[v.Digest]
		if step == nil {
			step = &groupedStep{}
			g.steps[v.Digest] = step
		}
		again := v.Completed == nil || step.vertex.Started == nil // BuildKit may do a step in several goes
		cached := step.vertex.Cached || v.Cached
		step.vertex = *v
		step.vertex.Cached = cached
		step.finished = v.Completed != nil
		if v.Started != nil && again {
			g.enqueue(step)
		}
	}
	for _, p := range s.Statuses {
		// Only ends: a log is read afterwards, and a line for each percent is noise there.
		if p.Completed != nil && p.Started != nil {
			text := fmt.Sprintf("%s %.1fs", p.ID, p.Completed.Sub(*p.Started).Seconds())
			if p.Total > 0 {
				text = fmt.Sprintf("%s %s %.1fs", p.ID, units.HumanSize(float64(p.Total)), p.Completed.Sub(*p.Started).Seconds())
			}
			g.write(p.Vertex, []byte(text+"\n"))
		}
	}
	for _, l := range s.Logs {
		g.write(l.Vertex, l.Data)
	}
	g.show(false)
}

func (g *groups) enqueue(step *groupedStep) {
	if !step.queued {
		step.queued = true
		g.queue = append(g.queue, step)
	}
}

func (g *groups) write(vertex digest.Digest, data []byte) {
	step := g.steps[vertex]
	if step == nil {
		return
	}
	if len(step.log)+len(data) > pending {
		step.dropped += len(data)
		return
	}
	g.enqueue(step)
	step.log = append(step.log, data...)
	step.tail = append(step.tail, data...)
	if lines := bytes.SplitAfter(step.tail, []byte("\n")); len(lines) > tailLines {
		step.tail = bytes.Join(lines[len(lines)-tailLines:], nil)
	}
}

// show writes what is known of the live step, and goes on to the next when it has ended. Steps that have ended go first.
func (g *groups) show(all bool) {
	for {
		if g.live == nil {
			if len(g.queue) == 0 {
				return
			}
			next := max(0, slices.IndexFunc(g.queue, func(s *groupedStep) bool { return s.finished }))
			g.live = g.queue[next]
			g.queue = slices.Delete(g.queue, next, next+1)
			g.folder.Group(g.live.title())
		}
		step := g.live
		_, _ = g.out.Write(step.log) // the log of a run has nowhere to report to
		step.log = step.log[:0]
		if !step.finished && !all {
			return
		}
		g.end(step)
		step.queued, g.live = false, nil
	}
}

func (g *groups) end(step *groupedStep) {
	if step.dropped > 0 {
		fmt.Fprintf(g.out, "(%s more were not kept)\n", units.HumanSize(float64(step.dropped)))
		step.dropped = 0
	}
	v := step.vertex
	switch {
	case strings.HasSuffix(v.Error, context.Canceled.Error()): // because another one failed
		fmt.Fprintln(g.out, "canceled")
	case v.Error != "":
		g.folder.EndGroup()
		fmt.Fprintf(g.out, "%s\n%s%s\n", v.Name, step.tail, v.Error)
		return
	case v.Cached:
		fmt.Fprintln(g.out, "cached")
	case v.Started != nil && v.Completed != nil:
		fmt.Fprintf(g.out, "done in %s\n", v.Completed.Sub(*v.Started).Round(100*time.Millisecond))
	}
	g.folder.EndGroup()
}

func (s *groupedStep) title() string {
	switch {
	case s.vertex.Cached:
		return s.vertex.Name + " (cached)"
	case s.finished && s.vertex.Completed != nil && s.vertex.Completed.Sub(*s.vertex.Started) >= time.Second:
		return fmt.Sprintf("%s (%s)", s.vertex.Name, s.vertex.Completed.Sub(*s.vertex.Started).Round(100*time.Millisecond))
	}
	return s.vertex.Name
}

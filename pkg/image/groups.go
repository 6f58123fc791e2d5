package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// LogGroups writes a log with collapsible groups, like the log of GitHub Actions.
type LogGroups interface {
	Group(title string)
	EndGroup()
	Untrusted() io.WriteCloser // for output of a build, which must not act as a workflow command
}

const maxPending = 4 << 20 // bytes buffered for a step that is not shown yet

// Groups returns a display that shows each step of a build as one group. Steps run in parallel, but a log is
// sequential, so Groups shows one step live until it ends and buffers the others.
func Groups(log LogGroups) Display {
	return func(_ context.Context, status chan *client.SolveStatus) error {
		g := &groupDisplay{log: log, out: log.Untrusted(), steps: map[digest.Digest]*groupedStep{}}
		for s := range status {
			g.update(s)
		}
		g.show(true)
		return g.out.Close()
	}
}

type groupDisplay struct {
	log     LogGroups
	out     io.WriteCloser
	steps   map[digest.Digest]*groupedStep
	queue   []*groupedStep // started and waiting to be shown, in the order of their start
	current *groupedStep   // shown live; may be nil
}

type groupedStep struct {
	vertex  client.Vertex
	pending []byte // output that is not shown yet
	dropped int    // bytes that exceed maxPending
	ended   bool
	queued  bool // in the queue, or current
}

func (g *groupDisplay) update(s *client.SolveStatus) {
	for _, v := range s.Vertexes {
		g.updateStep(v)
	}
	for _, p := range s.Statuses {
		if p.Completed == nil || p.Started == nil { // one line per transfer, when it has ended
			continue
		}
		size := ""
		if p.Total > 0 {
			size = units.HumanSize(float64(p.Total)) + " "
		}
		g.write(p.Vertex, fmt.Appendf(nil, "%s %s%.1fs\n", p.ID, size, p.Completed.Sub(*p.Started).Seconds()))
	}
	for _, l := range s.Logs {
		g.write(l.Vertex, l.Data)
	}
	g.show(false)
}

func (g *groupDisplay) updateStep(v *client.Vertex) {
	step := g.steps[v.Digest]
	if step == nil {
		step = &groupedStep{}
		g.steps[v.Digest] = step
	}
	starts := v.Completed == nil || step.vertex.Started == nil // BuildKit may run a step several times
	cached := step.vertex.Cached || v.Cached
	step.vertex = *v
	step.vertex.Cached = cached
	step.ended = v.Completed != nil
	if v.Started != nil && starts {
		g.enqueue(step)
	}
}

func (g *groupDisplay) enqueue(step *groupedStep) {
	if !step.queued {
		step.queued = true
		g.queue = append(g.queue, step)
	}
}

func (g *groupDisplay) write(vertex digest.Digest, data []byte) {
	step := g.steps[vertex]
	if step == nil {
		return
	}
	if len(step.pending)+len(data) > maxPending {
		step.dropped += len(data)
		return
	}
	g.enqueue(step)
	step.pending = append(step.pending, data...)
}

// show writes the output of the current step. When that has ended, it continues with the next step, preferring those
// that have ended. With all, it writes every step.
func (g *groupDisplay) show(all bool) {
	for {
		if g.current == nil {
			if len(g.queue) == 0 {
				return
			}
			next := max(0, slices.IndexFunc(g.queue, func(s *groupedStep) bool { return s.ended }))
			g.current = g.queue[next]
			g.queue = slices.Delete(g.queue, next, next+1)
			g.log.Group(g.current.title())
		}
		step := g.current
		_, _ = g.out.Write(step.pending) // a broken log cannot be reported anywhere
		step.pending = step.pending[:0]
		if !step.ended && !all {
			return
		}
		g.end(step)
		step.queued, g.current = false, nil
	}
}

func (g *groupDisplay) end(step *groupedStep) {
	if step.dropped > 0 {
		fmt.Fprintf(g.out, "(%s of output omitted)\n", units.HumanSize(float64(step.dropped)))
		step.dropped = 0
	}
	v := step.vertex
	switch {
	case isCanceled(v.Error): // after another step failed
		fmt.Fprintln(g.out, "canceled")
	case v.Error != "":
		fmt.Fprintln(g.out, v.Error)
	case v.Cached:
		fmt.Fprintln(g.out, "cached")
	case v.Started != nil && v.Completed != nil:
		fmt.Fprintf(g.out, "done in %s\n", v.Completed.Sub(*v.Started).Round(100*time.Millisecond))
	}
	g.log.EndGroup()
}

func (s *groupedStep) title() string {
	if s.vertex.Cached {
		return s.vertex.Name + " (cached)"
	}
	if s.ended && s.vertex.Completed != nil && s.vertex.Started != nil {
		if took := s.vertex.Completed.Sub(*s.vertex.Started); took >= time.Second {
			return fmt.Sprintf("%s (%s)", s.vertex.Name, took.Round(100*time.Millisecond))
		}
	}
	return s.vertex.Name
}

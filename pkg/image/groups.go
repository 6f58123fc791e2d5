package image

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// LogGroups writes a log with collapsible groups, like the log of GitHub Actions.
type LogGroups interface {
	Group(title string)
	EndGroup()
	Untrusted() io.WriteCloser // for output of a build, which must not act as a workflow command
}

const (
	maxPending = 4 << 20 // bytes buffered for a step that is not shown yet
	maxTitle   = 120     // characters of a step's name, or of its details

	// progressInterval is how often a step without output that is still running shows its progress.
	progressInterval = 5 * time.Second

	// minShownTime is the shortest duration that a line shows.
	minShownTime = 50 * time.Millisecond
)

// Groups returns a display that shows each step of a build once: a step with output as a group, and the others as one
// line. Steps run in parallel, but a log is sequential, so Groups shows the output of one step while it runs and
// buffers that of the others. A failed step comes last.
func Groups(log LogGroups) Display {
	return func(_ context.Context, status chan *client.SolveStatus) error {
		g := newGroupDisplay(log)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case s, ok := <-status:
				if !ok {
					return g.close()
				}
				g.update(s, time.Now())
			case now := <-ticker.C:
				g.tick(now)
			}
		}
	}
}

type groupDisplay struct {
	log     LogGroups
	out     io.WriteCloser
	steps   map[digest.Digest]*groupedStep
	queue   []*groupedStep // started and not shown yet, in the order of their start
	current *groupedStep   // whose group is open; may be nil
}

type groupedStep struct {
	vertex    client.Vertex
	stage     string             // of the Dockerfile; the name of a step that is not part of it
	number    int                // in the stage
	since     time.Time          // when the display received its start
	transfers []*groupedTransfer // in the order of their start
	pending   []byte             // output that is not shown yet
	dropped   int                // bytes that exceed maxPending
	queued    bool               // in the queue, or current
	shown     bool               // whether its end was shown; output that follows gets another group
	failure   string             // that was shown
	hasTimes  bool               // whether the title of its group has the duration
}

// groupedTransfer is a part of a step, such as "transferring context" or "exporting layers".
type groupedTransfer struct {
	client.VertexStatus
	since time.Time // when the display received its start
}

func newGroupDisplay(log LogGroups) *groupDisplay {
	return &groupDisplay{log: log, out: log.Untrusted(), steps: map[digest.Digest]*groupedStep{}}
}

// update shows what a status adds at the given time.
func (g *groupDisplay) update(s *client.SolveStatus, now time.Time) {
	for _, v := range s.Vertexes {
		g.updateStep(v, now)
	}
	for _, p := range s.Statuses {
		if step := g.steps[p.Vertex]; step != nil {
			step.updateTransfer(p, now)
		}
	}
	for _, l := range s.Logs {
		g.write(l.Vertex, l.Data)
	}
	g.show(false)
}

func (g *groupDisplay) updateStep(v *client.Vertex, now time.Time) {
	step := g.steps[v.Digest]
	if step == nil {
		step = &groupedStep{}
		step.stage, step.number = splitStepName(v.Name)
		g.steps[v.Digest] = step
	}
	if v.Started != nil && step.vertex.Started == nil {
		step.since = now
	}
	cached := step.vertex.Cached || v.Cached
	step.vertex = *v
	step.vertex.Cached = cached
	// BuildKit reports a step again when it retries a solve, or when another step needs the same one.
	if v.Started != nil && (!step.shown || step.failed() && v.Error != step.failure) {
		g.enqueue(step)
	}
}

// splitStepName returns the stage of a step of the Dockerfile and its number in the stage.
func splitStepName(name string) (stage string, number int) {
	match := stepName.FindStringSubmatch(name)
	if match == nil {
		return name, 0
	}
	i := strings.LastIndexByte(match[1], ' ') + 1
	_, _ = fmt.Sscanf(match[1][i:], "%d/", &number) // the expression ensures that it is a number
	return match[1][:i], number
}

func (s *groupedStep) updateTransfer(status *client.VertexStatus, now time.Time) {
	for _, t := range s.transfers {
		if t.ID == status.ID {
			t.VertexStatus = *status
			return
		}
	}
	s.transfers = append(s.transfers, &groupedTransfer{*status, now})
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

// show writes what can be shown: the output of the current step and, when that has ended, the next steps. If all is
// set, the build has ended, and it shows every step.
func (g *groupDisplay) show(all bool) {
	for {
		step := g.current
		if step == nil {
			if step = g.next(all); step == nil {
				return
			}
		}
		if len(step.pending) > 0 {
			g.open(step)
			_, _ = g.out.Write(step.pending) // a broken log cannot be reported anywhere
			step.pending = step.pending[:0]
		}
		if !step.ended() && !all {
			return
		}
		g.end(step)
	}
}

// next removes the first of the steps that can be shown from the queue. Cached steps wait for another one, because
// BuildKit reports them in any order. It returns nil if no step can be shown.
func (g *groupDisplay) next(all bool) *groupedStep {
	ready := g.ready(all)
	isNew := func(s *groupedStep) bool { return all || !s.vertex.Cached || len(s.pending) > 0 }
	if !slices.ContainsFunc(ready, isNew) {
		return nil
	}
	g.dequeue(ready[0])
	return ready[0]
}

// ready returns the steps that can be shown: those that have ended, in the order of the Dockerfile, and those with
// output. Failed steps are last, and only if all is set, because BuildKit may retry them, and because the end is where
// a reader looks.
func (g *groupDisplay) ready(all bool) []*groupedStep {
	const ended, running, failed = 1, 2, 3
	rank := func(s *groupedStep) int {
		switch {
		case s.failed():
			return failed
		case s.ended():
			return ended
		}
		return running
	}
	ready := slices.DeleteFunc(slices.Clone(g.queue), func(s *groupedStep) bool {
		return !all && rank(s) != ended && (rank(s) == failed || len(s.pending) == 0)
	})
	if len(ready) < 2 {
		return ready
	}
	depths := g.stageDepths()
	slices.SortStableFunc(ready, func(a, b *groupedStep) int {
		order := cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.kind(), b.kind()))
		if order != 0 || a.kind() != dockerfileStep {
			return order
		}
		return cmp.Or(cmp.Compare(depths[a.stage], depths[b.stage]), cmp.Compare(a.stage, b.stage),
			cmp.Compare(a.number, b.number))
	})
	return ready
}

// The kinds of steps, in the order in which a build needs them.
const (
	internalStep   = iota // [internal] load build context, [auth] …
	dockerfileStep        // [builder 2/5] RUN make
	exportStep            // exporting to image
)

func (s *groupedStep) kind() int {
	switch {
	case s.number > 0:
		return dockerfileStep
	case strings.HasPrefix(s.vertex.Name, "["):
		return internalStep
	}
	return exportStep
}

// stageDepths returns how many steps each stage depends on, in a row. A stage comes after those on which it depends.
func (g *groupDisplay) stageDepths() map[string]int {
	depths := map[digest.Digest]int{}
	var depth func(digest.Digest) int
	depth = func(d digest.Digest) int {
		if known, ok := depths[d]; ok || g.steps[d] == nil {
			return known
		}
		depths[d] = 0 // in case of a cycle, which a builder could report
		deepest := 0
		for _, input := range g.steps[d].vertex.Inputs {
			deepest = max(deepest, depth(input))
		}
		depths[d] = deepest + 1
		return depths[d]
	}
	stages := map[string]int{}
	for d, step := range g.steps {
		stages[step.stage] = max(stages[step.stage], depth(d))
	}
	return stages
}

func (g *groupDisplay) dequeue(step *groupedStep) {
	g.queue = slices.DeleteFunc(g.queue, func(s *groupedStep) bool { return s == step })
}

// open starts the group of a step, unless it is open.
func (g *groupDisplay) open(step *groupedStep) {
	if g.current == step {
		return
	}
	g.current = step
	title := step.name()
	step.hasTimes = step.ended() && !step.shown
	switch {
	case step.shown:
		title += " (more output)"
	case step.ended():
		title += step.result()
	}
	g.log.Group(title)
	if full := shortenDigests(step.vertex.Name); full != step.name() {
		fmt.Fprintln(g.out, full)
	}
}

// end shows the end of a step: the last line of its group, or its only line.
func (g *groupDisplay) end(step *groupedStep) {
	v := step.vertex
	switch isOpen := g.current == step; {
	case isOpen:
		g.endGroup(step)
	case step.shown && !step.failed(), isCanceled(v.Error): // says nothing new
	default:
		fmt.Fprintln(g.out, step.name()+step.result())
	}
	step.queued, step.shown, step.failure = false, true, v.Error
	g.current = nil
}

func (g *groupDisplay) endGroup(step *groupedStep) {
	if step.dropped > 0 {
		fmt.Fprintf(g.out, "(%s of output omitted)\n", humanize.Size(int64(step.dropped)))
		step.dropped = 0
	}
	switch v := step.vertex; {
	case step.failed():
		fmt.Fprintln(g.out, v.Error)
	case !step.ended(), isCanceled(v.Error):
		fmt.Fprintln(g.out, strings.Trim(step.result(), " ()"))
	case !step.hasTimes && !step.shown:
		fmt.Fprintln(g.out, "done"+step.result())
	}
	g.log.EndGroup()
}

// tick shows the progress of the current step, or of the first one that has run for a while without output.
func (g *groupDisplay) tick(now time.Time) {
	if g.current == nil {
		var silent *groupedStep
		for _, s := range g.queue {
			if !s.ended() && now.Sub(s.since) >= progressInterval {
				silent = s
				break
			}
		}
		if silent == nil {
			return
		}
		for _, cached := range g.ready(false) {
			g.dequeue(cached)
			g.end(cached)
		}
		g.dequeue(silent)
		g.open(silent)
		if silent.progress(now) == "" {
			fmt.Fprintf(g.out, "no output for %s so far\n", humanize.Duration(now.Sub(silent.since)))
		}
	}
	if progress := g.current.progress(now); progress != "" {
		fmt.Fprintln(g.out, progress)
	}
}

// close shows the steps that are left.
func (g *groupDisplay) close() error {
	g.show(true)
	return g.out.Close()
}

func (s *groupedStep) ended() bool { return s.vertex.Completed != nil }

// failed reports whether the step failed by itself, not because another one did.
func (s *groupedStep) failed() bool { return s.vertex.Error != "" && !isCanceled(s.vertex.Error) }

func (s *groupedStep) name() string { return safetext.Line(shortenDigests(s.vertex.Name), maxTitle) }

// result describes the end of a step: " (cached)", " (2.2 s)", or "" for a short one.
func (s *groupedStep) result() string {
	v := s.vertex
	var took string
	if elapsed := between(v.Started, v.Completed); elapsed >= minShownTime {
		took = humanize.Duration(elapsed)
	}
	switch {
	case !s.ended():
		return " (not finished)"
	case isCanceled(v.Error):
		return " (canceled)"
	case s.failed() && took != "":
		return " (failed after " + took + ")"
	case s.failed():
		return " (failed)"
	case v.Cached:
		return " (cached)"
	}
	if transfer := s.transfer(0); transfer.Done > 0 {
		took = strings.TrimSuffix(humanize.Size(transfer.Done)+", "+took, ", ")
	} else if parts := s.parts(); len(parts) > 1 {
		took += ": " + safetext.Line(strings.Join(parts, ", "), maxTitle)
	}
	if took == "" {
		return ""
	}
	return " (" + took + ")"
}

// parts describes the parts of a step that took a while, with their durations.
func (s *groupedStep) parts() (parts []string) {
	for _, t := range s.transfers {
		if elapsed := between(t.Started, t.Completed); elapsed >= minShownTime {
			parts = append(parts, shortenDigests(t.ID)+" "+humanize.Duration(elapsed))
		}
	}
	return parts
}

// transfer returns the sum of the step's transfers, of which BuildKit reports the bytes: what it pulls and what it
// receives of a context. For the layers that it pushes or exports, it reports none (moby/buildkit v0.34.2,
// util/push/push.go).
func (s *groupedStep) transfer(elapsed time.Duration) humanize.Transfer {
	sum := humanize.Transfer{Elapsed: elapsed}
	for _, t := range s.transfers {
		sum.Done += t.Current
		sum.Total += t.Total
	}
	return sum
}

// progress describes what a running step is doing: the bytes of its transfers, or the part that it is busy with. It is
// "" if BuildKit does not report it.
func (s *groupedStep) progress(now time.Time) string {
	active := slices.DeleteFunc(slices.Clone(s.transfers), func(t *groupedTransfer) bool { return t.Completed != nil })
	if s.ended() || len(active) == 0 {
		return ""
	}
	if sum := s.transfer(now.Sub(s.since)); sum.Done > 0 {
		return sum.String()
	}
	last := active[len(active)-1]
	return fmt.Sprintf("%s: %s so far", shortenDigests(last.ID), humanize.Duration(now.Sub(last.since)))
}

func between(started, completed *time.Time) time.Duration {
	if started == nil || completed == nil {
		return 0
	}
	return completed.Sub(*started)
}

var fullDigest = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// shortenDigests shortens the digests in a name to as many digits as Docker shows.
func shortenDigests(name string) string {
	return fullDigest.ReplaceAllStringFunc(name, func(digest string) string { return digest[:len("sha256:")+12] + "…" })
}

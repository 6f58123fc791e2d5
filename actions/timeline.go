package actions

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// timeline records when the phases of a run and the states of its snapshots began. Functions find it in their context,
// as they would find a trace.
type timeline struct {
	started time.Time // of the run

	mu     sync.Mutex
	phases []*runrecord.Phase
	group  *runrecord.Phase             // the phase that is a group of the log; nil for none
	states map[string][]runrecord.State // by the name of the snapshot
}

type timelineKey struct{}

// offset returns the seconds from the start of the run to t.
func (l *timeline) offset(t time.Time) float64 { return roundSeconds(t.Sub(l.started)) }

// since returns the seconds since an offset.
func (l *timeline) since(offset float64) float64 {
	return max(math.Round(1000*(l.offset(time.Now())-offset))/1000, 0)
}

// roundSeconds returns a duration in seconds, rounded to milliseconds.
func roundSeconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// phase is a phase of a run that has begun. It records nothing outside of a run.
type phase struct {
	timeline *timeline
	record   *runrecord.Phase
	log      *runner.Runner // in which the phase is a group; nil if it is not
}

// startPhase records that a phase of the run begins.
func startPhase(ctx context.Context, format string, args ...any) phase {
	l, ok := ctx.Value(timelineKey{}).(*timeline)
	if !ok {
		return phase{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &runrecord.Phase{Name: fmt.Sprintf(format, args...), Offset: l.offset(time.Now()), Seconds: -1}
	l.phases = append(l.phases, p)
	return phase{timeline: l, record: p}
}

// inGroup makes the phase a group of the log in GitHub Actions. A phase that begins during another one is part of that
// one's group.
func (p phase) inGroup(log *runner.Runner) phase {
	if p.timeline == nil || !log.InActions() {
		return p
	}
	p.timeline.mu.Lock()
	defer p.timeline.mu.Unlock()
	if p.timeline.group == nil {
		p.timeline.group, p.log = p.record, log
		log.Group(p.record.Name)
	}
	return p
}

// end records that the phase ends, and has failed if *err is not nil.
func (p phase) end(err *error) { p.endAfter(0, err) }

// endAfter is like [phase.end] for a phase that has transferred bytes.
func (p phase) endAfter(bytes int64, err *error) {
	if p.timeline == nil {
		return
	}
	p.timeline.mu.Lock()
	defer p.timeline.mu.Unlock()
	p.record.Seconds = p.timeline.since(p.record.Offset)
	p.record.Bytes, p.record.Failed = bytes, *err != nil
	if p.log != nil {
		p.timeline.group = nil
		p.log.EndGroup()
	}
}

// recordState records the state of a snapshot, unless it is the last one that was recorded.
func recordState(ctx context.Context, s daytona.Snapshot) {
	l, ok := ctx.Value(timelineKey{}).(*timeline)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	states := l.states[s.Name]
	if n := len(states); n > 0 && states[n-1].Name == string(s.State) {
		return
	}
	if l.states == nil {
		l.states = map[string][]runrecord.State{}
	}
	l.states[s.Name] = append(states, runrecord.State{Name: string(s.State), Offset: l.offset(time.Now())})
}

// addTo adds the phases and the states to a record.
func (l *timeline) addTo(record *runrecord.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.phases {
		phase := *p
		if phase.Seconds < 0 { // it has not ended
			phase.Seconds, phase.Failed = l.since(phase.Offset), true
		}
		record.Phases = append(record.Phases, phase)
	}
	for i := range record.Snapshots {
		record.Snapshots[i].States = l.states[record.Snapshots[i].Name]
	}
}

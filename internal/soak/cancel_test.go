//go:build linux

package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/programs"
)

// maxShutdown is the time within which a program must exit after a signal: twice the documented 5 s, because 12 runs
// share the machine.
const maxShutdown = 10 * time.Second

// moment is when a fault begins or a signal is sent: a time after a request to a service.
type moment struct {
	request int // number of the request, over all services
	after   time.Duration
}

// randomMoment returns a moment within 200 ms of one of the requests.
func randomMoment(random *rand.Rand, requests []endpoint) moment {
	return moment{1 + random.IntN(len(requests)), time.Duration(random.Int64N(int64(200 * time.Millisecond)))}
}

// Each flow receives each signal at seeded moments. It must exit in time with an error and without outputs, or have
// succeeded. After SIGKILL, the next run must succeed.
func TestCancel(t *testing.T) {
	const moments = 50
	planner := newLab(t)
	random := rand.New(rand.NewPCG(1, 2))
	type canceledRun struct {
		flow   flow
		signal unix.Signal
		moment moment
	}
	var cases []canceledRun
	for _, f := range []flow{push, load, snapshot, testFlow} {
		requests, err := planner.requests(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for range moments {
			at := randomMoment(random, requests)
			for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGKILL} {
				cases = append(cases, canceledRun{f, signal, at})
			}
		}
	}
	inLabs(t, func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 53) && !yield(func(l *lab) { l.tryCancel(t, c.flow, c.signal, c.moment) }) {
				return
			}
		}
	})
}

func (l *lab) tryCancel(t *testing.T, f flow, signal unix.Signal, at moment) {
	var sent time.Time
	run := l.tryWith(t.Context(), f, at, func(process int) {
		sent = time.Now()
		_ = unix.Kill(process, signal) // it may have ended
	})
	run.name = fmt.Sprintf("%s: %s %s after request %d", f.name, unix.SignalName(signal), at.after, at.request)
	if !sent.IsZero() && time.Since(sent) > onThisMachine(maxShutdown) {
		run.fail("the program exited %s after the signal", time.Since(sent))
	}
	run.isKilled = signal == unix.SIGKILL && !sent.IsZero()
	l.record(t, f, run, row{canceled, unix.SignalName(signal) + ", " + f.name})
	if run.isKilled {
		next := l.try(t.Context(), f, nil)
		next.name = run.name + ", next run"
		if next.ExitCode != 0 {
			next.fail("the run after SIGKILL failed: %s", next.message)
		}
		l.record(t, f, next, row{canceled, "run after SIGKILL, " + f.name})
	}
}

// tryWith runs a flow and calls act with the process ID at a moment, unless the run has ended.
func (l *lab) tryWith(ctx context.Context, f flow, at moment, act func(process int)) trial {
	process, reached, ended := make(chan int, 1), make(chan struct{}), make(chan struct{})
	var requests atomic.Int64
	for _, proxy := range l.proxies {
		proxy.Fail(faultproxy.Rule{Match: func(*http.Request) bool {
			if requests.Add(1) == int64(at.request) {
				close(reached)
			}
			return false
		}})
	}
	var acting sync.WaitGroup
	acting.Go(func() {
		select {
		case <-reached:
		case <-ended:
			return
		}
		select {
		case <-time.After(at.after):
			act(<-process)
		case <-ended:
		}
	})
	run := l.try(ctx, f, func(pid int, _ *programs.Buffer) { process <- pid })
	close(ended)
	acting.Wait()
	for _, proxy := range l.proxies {
		proxy.Clear()
	}
	return run
}

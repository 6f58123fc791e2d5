//go:build linux

package soak

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/org/sandbox-actions/internal/faultproxy"
)

// faultRate is the share of requests that get a fault in TestEndurance.
const faultRate = 0.05

// Many runs, of which 5 % of the requests fail at random, end right and leave nothing in the daemons and the stand-ins.
func TestEndurance(t *testing.T) {
	runs := map[string]int{push.name: 4, load.name: 4, snapshot.name: 3, testFlow.name: 3}
	if *full {
		runs = map[string]int{push.name: 250, load.name: 250, snapshot.name: 200, testFlow.name: 200}
	}
	observer := newLab(t)
	before := observer.usage(t)
	t.Run("runs", func(t *testing.T) { // which stops its labs
		inLabs(t, func(yield func(func(*lab)) bool) {
			seed := uint64(0)
			for _, f := range []flow{push, load, snapshot, testFlow} {
				for range runs[f.name] {
					seed++
					if !yield(func(l *lab) { l.tryAtRandom(t, f, seed) }) {
						return
					}
				}
			}
		})
	})
	observer.checkUsage(t, before)
}

func (l *lab) tryAtRandom(t *testing.T, f flow, seed uint64) {
	var mutex sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	isUnlucky := func(*http.Request) bool {
		mutex.Lock()
		defer mutex.Unlock()
		return random.Float64() < faultRate
	}
	faults := []faultproxy.Fault{
		faultproxy.Reset(), faultproxy.ResetAfterHeaders(), faultproxy.CutBody(), faultproxy.Status(429, "Retry-After", "1"),
		faultproxy.Status(500), faultproxy.Status(502), faultproxy.WebPage(503),
	}
	fault := faults[seed%uint64(len(faults))]
	for _, proxy := range l.proxies {
		proxy.Fail(faultproxy.Rule{Match: isUnlucky, Fault: fault})
	}
	run := l.try(t.Context(), f, nil)
	for _, proxy := range l.proxies {
		proxy.Clear()
	}
	run.name = fmt.Sprintf("%s, seed %d, %s", f.name, seed, fault.Name)
	l.record(t, f, run, row{endurance, f.name})
}

//go:build linux

package soak

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Runs of the same thing at the same time do not disturb each other.
func TestConcurrent(t *testing.T) {
	n := 8
	if *full {
		n = 32
	}
	l := newLab(t)
	sameTag, sameName, sameImage, replace := push, load, snapshot, snapshot
	sameTag.inputs = l.withInput(push, "push", l.pushed("shared"))
	sameName.inputs = l.withInput(load, "image_name", "soak/loaded:shared")
	sameImage.inputs = l.withInput(snapshot, "name", "shared")
	replace.inputs = func(l *lab, id string) map[string]string {
		inputs := snapshot.inputs(l, id)
		inputs["name"], inputs["if_exists"] = "replaced", "replace"
		return inputs
	}
	named := snapshot
	named.inputs = l.withInput(snapshot, "update_doppler", "false")
	named.check = checkNamedSnapshot
	for _, test := range []struct {
		name string
		flow flow
		id   string // of the result; "" for one per run
		runs int
		// mayFail permits runs that fail with an explanation, as long as one succeeds.
		mayFail bool
	}{
		{"builds of one commit, pushed to different tags", push, "", n, false},
		{"builds of one commit, pushed to one tag", sameTag, "shared", n, false},
		{"builds of one commit, loaded as different names", load, "", n, false},
		{"builds of one commit, loaded as one name", sameName, "shared", n, false},
		{"snapshots of one image with different names", named, "", n / 4, false},
		{"snapshots of one image with one name", sameImage, "shared", n / 4, false},
		{"snapshots that replace each other", replace, "replaced", n / 4, true},
		{"suites of one image", testFlow, "", n, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			trials := l.tryAtOnce(t.Context(), test.flow, test.runs)
			succeeded := 0
			for i := range trials {
				run := &trials[i]
				run.name = test.name
				if test.id != "" {
					run.id = test.id
				}
				if run.ExitCode == 0 {
					succeeded++
				} else if !test.mayFail {
					run.fail("failed: %s", run.message)
				}
			}
			consistent := 0
			for i := range trials {
				err := test.flow.check(t.Context(), l, trials[i])
				switch {
				case err == nil:
					consistent++
				case test.id == "":
					trials[i].fail("%w", err)
				case i == len(trials)-1 && consistent == 0: // check removes the result, which is that of one of the runs
					trials[i].fail("no run has the result: %w", err)
				}
			}
			last := &trials[len(trials)-1]
			if succeeded == 0 {
				last.fail("all runs failed")
			}
			if builds := l.unfinishedBuilds(); len(builds) > 0 {
				last.fail("the runs did not finish the builds %q", builds)
			}
			for _, run := range trials {
				results.add(t, run, row{concurrent, fmt.Sprintf("%d %s", test.runs, test.name)})
			}
		})
	}
}

func (l *lab) withInput(f flow, name, value string) func(l *lab, id string) map[string]string {
	return func(l *lab, id string) map[string]string {
		inputs := f.inputs(l, id)
		inputs[name] = value
		return inputs
	}
}

// tryAtOnce runs a flow n times at once.
func (l *lab) tryAtOnce(ctx context.Context, f flow, n int) []trial {
	f.timeout = 5 * time.Minute // they share two cores
	trials := make([]trial, n)
	var running sync.WaitGroup
	for i := range trials {
		running.Go(func() { trials[i] = l.try(ctx, f, nil) })
	}
	running.Wait()
	return trials
}

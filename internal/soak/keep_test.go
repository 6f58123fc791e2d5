//go:build linux

package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud"
	clouddaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	daytonaclient "github.com/org/sandbox-actions/pkg/daytona"
)

var keptSnapshots = class{"Concurrent runs that delete old snapshots", `Two runs with "keep: 1" create snapshots at the
same time. Neither may delete the snapshot of the other one, or the one that Doppler names.`, "runs"}

// Two runs delete old snapshots at the same time.
func TestKeep(t *testing.T) {
	const rounds = 6
	type pair struct {
		name     string
		prefixes [2]string
		cpus     [2]string // another size is another snapshot
	}
	inSomeLabs(t, newLab(t), func(yield func(func(*lab)) bool) {
		random := rand.New(rand.NewPCG(9, 10))
		for n, p := range []pair{
			{"same prefix", [2]string{"kept", "kept"}, [2]string{"1", "2"}},
			{"different prefixes", [2]string{"kept-a", "kept-b"}, [2]string{"1", "2"}},
			{"same prefix and image", [2]string{"kept", "kept"}, [2]string{"1", "1"}},
			{"prefix of the other prefix", [2]string{"kept", "kept-b"}, [2]string{"1", "2"}},
		} {
			for round := range rounds {
				delay := time.Duration(random.Int64N(int64(time.Second)))
				if isSelected(n*rounds+round, 2*rounds) && !yield(func(l *lab) {
					l.tryKeep(t, p.name, p.prefixes, p.cpus, delay)
				}) {
					return
				}
			}
		}
	})
}

// tryKeep starts the second run after a delay.
func (l *lab) tryKeep(t *testing.T, name string, prefixes, cpus [2]string, delay time.Duration) {
	client := &daytonaclient.Client{URL: l.Daytona.URL(), Key: l.DaytonaKey}
	old := map[string]bool{}
	for _, prefix := range prefixes {
		if name := prefix + "-20260101-000000-abcdef0-old"; !old[name] {
			old[name] = true
			l.Daytona.Put(clouddaytona.Snapshot{
				Organization: localcloud.DaytonaOrganization, Name: name, Created: time.Now().Add(-time.Hour),
			})
		}
	}
	var trials [2]trial
	var running sync.WaitGroup
	for i := range trials {
		f := snapshot
		f.timeout = time.Minute
		f.inputs = func(l *lab, id string) map[string]string {
			inputs := snapshot.inputs(l, id)
			delete(inputs, "name")
			inputs["name_prefix"], inputs["cpu"], inputs["keep"] = prefixes[i], cpus[i], "1"
			return inputs
		}
		running.Go(func() {
			time.Sleep(time.Duration(i) * delay)
			trials[i] = l.try(t.Context(), f, nil)
		})
	}
	running.Wait()
	err := l.checkKept(t.Context(), client, trials, old)
	for i := range trials {
		trials[i].name = fmt.Sprintf("keep, %s, %s apart", name, delay)
		if trials[i].ExitCode != 0 {
			trials[i].fail("the run failed: %s", trials[i].message)
		}
		if i == 0 && err != nil {
			trials[i].fail("%w", err)
		}
		results.add(t, trials[i], row{keptSnapshots, name})
	}
}

// checkKept checks that the snapshots of both runs are active, and that the old ones are deleted. It deletes all.
func (l *lab) checkKept(
	ctx context.Context, client *daytonaclient.Client, trials [2]trial, old map[string]bool,
) error {
	all, err := client.List(ctx, "")
	if err != nil {
		return err
	}
	named := l.Doppler.Secret(localcloud.Project, "dev", "DAYTONA_SNAPSHOT_NAME")
	l.Doppler.SetSecret(localcloud.Project, "dev", "DAYTONA_SNAPSHOT_NAME", "")
	var active []string
	var problems []error
	for _, s := range all {
		if s.State == daytonaclient.Active {
			active = append(active, s.Name)
		}
		if old[s.Name] && s.State != daytonaclient.Removing {
			problems = append(problems, fmt.Errorf("the old snapshot %s is %s", s.Name, s.State))
		}
		problems = append(problems, l.deleteSnapshot(ctx, s.ID))
	}
	for _, name := range []string{named, trials[0].outputs["snapshot_name"], trials[1].outputs["snapshot_name"]} {
		if !slices.Contains(active, name) {
			problems = append(problems, fmt.Errorf("snapshot %q is not active; %q are", name, active))
		}
	}
	return errors.Join(problems...)
}

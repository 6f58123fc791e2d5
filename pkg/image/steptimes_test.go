package image

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

func discard(_ context.Context, status chan *client.SolveStatus) error {
	drain(status)
	return nil
}

// The times of steps are those of this machine, whatever the builder's clock shows, and the logs are the end of the
// output.
func TestStepTimesAndLogs(t *testing.T) {
	for _, skew := range []time.Duration{-time.Hour, 0, time.Hour} {
		status := make(chan *client.SolveStatus)
		now := time.Now()
		at := func(offset time.Duration) *time.Time { moment := now.Add(skew + offset); return &moment }
		go func() {
			defer close(status)
			status <- &client.SolveStatus{
				Vertexes: []*client.Vertex{{Digest: id("a"), Name: "a", Started: at(-2 * time.Second)}},
				Logs: []*client.VertexLog{
					{Vertex: id("a"), Stream: 1, Data: []byte("first\n" + strings.Repeat("0123456789\n", MaxStepLog/11) + "se")},
				},
			}
			status <- &client.SolveStatus{
				Vertexes: []*client.Vertex{
					{Digest: id("a"), Name: "a", Started: at(-2 * time.Second), Completed: at(-time.Second)},
					{Digest: id("b"), Name: "b", Started: at(-time.Second), Completed: at(0)},
				},
				Logs: []*client.VertexLog{{Vertex: id("a"), Stream: 1, Data: []byte("cret")}},
			}
		}()
		clean := func(line string) string { return strings.ReplaceAll(line, "secret", "***") }
		stats, err := Progress(t.Context(), []PlatformStatus{{amd64, status}}, clean, discard)
		if err != nil || len(stats.Steps) != 2 {
			t.Fatal(err, stats)
		}
		a, b := stats.Steps[0], stats.Steps[1]
		if early := now.Sub(a.Started) - 2*time.Second; early < -time.Minute || early > time.Minute ||
			b.Started.Sub(a.Started) != time.Second || a.Duration != time.Second {
			t.Errorf("skew %s: %s, %s", skew, a.Started, b.Started)
		}
		if len(a.Log) > MaxStepLog || len(a.Log) < MaxStepLog-20 || !strings.HasPrefix(a.Log, "0123456789\n") ||
			!strings.HasSuffix(a.Log, "0123456789\n***\n") || b.Log != "" {
			t.Errorf("log of %d bytes: %.20q…%q", len(a.Log), a.Log, a.Log[max(0, len(a.Log)-20):])
		}
	}
}

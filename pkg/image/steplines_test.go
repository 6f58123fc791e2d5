package image

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

// Each step of a build is found in the Dockerfile. The instructions contain the numbers of their lines.
func TestStepLines(t *testing.T) {
	w := sharedServices(t)
	for name, dockerfile := range map[string]string{
		"one stage": `# comment
FROM debian:bookworm-slim
ARG X=1
RUN echo \
  L4
WORKDIR /L6
ENV A=b
copy Dockerfile /L8
`,
		"stages": `ARG BASE=debian:bookworm-slim
FROM ${BASE} AS Builder
WORKDIR /L3
RUN <<EOF
echo L4 > out
EOF
COPY --link Dockerfile /L7

FROM builder
RUN echo L10
FROM scratch
COPY --from=builder /L3 /L12
COPY --from=1 /L3 /L13
ADD Dockerfile /L14
`,
		"many steps": "FROM debian:bookworm-slim\nRUN echo L2\nRUN echo L3\nRUN echo L4\nRUN echo L5\nRUN echo L6\n" +
			"RUN echo L7\nRUN echo L8\nRUN echo L9\nRUN echo L10\nRUN echo L11\n",
	} {
		dir := writeFiles(t, map[string]string{"Dockerfile": dockerfile})
		definition, err := ReadDockerfile(filepath.Join(dir, "Dockerfile"))
		if err != nil {
			t.Fatal(err)
		}
		status := make(chan *client.SolveStatus)
		failed := make(chan error, 1)
		go func() {
			_, err := Solve(t.Context(), w.machine(t, amd64), request(dir), status)
			failed <- err
		}()
		stats, err := Progress(t.Context(), []PlatformStatus{{amd64, status}}, func(s string) string { return s }, discard)
		if err := errors.Join(err, <-failed); err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, step := range stats.Steps {
			parts, ok := ParseStepName(step.Name)
			marker := regexp.MustCompile(`\bL(\d+)`).FindAllStringSubmatch(step.Name, -1)
			if !ok || marker == nil {
				continue
			}
			found++
			if want, _ := strconv.Atoi(marker[len(marker)-1][1]); definition.StepLine(parts) != want {
				t.Errorf("%s: %q is in line %d", name, step.Name, definition.StepLine(parts))
			}
		}
		if want := len(regexp.MustCompile(`(?m)^(RUN|ADD|COPY|copy|WORKDIR)`).FindAllString(dockerfile, -1)); found < want-1 {
			t.Errorf("%s: found %d steps of %d", name, found, want)
		}
	}
}

// A step that cannot be found has no line.
func TestUnknownStepLine(t *testing.T) {
	definition, err := ReadDockerfile(filepath.Join(writeFiles(t, map[string]string{
		"Dockerfile": "FROM a AS same\nRUN b\nFROM c AS same\nRUN d\nFROM e\nRUN f\n",
	}), "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		"[stage-2 1/2] FROM e": 5, "[linux/amd64 stage-2  2/2] RUN f": 6, "[linux/amd64->arm64 stage-2 2/2] RUN f": 6,
		"[same 2/2] RUN b": 0, "[stage-1 2/2] RUN d": 0, "[stage-2 2/2] COPY f": 0, "[stage-2 2/5] RUN f": 0,
		"[stage-2 9/2] RUN f": 0, "[stage-2 99999999999999999999/2] RUN f": 0, "[2/2] RUN f": 0,
		"[internal] load metadata": 0, "exporting to image": 0,
	} {
		parts, _ := ParseStepName(name)
		if got := definition.StepLine(parts); got != want {
			t.Errorf("%s: line %d, want %d", name, got, want)
		}
	}
}

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

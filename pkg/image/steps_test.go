package image

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
)

func TestOutputTail(t *testing.T) {
	type write struct {
		stream int
		text   string
	}
	var many []write
	for range maxTailLines + 5 {
		many = append(many, write{1, "line\n"})
	}
	const secret = "hunter2-hunter2"
	long := strings.Repeat("x", maxTailLine-8)
	for _, test := range []struct {
		name   string
		writes []write
		want   []string
	}{
		{"nothing", nil, nil},
		{"order of both streams", []write{{1, "one\n"}, {2, "two\n"}, {1, "three\n"}}, []string{"one", "two", "three"}},
		{"lines in pieces", []write{{1, "on"}, {2, "tw"}, {1, "e\n"}, {2, "o"}}, []string{"one", "two"}},
		{"unfinished lines", []write{{2, "error"}, {1, "output"}}, []string{"output", "error"}},
		{"empty lines", []write{{1, "\n \none\r\n\n"}}, []string{"one"}},
		{"progress bar", []write{{1, "1%\r"}, {1, "50%\r99%"}, {1, "\nend"}}, []string{"99%", "end"}},
		{"colors and titles", []write{{1, "\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\x1b(B\n"}}, []string{"red end"}},
		{"control characters", []write{{1, "bell\x07 \xff\n"}}, []string{"bell␇ \uFFFD"}},
		{"secret in two pieces", []write{{1, "is hunter2-"}, {1, "hunter2\n"}}, []string{"is ***"}},
		{"secret with a color", []write{{1, "hunter2-\x1b[0mhunter2\n"}}, []string{"***"}},
		{"secret at the end of a long line", []write{{1, long + secret + "yyyyyyyyyyyy"}}, []string{long + "***yyyyy…"}},
		{"progress without end", []write{{1, strings.Repeat("10%\r", maxPartialLine)}, {1, "failed"}}, []string{"failed"}},
		{"last lines", many, slices.Repeat([]string{"line"}, maxTailLines)},
	} {
		t.Run(test.name, func(t *testing.T) {
			tail := outputTail{clean: func(line string) string { return strings.ReplaceAll(line, secret, "***") }}
			for _, w := range test.writes {
				tail.write(w.stream, []byte(w.text))
			}
			if got := tail.last(); !slices.Equal(got, test.want) {
				t.Errorf("got %.200q, want %.200q", got, test.want)
			}
		})
	}
}

func TestStepMonitor(t *testing.T) {
	const waiting = "[stage-1 3/3] COPY --from=build /out /"
	pending := client.SolveStatus{Vertexes: []*client.Vertex{{Digest: id(waiting), Name: waiting}}}
	for _, test := range []struct {
		name     string
		statuses []client.SolveStatus
		want     string
	}{
		{"nothing", nil, ""},
		{"frontend", []client.SolveStatus{step(load, 0, 0)}, "step `" + load + "`"},
		{
			"step", []client.SolveStatus{step(load, 0, 0), step(from, 0, 0), pending, step(build, 1, 0), step(from, 0, 2)},
			"step `[2/3] RUN make` (0 of 2 steps done)",
		},
		{
			"ended step", []client.SolveStatus{step(build, 1, 2), step(waiting, 2, 0)},
			"step `" + waiting + "` (1 of 2 steps done)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var monitor StepMonitor
			shown := 0
			status := make(chan *client.SolveStatus)
			go func() {
				for _, s := range test.statuses {
					status <- &s
				}
				close(status)
			}()
			err := monitor.Watch(func(_ context.Context, status chan *client.SolveStatus) error {
				for range status {
					shown++
				}
				return nil
			})(t.Context(), status)
			if got := monitor.String(); err != nil || got != test.want || shown != len(test.statuses) {
				t.Errorf("got %q, %d statuses (%v); want %q", got, shown, err, test.want)
			}
		})
	}
}

// A step that was canceled does not hide the one that failed first.
func TestFailedStepBehindCanceledOne(t *testing.T) {
	canceled := "failed to compute cache key: context canceled"
	var recorder stepRecorder
	for _, s := range []client.SolveStatus{
		step(build, 0, 0), step(copyStep, 0, 1, fails(canceled)), step(build, 0, 1, fails("no space left on device")),
	} {
		recorder.record(&s)
	}
	for _, message := range []string{"failed to solve: context canceled", "failed to solve: no space left on device"} {
		if got := recorder.failed("", message); got == nil || got.name != build {
			t.Errorf("%s: got %+v, want %s", message, got, build)
		}
	}
	if got := recorder.failed(id(copyStep), canceled); got == nil || got.name != build {
		t.Errorf("got %+v, want %s", got, build)
	}
}

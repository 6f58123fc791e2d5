package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/org/sandbox-actions/internal/runnerlog"
	"github.com/org/sandbox-actions/pkg/runner"
)

// script is a sequence of statuses of one or two platforms.
type script []struct {
	platform int
	status   client.SolveStatus
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at returns the time that is the given number of seconds after epoch.
func at(seconds float64) *time.Time {
	moment := epoch.Add(time.Duration(seconds * float64(time.Second)))
	return &moment
}

func id(name string) digest.Digest { return digest.FromString(name) }

// step returns the status of a step that started and ended at the given seconds. 0 means that it has not ended.
func step(name string, begun, ended float64, change ...func(*client.Vertex)) client.SolveStatus {
	v := &client.Vertex{Digest: id(name), Name: name, Started: at(begun)}
	if ended > 0 {
		v.Completed = at(ended)
	}
	for _, c := range change {
		c(v)
	}
	return client.SolveStatus{Vertexes: []*client.Vertex{v}}
}

func cached(v *client.Vertex) { v.Cached = true }
func needs(names ...string) func(*client.Vertex) {
	return func(v *client.Vertex) {
		for _, name := range names {
			v.Inputs = append(v.Inputs, id(name))
		}
	}
}
func fails(why string) func(*client.Vertex) {
	return func(v *client.Vertex) { v.Error = why }
}

func logs(name string, seconds float64, text string) client.SolveStatus {
	log := &client.VertexLog{Vertex: id(name), Stream: 1, Data: []byte(text), Timestamp: *at(seconds)}
	return client.SolveStatus{Logs: []*client.VertexLog{log}}
}

func transfer(name, what string, bytes int64, begun, ended float64) client.SolveStatus {
	s := &client.VertexStatus{
		Vertex: id(name), ID: what, Current: bytes, Total: bytes, Timestamp: *at(ended), Started: at(begun),
	}
	if ended > 0 {
		s.Completed = at(ended)
	}
	return client.SolveStatus{Statuses: []*client.VertexStatus{s}}
}

const (
	hostileStep = "[1/2] RUN ::error::in a name\n::add-mask::x"

	load     = "[internal] load build definition from Dockerfile"
	from     = "[1/3] FROM docker.io/library/debian:bookworm-slim"
	build    = "[2/3] RUN make"
	copyStep = "[stage-1 3/3] COPY --from=build /out /"
)

var (
	fromDigest = "[1/4] FROM docker.io/library/debian:bookworm-slim@" + id("debian").String()
	longStep   = "[1/2] RUN " + strings.Repeat("apt-get install -y package && ", 20) + "true"
)

// scripts are the statuses of builds. testdata/progress has the expected output.
var scripts = map[string]script{
	"success": {
		{0, step(load, 0, 0)}, {0, transfer(load, "transferring dockerfile", 120, 0, 0.1)}, {0, step(load, 0, 0.2)},
		{0, step(from, 0.2, 0.3, cached)},
		{0, step(build, 0.3, 0)}, {0, logs(build, 1, "compiling\nlin")},
		{0, step(copyStep, 0.3, 0)}, {0, logs(copyStep, 1.5, "copied\n")}, {0, step(copyStep, 0.3, 1.6)},
		{0, logs(build, 2, "king\nno newline at the end")}, {0, step(build, 0.3, 2.5)},
	},
	"failed-step": {
		{0, step(from, 0, 0.1, cached)}, {0, step(build, 0.2, 0)}, {0, step(copyStep, 0.2, 0)},
		{0, logs(build, 1, strings.Repeat("a line of many\n", 40))}, {0, logs(build, 1, "make: *** [all] Error 2\n")},
		{0, step(build, 0.2, 2, fails("process \"/bin/sh -c make\" did not complete successfully: exit code: 2"))},
		{0, step(copyStep, 0.2, 2, fails("failed to compute cache key: context canceled"))},
	},
	"two-platforms": {
		{0, step(build, 0, 0)}, {1, step(build, 0, 0)},
		{0, logs(build, 1, "on the fir")}, {1, logs(build, 1, "on the sec")},
		{0, logs(build, 1.5, "st\n")}, {1, logs(build, 1.5, "ond\n")},
		{1, step(build, 0, 2)}, {1, step(copyStep, 2, 2.1, cached)}, {0, step(build, 0, 3)}, {0, step(copyStep, 3, 3.5)},
	},
	"hostile-output": {
		{0, step(hostileStep, 0, 0)},
		{0, logs(hostileStep, 1, "::set-output name=digest::forged\n::add-mask::e\r::error::after a return\n"+
			"::stop-commands::mine\n::mine::\n##[error]old\n")},
		{0, logs(hostileStep, 1, "\x1b[2J\x1b]0;title\x07\x1b[31mred\nbell\x07 back\x08space null\x00 "+
			"del\x7f c1\u009b\n_GitHubActionsFileCommandDelimeter_\n")},
		{0, logs(hostileStep, 1, "the password is hunter")},
		{0, logs(hostileStep, 1, "2-hunter2 here\n\xff\xfe not UTF-8\n")},
		{0, transfer(hostileStep, "::error::of a transfer hunter2-hunter2", 10, 1, 2)},
		{0, step(hostileStep, 0, 2, fails("::error::failed with hunter2-hunter2\n::error::again"))},
	},
	"step-that-runs-twice": {
		{0, step(load, 0, 0)}, {0, logs(load, 0.1, "first\n")}, {0, step(load, 0, 0.2)},
		{0, step(load, 0.3, 0)}, {0, logs(load, 0.4, "second\n")}, {0, step(load, 0.3, 0.5)},
		{0, logs(load, 0.6, "an afterthought\n")},
	},
	"interrupted": {
		{0, step(build, 0, 0)}, {0, logs(build, 1, "half a li")},
		{0, step(copyStep, 0.5, 0)}, {0, logs(copyStep, 1, "waiting\n")},
	},
	"whole-build": {
		{0, step(load, 0, 0)}, {0, transfer(load, "transferring dockerfile: 120B", 120, 0, 0.01)}, {0, step(load, 0, 0.02)},
		{0, step("[internal] load metadata for docker.io/library/debian:bookworm-slim", 0, 0.8)},
		{0, step("[internal] load .dockerignore", 0.8, 0.81)},
		{0, step("[internal] load build context", 0.9, 0)},
		{0, transfer("[internal] load build context", "transferring context:", 12_345_678, 0.9, 1.3)},
		{0, step("[internal] load build context", 0.9, 1.3)},
		{0, step("[3/4] COPY . .", 1.3, 1.4, cached)}, {0, step("[2/4] WORKDIR /app", 1.3, 1.3, cached)},
		{0, step(fromDigest, 0.9, 0)}, {0, transfer(fromDigest, "resolve "+fromDigest[11:], 0, 0.9, 1.1)},
		{0, transfer(fromDigest, id("layer").String(), 29_000_000, 1.1, 2)},
		{0, transfer(fromDigest, "extracting "+id("layer").String(), 0, 2, 2.6)}, {0, step(fromDigest, 0.9, 2.6)},
		{0, step("[4/4] RUN npm ci", 2.6, 0)}, {0, logs("[4/4] RUN npm ci", 30, "added 312 packages in 27s\n")},
		{0, step("[4/4] RUN npm ci", 2.6, 30.2)},
		{0, step("exporting to image", 30.2, 0)}, {0, transfer("exporting to image", "exporting layers", 0, 30.2, 33)},
		{0, transfer("exporting to image", "exporting manifest "+id("manifest").String(), 0, 33, 33.01)},
		{0, transfer("exporting to image", "pushing layers", 0, 33, 75)},
		{
			0, transfer("exporting to image", "pushing manifest for example.com/team/app:1@"+id("manifest").String(), 0, 75, 76),
		},
		{0, step("exporting to image", 30.2, 76)},
	},
	"long-name": {
		{0, step(longStep, 0, 1)}, {0, step(longStep+" again", 0, 0)}, {0, logs(longStep+" again", 1, "output\n")},
		{0, step(longStep+" again", 0, 2)},
	},
	// A registry fails once, so the solve is retried; steps that were shown are cached then.
	"retried-solve": {
		{0, step(from, 0, 0)}, {0, step(build, 0, 0)}, {0, logs(build, 1, "made\n")}, {0, step(build, 0, 1)},
		{0, step(from, 0, 1, fails("failed to do request: EOF"))},
		{0, step(build, 2, 2, cached)}, {0, step(build, 2, 2, cached)}, {0, step(from, 2, 3)}, {0, step(from, 2, 3)},
		{0, step(copyStep, 3, 3.2)},
	},
	"failed-step-before-others": {
		{0, step(copyStep, 0, 0)}, {0, step(build, 0, 0)}, {0, step("[other 1/1] RUN sleep 9", 0, 0)},
		{0, logs(copyStep, 0.5, "copying\n")}, {0, logs(build, 1, "make: *** [all] Error 2\n")},
		{0, step(build, 0, 2, fails("process \"/bin/sh -c make\" did not complete successfully: exit code: 2"))},
		{0, step(copyStep, 0, 2.1, fails("context canceled"))},
		{0, step("[other 1/1] RUN sleep 9", 0, 2.1, fails("context canceled"))},
	},
	// BuildKit reports the steps of a build that is cached as a whole from the last one to the first one.
	"cached-build": {
		{0, step("[base 1/2] FROM debian", 0, 0.1)},
		{0, step("[stage-2 2/2] RUN make", 0.1, 0.1, cached, needs("[stage-2 1/2] COPY --from=tools / /"))},
		{0, step("[stage-2 1/2] COPY --from=tools / /", 0.1, 0.1, cached, needs("[tools 1/1] RUN tool", "[base 2/2] RUN a"))},
		{0, step("[tools 1/1] RUN tool", 0.1, 0.1, cached, needs("[base 2/2] RUN a"))},
		{0, step("[base 2/2] RUN a", 0.1, 0.1, cached, needs("[base 1/2] FROM debian"))},
		{0, step("exporting to image", 0.1, 0.3)},
	},
	"empty": {},
}

// play displays a script and returns the output and the summary.
func play(t *testing.T, s script, inActions bool, show func(r *runner.Runner) Display) (shown string, stats Stats) {
	t.Helper()
	var out bytes.Buffer
	r := runner.New(&out, &out, func(name string) string {
		if name == "GITHUB_ACTIONS" && inActions {
			return "true"
		}
		return ""
	})
	r.Mask("hunter2-hunter2")
	out.Reset()
	builds := []PlatformStatus{{Platform: amd64, Status: make(chan *client.SolveStatus)}}
	for _, line := range s {
		if line.platform == 1 {
			builds = append(builds[:1], PlatformStatus{Platform: arm64, Status: make(chan *client.SolveStatus)})
		}
	}
	go func() {
		for _, line := range s {
			builds[line.platform].Status <- clone(line.status)
			builds[line.platform].Status <- new(client.SolveStatus) // received after the previous one is shown
		}
		for _, m := range builds {
			close(m.Status)
		}
	}()
	stats, err := Progress(t.Context(), builds, r.Clean, show(r))
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), stats
}

// clone copies a status, because Progress modifies it.
func clone(s client.SolveStatus) *client.SolveStatus {
	c := new(client.SolveStatus)
	for _, v := range s.Vertexes {
		vertex := *v
		c.Vertexes = append(c.Vertexes, &vertex)
	}
	for _, status := range s.Statuses {
		changed := *status
		c.Statuses = append(c.Statuses, &changed)
	}
	for _, l := range s.Logs {
		log := *l
		c.Logs = append(c.Logs, &log)
	}
	for _, w := range s.Warnings {
		warning := *w
		c.Warnings = append(c.Warnings, &warning)
	}
	return c
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "progress", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: go test ./pkg/image -run Progress -update writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func TestProgressInGroups(t *testing.T) {
	for name, s := range scripts {
		t.Run(name, func(t *testing.T) {
			out, _ := play(t, s, true, func(r *runner.Runner) Display { return Groups(r) })
			checkCommands(t, out)
			golden(t, name+".groups", replaceTokens(out))
		})
	}
}

// A step that runs for a while without output shows that it runs, and its progress.
func TestProgressOfSilentSteps(t *testing.T) {
	var out bytes.Buffer
	r := runner.New(&out, &out, func(string) string { return "true" })
	g := newGroupDisplay(r)
	begin := func(name string, seconds float64, change ...func(*client.VertexStatus)) {
		s := step(name, seconds, 0)
		for _, c := range change {
			status := &client.VertexStatus{Vertex: id(name), Timestamp: *at(seconds), Started: at(seconds)}
			c(status)
			s.Statuses = append(s.Statuses, status)
		}
		g.update(&s, *at(seconds))
	}
	receive := func(name string, bytes, total int64) func(*client.VertexStatus) {
		return func(s *client.VertexStatus) { s.ID, s.Current, s.Total = name, bytes, total }
	}
	end := func(name string, begun, ended float64) {
		s := step(name, begun, ended)
		g.update(&s, *at(ended))
	}
	begin(build, 0)
	cachedStep := step("[1/3] WORKDIR /app", 0, 0.1, cached)
	g.update(&cachedStep, *at(0.1))
	begin(from, 2, receive("sha256:1", 0, 40e6), receive("sha256:2", 0, 60e6))
	g.tick(*at(4)) // nothing has run for long
	g.tick(*at(6)) // the first step has
	end(build, 0, 7)
	begin(from, 2, receive("sha256:1", 40e6, 40e6), receive("sha256:2", 10e6, 60e6))
	g.tick(*at(12))
	begin(from, 2, receive("sha256:2", 60e6, 60e6))
	end(from, 2, 22)
	begin("exporting to image", 22, receive("pushing layers", 0, 0))
	g.tick(*at(32))
	g.tick(*at(97))
	end("exporting to image", 22, 100)
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "silent-steps.groups", replaceTokens(out.String()))
}

func TestProgressLineByLine(t *testing.T) {
	for name, s := range scripts {
		t.Run(name, func(t *testing.T) {
			show := func(r *runner.Runner) Display {
				return func(ctx context.Context, status chan *client.SolveStatus) error {
					out := r.Untrusted()
					defer out.Close()
					return Plain(out)(ctx, status)
				}
			}
			out, _ := play(t, s, true, show)
			checkCommands(t, out)
			golden(t, name+".plain", plainContent(out))
		})
	}
}

var (
	plainPrefix = regexp.MustCompile(`^(#\d+ )?(\d+\.\d+ )?`)
	plainState  = regexp.MustCompile(`^(|\.\.\.|-+|DONE .*|::.*::|::stop-commands::.*)$`)
)

// plainContent returns the distinct lines of BuildKit's plain display, sorted because their order depends on timing.
func plainContent(out string) string {
	lines := map[string]bool{}
	for line := range strings.Lines(out) {
		if line = plainPrefix.ReplaceAllString(strings.TrimSuffix(line, "\n"), ""); !plainState.MatchString(line) {
			lines[line] = true
		}
	}
	var s strings.Builder
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		s.WriteString(line + "\n")
	}
	return s.String()
}

var stopCommand = regexp.MustCompile(`^::stop-commands::(\w{20,})$`)

// replaceTokens replaces the random tokens of stop-commands with a constant.
func replaceTokens(out string) string {
	for _, line := range strings.Split(out, "\n") {
		if found := stopCommand.FindStringSubmatch(line); found != nil {
			out = strings.ReplaceAll(out, found[1], "TOKEN")
		}
	}
	return out
}

// checkCommands fails if a build issues a workflow command, disturbs the groups of the log, or prints the secret.
func checkCommands(t *testing.T, out string) {
	t.Helper()
	if strings.Contains(out, "hunter2-hunter2") {
		t.Errorf("the output contains the secret:\n%s", out)
	}
	for _, command := range runnerlog.Commands(out) {
		if !strings.HasPrefix(command, "::group::") && command != "::endgroup::" {
			t.Errorf("the runner would execute %q", command)
		}
	}
	if _, err := runnerlog.Groups(out); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for _, r := range out {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			t.Errorf("the control character %U is shown", r)
		}
	}
}

func TestStats(t *testing.T) {
	warning := func(line, end int32, short string) client.SolveStatus {
		w := &client.VertexWarning{
			Vertex: id(load), Short: []byte(short), Detail: [][]byte{[]byte("one"), []byte("two")},
			URL: "https://docs.docker.com/x",
		}
		if line > 0 {
			w.Range = []*pb.Range{{Start: &pb.Position{Line: line}, End: &pb.Position{Line: end}}}
		}
		return client.SolveStatus{Warnings: []*client.VertexWarning{w}}
	}
	for _, test := range []struct {
		name          string
		script        script
		cached, total int
		steps         []string
		warnings      []Warning
	}{
		{name: "nothing"},
		{
			name:   "without FROM and steps of the frontend",
			script: scripts["success"],
			total:  2,
			steps:  []string{load, from + " cached", build, copyStep},
		},
		{
			name: "cached",
			script: script{{0, step(from, 0, 0.1, cached)}, {0, step(build, 0.2, 0.3, cached)},
				{0, step("exporting to image", 0.4, 0.5)}, {0, step(copyStep, 0.3, 0.4, cached)}},
			cached: 2, total: 2,
			steps: []string{from + " cached", build + " cached", copyStep + " cached", "exporting to image"},
		},
		{
			name: "reported as cached before it ends",
			script: script{{0, step(build, 0, 0, cached)}, {0, step(build, 0, 1)},
				{0, step(build, 0, 1)}},
			cached: 1, total: 1,
			steps: []string{build + " cached"},
		},
		{
			name:   "both platforms",
			script: scripts["two-platforms"],
			cached: 1, total: 4,
			steps: []string{"[linux/amd64 2/3] RUN make", "[linux/amd64 stage-1 3/3] COPY --from=build /out /",
				"[linux/arm64 2/3] RUN make", "[linux/arm64 stage-1 3/3] COPY --from=build /out / cached"},
		},
		{
			name: "warnings",
			script: script{
				{0, warning(3, 4, "one")}, {1, warning(3, 4, "one")}, {0, warning(0, 0, "two")},
				{1, warning(7, 7, "hunter2-hunter2\x1b[0m")},
			},
			warnings: []Warning{
				{Line: 3, EndLine: 4, Short: "one", Detail: "one two", URL: "https://docs.docker.com/x"},
				{Short: "two", Detail: "one two", URL: "https://docs.docker.com/x"},
				{Line: 7, EndLine: 7, Short: "***␛[0m", Detail: "one two", URL: "https://docs.docker.com/x"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, stats := play(t, test.script, true, func(r *runner.Runner) Display { return Groups(r) })
			if stats.Cached != test.cached || stats.Total != test.total {
				t.Errorf("%d of %d cached, want %d of %d", stats.Cached, stats.Total, test.cached, test.total)
			}
			var steps []string
			for _, s := range stats.Steps {
				name := s.Name
				if s.Cached {
					name += " cached"
				}
				steps = append(steps, name)
			}
			if !reflect.DeepEqual(steps, test.steps) {
				t.Errorf("steps %q, want %q", steps, test.steps)
			}
			if !reflect.DeepEqual(stats.Warnings, test.warnings) {
				t.Errorf("warnings %+v, want %+v", stats.Warnings, test.warnings)
			}
		})
	}
}

// The buffered output of a step that is not shown yet is limited.
func TestProgressLimits(t *testing.T) {
	long := script{{0, step(build, 0, 0)}, {0, logs(build, 1, "making\n")}, {0, step(copyStep, 0, 0)}}
	for range 100 {
		long = append(long, script{{0, logs(copyStep, 1, strings.Repeat("0123456789abcde\n", 1<<12))}}...)
	}
	long = append(long, script{{0, step(build, 0, 1)}, {0, step(copyStep, 0, 2)}}...)
	out, _ := play(t, long, true, func(r *runner.Runner) Display { return Groups(r) })
	if !strings.Contains(out, "(2.4 MB of output omitted)") || len(out) > maxPending+1<<10 {
		t.Errorf("%d bytes are shown, and the end is %q", len(out), out[len(out)-200:])
	}
	line := logs(build, 1, strings.Repeat("x", 200<<10))
	endless, _ := play(t, script{{0, step(build, 0, 0)}, {0, line}, {0, step(build, 0, 1)}}, true,
		func(r *runner.Runner) Display { return Groups(r) })
	if got := strings.Count(endless, "x"); got != 200<<10 {
		t.Errorf("%d bytes of a line without end are shown, want all %d", got, 200<<10)
	}
}

// A failing display does not block a build.
func TestProgressWithBrokenDisplay(t *testing.T) {
	status := make(chan *client.SolveStatus)
	go func() {
		for _, line := range scripts["success"] {
			status <- clone(line.status)
		}
		close(status)
	}()
	broken := errors.New("no terminal")
	stats, err := Progress(t.Context(), []PlatformStatus{{amd64, status}}, func(line string) string { return line },
		func(context.Context, chan *client.SolveStatus) error { return broken })
	if !errors.Is(err, broken) || stats.Total != 2 {
		t.Errorf("%d steps, %v", stats.Total, err)
	}
}

func TestProgressOfBuild(t *testing.T) {
	w := sharedServices(t)
	dir := writeFiles(t, map[string]string{"Dockerfile": `from debian:bookworm-slim AS one
RUN printf '::error::forged\n::set-output name=digest::x\n\033[31mred\n' && \
    printf 'hunter2-' && sleep 0.1 && echo hunter2
FROM one
ENV KEY value
RUN echo the last words && exit 3
`})
	var out bytes.Buffer
	r := runner.New(&out, &out, func(name string) string { return map[string]string{"GITHUB_ACTIONS": "true"}[name] })
	r.Mask("hunter2-hunter2")
	out.Reset()
	status := make(chan *client.SolveStatus)
	failed := make(chan error)
	request := request(dir)
	request.NoCache = true
	go func() {
		_, err := Solve(t.Context(), w.machine(t, amd64), request, status)
		failed <- err
	}()
	stats, err := Progress(t.Context(), []PlatformStatus{{amd64, status}}, r.Clean, Groups(r))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.HasPrefix(err.Error(), "Dockerfile:6 (step stage-1 1/1)") {
		t.Errorf("error = %v, want line 6", err)
	}
	checkCommands(t, out.String())
	if !strings.Contains(out.String(), "the last words\nprocess ") {
		t.Errorf("the output of the failed step is missing:\n%s", out.String())
	}
	if stats.Total != 2 {
		t.Errorf("%d steps", stats.Total)
	}
	var warnings []string
	for _, w := range stats.Warnings {
		warnings = append(warnings, fmt.Sprintf("%d %s", w.Line, strings.SplitN(w.Short, ":", 2)[0]))
	}
	want := []string{
		"1 FromAsCasing", "1 ConsistentInstructionCasing", "5 LegacyKeyValueFormat", "5 SecretsUsedInArgOrEnv",
	}
	if !reflect.DeepEqual(warnings, want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
}

// A line longer than the buffer is shown in pieces.
func TestTrackerCompleteLines(t *testing.T) {
	tracker := newProgressTracker(func(line string) string { return "<" + line + ">" })
	for _, test := range []struct {
		name, data, want string
	}{
		{"partial line", "one", ""},
		{"end of the line and another", "two\nthree", "<onetwo>\n"},
		{"return", "\rfour\n", "<three>\n<four>\n"},
		{"endless line", strings.Repeat("x", maxPartialLine+1), "<" + strings.Repeat("x", maxPartialLine+1) + ">\n"},
		{"nothing left", "\n", ""},
	} {
		got := tracker.completeLines(&client.VertexLog{Vertex: id("step"), Stream: 1, Data: []byte(test.data)})
		if string(got) != test.want {
			t.Errorf("%s: %.80q, want %.80q", test.name, got, test.want)
		}
	}
	tracker.completeLines(&client.VertexLog{Vertex: id("step"), Stream: 1, Data: []byte("out")})
	tracker.completeLines(&client.VertexLog{Vertex: id("step"), Stream: 2, Data: []byte("err")})
	var flushed []string
	for _, log := range tracker.flush() {
		flushed = append(flushed, string(log.Data))
	}
	if want := []string{"<out>\n", "<err>\n"}; !slices.Equal(flushed, want) {
		t.Errorf("flushed %q, want %q", flushed, want)
	}
	if rest := tracker.flush(); len(rest) > 0 {
		t.Errorf("flushed %v twice", rest)
	}
}

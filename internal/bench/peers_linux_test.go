package bench

import (
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/daytona"
)

// engineNames are the names of the kinds of engines on the page.
var engineNames = map[string]string{engine.Current: "Docker 29", engine.Oldest: "Docker 20.10"}

// TestPeers compares our programs with their peers, and writes the results. It needs -full.
func TestPeers(t *testing.T) {
	if !*full {
		t.Skip("takes minutes; run `make bench`")
	}
	l := newLab(t, true)
	cases := []Case{l.cold(), l.cached(), l.oneFile(), l.snapshot()}
	for _, kind := range []string{engine.Current, engine.Oldest} {
		cases = append(cases, l.firstLoad(kind), l.loaded(kind))
	}
	cases = append(cases, l.suite(), l.boot(), l.launcher(), l.download())
	var rows []Row
	var names []string
	for _, c := range cases {
		for _, goal := range c.Goals {
			names = append(names, goal.Name)
		}
		c.Pairs = cmp.Or(*pairs, c.Pairs)
		t.Run(c.Goals[0].Name, func(t *testing.T) {
			for _, row := range c.Run(t) {
				fmt.Printf("%-60s ours %8.4g  peer %8.4g  ratio %.3f (%.3f–%.3f, goal %.2f)  memory %d MB  moved %d MB\n",
					row.Name, row.Ours, row.Peer, row.Ratio, row.Min, row.Max, row.Goal, row.Memory/1e6, row.Moved/1e6)
				rows = append(rows, row)
			}
		})
	}
	var results Results // the rows of earlier runs remain
	if err := Read(resultsFile, &results); err != nil {
		t.Fatal(err)
	}
	results.Rows = Merge(names, func(r Row) string { return r.Name }, rows, results.Rows)
	results.Machine = machine(t)
	if err := Write(resultsFile, results); err != nil {
		t.Fatal(err)
	}
	writePage(t)
}

// warm builds once with both sides without a measurement, so that all steps are cached.
func (l *lab) warm(t *testing.T) {
	t.Helper()
	mustRun(t, l.ours("", "action-build", "--no-load"))
	mustRun(t, l.depot(""))
}

// cold has one pair, because a build takes more than a minute.
func (l *lab) cold() Case {
	return Case{
		Goals: []Goal{{"cold build, digest wanted (one pair)", 0.9}}, Pairs: 1,
		Ours: func(t *testing.T) []Usage {
			return []Usage{measure(t, l.ours("", "action-build", "--no-load", "--no-cache"))}
		},
		Peer: func(t *testing.T) []Usage {
			return []Usage{measure(t, l.depot("", "--no-cache", "--push", "--tag", l.Registry.Addr+"/team/cold:1"))}
		},
	}
}

func (l *lab) cached() Case {
	return Case{
		Goals:   []Goal{{"cached, nothing loaded", 0.8}},
		Prepare: l.warm,
		Ours:    func(t *testing.T) []Usage { return []Usage{measure(t, l.ours("", "action-build", "--no-load"))} },
		Peer:    func(t *testing.T) []Usage { return []Usage{measure(t, l.depot(""))} },
	}
}

func (l *lab) oneFile() Case {
	return Case{
		Goals:   []Goal{{"one file changed, nothing loaded", 1.2}},
		Prepare: func(t *testing.T) { l.warm(t); mustRun(t, l.buildctl()) },
		Ours: func(t *testing.T) []Usage {
			l.touch(t)
			return []Usage{measure(t, l.ours("", "action-build", "--no-load"))}
		},
		Peer: func(t *testing.T) []Usage {
			l.touch(t)
			return []Usage{measure(t, l.buildctl())}
		},
	}
}

// firstLoad loads the image into empty engines.
func (l *lab) firstLoad(kind string) Case {
	return Case{
		Goals: []Goal{{"first load, " + engineNames[kind], 0.65}},
		Prepare: func(t *testing.T) {
			if kind == engine.Oldest {
				l.cacheGzip(t)
			}
			l.warm(t)
		},
		Ours: func(t *testing.T) []Usage {
			host, stop := startEngine(t, kind)
			defer stop()
			return []Usage{measure(t, l.ours(host, "action-build", "--image-name", "ours:1"))}
		},
		Peer: func(t *testing.T) []Usage {
			host, stop := startEngine(t, kind)
			defer stop()
			return []Usage{l.measureDepotLoad(t, host)}
		},
	}
}

// cacheGzip fills the builder's cache with layers in gzip. Docker 20.10 cannot read zstd, in which action-build
// compresses new layers, and the CLI loads the layers as they are.
func (l *lab) cacheGzip(t *testing.T) {
	t.Helper()
	c, err := client.New(t.Context(), l.Builders.Address(platform))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Prune(t.Context(), nil, client.PruneAll); err != nil {
		t.Fatal(err)
	}
	host, stop := startEngine(t, engine.Oldest)
	defer stop()
	l.measureDepotLoad(t, host)
}

// measureDepotLoad builds and loads with the CLI. The CLI may report success without an image.
func (l *lab) measureDepotLoad(t *testing.T, host string) Usage {
	t.Helper()
	usage := measure(t, l.depot(host, "--load", "--tag", "theirs:1"))
	mustRun(t, l.command(host, "docker", "image", "inspect", "theirs:1"))
	return usage
}

// loaded changes a file and loads the image into engines that have the image of the build before, and then loads the
// unchanged image.
func (l *lab) loaded(kind string) Case {
	var ourHost, peerHost string
	ours := func(t *testing.T) Usage {
		t.Helper()
		return measure(t, l.ours(ourHost, "action-build", "--image-name", "ours:1"))
	}
	peer := func(t *testing.T) Usage {
		t.Helper()
		return l.measureDepotLoad(t, peerHost)
	}
	return Case{
		Goals: []Goal{
			{"one file changed, loaded, " + engineNames[kind], 0.4},
			{"unchanged, loaded, " + engineNames[kind], 0.1},
		},
		Prepare: func(t *testing.T) {
			for _, host := range []*string{&ourHost, &peerHost} {
				started, stop := startEngine(t, kind)
				t.Cleanup(stop)
				*host = started
			}
			ours(t)
			peer(t)
		},
		Ours: func(t *testing.T) []Usage {
			l.touch(t)
			return []Usage{ours(t), ours(t)}
		},
		Peer: func(t *testing.T) []Usage {
			l.touch(t)
			return []Usage{peer(t), peer(t)}
		},
	}
}

// snapshot creates a snapshot of a cached build. The peer has an empty engine, as a runner of GitHub does. Both sides
// push to a registry that has the layers.
func (l *lab) snapshot() Case {
	const name = "bench"
	client := &daytona.Client{URL: l.Daytona.URL(), Key: l.DaytonaKey}
	// split divides the usage of a run into the goals: until Daytona received the request for the snapshot, all without
	// Daytona's time, and Daytona's time. It removes the snapshot.
	split := func(t *testing.T, began time.Time, whole Usage) []Usage {
		t.Helper()
		created, active := l.snapshotTimes(t, name)
		push, total, wait := whole, whole, Usage{Value: active.Sub(created).Seconds()}
		push.Value = created.Sub(began).Seconds()
		total.Value -= wait.Value
		snapshot, _, err := client.Find(t.Context(), name)
		if err == nil {
			err = client.Remove(t.Context(), snapshot)
		}
		if err != nil {
			t.Fatal(err)
		}
		return []Usage{push, total, wait}
	}
	ours := func(t *testing.T) []Usage {
		began := time.Now()
		whole := measure(t, l.ours("", "action-snapshot", "--image=", "--name", name, "--no-update-doppler",
			"--verify", "off"))
		return split(t, began, whole)
	}
	peer := func(t *testing.T) []Usage {
		host, stop := startEngine(t, engine.Current)
		defer stop()
		access, err := client.PushAccess(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		reference := fmt.Sprintf("%s/%s/peer:1", access.Registry, access.Project)
		login := l.command(host, "docker", "login", access.Registry, "--username", access.User, "--password-stdin")
		login.Stdin = strings.NewReader(access.Secret)
		began := time.Now()
		whole := measure(t, l.depot(host, "--load", "--tag", reference))
		whole = whole.Plus(measure(t, login)).Plus(measure(t, l.command(host, "docker", "push", "--quiet", reference)))
		created, err := client.Create(t.Context(), daytona.Request{
			Name: name, Image: reference, Resources: daytona.Resources{CPU: 1, Memory: 1, Disk: 3},
		})
		if err == nil {
			_, err = client.WaitUntilActive(t.Context(), created.ID, "", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		whole.Value = time.Since(began).Seconds()
		return split(t, began, whole)
	}
	return Case{
		Goals: []Goal{
			{"cached build to Daytona's registry", 0.1},
			{"cached build to an active snapshot, without Daytona's time", 0.1},
			{"Daytona's time for the snapshot", 0},
		},
		Prepare: func(t *testing.T) { l.warm(t); ours(t); peer(t) },
		Ours:    ours, Peer: peer,
	}
}

// snapshotTimes returns when Daytona received the request for a snapshot, and when it became active.
func (l *lab) snapshotTimes(t *testing.T, name string) (created, active time.Time) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.Daytona.URL()+"/snapshots/"+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+l.DaytonaKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var snapshot struct{ CreatedAt, UpdatedAt time.Time }
	if err := json.NewDecoder(response.Body).Decode(&snapshot); err != nil {
		t.Fatal(err)
	}
	return snapshot.CreatedAt, snapshot.UpdatedAt
}

// suite compares suites of commands, with a container for each test and in one session, with one container after the
// other.
func (l *lab) suite() Case {
	const tests = 40
	check := func(n int) string { return fmt.Sprintf("test -f /etc/passwd && echo %d", n) }
	suite := func(settings string) string {
		var s strings.Builder
		s.WriteString("tests:\n")
		for n := range tests {
			fmt.Fprintf(&s, "  - {name: test %[1]d, run: %[2]q, stdout: {equals: \"%[1]d\\n\"}%[3]s}\n", n, check(n), settings)
		}
		return s.String()
	}
	return Case{
		Goals:   []Goal{{"suite of 40 tests, a container for each", 0.25}, {"suite of 40 tests in one session", 0.25}},
		Prepare: l.load,
		Ours: func(t *testing.T) []Usage {
			return []Usage{l.runSuite(t, suite("")), l.runSuite(t, suite(", session: one"))}
		},
		Peer: func(t *testing.T) []Usage {
			var sum Usage
			for n := range tests {
				sum = sum.Plus(measure(t, l.command(l.Engine.Host, "docker", "run", "--rm", "--network", "none",
					"--entrypoint", "/bin/sh", testImage, "-c", check(n))))
			}
			return []Usage{sum, sum}
		},
	}
}

// boot starts the image with its entry point and checks it in ten steps.
func (l *lab) boot() Case {
	const steps = 10
	const health = "curl -fsS -o /dev/null http://127.0.0.1:8080/health"
	suite := "tests:\n  - name: boot\n    service:\n      ready: {http: {port: 8080, path: /health}, within: 60s}\n" +
		"      steps:\n" + strings.Repeat("        - run: "+health+"\n", steps)
	const name = "bench-boot"
	return Case{
		Goals:   []Goal{{"boot test of 10 steps", 0.25}},
		Prepare: l.load,
		Ours:    func(t *testing.T) []Usage { return []Usage{l.runSuite(t, suite)} },
		Peer: func(t *testing.T) []Usage {
			var sum Usage
			for range steps {
				sum = sum.Plus(measure(t, l.command(l.Engine.Host, "docker", "run", "--detach", "--name", name, testImage)))
				sum = sum.Plus(measure(t, l.command(l.Engine.Host, "docker", "exec", name, "sh", "-c",
					"until "+health+" 2>/dev/null; do sleep 0.05; done; "+health)))
				sum = sum.Plus(measure(t, l.command(l.Engine.Host, "docker", "rm", "--force", name)))
			}
			return []Usage{sum}
		},
	}
}

const testImage = "tested:1"

// load loads the image into the cloud's engine.
func (l *lab) load(t *testing.T) {
	t.Helper()
	mustRun(t, l.ours(l.Engine.Host, "action-build", "--image-name", testImage))
}

func (l *lab) runSuite(t *testing.T, content string) Usage {
	t.Helper()
	dir := t.TempDir()
	suite := filepath.Join(dir, "tests.yaml")
	if err := os.WriteFile(suite, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	command := l.command(l.Engine.Host, filepath.Join(l.programs, "action-test"), "--image", testImage,
		"--suite", "tests.yaml", "--report-dir", filepath.Join(dir, "results"))
	command.Dir = dir
	return measure(t, command)
}

// launcher starts a program in the tool cache. It has the size of action-build, and exits at once.
func (l *lab) launcher() Case {
	dir, cache := "", ""
	return Case{
		Goals: []Goal{{"launcher, program in the tool cache", 1}},
		Prepare: func(t *testing.T) {
			dir, cache = t.TempDir(), t.TempDir()
			script, err := os.ReadFile(filepath.Join(l.root, "actions/run.sh"))
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(l.programs, "action-build"))
			if err != nil {
				t.Fatal(err)
			}
			program := make([]byte, info.Size())
			copy(program, "#!/bin/sh\nexit 0\n")
			checksums := fmt.Sprintf("# https://github.com/%s v1.0.0 go1.0\n%x  action-build-linux-amd64\n", repository,
				sha256.Sum256(program))
			files := map[string][]byte{
				filepath.Join(dir, "run.sh"): script, filepath.Join(dir, "checksums.txt"): []byte(checksums),
				filepath.Join(cache, "sandbox-actions/v1.0.0/amd64/action-build"): program,
			}
			for path, content := range files {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, content, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		},
		Ours: func(t *testing.T) []Usage {
			command := l.command("", filepath.Join(dir, "run.sh"), "build")
			command.Env = append(command.Env, "RUNNER_TOOL_CACHE="+cache, "RUNNER_TEMP="+t.TempDir())
			return []Usage{measure(t, command)}
		},
		Peer: func(*testing.T) []Usage { return []Usage{{Value: 0.03}} },
	}
}

// download compresses the largest program as scripts/release.sh does.
func (l *lab) download() Case {
	return Case{
		Goals: []Goal{{"download of a program, MB", 1}}, Pairs: 1,
		Ours: func(t *testing.T) []Usage {
			var largest counter
			for _, name := range []string{"action-build", "action-snapshot", "action-test"} {
				var n counter
				program, err := os.Open(filepath.Join(l.programs, name))
				if err != nil {
					t.Fatal(err)
				}
				defer program.Close()
				w, err := gzip.NewWriterLevel(&n, gzip.BestCompression)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(w, program); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				largest = max(largest, n)
			}
			return []Usage{{Value: float64(largest) / 1e6, Moved: int64(largest)}}
		},
		Peer: func(*testing.T) []Usage { return []Usage{{Value: 10}} },
	}
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/source"
)

// BenchmarkPeers builds, loads and snapshots the sandbox image on the same cloud with our programs and with the depot
// and docker commands, and prints both results and their ratio:
//
//	go test ./internal/e2e -run - -bench Peers -benchtime 1x
//
// Times are wall times of whole programs, memory is the largest resident set size of a program, and moved is the number
// of bytes that the programs read and wrote.
func BenchmarkPeers(b *testing.B) {
	e, err := startEnvironment()
	if err != nil {
		b.Fatal(err)
	}
	p := newPeers(b, e)
	for range b.N {
		p.build("cold build", []string{"--no-cache", "--no-load"}, []string{"--no-cache"})
		p.warm([]string{"--no-load"}, nil)
		p.build("cached build", []string{"--no-load"}, nil)
		p.snapshotOnce("warm") // fills the layer cache of Daytona's runner
		for _, kind := range []string{engine.Current, engine.Oldest} {
			p.engines(kind)
			ours, theirs := []string{"--image-name", "ours:1"}, []string{"--load", "-t", "theirs:1"}
			p.build("first load, "+kind, ours, theirs)
			p.build("unchanged, "+kind, ours, theirs)
			p.touch()
			p.build("one file changed, "+kind, ours, theirs)
			p.snapshot("snapshot, " + kind)
		}
	}
}

// peers holds the resources that both sides use.
type peers struct {
	b                    *testing.B
	e                    *environment
	dir, git             string
	oursHost, theirsHost string // DOCKER_HOST of each side's engine
	depot, home          string
}

func newPeers(b *testing.B, e *environment) *peers {
	depot, err := filepath.Abs("../../.cache/depot/depot")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(depot); err != nil {
		b.Fatalf("the Depot CLI is missing: %v (run scripts/setup.sh test)", err)
	}
	p := &peers{b: b, e: e, dir: filepath.Join(b.TempDir(), "clone"), depot: depot, home: b.TempDir()}
	p.mustRun(exec.Command("git", "clone", "--quiet", e.ours, p.dir))
	p.commitContext()
	return p
}

// commitContext creates the .git context for the Depot CLI. Our programs create it themselves.
func (p *peers) commitContext() {
	p.git = filepath.Join(p.b.TempDir(), "git")
	tree, err := source.OpenCheckout(p.b.Context(), p.dir)
	if err == nil {
		err = tree.WriteGitDir(p.b.Context(), p.git)
	}
	if err != nil {
		p.b.Fatal(err)
	}
}

// touch changes and commits one file.
func (p *peers) touch() {
	if err := os.WriteFile(filepath.Join(p.dir, "README.md"), []byte(time.Now().String()), 0o644); err != nil {
		p.b.Fatal(err)
	}
	p.mustRun(
		exec.Command(
			"git",
			"-C",
			p.dir,
			"-c",
			"user.name=a",
			"-c",
			"user.email=a@example.com",
			"commit",
			"--quiet",
			"--all",
			"--message=touch",
		),
	)
	p.commitContext()
}

// engines starts an empty engine of the kind for each side.
func (p *peers) engines(kind string) {
	for _, host := range []*string{&p.oursHost, &p.theirsHost} {
		started, err := engine.Start(p.b.Context(), kind, p.b.TempDir(), nil)
		if err != nil {
			p.b.Fatal(err)
		}
		p.b.Cleanup(func() { _ = started.Stop() })
		*host = started.Host
	}
}

func (p *peers) environ(host string) []string {
	environ := append(
		os.Environ(),
		"HOME="+p.home,
		"DEPOT_ERROR_TELEMETRY=0",
		"DEPOT_NO_UPDATE_NOTIFIER=1",
		"DOCKER_API_VERSION=1.41",
	)
	for name, value := range p.e.Env() {
		environ = append(environ, name+"="+value)
	}
	return append(environ, "DOCKER_HOST="+host)
}

// warm builds once with each side, so that both start with warm caches.
func (p *peers) warm(ours, theirs []string) {
	p.run(p.theirs(theirs...))
	p.run(p.oursBuild(ours...))
}

// build measures a build on both sides.
func (p *peers) build(name string, ours, theirs []string) {
	p.compare(name, p.run(p.oursBuild(ours...)), p.run(p.theirs(theirs...)))
}

func (p *peers) oursBuild(args ...string) *exec.Cmd {
	return p.ours(
		"action-build",
		append(
			[]string{
				"--platform",
				"linux/amd64",
				"--git-context",
				"git",
				"--build-args",
				"GITHUB_REPOSITORY=org/sandbox-actions",
			},
			args...)...)
}

func (p *peers) ours(program string, args ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(p.e.programs, program), args...)
	command.Dir, command.Env = p.dir, p.environ(p.oursHost)
	return command
}

func (p *peers) theirs(args ...string) *exec.Cmd {
	command := exec.Command(
		p.depot,
		append([]string{"build", "-f", "sandbox/Dockerfile", "--platform", "linux/amd64", "--build-context", "git=" + p.git,
			"--build-arg", "GITHUB_REPOSITORY=org/sandbox-actions", "."}, args...)...)
	command.Dir, command.Env = p.dir, p.environ(p.theirsHost)
	return command
}

// snapshot measures the creation of a snapshot of a built image. Our program pushes from the builder; the other side
// loads the image, pushes it and calls Daytona's API.
func (p *peers) snapshot(name string) {
	ours := p.snapshotOnce(strings.ReplaceAll(name, ", ", "-"))
	client := &daytona.Client{URL: p.e.Daytona.URL(), Key: p.e.DaytonaKey}
	access, err := client.PushAccess(p.b.Context(), "")
	if err != nil {
		p.b.Fatal(err)
	}
	reference := fmt.Sprintf("%s/%s/theirs-%s:1", access.Registry, access.Project, strings.ReplaceAll(name, ", ", "-"))
	theirs := p.run(p.theirs("--load", "-t", reference))
	login := exec.Command("docker", "login", access.Registry, "--username", access.User, "--password-stdin")
	login.Stdin, login.Env = strings.NewReader(access.Secret), p.environ(p.theirsHost)
	push := exec.Command("docker", "push", "--quiet", reference)
	push.Env = login.Env
	began := time.Now()
	p.mustRun(login)
	theirs.add(p.run(push))
	created, err := client.Create(
		p.b.Context(),
		daytona.Request{Name: "theirs", Image: reference, Resources: daytona.Resources{CPU: 1, Memory: 1, Disk: 3}},
	)
	if err == nil {
		_, err = client.WaitUntilActive(p.b.Context(), created.ID, "", nil)
	}
	if err != nil {
		p.b.Fatal(err)
	}
	theirs.took += time.Since(began) - theirs.last
	p.compare(name, ours, theirs)
	p.deleteSnapshot("theirs")
}

// snapshotOnce creates a snapshot with our program and deletes it.
func (p *peers) snapshotOnce(prefix string) usage {
	c := p.run(
		p.ours(
			"action-snapshot",
			"--image=",
			"--git-context",
			"git",
			"--build-args",
			"GITHUB_REPOSITORY=org/sandbox-actions",
			"--name",
			"ours",
			"--name-prefix",
			prefix,
			"--no-update-doppler",
		),
	)
	p.deleteSnapshot("ours")
	return c
}

func (p *peers) deleteSnapshot(name string) {
	client := &daytona.Client{URL: p.e.Daytona.URL(), Key: p.e.DaytonaKey}
	s, found, err := client.Find(p.b.Context(), name)
	if err == nil && found {
		err = client.Remove(p.b.Context(), s)
	}
	if err != nil {
		p.b.Fatal(err)
	}
}

// usage is the resource usage of one side's programs.
type usage struct {
	took, last time.Duration // of all programs, and of the last one
	memory     int64         // bytes
	moved      int64         // bytes
}

func (c *usage) add(more usage) {
	c.took, c.last = c.took+more.took, more.took
	c.memory, c.moved = max(c.memory, more.memory), c.moved+more.moved
}

// mustRun runs a command without measuring it.
func (p *peers) mustRun(command *exec.Cmd) {
	p.b.Helper()
	if out, err := command.CombinedOutput(); err != nil {
		p.b.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// run runs a program and measures its resource usage.
func (p *peers) run(command *exec.Cmd) usage {
	p.b.Helper()
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	began := time.Now()
	if err := command.Start(); err != nil {
		p.b.Fatal(err)
	}
	var c usage
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				p.b.Fatalf("%s: %v\n%s", command, err, &out)
			}
			c.took = time.Since(began)
			return c
		case <-time.After(5 * time.Millisecond):
			moved, memory := processUsage(command.Process.Pid)
			c.moved, c.memory = max(c.moved, moved), max(c.memory, memory)
		}
	}
}

// processUsage returns the bytes that a process has read and written, and its peak resident set size, see proc(5).
func processUsage(pid int) (moved, memory int64) {
	for file, names := range map[string][]string{"io": {"rchar:", "wchar:"}, "status": {"VmHWM:"}} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return moved, memory
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || !slices.Contains(names, fields[0]) {
				continue
			}
			n, err := strconv.ParseInt(fields[1], 10, 64)
			switch {
			case err != nil:
			case file == "io":
				moved += n
			default:
				memory = n * 1024
			}
		}
	}
	return moved, memory
}

func (p *peers) compare(name string, ours, theirs usage) {
	show := func(c usage) string {
		return fmt.Sprintf("%6.2f s %4d MB of memory %5d MB moved", c.took.Seconds(), c.memory>>20, c.moved>>20)
	}
	fmt.Printf(
		"%-28s ours %s   theirs %s   %.1f times\n",
		name,
		show(ours),
		show(theirs),
		theirs.took.Seconds()/ours.took.Seconds(),
	)
}

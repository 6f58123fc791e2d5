package builder

import (
	"context"
	"fmt"
	"log"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/tonistiigi/fsutil"
)

// machinesDir is the state directory of the shared daemons.
var machinesDir string

// startMachines starts one BuildKit daemon per platform, shared by all tests.
var startMachines = sync.OnceValues(func() (*builders.Builders, error) {
	return builders.Start(context.Background(), builders.Options{Dir: machinesDir})
})

var machinesUsed atomic.Bool

// machines returns the shared daemons.
func machines(t *testing.T) *builders.Builders {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit daemons; run without -short")
	}
	machinesUsed.Store(true)
	shared, err := startMachines()
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func TestMain(m *testing.M) {
	if addr := os.Getenv(unprivilegedAddr); addr != "" {
		if err := connectUnprivileged(addr); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	var err error
	if machinesDir, err = os.MkdirTemp("", "builder-test-"); err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(machinesDir)
	code = m.Run()
	if !machinesUsed.Load() {
		return code
	}
	if shared, err := startMachines(); err == nil {
		if err := shared.Stop(); err != nil {
			log.Print(err)
			return 1
		}
	}
	return code
}

// startDepot starts a Depot API for one test. It has no machines: requests for one stay pending.
func startDepot(t *testing.T, changes ...func(*depotapi.Options)) *depotapi.Server {
	t.Helper()
	options := depotapi.Options{
		Projects: []depotapi.Project{
			{ID: "sandbox", Tokens: []string{"project-token"}, Trust: []string{"org/sandbox-actions"}},
			{ID: "other", Tokens: []string{"other-token"}},
		},
		OrganizationTokens: []string{"organization-token"},
		Wait:               time.Millisecond,
	}
	for _, change := range changes {
		change(&options)
	}
	s, err := depotapi.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startDepotWithMachines starts a Depot API that hands out the shared daemons.
func startDepotWithMachines(t *testing.T, changes ...func(*depotapi.Options)) *depotapi.Server {
	t.Helper()
	shared := machines(t)
	return startDepot(t, append(changes, func(o *depotapi.Options) { o.Machines = shared })...)
}

// journal records log lines and masked secrets.
type journal struct {
	mu     sync.Mutex
	lines  []string
	masked []string
}

func (j *journal) logf(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) mask(secret string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.masked = append(j.masked, secret)
}

func (j *journal) log() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) secrets() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.masked)
}

// depot returns a client with short waits for the project sandbox.
func depot(s *depotapi.Server, j *journal, token string) Depot {
	return Depot{
		Project: "sandbox", APIURL: s.URL(), Logf: j.logf, Mask: j.mask,
		Token: func(context.Context) (string, error) { return token, nil },
		Policy: Policy{
			HTTP:    httpclient.Policy{MinWait: time.Millisecond},
			Connect: ConnectPolicy{FirstWait: time.Millisecond},
		},
	}
}

// acquire returns a lease that is released at the end of the test.
func acquire(t *testing.T, d Depot, r Request) *Lease {
	t.Helper()
	lease, err := d.Acquire(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lease.Release(nil) })
	return lease
}

// calls counts the matching calls to a method; nil matches all.
func calls(s *depotapi.Server, method string, matches func(depotapi.Call) bool) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Method == method && (matches == nil || matches(c)) {
			n++
		}
	}
	return n
}

// eventually waits until a condition is true, and fails the test if that takes too long.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// mustReturn runs a function that could hang, and fails the test if it does.
func mustReturn(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s did not return:\n%s", what, goroutines())
	}
}

func goroutines() string {
	var text strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&text, 2)
	return text.String()
}

const oneFile = "FROM scratch\nCOPY Dockerfile /\n"

// solve builds a Dockerfile in a build context that contains only this Dockerfile.
func solve(ctx context.Context, t *testing.T, c *client.Client, dockerfile string) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/Dockerfile", []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Solve(ctx, nil, client.SolveOpt{
		Frontend:    "dockerfile.v0",
		LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree},
		Exports:     []client.ExportEntry{{Type: client.ExporterImage}},
	}, nil)
	return err
}

// checkMessage checks that an error message is one line, without library prefixes or secrets.
func checkMessage(t *testing.T, err error, secrets ...string) {
	t.Helper()
	text := err.Error()
	if text == "" || strings.ContainsAny(text, "\n\r\t") || strings.HasSuffix(text, ".") ||
		strings.Contains(text, "rpc error") || strings.Contains(text, `\"`) {
		t.Errorf("malformed message: %q", text)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("a secret is in %q", text)
		}
	}
}

// environment returns a getenv function that reads a map.
func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

// fakeClock starts at a fixed time. Sleep advances it and returns immediately.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	sleeps []time.Duration
	limit  int // number of sleeps after which Sleep fails with errClock; 0 means no limit
}

var errClock = fmt.Errorf("the fake clock ended the test")

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// Now implements [httpclient.Clock].
func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Sleep implements [httpclient.Clock].
func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sleeps = append(c.sleeps, d)
	c.now = c.now.Add(d)
	if c.limit > 0 && len(c.sleeps) >= c.limit {
		return errClock
	}
	return context.Cause(ctx)
}

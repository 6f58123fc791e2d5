package builder

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/tonistiigi/fsutil"
)

// actions is a GitHub with an OIDC issuer, for all tests.
var actions *github.Server

// shared are two real BuildKit daemons, for all tests that need them; see machines.
var (
	shared    *builders.Builders
	sharedDir string
	sharing   sync.Once
)

func machines(t *testing.T) *builders.Builders {
	t.Helper()
	sharing.Do(func() {
		var err error
		if shared, err = builders.Start(context.Background(), builders.Options{Dir: sharedDir}); err != nil {
			t.Error(err)
		}
	})
	if shared == nil {
		t.Fatal("the machines did not start")
	}
	return shared
}

// asShipped are the times that users have; tests wait for less.
var asShipped = struct {
	callTimeout, firstWait, firstConnectWait, healthPeriod, finishTime, linger time.Duration
}{callTimeout, firstWait, firstConnectWait, healthPeriod, finishTime, lingerTime}

func TestMain(m *testing.M) {
	if addr := os.Getenv(asNobody); addr != "" {
		if err := connectAsNobody(addr); err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	var err error
	if sharedDir, err = os.MkdirTemp("", "builder-test-"); err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(sharedDir)
	if actions, err = github.Start(context.Background(), github.Options{}); err != nil {
		log.Print(err)
		return 1
	}
	defer actions.Close()
	firstWait, firstConnectWait = time.Millisecond, time.Millisecond
	code = m.Run()
	if shared != nil {
		if err := shared.Stop(); err != nil {
			log.Print(err)
			return 1
		}
	}
	return code
}

// set changes a variable for one test.
func set[T any](t *testing.T, variable *T, value T) {
	t.Helper()
	before := *variable
	t.Cleanup(func() { *variable = before })
	*variable = value
}

// startDepot starts a Depot of its own for one test, in front of the machines. Its project "sandbox" trusts org/sandbox-actions.
func startDepot(t *testing.T, change ...func(*depotapi.Options)) *depotapi.Server {
	t.Helper()
	options := depotapi.Options{
		Projects: []depotapi.Project{
			{ID: "sandbox", Tokens: []string{"project-token"}, Trust: []string{"org/sandbox-actions"}},
			{ID: "other", Tokens: []string{"other-token"}},
		},
		OrganizationTokens: []string{"organization-token"},
		Issuer:             actions.Issuer(),
		Machines:           machines(t),
		Wait:               time.Millisecond,
	}
	for _, c := range change {
		c(&options)
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
	t.Setenv("DEPOT_API_URL", s.URL())
	return s
}

// journal keeps what is logged and masked.
type journal struct {
	mu     sync.Mutex
	lines  []string
	masked []string
}

func (j *journal) log(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) mask(secret string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.masked = append(j.masked, secret)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

func (j *journal) secrets() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.masked...)
}

// depot is the client of a test: the project sandbox, with a token.
func depot(j *journal, token string) Depot {
	return Depot{
		Project: "sandbox", Log: j.log, Mask: j.mask,
		Token: func(context.Context) (string, error) { return token, nil },
	}
}

// startBuild starts a build that the test's end finishes.
func startBuild(t *testing.T, d Depot, r Request) *Build {
	t.Helper()
	b, err := d.Start(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Finish(nil) })
	return b
}

// calls counts those of a method for which a condition holds; nil: all.
func calls(s *depotapi.Server, method string, holds func(depotapi.Call) bool) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Method == method && (holds == nil || holds(c)) {
			n++
		}
	}
	return n
}

// eventually waits for what is sure to come; the test fails when it does not.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// returns waits for a call that could hang.
func returns(t *testing.T, what string, call func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not return:\n%s", what, goroutines())
	}
}

func goroutines() string {
	var text strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&text, 2)
	return text.String()
}

// solve builds an image of one file.
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

const oneFile = "FROM scratch\nCOPY Dockerfile /\n"

// oneSentence fails for an error that a person would have to read twice: several lines, several sentences, or a secret in it.
func oneSentence(t *testing.T, err error, secrets ...string) {
	t.Helper()
	text := err.Error()
	if text == "" || strings.ContainsAny(text, "\n\r\t") || strings.Contains(text, ". ") || strings.HasSuffix(text, ".") || strings.Contains(text, "rpc error") || strings.Contains(text, "\\\"") {
		t.Errorf("not one sentence: %q", text)
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("a secret is in %q", text)
		}
	}
}

// environment is a map as Getenv.
func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

// inActions is a job's environment, with id-token: write, over which changes are laid; "" removes.
func inActions(changes map[string]string) func(string) string {
	variables := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_RUN_ID": "1",
		"ACTIONS_ID_TOKEN_REQUEST_URL": actions.IDTokenRequestURL(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN": actions.IDTokenRequestToken(),
	}
	for name, value := range changes {
		variables[name] = value
	}
	return environment(variables)
}

// tokenSource asks the real runner package.
func tokenSource(t *testing.T, j *journal, input string, getenv func(string) string) TokenSource {
	t.Helper()
	r := runner.New(io.Discard, io.Discard, getenv)
	return TokenSource{Input: input, Getenv: getenv, IDToken: r.IDToken, Log: j.log}
}

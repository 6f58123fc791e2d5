package actions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/source"
)

// The project file of a part of a monorepo is next to its context or its Dockerfile.
func TestProjectDirs(t *testing.T) {
	job, _, _ := testJob(t, nil)
	for _, test := range []struct {
		name                string
		context, dockerfile string
		tree                string
		want                []string // relative to the workspace or the tree
	}{
		{"root", ".", "", "", []string{".", ".", "."}},
		{"context", "apps/api", "", "", []string{"apps/api", "apps/api", "."}},
		{"Dockerfile elsewhere", "apps/api", "docker/api.Dockerfile", "", []string{"docker", "apps/api", "."}},
		{"commit", "apps/api", "docker/Dockerfile", "/tree", []string{"docker", "apps/api", "."}},
		{"remote context", "https://example.com/a.git", "docker/Dockerfile", "", []string{"docker", "."}},
		{"remote context without dockerfile", "https://example.com/a.git", "", "", []string{".", "."}},
		{"absolute context", "/elsewhere", "docker/Dockerfile", "", []string{"docker", "/elsewhere", "."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := job.Dir
			if test.tree != "" {
				root = test.tree
			}
			want := slices.Clone(test.want)
			for i, dir := range want {
				if !filepath.IsAbs(dir) {
					want[i] = filepath.Join(root, dir)
				}
			}
			spec := inputs.BuildSpec{Context: test.context, Dockerfile: test.dockerfile}
			got := projectDirs(job, spec, buildSource{Tree: source.Tree{Dir: test.tree}})
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestProjectOfProvider(t *testing.T) {
	for _, test := range []struct {
		name  string
		env   map[string]string
		files map[string]string
		want  string
		err   error
	}{
		{"nearest to the context", nil, map[string]string{"depot.json": "id: root", "api/depot.json": "id: api"}, "api", nil},
		{"none", nil, nil, "", builder.ErrNoProject},
		{"of an existing build", map[string]string{"DEPOT_BUILD_ID": "abc"}, nil, "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, _ := testJob(t, test.env)
			for name, content := range test.files {
				file := filepath.Join(job.Dir, name)
				if err := errors.Join(
					os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644),
				); err != nil {
					t.Fatal(err)
				}
			}
			spec := inputs.BuildSpec{Builder: "depot", Context: "api"}
			got, err := builderFor(job, spec, credentials.Doppler{}, buildSource{})
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			if d, ok := got.(builder.Depot); !ok || d.Project != test.want || d.BuildID != test.env["DEPOT_BUILD_ID"] {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestCanBuildAgain(t *testing.T) {
	lost := fmt.Errorf("build: %w", &builder.LostError{Err: errors.New("EOF")})
	one, two := []string{"linux/amd64"}, []string{"linux/amd64", "linux/arm64"}
	push := []string{"ghcr.io/a/b:1"}
	for _, test := range []struct {
		name string
		spec inputs.BuildSpec
		env  map[string]string
		err  error
		want bool
	}{
		{"lost machine", inputs.BuildSpec{Platforms: one, Builder: "depot"}, nil, lost, true},
		{"lost before the push", inputs.BuildSpec{Platforms: one, Builder: "depot", Push: push, Save: true}, nil, lost, true},
		{"two platforms", inputs.BuildSpec{Platforms: two, Builder: "depot"}, nil, lost, true},
		{"success", inputs.BuildSpec{Platforms: one, Builder: "depot"}, nil, nil, false},
		{"failed step", inputs.BuildSpec{Platforms: one, Builder: "depot"}, nil, &image.BuildError{}, false},
		{
			"lost during the push", inputs.BuildSpec{Platforms: one, Builder: "depot", Push: push}, nil,
			&builder.LostError{Err: &image.PushedError{Err: errors.New("EOF")}}, false,
		},
		{"two platforms pushed", inputs.BuildSpec{Platforms: two, Builder: "depot", Push: push}, nil, lost, false},
		{"two platforms saved", inputs.BuildSpec{Platforms: two, Builder: "depot", Save: true}, nil, lost, false},
		{"own BuildKit", inputs.BuildSpec{Platforms: one, Builder: "tcp://127.0.0.1:1"}, nil, lost, false},
		{
			"existing build", inputs.BuildSpec{Platforms: one, Builder: "depot"}, map[string]string{"DEPOT_BUILD_ID": "a"},
			lost, false,
		},
	} {
		job, _, _ := testJob(t, test.env)
		if got := canBuildAgain(job, test.spec, test.err); got != test.want {
			t.Errorf("%s: got %t", test.name, got)
		}
	}
}

// The second attempt uses the source that the first one has fetched, and is the last one.
func TestOnNewMachine(t *testing.T) {
	job, _, stderr := testJob(t, nil)
	lost := &builder.LostError{
		Platform: "linux/amd64", Addr: "10.0.0.1:443", Silent: 45 * time.Second, Err: errors.New("EOF"),
	}
	pushed := &builder.LostError{Err: &image.PushedError{Err: errors.New("EOF")}}
	fetched := buildSource{Tree: source.Tree{Dir: "fetched"}}
	for _, test := range []struct {
		name   string
		errs   []error // of the attempts
		builds int
	}{
		{"success", []error{nil}, 1},
		{"lost once", []error{lost, nil}, 2},
		{"lost twice", []error{lost, lost}, 2},
		{"lost after a push", []error{pushed}, 1},
	} {
		builds := 0
		spec := inputs.BuildSpec{Builder: "depot", Platforms: []string{"linux/amd64"}}
		_, err := onNewMachine(job, spec, buildSource{}, func(source buildSource) (builtImage, error) {
			if builds++; builds > 1 && source.Tree.Dir != fetched.Tree.Dir {
				t.Errorf("%s: attempt %d has the source %+v", test.name, builds, source)
			}
			return builtImage{Source: fetched}, test.errs[builds-1]
		})
		if want := test.errs[len(test.errs)-1]; builds != test.builds || err != want { //nolint:errorlint // the same value
			t.Errorf("%s: %d attempts, %v", test.name, builds, err)
		}
	}
	const want = "the builder for linux/amd64 at 10.0.0.1:443 stopped answering: no answer for 45s (check its state and " +
		"its log); building again on a new machine"
	if !strings.Contains(stderr.String(), want) {
		t.Errorf("logged %q", stderr)
	}
}

// A flow that succeeds although Depot has canceled the build must not publish its results.
func TestReleaseOfCanceledBuild(t *testing.T) {
	s, err := depotapi.Start(depotapi.Options{Projects: []depotapi.Project{{ID: "sandbox", Tokens: []string{"token"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	job, _, _ := testJob(t, map[string]string{"DEPOT_API_URL": s.URL(), "DEPOT_TOKEN": "token"})
	lease, err := depot(job, inputs.BuildSpec{}, credentials.Doppler{}, "sandbox").Acquire(t.Context(), builder.Request{})
	if err != nil {
		t.Fatal(err)
	}
	s.Cancel(lease.ID)
	canceled := (*builder.CanceledError)(nil)
	if _, err := lease.Machine(t.Context(), "linux/amd64"); !errors.As(err, &canceled) {
		t.Fatalf("got %v", err)
	}
	if err := release(t.Context(), job, lease, nil); !errors.Is(err, canceled) {
		t.Errorf("released with %v", err)
	}
}

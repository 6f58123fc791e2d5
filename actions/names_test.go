package actions

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/inputs"
)

func TestDefaultNames(t *testing.T) {
	for _, test := range []struct {
		name, origin, file string
		environ            map[string]string
		want               inputs.Names
		err                string
	}{
		{name: "directory", want: inputs.Names{Image: "sandbox:local", Prefix: "sandbox"}},
		{name: "clone", origin: "git@github.com:acme/web.git",
			want: inputs.Names{Image: "sandbox:local", Prefix: "web-sandbox"}},
		{name: "repository of the workflow", origin: "https://github.com/fork/other",
			environ: map[string]string{"GITHUB_REPOSITORY": "acme/web"},
			want:    inputs.Names{Image: "sandbox:local", Prefix: "web-sandbox"}},
		{name: "file", origin: "git@github.com:acme/web.git", file: `{"name": "iterate-sandbox"}`,
			want: inputs.Names{Image: "iterate-sandbox:local", Prefix: "iterate-sandbox"}},
		{name: "file in GitHub Actions", file: `{"name": "iterate-sandbox"}`,
			environ: map[string]string{"GITHUB_REPOSITORY": "acme/web", "GITHUB_ACTIONS": "true"},
			want:    inputs.Names{Image: "sandbox:local", Prefix: "web-sandbox"}},
		{name: "misspelled key", file: `{"nam": "a"}`, err: `read sandbox.json: json: unknown field "nam"`},
		{name: "invalid name", file: `{"name": "A sandbox"}`, err: `read sandbox.json: name "A sandbox"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, _ := testJob(t, test.environ)
			job.Dir = t.TempDir()
			if test.origin != "" {
				for _, args := range [][]string{{"init", "--quiet"}, {"remote", "add", "origin", test.origin}} {
					command := exec.Command("git", args...)
					command.Dir = job.Dir
					if out, err := command.CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
				}
			}
			if test.file != "" {
				if err := os.WriteFile(filepath.Join(job.Dir, namesFile), []byte(test.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := defaultNames(t.Context(), job.Env)
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("%+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

//go:build linux

package e2e

import (
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/pkg/suite"
)

// Every workflow in the docs runs in another repository. Every other YAML block is a valid suite.
func TestDocsSnippets(t *testing.T) {
	e := setup(t)
	release := values{
		"SANDBOX_ACTIONS_REPOSITORY": "org/sandbox-actions", "SANDBOX_ACTIONS_REF": e.release(t),
		"DOPPLER_IDENTITY": localcloud.DopplerIdentity,
	}
	files := writeFiles(t, values{"golden/version.txt": "1.0\n", "fixtures/C.txt": ""}) // that suites mention
	for _, name := range documents(t) {
		if name == "docs/own-buildkit.md" { // TestOwnBuildKit runs it against its daemon
			continue
		}
		for _, snippet := range codeBlocks(t, name, "yaml") {
			var workflow struct {
				Name string
				On   string
				Jobs map[string]any
			}
			if err := yaml.Unmarshal([]byte(snippet), &workflow); err != nil {
				t.Fatalf("%s: %v:\n%s", name, err, snippet)
			}
			if workflow.Jobs == nil {
				if _, err := suite.Parse(filepath.Join(files, filepath.Base(name)), []byte(snippet)); err != nil {
					t.Errorf("%s: YAML block is neither a workflow nor a suite: %v", name, err)
				}
				continue
			}
			t.Run(workflow.Name, func(t *testing.T) {
				dir := t.TempDir()
				git(t, dir, "clone", "--quiet", e.caller, ".")
				git(t, dir, "remote", "set-url", "origin", "https://github.com/acme/caller")
				writeFile(t, dir, ".github/workflows/snippet.yml", snippet)
				log, ok := e.act(t, actRun{dir: dir, workflow: "snippet.yml", event: workflow.On, vars: release})
				if !ok {
					t.Error(log)
				}
			})
		}
	}
}

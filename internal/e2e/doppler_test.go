//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	clouddoppler "github.com/org/sandbox-actions/internal/localcloud/doppler"
)

// dopplerCLI returns the path of the Doppler CLI. In the home directory, it logs the CLI in with a token and sets the
// config dev for every directory and the given config for dir.
func dopplerCLI(t *testing.T, home, token, dir, config string) (program string) {
	t.Helper()
	program, err := filepath.Abs("../../.cache/bin/doppler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("the Doppler CLI is missing: %v (run scripts/setup.sh test)", err)
	}
	if err := os.Mkdir(filepath.Join(home, ".doppler"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, home, ".doppler/.doppler.yaml", fmt.Sprintf(`analytics: {disable: true}
scoped:
  /: {token: %s, enclave.project: %s, enclave.config: dev}
  %s: {enclave.config: %s}
`, token, localcloud.Project, dir, config))
	return program
}

// On the command line, a snapshot is recorded in the config of `doppler run` or, without it, of `doppler setup` for the
// directory. Its Daytona key comes from there, too.
func TestSnapshotWithDopplerCLI(t *testing.T) {
	e := setup(t)
	const token = "dp.ct.command-line"
	must(t, e.Doppler.AddToken(clouddoppler.Token{
		Value: token, Access: []clouddoppler.Access{{Project: localcloud.Project, Write: true}},
	}))
	home := e.login(t)
	pushed := e.mustRun(t, invocation{
		dockerfile: uniqueDockerfile(t), env: values{"HOME": home},
		inputs: values{"load": "false", "push": e.Registry.Addr + "/team/cli:1"},
	})
	for _, test := range []struct {
		name, setup string   // setup is the config of `doppler setup`
		run         []string // arguments of `doppler run`; nil runs the program alone
		args        []string
		config      string
		log         string
	}{
		{"doppler run", "dev", []string{"--config", "prd"}, nil, "prd", "selected by DOPPLER_CONFIG"},
		{"doppler setup", "prd", nil, nil, "prd", "selected by doppler setup"},
		{"doppler run with doppler setup", "prd", []string{}, nil, "prd", "selected by DOPPLER_CONFIG"},
		{
			"flag", "prd", []string{"--config", "prd"}, []string{"--doppler-config=dev"}, "dev", "selected by doppler_config",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, home := t.TempDir(), e.login(t)
			program := dopplerCLI(t, home, token, dir, test.setup)
			i := invocation{
				program: "action-snapshot", dir: dir, args: append([]string{"--image", pushed.outputs["image_ref"]}, test.args...),
				env: values{"GITHUB_ACTIONS": "", "DOPPLER_TOKEN": "", "DAYTONA_API_KEY": "", "HOME": home},
			}
			if test.run != nil {
				i.wrapper = append(append([]string{program, "run", "--no-check-version"}, test.run...), "--")
			}
			other := map[string]string{"dev": "prd", "prd": "dev"}[test.config]
			for _, config := range []string{test.config, other} {
				e.Doppler.SetSecret(localcloud.Project, config, nameSecret, "before")
			}
			r := e.mustRun(t, i)
			name := r.outputs["snapshot_name"]
			if got := e.Doppler.Secret(localcloud.Project, test.config, nameSecret); got != name || name == "" {
				t.Errorf("the config %s has %q, want %q", test.config, got, name)
			}
			if got := e.Doppler.Secret(localcloud.Project, other, nameSecret); got != "before" {
				t.Errorf("the config %s has %q, want no change", other, got)
			}
			for _, action := range []string{
				fmt.Sprintf("Read Doppler config %q of project %q", test.config, localcloud.Project),
				fmt.Sprintf("%s will be set in %s.%s", nameSecret, localcloud.Project, test.config),
			} {
				if line := action + " (" + test.log + ")"; !strings.Contains(r.stderr, line+"\n") {
					t.Errorf("the log lacks %q:\n%s", line, r.stderr)
				}
			}
			if r.outputs["reused"] == "false" {
				e.deleteSnapshot(t, name)
			}
		})
	}
}

// A Daytona key alone makes a snapshot. An explicit update_doppler fails without a Doppler token.
func TestSnapshotWithoutDoppler(t *testing.T) {
	e := setup(t)
	dockerfile, env := uniqueDockerfile(t), values{"DOPPLER_TOKEN": "", "DOPPLER_API_HOST": "http://127.0.0.1:1"}
	r := e.mustRun(t, invocation{program: "action-snapshot", dockerfile: dockerfile, env: env})
	defer e.deleteSnapshot(t, r.outputs["snapshot_name"])
	if r.outputs["doppler_updated"] != "false" ||
		!strings.Contains(r.stdout, "::notice title=Doppler will not be updated::") {
		t.Errorf("outputs %v\n%s", r.outputs, r.stdout)
	}
	if !strings.Contains(r.summary, "no Doppler token is set") {
		t.Errorf("summary %s", r.summary)
	}
	r = e.run(t, invocation{
		program: "action-snapshot", dockerfile: dockerfile, env: env, inputs: values{"update_doppler": "true"},
	})
	assertFailed(t, r, `Doppler config "dev".*doppler_token`)
}

// A masked value that occurs in the name of the snapshot is refused before the build. An unmasked one is not masked.
func TestSnapshotNameWithSecret(t *testing.T) {
	e := setup(t)
	before, dockerfile := e.snapshots(t), uniqueDockerfile(t)
	run := func(visibility clouddoppler.Visibility) result {
		doppler, err := clouddoppler.Start(t.Context(), clouddoppler.Options{
			Projects: []clouddoppler.Project{{Name: localcloud.Project, Configs: []clouddoppler.Config{{
				Name: "dev", Secrets: values{"APP": "iterate", "DAYTONA_API_KEY": e.DaytonaKey},
				Visibility: map[string]clouddoppler.Visibility{"APP": visibility},
			}}}},
			Tokens: []clouddoppler.Token{{Value: e.DopplerToken, Access: []clouddoppler.Access{
				{Project: localcloud.Project, Config: "dev", Write: true},
			}}},
		})
		must(t, err)
		t.Cleanup(func() { _ = doppler.Close() })
		return e.run(t, invocation{
			program: "action-snapshot", dockerfile: dockerfile, inputs: values{"name_prefix": "iterate-sandbox"},
			env: values{"DOPPLER_API_HOST": doppler.URL(), "DAYTONA_API_KEY": ""},
		})
	}
	calls := len(e.Depot.Calls())
	assertFailed(t, run(clouddoppler.Masked), `input name_prefix: .* contains the Doppler secret APP, .*unmasked`)
	if len(e.Depot.Calls()) != calls {
		t.Error("the program created a build")
	}
	e.assertNoNewSnapshots(t, before)
	r := run(clouddoppler.Unmasked)
	if r.exitCode != 0 || !strings.HasPrefix(r.outputs["snapshot_name"], "iterate-sandbox-") ||
		strings.Contains(r.stdout, "::add-mask::iterate\n") {
		t.Fatalf("exit code %d, outputs %v\n%s%s", r.exitCode, r.outputs, r.stdout, r.stderr)
	}
	e.deleteSnapshot(t, r.outputs["snapshot_name"])
}

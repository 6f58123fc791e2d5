//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
)

// A run that has secrets does not build the code of a fork from a dispatched ref, a commit, or a workspace with an
// artifact or a forged .git.
func TestUntrustedCode(t *testing.T) {
	e := setup(t)
	e.Doppler.SetSecret(localcloud.Project, "dev", "CALLER_SECRET", "secret-of-the-caller")
	const reads = fromDebian + "RUN --mount=type=secret,id=CALLER_SECRET cp /run/secrets/CALLER_SECRET /stolen || true\n"
	main := git(t, e.caller, "rev-parse", "main")
	fork := t.TempDir()
	git(t, fork, "clone", "--quiet", e.caller, ".")
	writeFile(t, fork, "Dockerfile", reads)
	git(t, fork, "add", ".")
	git(t, fork, "commit", "--quiet", "--message=head")
	head := git(t, fork, "rev-parse", "HEAD")
	git(t, fork, "push", "--quiet", "origin", "HEAD:refs/pull/70/head")
	git(t, fork, "checkout", "--quiet", "--detach", main)
	git(t, fork, "merge", "--quiet", "--no-ff", "--message=merge", head)
	git(t, fork, "push", "--quiet", "origin", "HEAD:refs/pull/70/merge")

	merged := t.TempDir() // a step has merged the pull request, so that GitHub does not know the commit
	git(t, merged, "clone", "--quiet", e.caller, ".")
	git(t, merged, "fetch", "--quiet", "origin", "refs/pull/70/head")
	git(t, merged, "merge", "--quiet", "--no-ff", "--message=local", "FETCH_HEAD")

	dispatch := values{"GITHUB_EVENT_NAME": "workflow_dispatch", "GITHUB_SHA": main,
		"GITHUB_EVENT_PATH": eventFile(t, `{"repository": {"full_name": "acme/caller"}}`)}
	run := values{"GITHUB_EVENT_NAME": "workflow_run", "GITHUB_SHA": main, "GITHUB_EVENT_PATH": eventFile(t, `{
		"repository": {"full_name": "acme/caller"},
		"workflow_run": {"event": "pull_request", "head_sha": "`+head+`", "head_repository": {"full_name": "evil/caller"}}}`)}
	artifact := t.TempDir()
	git(t, artifact, "clone", "--quiet", e.caller, ".")
	writeFile(t, artifact, "Dockerfile", reads)
	must(t, os.Mkdir(filepath.Join(artifact, "dist"), 0o755))
	writeFile(t, artifact, "dist/evil.js", "evil")
	project := t.TempDir() // Depot projects of outsiders may trust this repository, too
	git(t, project, "clone", "--quiet", e.caller, ".")
	writeFile(t, project, "depot.json", `{"id": "project-of-the-fork"}`)
	layout := t.TempDir()
	git(t, layout, "clone", "--quiet", e.caller, ".")
	must(t, os.Mkdir(filepath.Join(layout, "image"), 0o755))
	writeFile(t, layout, "image/oci-layout", `{"imageLayoutVersion": "1.0.0"}`)
	for _, test := range []struct {
		name, program, dir string
		inputs, env        values
		want               string
	}{
		{name: "dispatch: pull request", inputs: values{"ref": "#70"}, env: dispatch,
			want: `^error: input ref: "#70" is code from pull request #70.*workflow_dispatch`},
		{name: "dispatch: merge", inputs: values{"ref": "refs/pull/70/merge"}, env: dispatch, want: "pull request #70"},
		{name: "dispatch: head", inputs: values{"ref": "refs/pull/70/head"}, env: dispatch, want: "pull request #70"},
		{name: "dispatch: SHA", inputs: values{"ref": head}, env: dispatch, want: head + ", which no branch or tag"},
		{name: "dispatch: checkout of the pull request", dir: fork, env: dispatch, want: "the workspace is commit"},
		{name: "dispatch: test command of the pull request", program: "action-test", dir: fork, env: dispatch,
			inputs: values{"image": "caller:base", "suite": "none", "command": "touch stolen"}, want: "the workspace is commit"},
		{name: "dispatch: image of the pull request", program: "action-snapshot", dir: fork, env: dispatch,
			inputs: values{"image": "./image"}, want: "the workspace is commit"},
		{name: "dispatch: merge of the pull request", dir: merged, env: dispatch,
			want: "the workspace contains commit " + head},
		{name: "dispatch: URL", env: dispatch, want: "names a commit that may be from a fork",
			inputs: values{"context": "https://github.com/acme/caller.git#" + head}},
		{name: "dispatch: snapshot", program: "action-snapshot", inputs: values{"ref": "#70"}, env: dispatch,
			want: "pull request #70"},
		{name: "workflow_run: URL", dir: artifact, env: run, want: "is fetched from elsewhere",
			inputs: values{"context": "https://github.com/acme/caller.git#" + head}},
		{name: "workflow_run: directory of an artifact", dir: artifact, env: run, want: "is not a path in the repository",
			inputs: values{"build_contexts": "files=" + filepath.Join(artifact, "dist")}},
		{name: "workflow_run: image of an artifact", program: "action-snapshot", dir: layout, env: run,
			inputs: values{"image": "./image"}, want: `input image: the directory "./image" may be from the fork evil/caller`},
	} {
		t.Run(test.name, func(t *testing.T) {
			calls := len(e.Depot.Calls())
			r := e.run(t, invocation{
				program: test.program, dir: test.dir, dockerfile: reads, inputs: test.inputs, env: test.env,
			})
			assertFailed(t, r, test.want)
			if len(e.Depot.Calls()) != calls {
				t.Error("the program sent requests to Depot")
			}
		})
	}

	t.Run("workflow_run: the Depot project of an artifact is not used", func(t *testing.T) {
		r := e.mustRun(t, invocation{dir: project, env: values{
			"GITHUB_EVENT_NAME": "workflow_run", "GITHUB_SHA": main, "DEPOT_PROJECT_ID": "",
			"GITHUB_EVENT_PATH": run["GITHUB_EVENT_PATH"],
		}})
		if r.outputs["project_id"] != localcloud.Project {
			t.Errorf("built in the project %s, want that of the commit", r.outputs["project_id"])
		}
	})

	t.Run("workflow_run: files of an artifact are not built", func(t *testing.T) {
		for _, forged := range []bool{false, true} {
			if forged { // the index hides the change
				git(t, artifact, "update-index", "--assume-unchanged", "Dockerfile")
			}
			r := e.mustRun(t, invocation{dir: artifact, env: run, inputs: values{"image_name": "caller:artifact"}})
			if r.outputs["git_sha"] != main || !strings.Contains(r.stdout, "Dockerfile") ||
				!strings.Contains(r.stdout, "dist/evil.js") {
				t.Errorf("built %s, want %s with a warning that names the files:\n%s", r.outputs["git_sha"], main, r.stdout)
			}
			if docker(t, e.Engine.Host, "run", "--rm", "caller:artifact", "ls", "/") == "" ||
				strings.Contains(docker(t, e.Engine.Host, "run", "--rm", "caller:artifact", "ls", "/"), "stolen") {
				t.Error("the image contains the files of the artifact")
			}
		}
	})

	t.Run("reviewed code gets no secrets of Doppler", func(t *testing.T) {
		inputs := values{
			"ref": "#70", "allow_untrusted_ref": "true", "doppler_config": "dev", "image_name": "caller:reviewed",
			"no_cache": "true", // a secret is not part of the cache key
		}
		stolen := func() bool {
			e.mustRun(t, invocation{inputs: inputs, env: dispatch, dir: t.TempDir()})
			return strings.Contains(docker(t, e.Engine.Host, "run", "--rm", "caller:reviewed", "ls", "/"), "stolen")
		}
		if stolen() {
			t.Error("the build got a secret of the Doppler config")
		}
		inputs["allow_untrusted_secrets"] = "true"
		if !stolen() {
			t.Error("allow_untrusted_secrets: the build did not get the secret")
		}
	})
}

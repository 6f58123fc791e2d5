//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/pkg/daytona"
)

// Secrets that contain the name of a Doppler config's snapshot.
const (
	nameSecret   = "DAYTONA_SNAPSHOT_NAME"
	mirrorSecret = "VITE_DAYTONA_SNAPSHOT_NAME"
	mirrorValue  = "${DAYTONA_SNAPSHOT_NAME}"
)

const sleepDockerfile = "FROM debian:bookworm-slim\nCOPY Dockerfile /\nCMD [\"sleep\", \"60\"]\n"

// The first run creates a snapshot and records its name in Doppler. A second run reuses it and pushes nothing.
func TestSnapshot(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	run := func(inputs map[string]string) result {
		return e.mustRun(t, invocation{
			program:    "action-snapshot",
			dir:        dir,
			dockerfile: sleepDockerfile,
			inputs:     inputs,
			env:        values{"DAYTONA_API_KEY": "", "GITHUB_ACTOR": "octocat"},
		})
	}
	writeFile(t, dir, "Dockerfile", sleepDockerfile)
	e.Doppler.SetSecret(localcloud.Project, "dev", mirrorSecret, "stale") // is mirrored because it exists
	one := run(values{"verify": "boot"})
	name := one.outputs["snapshot_name"]
	if !regexp.MustCompile(`^caller-sandbox-\d{8}-\d{6}-[0-9a-f]{7}-octocat$`).MatchString(name) {
		t.Errorf("name %q", name)
	}
	if one.outputs["snapshot_state"] != "active" || one.outputs["reused"] != "false" ||
		one.outputs["doppler_updated"] != "true" || one.outputs["verified"] != "boot" ||
		len(one.outputs) != len(outputsOf(t, "snapshot")) {
		t.Errorf("outputs %v", one.outputs)
	}
	if got := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != name {
		t.Errorf("Doppler has %q", got)
	}
	if got := e.Doppler.Secret(localcloud.Project, "dev", mirrorSecret); got != mirrorValue {
		t.Errorf("%s is %q, want %q", mirrorSecret, got, mirrorValue)
	}
	if !strings.Contains(one.summary, name) || !strings.Contains(one.summary, one.outputs["digest"]) {
		t.Errorf("summary %s", one.summary)
	}
	created := e.snapshots(t)[name]
	if !slices.Equal(created.Entrypoint, []string{"sleep", "60"}) { // Daytona itself ignores CMD
		t.Errorf("a sandbox starts %q, want the image's CMD", created.Entrypoint)
	}
	tagged := regexp.MustCompile(`/caller-sandbox-[a-z0-9]{26}:sha256-[0-9a-f]{64}-default$`)
	if !tagged.MatchString(created.Image) || created.Digest != one.outputs["digest"] {
		t.Errorf("created from %s with the digest %s", created.Image, created.Digest)
	}
	before := len(e.Registry.Requests())
	two := run(nil)
	if two.outputs["snapshot_name"] != name || two.outputs["reused"] != "true" ||
		two.outputs["doppler_updated"] != "false" ||
		two.outputs["digest"] != one.outputs["digest"] {
		t.Errorf("outputs of the second run %v", two.outputs)
	}
	if requests := e.Registry.Requests()[before:]; len(requests) > 0 {
		t.Errorf("the second run sent requests to the registry: %q", requests)
	}
}

// A source that changes after the build does not change the image of the snapshot.
func TestSnapshotOfChangingSource(t *testing.T) {
	e := setup(t)
	var reads atomic.Int64
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, reads.Add(1))
	}))
	defer source.Close()
	r := e.mustRun(t, invocation{
		program:    "action-snapshot",
		dockerfile: uniqueDockerfile(t) + "ADD " + source.URL + "/version /version\n",
	})
	if !strings.Contains(r.stdout+r.stderr, "The sources have changed since the build") {
		t.Errorf("the source has not changed in the run:\n%s%s", r.stdout, r.stderr)
	}
	if created := e.snapshots(t)[r.outputs["snapshot_name"]]; created.Digest != r.outputs["digest"] {
		t.Errorf("the snapshot has the digest %s, want %s", created.Digest, r.outputs["digest"])
	}
}

// Two variants are snapshots of one image, which the builder pushes once. Doppler has both names.
func TestSnapshotVariants(t *testing.T) {
	e := setup(t)
	before := len(e.Daytona.Requests())
	r := e.mustRun(t, invocation{
		program: "action-snapshot", dockerfile: uniqueDockerfile(t), env: values{"DAYTONA_API_KEY": ""},
		inputs: values{
			"name_prefix": "variants", "variants": "small: cpu=1,memory=2,disk=5\nlarge: cpu=4,memory=8,disk=10",
			"attempts": "2", "make_room": "true",
		},
	})
	var list []struct{ Variant, Name string }
	if err := json.Unmarshal([]byte(r.outputs["snapshots"]), &list); err != nil || len(list) != 2 {
		t.Fatalf("%v: %s", err, r.outputs["snapshots"])
	}
	for i, cpu := range []int{1, 4} {
		s, secret := e.snapshots(t)[list[i].Name], nameSecret+"_"+strings.ToUpper(list[i].Variant)
		if s.State != daytona.Active || s.Resources.CPU != cpu || s.Digest != r.outputs["digest"] {
			t.Errorf("%s: %+v", list[i].Name, s)
		}
		if got := e.Doppler.Secret(localcloud.Project, "dev", secret); got != s.Name {
			t.Errorf("%s is %q, want %s", secret, got, s.Name)
		}
		if !strings.Contains(r.summary, s.Name) {
			t.Errorf("summary %s", r.summary)
		}
		e.Doppler.SetSecret(localcloud.Project, "dev", secret, "")
		e.deleteSnapshot(t, s.Name)
	}
	mounted, sent := map[string]bool{}, map[string]bool{}
	for _, request := range e.Daytona.Requests()[before:] {
		repository, _, isUpload := strings.Cut(request.Path, "/blobs/uploads/")
		switch {
		case isUpload && request.Method == "PATCH":
			sent[repository] = true
		case isUpload && request.Method == "POST" && request.Status == 201:
			mounted[repository] = true
		}
	}
	if r.outputs["snapshot_name"] != list[0].Name || len(mounted) != 1 {
		t.Errorf("outputs %v; mounted to %v, sent to %v", r.outputs, mounted, sent)
	}
}

// A snapshot whose entry point crashes in a sandbox never reaches Doppler.
func TestSnapshotCrashes(t *testing.T) {
	e := setup(t)
	dir := writeFiles(t, values{
		"Dockerfile": "FROM debian:bookworm-slim\nCOPY --chmod=755 start /start\nENTRYPOINT [\"/start\"]\n",
		"start":      "#!/bin/sh\necho starting >&2\necho ::error::no database >&2\nexit 3\n",
	})
	e.Doppler.SetSecret(localcloud.Project, "dev", nameSecret, "works")
	for _, keepFailed := range []string{"false", "true"} {
		t.Run("keep_failed: "+keepFailed, func(t *testing.T) {
			before := e.snapshots(t)
			r := e.run(t, invocation{
				program: "action-snapshot", dir: dir, inputs: values{"verify": "boot", "keep_failed": keepFailed},
			})
			assertFailed(t, r, `the entry point '/start' ended with exit code 3; its last output: .*error.*no database`)
			if got := e.Doppler.Secret(localcloud.Project, "dev", nameSecret); got != "works" {
				t.Errorf("Doppler has %q", got)
			}
			if !strings.Contains(r.summary, "starting\n::error::no database\n") {
				t.Errorf("the summary lacks the output of the entry point:\n%s", r.summary)
			}
			kept := 0
			for name, s := range e.snapshots(t) {
				if _, exists := before[name]; !exists && s.State == daytona.Active {
					kept++
					e.deleteSnapshot(t, name)
				}
			}
			if want := map[string]int{"false": 0, "true": 1}[keepFailed]; kept != want {
				t.Errorf("%d snapshots are left, want %d", kept, want)
			}
			boxes, err := e.daytona().ListSandboxes(t.Context(), map[string]string{"sandbox-actions": "verify"})
			if err != nil || slices.ContainsFunc(boxes, func(box daytona.Sandbox) bool {
				return box.State != daytona.SandboxDestroying
			}) {
				t.Errorf("sandboxes %+v, %v", boxes, err)
			}
		})
	}
}

// Two runs at the same time both end with an active snapshot of the image. They may share one.
func TestSnapshotsAtOnce(t *testing.T) {
	e := setup(t)
	dockerfile := uniqueDockerfile(t)
	results := make([]result, 2)
	t.Run("runs", func(t *testing.T) {
		for i := range results {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				results[i] = e.mustRun(t, invocation{
					program: "action-snapshot", dockerfile: dockerfile,
					inputs: values{"update_doppler": "false", "name_prefix": "at-once"},
				})
			})
		}
	})
	for _, r := range results {
		s := e.snapshots(t)[r.outputs["snapshot_name"]]
		if s.State != daytona.Active || s.Digest != r.outputs["digest"] {
			t.Errorf("%+v; outputs %v", s, r.outputs)
		}
	}
	for _, r := range results {
		e.deleteSnapshot(t, r.outputs["snapshot_name"])
	}
}

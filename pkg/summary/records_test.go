package summary

import (
	"fmt"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

const (
	sha      = "4f2c1d9e8b7a6f5e4d3c2b1a09f8e7d6c5b4a392"
	previous = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 32) }

// records are the runs of the golden files.
func records() map[string]*runrecord.Record {
	return map[string]*runrecord.Record{
		"first-build":       firstBuild(),
		"cached-build":      cachedBuild(),
		"platforms":         platforms(),
		"failing-run":       failingRun(),
		"failing-copy":      failingCopy(),
		"invalid-input":     invalidInput(),
		"timeout":           timeout(),
		"passing-tests":     passingTests(),
		"failing-tests":     failingTests(),
		"snapshot-new":      snapshotNew(),
		"snapshot-reused":   snapshotReused(),
		"snapshot-variants": snapshotVariants(),
		"promote":           promote(),
		"rollback":          rollback(),
	}
}

// base returns the record of a run in GitHub Actions that has done nothing.
func base(program string) *runrecord.Record {
	return &runrecord.Record{
		Format: runrecord.Version, Program: program, Release: "v1.2.3",
		Started: time.Date(2026, 11, 26, 10, 20, 30, 0, time.UTC), Seconds: 74.2,
		Run: &runrecord.Run{
			Repository: "acme/shop", Server: "https://github.com", ID: "18273645", Attempt: "1", Job: "image",
			Event: "pull_request", Pull: 7, Branch: "feature/cart",
		},
		Inputs: []runrecord.Input{
			{Name: "dockerfile", Value: "sandbox/Dockerfile"},
			{Name: "build_args", Value: "NODE_VERSION=22\nMODE=ci"},
			{Name: "push", Value: "ghcr.io/acme/shop:pr-7"},
			{Name: "depot_token", Secret: true},
		},
		Source: &runrecord.Source{
			SHA: sha, Ref: "refs/pull/7/merge", Context: ".", Dockerfile: "sandbox/Dockerfile",
		},
		Phases: []runrecord.Phase{
			{Name: "Prepare", Offset: 0, Seconds: 1.3},
			{Name: "Acquire a builder for linux/amd64", Offset: 1.3, Seconds: 4.6},
		},
	}
}

func built() *runrecord.Image {
	return &runrecord.Image{
		Digest: digest("3f"), ID: digest("ab"), Ref: "ghcr.io/acme/shop:pr-7@" + digest("3f"),
		Names: []string{"shop:ci"}, Pushed: []string{"ghcr.io/acme/shop:pr-7"},
		Platforms: []runrecord.PlatformImage{{Platform: "linux/amd64", Size: 187_400_000, Layers: []runrecord.Layer{
			{Digest: digest("01"), Size: 28_200_000, CreatedBy: "# debian.sh --arch 'amd64' out/ 'bookworm'"},
			{
				Digest:    digest("02"),
				Size:      98_100_000,
				CreatedBy: "RUN /bin/sh -c apt-get update && apt-get install -y git # buildkit",
			},
			{Digest: digest("03"), Size: 61_100_000},
		}}},
		Cached: 0, Total: 8, BuildURL: "https://depot.dev/orgs/acme/projects/shop/builds/b1",
	}
}

func buildSteps() []runrecord.Step {
	return []runrecord.Step{
		{Name: "[internal] load build definition from Dockerfile", Offset: 5.9, Seconds: 0.05},
		{Name: "[base 1/2] FROM docker.io/library/debian:bookworm-slim", Stage: "base", Line: 1, Offset: 6.1, Seconds: 3.2},
		{Name: `[base 2/2] RUN apt-get update && apt-get install -y --no-install-recommends curl git`, Stage: "base",
			Line: 2, Offset: 9.3, Seconds: 17.4},
		{Name: "[deps 1/3] COPY package.json package-lock.json ./", Stage: "deps", Line: 6, Offset: 26.7, Seconds: 0.3},
		{Name: "[deps 2/3] RUN npm ci", Stage: "deps", Line: 7, Offset: 27, Seconds: 21.6},
		{Name: "[deps 3/3] RUN node -e 'require(\"assert\").equal(1, 1); // #1: \"quoted\"; 100%'", Stage: "deps",
			Line: 8, Offset: 48.6, Seconds: 0.4},
		{Name: "[app 1/2] COPY . .", Stage: "app", Line: 12, Offset: 49, Seconds: 0.7},
		{Name: "[app 2/2] RUN npm run build", Stage: "app", Line: 13, Offset: 49.7, Seconds: 9.8},
		{Name: "exporting to image", Offset: 59.5, Seconds: 3.1},
	}
}

func firstBuild() *runrecord.Record {
	r := base("action-build")
	r.Image, r.Steps = built(), buildSteps()
	r.Phases = append(r.Phases,
		runrecord.Phase{Name: "Build", Offset: 5.9, Seconds: 56.7},
		runrecord.Phase{Name: "Load shop:ci", Offset: 62.6, Seconds: 8.4, Bytes: 187_400_000},
		runrecord.Phase{Name: "Push ghcr.io/acme/shop:pr-7", Offset: 62.6, Seconds: 11.6, Bytes: 187_400_000},
	)
	return r
}

func cachedBuild() *runrecord.Record {
	r := firstBuild()
	r.Seconds = 18.9
	r.Image.Cached, r.Image.Digest = 5, digest("4e")
	for i := range r.Steps[:5] {
		r.Steps[i].Cached, r.Steps[i].Seconds, r.Steps[i].Offset = true, 0, 0
	}
	for i, step := range r.Steps[5:] {
		r.Steps[5+i].Offset = step.Offset - 42.5
	}
	r.Phases[2].Seconds = 12
	for i := range r.Phases[3:] {
		r.Phases[3+i].Offset, r.Phases[3+i].Seconds, r.Phases[3+i].Bytes = 17.9, 1, 4_200_000
	}
	r.Changes = &runrecord.Changes{
		Since: r.Started.Add(-time.Hour), SHA: previous, Digest: digest("3f"), Seconds: 74.2,
		Run: "18273101", Branch: "feature/cart",
		Platforms: []runrecord.PlatformChange{{
			Platform: "linux/amd64", Size: 3_200_000,
			Layers: []runrecord.LayerChange{
				{CreatedBy: "RUN npm ci", Before: 41_200_000, After: 44_600_000},
				{CreatedBy: "COPY . .", Before: 1_200_000, After: 900_000},
				{CreatedBy: "RUN rm -rf /var/cache | true", Before: 0, After: 100_000},
			},
			Files: []runrecord.FileChange{
				{Path: "app/node_modules/sharp/build/Release/sharp.node", Before: -1, After: 2_900_000},
				{Path: "app/dist/main.js", Before: 812_000, After: 1_204_000},
				{Path: "app/dist/old.js", Before: 94_000, After: -1},
			},
			Omitted: 214,
			Packages: []runrecord.PackageChange{
				{Manager: "dpkg", Name: "libssl3", Before: "3.0.15-1~deb12u1", After: "3.0.16-1~deb12u1"},
				{Manager: "npm", Name: "left-pad", Before: "1.3.0"},
				{Manager: "npm", Name: "sharp", After: "0.34.1"},
			},
		}},
		CacheBreak: &runrecord.CacheBreak{
			Step: "[deps 3/3] RUN npm ci", Line: 7, Files: []string{"package-lock.json", "package.json"}, MoreFiles: 1,
			BuildArgs: []string{"NODE_VERSION"}, Earlier: []string{"ENV CI=true"},
		},
	}
	return r
}

func platforms() *runrecord.Record {
	r := cachedBuild()
	r.Image.Platforms = append(r.Image.Platforms, runrecord.PlatformImage{Platform: "linux/arm64", Size: 181_000_000})
	arm := r.Changes.Platforms[0]
	arm.Platform, arm.Size, arm.Files, arm.Packages = "linux/arm64", -1_500_000, nil, nil
	arm.Unread = 2
	r.Changes.Platforms = append(r.Changes.Platforms, arm)
	for i := range r.Steps {
		r.Steps[i].Platform = "linux/amd64"
	}
	step := r.Steps[7]
	step.Platform, step.Seconds = "linux/arm64", 7.1
	r.Steps = append(r.Steps, step)
	return r
}

func failingRun() *runrecord.Record {
	r := base("action-build")
	r.Changes = cachedBuild().Changes // since a run that succeeded; only the cache can be compared
	r.Changes.Platforms = nil
	r.ExitCode, r.Seconds, r.Steps = 1, 31.2, buildSteps()[:5]
	r.Steps[4].Seconds, r.Steps[4].Error = 4.2, "exit code: 1"
	r.Phases = append(r.Phases, runrecord.Phase{Name: "Build", Offset: 5.9, Seconds: 25.3, Failed: true})
	r.Error = &runrecord.Error{Kind: runrecord.BuildFailed,
		Message: "build the image: Dockerfile:7 (step 5/8) failed with exit code 1; last output: npm error code E404 " +
			"(fix this line; see the step's output above)",
		File: "sandbox/Dockerfile", Line: 7, EndLine: 8, Step: "[deps 2/3] RUN npm ci",
		Excerpt: "   5 | WORKDIR /app\n   6 | COPY package.json package-lock.json ./\n>  7 | RUN npm ci \\\n" +
			">  8 |     --no-audit\n   9 | RUN node -e 'require(\"assert\")'",
		Output: "npm error code E404\nnpm error 404 Not Found - GET https://registry.example/@acme%2fcart - Not found\n" +
			"npm error 404 The requested resource '@acme/cart@^2.0.0' could not be found\n",
	}
	return r
}

func failingCopy() *runrecord.Record {
	r := base("action-build")
	r.ExitCode, r.Seconds, r.Steps = 1, 8.1, buildSteps()[:2]
	r.Phases = append(r.Phases, runrecord.Phase{Name: "Build", Offset: 5.9, Seconds: 2.2, Failed: true})
	r.Error = &runrecord.Error{Kind: runrecord.BuildFailed,
		Message: "build the image: Dockerfile:6: COPY package-lock.json: not in the build context (.), or excluded by " +
			".dockerignore",
		File: "sandbox/Dockerfile", Line: 6, Step: "[deps 1/3] COPY package.json package-lock.json ./",
		Excerpt: "   5 | WORKDIR /app\n>  6 | COPY package.json package-lock.json ./\n   7 | RUN npm ci",
	}
	return r
}

func invalidInput() *runrecord.Record {
	r := base("action-snapshot")
	r.ExitCode, r.Seconds, r.Source, r.Phases = 2, 0.1, nil, nil
	r.Inputs = append(r.Inputs, runrecord.Input{Name: "memory", Value: "4GB"})
	r.Error = &runrecord.Error{Kind: runrecord.InvalidInput,
		Message: `input memory: "4GB" is not a whole number of GB, for example 4`, Input: "memory",
	}
	return r
}

func timeout() *runrecord.Record {
	r := base("action-build")
	r.ExitCode, r.Seconds, r.Steps = 1, 60, buildSteps()[:5]
	r.Steps[4].Seconds = 33
	r.Phases = append(r.Phases, runrecord.Phase{Name: "Build", Offset: 5.9, Seconds: 54.1, Failed: true})
	r.Error = &runrecord.Error{Kind: runrecord.TimedOut,
		Message: "timed out after 1m0s in step [deps 2/3] RUN npm ci (4 of 8 steps done); raise the timeout input",
		Step:    "[deps 2/3] RUN npm ci",
	}
	return r
}

func test(name, status string, seconds float64) runrecord.Test {
	return runrecord.Test{Name: name, Status: status, Seconds: seconds, Attempts: 1, File: "sandbox/tests.yaml"}
}

func passingTests() *runrecord.Record {
	r := base("action-test")
	r.Image, r.Seconds = built(), 21.5
	r.Image.Existing, r.Image.Created = true, r.Started.Add(-50*time.Hour)
	r.Image.Total, r.Image.BuildURL = 0, ""
	r.Phases = append(r.Phases[:1], runrecord.Phase{Name: "Test", Offset: 1.3, Seconds: 20.2})
	r.Tests = &runrecord.Tests{
		Suite: "shop sandbox", File: "sandbox/tests.yaml", Seed: "4711", Seconds: 20.2, Total: 4, Passed: 3, Skipped: 1,
		Tests: []runrecord.Test{
			test("node is installed", "passed", 0.4), test("git | works", "passed", 0.6),
			test("the shop answers", "passed", 3.1), test("GPU", "skipped", 0),
		},
	}
	r.Tests.Tests[3].Reason = "needs a GPU"
	return r
}

func failingTests() *runrecord.Record {
	r := passingTests()
	r.ExitCode = 1
	r.Error = &runrecord.Error{
		Kind:    runrecord.TestsFailed,
		Message: "2 of 17 tests failed; see the log above and test-results/junit.xml",
	}
	equals := test("the shop greets", "failed", 1.2)
	equals.Line = 14
	equals.Failures = []runrecord.TestFailure{
		{Line: 16, Message: "exit code is 1, want 0"},
		{Line: 17, Message: "stdout differs from equals",
			Detail: "--- expected\n+++ actual\n@@ -1,2 +1,2 @@\n Welcome\n-to the shop\n+to nowhere\n"},
	}
	port := test("port 8080 answers", "failed", 30)
	port.Line, port.Class = 30, "http"
	port.Failures = []runrecord.TestFailure{{Line: 30, Message: "GET http://127.0.0.1:8080/ready: connection refused"}}
	sometimes := test("the queue drains", "flaky", 2.2)
	sometimes.Attempts, sometimes.Line = 2, 41
	sometimes.Failures = []runrecord.TestFailure{
		{Line: 43, Message: `stdout does not match "^0 jobs"`, Detail: "2 jobs\n"},
	}
	r.Tests.Tests = append(r.Tests.Tests, equals, port, sometimes)
	for i := range 10 {
		r.Tests.Tests = append(r.Tests.Tests, test(fmt.Sprintf("tool %d is on the PATH", i+1), "passed", 0.3))
	}
	r.Tests.Total, r.Tests.Passed, r.Tests.Failed, r.Tests.Flaky = 17, 13, 2, 1
	return r
}

func snapshot(name string) runrecord.Snapshot {
	return runrecord.Snapshot{
		Name: name, ID: "0d5a", State: "active", Digest: digest("3f"), SizeGB: 0.52, Verified: "boot", CPU: 2, MemoryGB: 4,
		DiskGB: 10, Region: "us", Entrypoint: []string{"/usr/local/bin/start", "--port", "8080"},
		States: []runrecord.State{
			{Name: "pending", Offset: 75}, {Name: "building", Offset: 76.2}, {Name: "pulling", Offset: 79},
			{Name: "active", Offset: 91.5},
		},
	}
}

func snapshotNew() *runrecord.Record {
	r := firstBuild()
	r.Program, r.Seconds = "action-snapshot", 104.8
	r.Image.Names, r.Image.Cached = nil, 6
	r.Phases = append(r.Phases[:3],
		runrecord.Phase{Name: "Push to Daytona", Offset: 62.6, Seconds: 11.9, Bytes: 22_900_000},
		runrecord.Phase{Name: "Create shop-20261126-102144-4f2c1d9-ci", Offset: 75, Seconds: 16.5},
		runrecord.Phase{Name: "Verify", Offset: 91.5, Seconds: 11.7},
		runrecord.Phase{Name: "Update Doppler", Offset: 103.2, Seconds: 1.2},
	)
	r.Snapshots = []runrecord.Snapshot{snapshot("shop-20261126-102144-4f2c1d9-ci")}
	r.Doppler = &runrecord.Doppler{
		Secret: "DAYTONA_SNAPSHOT_NAME", Written: []string{"shop.dev"}, Unchanged: []string{"shop.preview"},
		Previous: "shop-20261125-091500-0a1b2c3-ci", Deleted: []string{"shop-20261101-080000-9f8e7d6-ci"},
	}
	return r
}

func snapshotReused() *runrecord.Record {
	r := snapshotNew()
	r.Seconds, r.Snapshots[0].Reused, r.Snapshots[0].Verified, r.Snapshots[0].States = 9.7, true, "none", nil
	r.Phases, r.Steps = r.Phases[:2], nil
	r.Image.Cached = 8
	r.Doppler = &runrecord.Doppler{Secret: "DAYTONA_SNAPSHOT_NAME", Skipped: "update_doppler is false"}
	return r
}

func snapshotVariants() *runrecord.Record {
	r := snapshotNew()
	large := snapshot("shop-large-20261126-102144-4f2c1d9-ci")
	large.Variant, large.CPU, large.MemoryGB, large.DiskGB = "large", 8, 16, 50
	gpu := snapshot("shop-gpu-20261126-102144-4f2c1d9-ci")
	gpu.Variant, gpu.GPU, gpu.SandboxClass, gpu.Reused = "gpu", 1, "linux-vm", true
	r.Snapshots = []runrecord.Snapshot{large, gpu}
	return r
}

func promote() *runrecord.Record {
	r := base("action-snapshot promote")
	r.Seconds, r.Inputs, r.Phases = 3.4, []runrecord.Input{{Name: "to", Value: "prd"}}, nil
	s := snapshot("shop-20261126-102144-4f2c1d9-ci")
	s.States = nil
	r.Snapshots = []runrecord.Snapshot{s}
	r.Doppler = &runrecord.Doppler{
		Secret: "DAYTONA_SNAPSHOT_NAME", Written: []string{"shop.prd"}, Previous: "shop-20261120-120000-1234567-ci",
	}
	return r
}

func rollback() *runrecord.Record {
	r := promote()
	r.Program, r.Inputs = "action-snapshot rollback", nil
	r.Snapshots[0].Name, r.Doppler.Previous = r.Doppler.Previous, r.Snapshots[0].Name
	return r
}

package htmlreport

import (
	"fmt"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

const (
	testSHA    = "8f14e45fceea167a5a36dedd4bea2543c1f0a7b2"
	testDigest = "sha256:3b2f9d1c6a5e4f8071829304a5b6c7d8e9f00112233445566778899aabbccdde"
)

// builtRecord is the record of a build that succeeded.
func builtRecord() *runrecord.Record {
	return &runrecord.Record{
		Format: runrecord.Version, Program: "action-build", Release: "v1.4.0",
		Started: time.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC), Seconds: 74.2,
		Run: &runrecord.Run{
			Repository: "acme/agents", Server: "https://github.com", ID: "4711", Attempt: "2", Job: "image",
			Event: "pull_request", Pull: 12, Branch: "faster-tools",
		},
		Inputs: []runrecord.Input{
			{Name: "dockerfile", Value: "sandbox/Dockerfile"},
			{Name: "build_args", Value: "NODE_VERSION=24\nTOOLS=git,ripgrep"},
			{Name: "secrets", Secret: true},
		},
		Source: &runrecord.Source{SHA: testSHA, Ref: "refs/heads/faster-tools", Dockerfile: "sandbox/Dockerfile"},
		Phases: []runrecord.Phase{
			{Name: "Check", Seconds: 0.6},
			{Name: "Acquire a builder", Offset: 0.6, Seconds: 3.1},
			{Name: "Build", Offset: 3.7, Seconds: 61.5},
			{Name: "Load agents:ci", Offset: 65.2, Seconds: 8.8, Bytes: 184_300_000},
		},
		Steps: []runrecord.Step{
			{Name: "[internal] load build definition from Dockerfile", Offset: 3.8, Seconds: 0.2},
			{Name: "[base 1/4] FROM docker.io/library/debian:bookworm-slim", Stage: "base", Line: 1, Offset: 4.1, Cached: true},
			{
				Name:  "[base 2/4] RUN apt-get update && apt-get install -y --no-install-recommends git ripgrep curl jq",
				Stage: "base", Line: 3, Offset: 4.1, Cached: true,
			},
			{Name: "[tools 1/3] FROM docker.io/library/node:24-slim", Stage: "tools", Line: 9, Offset: 4.1, Seconds: 12.4},
			{
				Name: "[tools 2/3] COPY tools/package.json tools/package-lock.json ./", Stage: "tools", Line: 10,
				Offset: 16.5, Seconds: 0.3,
			},
			{
				Name: "[tools 3/3] RUN npm ci --omit=dev", Stage: "tools", Line: 11, Offset: 16.8, Seconds: 31.4,
				Log: lines("npm http fetch GET 200 https://registry.example/package-%d 12ms", 40) + "added 412 packages in 31s\n",
			},
			{
				Name:    "[base 3/4] COPY --from=tools /app/node_modules /app/node_modules",
				Stage:   "base",
				Line:    14,
				Offset:  48.2,
				Seconds: 4.9,
			},
			{
				Name: "[base 4/4] RUN /app/node_modules/.bin/agent --version", Stage: "base", Line: 15, Offset: 53.1, Seconds: 1.7,
				Log: "agent 2.7.1\n",
			},
			{
				Name:    "exporting to image",
				Offset:  54.8,
				Seconds: 10.4,
				Log:     "exporting layers\nexporting manifest " + testDigest + "\n",
			},
		},
		Image: &runrecord.Image{
			Digest: testDigest, Ref: "ghcr.io/acme/agents@" + testDigest, Names: []string{"agents:ci"},
			Pushed: []string{"ghcr.io/acme/agents:pr-12"}, Cached: 2, Total: 7,
			BuildURL: "https://depot.dev/orgs/acme/projects/agents/builds/b1",
			Platforms: []runrecord.PlatformImage{{
				Platform: "linux/amd64", Size: 167_400_000,
				Layers: []runrecord.Layer{
					{
						Digest: testDigest, Size: 28_200_000, Unpacked: 78_000_000, CreatedBy: "debian.sh --arch 'amd64' out/ 'bookworm'",
						Files: files("usr/bin/perl", 3_800_000, "usr/lib/x86_64-linux-gnu/libc.so.6", 1_900_000,
							"usr/lib/x86_64-linux-gnu/libcrypto.so.3", 4_700_000, "usr/share/zoneinfo/tzdata.zi", 110_000,
							"usr/bin/bash", 1_260_000, "var/lib/dpkg/status", 90_000),
					},
					{
						Digest: testDigest, Size: 61_000_000, Unpacked: 171_000_000,
						CreatedBy: "RUN apt-get update && apt-get install -y --no-install-recommends git ripgrep curl jq",
						Files: files("usr/bin/git", 3_700_000, "usr/bin/rg", 5_300_000, "usr/lib/git-core/git-remote-http", 2_500_000,
							"usr/lib/x86_64-linux-gnu/libicudata.so.72", 31_000_000, "usr/share/perl/5.36.0/unicore/Name.pl", 1_100_000),
					},
					{
						Digest:    testDigest,
						Size:      78_100_000,
						Unpacked:  240_000_000,
						CreatedBy: "COPY /app/node_modules /app/node_modules",
						Files: files(
							"app/node_modules/typescript/lib/typescript.js",
							9_100_000,
							"app/node_modules/typescript/lib/tsc.js",
							6_200_000,
							"app/node_modules/@anthropic/agent/dist/cli.js",
							11_400_000,
							"app/node_modules/esbuild/bin/esbuild",
							10_100_000,
							"app/node_modules/playwright-core/lib/server.js",
							2_400_000,
						),
					},
					{Digest: testDigest, Size: 32, Unpacked: 0, CreatedBy: "WORKDIR /app"},
				},
				Packages: []runrecord.Package{
					{Manager: "dpkg", Name: "git", Version: "1:2.39.5-0+deb12u2", Size: 46_000_000},
					{Manager: "dpkg", Name: "ripgrep", Version: "13.0.0-4+b2", Size: 4_900_000},
					{Manager: "npm", Name: "typescript", Version: "5.9.3"},
				},
			}},
		},
		Changes: &runrecord.Changes{
			Since: time.Date(2026, 11, 25, 16, 12, 0, 0, time.UTC), SHA: strings.Repeat("c0ffee", 6) + "c0ff",
			Digest: "sha256:" + strings.Repeat("90", 32), Seconds: 41, Run: "4650", Branch: "main",
			Platforms: []runrecord.PlatformChange{{
				Platform: "linux/amd64", Size: 12_300_000,
				Layers: []runrecord.LayerChange{
					{CreatedBy: "COPY /app/node_modules /app/node_modules", Before: 65_800_000, After: 78_100_000},
				},
				Files: []runrecord.FileChange{
					{Path: "app/node_modules/esbuild/bin/esbuild", Before: -1, After: 10_100_000},
					{Path: "app/node_modules/typescript/lib/typescript.js", Before: 8_900_000, After: 9_100_000},
					{Path: "app/node_modules/left-pad/index.js", Before: 1200, After: -1},
				},
				Omitted: 231,
				Packages: []runrecord.PackageChange{
					{Manager: "npm", Name: "esbuild", After: "0.28.2"},
					{Manager: "npm", Name: "left-pad", Before: "1.3.0"},
					{Manager: "npm", Name: "typescript", Before: "5.8.2", After: "5.9.3"},
				},
			}},
			CacheBreak: &runrecord.CacheBreak{
				Step: "[tools 2/3] COPY tools/package.json tools/package-lock.json ./", Line: 10,
				Files:   []string{"tools/package.json", "tools/package-lock.json"},
				Earlier: []string{"ENV NODE_ENV=production"},
			},
		},
		Outputs: []runrecord.Output{
			{Name: "image_ref", Value: "ghcr.io/acme/agents@" + testDigest}, {Name: "digest", Value: testDigest},
		},
	}
}

// failedRecord is the record of a build that failed.
func failedRecord() *runrecord.Record {
	r := builtRecord()
	r.ExitCode, r.Seconds, r.Image, r.Changes, r.Outputs = 1, 31.6, nil, nil, nil
	r.Phases = []runrecord.Phase{
		{Name: "Check", Seconds: 0.6},
		{Name: "Acquire a builder", Offset: 0.6, Seconds: 3.1},
		{Name: "Build", Offset: 3.7, Seconds: 27.7, Failed: true},
	}
	r.Steps = r.Steps[:6]
	failed := &r.Steps[5]
	failed.Seconds = 14.5
	failed.Error = `process "/bin/sh -c npm ci --omit=dev" did not complete successfully: exit code: 1`
	failed.Log = "npm error code ETARGET\nnpm error notarget No matching version found for typescript@5.99.0.\n"
	r.Steps = append(
		r.Steps,
		runrecord.Step{Name: "[base 3/4] COPY --from=tools /app/node_modules /app/node_modules", Stage: "base"},
	)
	r.Error = &runrecord.Error{
		Message: "sandbox/Dockerfile:11 (step 3/3 of tools) failed with exit code 1: RUN npm ci --omit=dev",
		File:    "sandbox/Dockerfile", Line: 11, EndLine: 11, Step: failed.Name,
		Excerpt: "   9 |     FROM node:24-slim AS tools\n  10 |     COPY tools/package.json tools/package-lock.json ./\n" +
			"  11 | >>> RUN npm ci --omit=dev\n  12 |     \n  13 |     FROM base\n",
		Output: failed.Log,
	}
	return r
}

// snapshotRecord is the record of snapshots with tests.
func snapshotRecord() *runrecord.Record {
	r := builtRecord()
	r.Program, r.Seconds = "action-snapshot", 131
	r.Phases = append(r.Phases[:3:3],
		runrecord.Phase{Name: "Push to Daytona", Offset: 65.2, Seconds: 12.1, Bytes: 96_000_000},
		runrecord.Phase{Name: "Create the snapshot", Offset: 77.3, Seconds: 38},
		runrecord.Phase{Name: "Verify the snapshot", Offset: 115.3, Seconds: 14.6},
	)
	r.Snapshots = []runrecord.Snapshot{
		{
			Name: "agents-20261126-8f14e45", ID: "5c1f9e0e-7d54-4f0c-9a58-1f0d3c2b4a59", State: "active", Digest: testDigest,
			SizeGB: 0.49, Verified: "suite", CPU: 2, MemoryGB: 4, DiskGB: 10, Region: "us",
			Entrypoint: []string{"/usr/local/bin/agent", "serve"},
			States: []runrecord.State{
				{Name: "pending", Offset: 77.3}, {Name: "pulling", Offset: 79.8}, {Name: "active", Offset: 114.9},
			},
		},
		{
			Variant: "large", Name: "agents-large-20261126-8f14e45", ID: "0b9e", State: "active", Reused: true, Verified: "boot",
			CPU: 8, MemoryGB: 16, DiskGB: 40, Region: "us",
		},
	}
	r.Doppler = &runrecord.Doppler{
		Secret: "DAYTONA_SNAPSHOT_NAME", Written: []string{"agents/dev"}, Unchanged: []string{"agents/stg"},
		Previous: "agents-20261125-c0ffeec", Deleted: []string{"agents-20261101-1234567"},
	}
	r.Tests = &runrecord.Tests{
		Suite: "agents", File: "sandbox/tests.yaml", Seed: "42", Seconds: 9.4,
		Total: 5, Passed: 2, Failed: 1, Skipped: 1, Flaky: 1,
		Tests: []runrecord.Test{
			{
				Name:     "git is installed",
				Class:    "tools",
				File:     "sandbox/tests.yaml",
				Line:     4,
				Tags:     []string{"fast"},
				Status:   "passed",
				Attempts: 1,
				Seconds:  0.2,
			},
			{
				Name:     "agent answers on port 8080",
				Class:    "service",
				File:     "sandbox/tests.yaml",
				Line:     12,
				Status:   "failed",
				Attempts: 2,
				Seconds:  5.1,
				Log:      "test-results/agent.log",
				Failures: []runrecord.TestFailure{
					{
						Line:    15,
						Message: `GET /health: got status 503, want 200`,
						Detail:  "HTTP/1.1 503 Service Unavailable\nRetry-After: 5\n",
					},
				},
			},
			{Name: "clone a large repository", Class: "tools", File: "sandbox/tests.yaml", Line: 20, Tags: []string{"network"},
				Status: "flaky", Attempts: 2, Seconds: 3.3},
			{Name: "GPU is visible", Class: "hardware", File: "sandbox/tests.yaml", Line: 28, Status: "skipped",
				Reason: "no GPU in the sandbox", Attempts: 0},
			{
				Name:     "node runs TypeScript",
				Class:    "tools",
				File:     "sandbox/tests.yaml",
				Line:     33,
				Status:   "passed",
				Attempts: 1,
				Seconds:  0.8,
			},
		},
	}
	return r
}

// hostileRecord is a record whose texts try to leave their place in the page.
func hostileRecord() *runrecord.Record {
	const evil = `</script><script>document.title="hacked"</script><img src=x onerror='document.title="hacked"'>"'` +
		"`&lt;{{.}}\u2028\u2029\\u003c<!--<script>]]>${1}"
	r := snapshotRecord()
	r.Error = &runrecord.Error{
		Message: evil,
		File:    evil,
		Line:    3,
		Excerpt: "3 | " + evil,
		Step:    evil,
		Output:  evil,
		Input:   evil,
	}
	r.ExitCode, r.Program, r.Release = 1, evil, evil
	r.Run = &runrecord.Run{
		Repository: `x/y"><script>`, Server: "javascript:alert(1)//", ID: evil, Attempt: evil, Job: evil, Event: evil,
		Branch: evil,
	}
	r.Source = &runrecord.Source{SHA: evil, Ref: evil, Dockerfile: evil}
	r.Image.BuildURL = "javascript:document.title='hacked'"
	r.Image.Ref, r.Image.Digest = evil, evil
	r.Inputs = append(r.Inputs, runrecord.Input{Name: evil, Value: evil})
	r.Outputs = append(r.Outputs, runrecord.Output{Name: evil, Value: evil})
	for i := range r.Steps {
		r.Steps[i].Name, r.Steps[i].Log, r.Steps[i].Stage, r.Steps[i].Platform = evil, evil, evil, evil
	}
	r.Steps[1].Error = evil
	for i := range r.Phases {
		r.Phases[i].Name = evil
	}
	layers := r.Image.Platforms[0].Layers
	for i := range layers {
		layers[i].CreatedBy, layers[i].Digest = evil, evil
		for j := range layers[i].Files {
			layers[i].Files[j].Path += "/" + evil
		}
	}
	r.Image.Platforms[0].Platform = evil
	r.Changes.CacheBreak.Files, r.Changes.CacheBreak.Earlier = []string{evil}, []string{evil}
	r.Changes.Branch, r.Changes.Run = evil, evil
	r.Changes.Platforms[0].Files[0].Path = evil
	for i := range r.Tests.Tests {
		test := &r.Tests.Tests[i]
		test.Name, test.Class, test.File, test.Status, test.Reason, test.Tags = evil, evil, evil, evil, evil, []string{evil}
	}
	r.Snapshots[0].Name, r.Snapshots[0].State, r.Snapshots[0].States[0].Name = evil, evil, evil
	return r
}

// hugeRecord is a record with many steps, files, tests and packages, and long logs.
func hugeRecord() *runrecord.Record {
	r := snapshotRecord()
	r.Steps, r.Tests.Tests = nil, nil
	log := strings.Repeat("0123456789abcdef 0123456789abcdef\n", 64<<10/34)
	for i := range 12_000 {
		r.Steps = append(r.Steps, runrecord.Step{
			Name: fmt.Sprintf("[stage-%d %d/20] RUN make target-%d", i/20, i%20+1, i), Offset: float64(i) * r.Seconds / 12_000,
			Seconds: 0.5, Cached: i%3 == 0, Log: log,
		})
	}
	r.Steps[11_999].Error = "exit code: 2"
	layer := &r.Image.Platforms[0].Layers[2]
	layer.Files = nil
	for i := range 100_000 {
		layer.Files = append(layer.Files, runrecord.File{
			Path: fmt.Sprintf("app/node_modules/package-%d/lib/file-%d.js", i/50, i), Size: int64(i),
		})
	}
	for i := range 12_000 {
		r.Tests.Tests = append(r.Tests.Tests, runrecord.Test{Name: fmt.Sprintf("test %d", i), Status: "passed", Attempts: 1})
		r.Image.Platforms[0].Packages = append(r.Image.Platforms[0].Packages,
			runrecord.Package{Manager: "npm", Name: fmt.Sprintf("package-%d", i), Version: "1.0.0"})
	}
	r.Tests.Tests[11_999].Status = "failed"
	return r
}

// files returns files from alternating paths and sizes.
func files(pairs ...any) []runrecord.File {
	var all []runrecord.File
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, runrecord.File{Path: pairs[i].(string), Size: int64(pairs[i+1].(int))})
	}
	return all
}

// lines returns n lines with their numbers.
func lines(format string, n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, format+"\n", i+1)
	}
	return s.String()
}

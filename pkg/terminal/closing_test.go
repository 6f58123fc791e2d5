package terminal

import (
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/safetext"
)

const imageDigest = "sha256:ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12cd34ef56ab12"

func builtImage() *runrecord.Image {
	return &runrecord.Image{
		Digest: imageDigest, Names: []string{"sandbox:local"}, Cached: 12, Total: 14,
		Platforms: []runrecord.PlatformImage{{Platform: "linux/amd64", Size: 467e6}},
	}
}

func TestClosing(t *testing.T) {
	source := &runrecord.Source{SHA: "1a2b3c4d5e6f", Ref: "refs/heads/main", Dirty: true}
	for _, test := range []struct {
		name   string
		record runrecord.Record
		want   string
	}{
		{"first build", runrecord.Record{Seconds: 8.4, Image: builtImage(), Source: source}, `
Built sandbox:local sha256:ab12cd34ef56…, 467 MB, 12 of 14 steps cached, 8.4 s
  image      sandbox:local
  digest     ` + imageDigest + `
  source     1a2b3c4 (main), with uncommitted changes

Next:
  docker run --rm -it sandbox:local
  action-test
  action-snapshot
`},
		{"build after a change", runrecord.Record{
			Seconds: 8.4, Image: builtImage(), Changes: &runrecord.Changes{
				Platforms: []runrecord.PlatformChange{{
					Platform: "linux/amd64", Size: 12e5, Files: make([]runrecord.FileChange, 2), Omitted: 5,
					Packages: make([]runrecord.PackageChange, 1),
				}},
				CacheBreak: &runrecord.CacheBreak{
					Files: []string{"a", "b"}, MoreFiles: 3, Earlier: []string{"ENV A=1", "ENV B=1"},
				},
			},
		}, `
Built sandbox:local sha256:ab12cd34ef56…, 467 MB (+1.2 MB), 12 of 14 steps cached, 8.4 s
  image      sandbox:local
  digest     ` + imageDigest + `
  changed    a, b, ENV A=1 and 4 more; 1 package and 7 files of the image

Next:
  docker run --rm -it sandbox:local
  action-test
  action-snapshot
`},
		{"push", runrecord.Record{Seconds: 8.4, Image: &runrecord.Image{
			Digest: imageDigest, Pushed: []string{"ghcr.io/o/i:1", "ghcr.io/o/i:2"}, BuildURL: "https://depot.dev/builds/1",
		}}, `
Built ghcr.io/o/i:1 sha256:ab12cd34ef56…, 8.4 s
  digest     ` + imageDigest + `
  pushed     ghcr.io/o/i:1, ghcr.io/o/i:2
  Depot      https://depot.dev/builds/1

Next:
  docker run --rm -it ghcr.io/o/i:1@` + imageDigest + `
`},
		{"tests", runrecord.Record{
			Seconds: 12, Tests: &runrecord.Tests{Total: 41, Passed: 40, Skipped: 1}, Image: &runrecord.Image{
				Digest: imageDigest, Names: []string{"sandbox:local"}, Existing: true, Created: time.Unix(0, 0),
			},
		}, `
Tested sandbox:local: 40 passed, 1 skipped, 12 s
  image      sandbox:local
  digest     ` + imageDigest + `

Next:
  action-snapshot
`},
		{"failed tests", runrecord.Record{
			Seconds: 12, ExitCode: 1, Error: &runrecord.Error{Message: "2 of 3 tests failed"}, Image: builtImage(),
			Tests: &runrecord.Tests{Total: 3, Passed: 1, Failed: 2, Tests: []runrecord.Test{
				{Name: "git", Status: "passed"},
				{Name: "node's version (22)", Status: "failed", File: "tests.yaml", Line: 3, Failures: []runrecord.TestFailure{
					{Line: 5, Message: "stdout: \"v20\" does not match\n::error::x"},
				}},
				{Name: "\x1b[31mred", Status: "failed"},
			}},
		}, `
Tested sandbox:local: 1 passed, 2 failed, 12 s
  node's version (22)  tests.yaml:5
    stdout: "v20" does not match ::error::x
  ` + safetext.Visible("\x1b[31mred") + `

Next:
  action-test --run '^node'\''s version \(22\)$'
  action-test shell
`},
		{"snapshot", runrecord.Record{
			Seconds: 41, Image: &runrecord.Image{Digest: imageDigest}, Snapshots: []runrecord.Snapshot{{
				Name: "sandbox-1", State: "active", Verified: "boot", CPU: 2, MemoryGB: 4, DiskGB: 10,
			}},
			Doppler: &runrecord.Doppler{
				Secret: "DAYTONA_SNAPSHOT_NAME", Written: []string{"app/dev"}, Previous: "sandbox-0", Deleted: []string{"old"},
			},
		}, `
Snapshot sandbox-1 is active, verified (boot), named in app/dev, 41 s
  digest     ` + imageDigest + `
  snapshot   sandbox-1
  sandbox    2 CPU, 4 GB memory, 10 GB disk
  named in   app/dev (DAYTONA_SNAPSHOT_NAME), instead of sandbox-0
  deleted    old

Next:
  daytona create --snapshot sandbox-1
  action-snapshot promote sandbox-1 --to CONFIG
`},
		{"variants", runrecord.Record{
			Seconds: 41, Snapshots: []runrecord.Snapshot{
				{Variant: "small", Name: "s-1", State: "active", Verified: "none", CPU: 1, MemoryGB: 1, DiskGB: 3},
				{Variant: "gpu", Name: "s-2", State: "active", Verified: "boot", CPU: 4, MemoryGB: 8, DiskGB: 10, GPU: 1},
			},
			Doppler: &runrecord.Doppler{Skipped: "no token is set"},
		}, `
2 snapshots are active: s-1, s-2, 41 s
  small      s-1
  verified   no
  sandbox    1 CPU, 1 GB memory, 3 GB disk
  gpu        s-2
  sandbox    4 CPU, 8 GB memory, 10 GB disk, 1 GPU
  Doppler    not updated: no token is set

Next:
  daytona create --snapshot s-1
`},
		{"promotion", runrecord.Record{
			Seconds: 1,
			Doppler: &runrecord.Doppler{Secret: "NAME", Written: []string{"app/prd"}, Unchanged: []string{"app/stg"}},
		}, `
Finished in 1 s
  named in   app/prd (NAME)
  named in   app/stg (NAME), already before

Next:
  action-snapshot history
`},
		{"failed step", runrecord.Record{ExitCode: 1, Seconds: 3, Error: &runrecord.Error{
			Message: "Dockerfile:3 (step 2/2) failed with exit code 2; last output: `b`", File: "Dockerfile", Line: 3,
			Excerpt: "  2 | FROM x\n> 3 | RUN make\n", Output: "a\nb\n",
		}}, `
Dockerfile:3
    2 | FROM x
  > 3 | RUN make
`},
		{"invalid input", runrecord.Record{ExitCode: 2, Error: &runrecord.Error{Message: "input timeout: x"}}, ""},
		{"nothing", runrecord.Record{}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got, colored strings.Builder
			Closing(&got, &test.record, false)
			if got.String() != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), test.want)
			}
			Closing(&colored, &test.record, true)
			if unstyle(colored.String()) != test.want {
				t.Errorf("colors change the text:\n%q", colored.String())
			}
		})
	}
}

func unstyle(text string) string {
	for _, code := range []string{"0", string(Bold), string(Faint), string(Red), string(Green), string(Yellow)} {
		text = strings.ReplaceAll(text, "\x1b["+code+"m", "")
	}
	return text
}

// A list of failures stays short.
func TestClosingOfManyFailures(t *testing.T) {
	tests := make([]runrecord.Test, 1000)
	for i := range tests {
		tests[i] = runrecord.Test{Name: "t", Status: "failed"}
	}
	var got strings.Builder
	Closing(&got, &runrecord.Record{ExitCode: 1, Tests: &runrecord.Tests{Total: 1000, Failed: 1000, Tests: tests}}, false)
	if lines := strings.Count(got.String(), "\n"); lines > 20 || !strings.Contains(got.String(), "  and 990 more\n") {
		t.Errorf("%d lines:\n%s", lines, got.String())
	}
}

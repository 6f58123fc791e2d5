package runrecord

import (
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	built := func(change func(*Image)) *Image {
		i := &Image{
			Digest: "sha256:" + strings.Repeat("ab12", 16), Names: []string{"sandbox:ci", "sandbox:also"},
			Pushed: []string{"example.com/team/app:1"}, Platforms: []PlatformImage{{Platform: "linux/amd64", Size: 467e6}},
			Cached: 12, Total: 14,
		}
		if change != nil {
			change(i)
		}
		return i
	}
	changes := &Changes{Platforms: []PlatformChange{{Platform: "linux/amd64", Size: 1_200_000}}}
	active := Snapshot{Name: "sandbox-1", State: "active", Verified: "suite"}
	for _, test := range []struct {
		name   string
		record Record
		want   string
	}{
		{"nothing", Record{Seconds: 1}, ""},
		{"failed build", Record{ExitCode: 1, Image: built(nil)}, ""},
		{
			"build", Record{Image: built(nil), Changes: changes, Seconds: 8.42},
			"Built sandbox:ci sha256:ab12ab12ab12…, 467 MB (+1.2 MB), 12 of 14 steps cached, 8.4 s",
		},
		{
			"first build for a registry", Record{Image: built(func(i *Image) { i.Names = nil }), Seconds: 200},
			"Built example.com/team/app:1 sha256:ab12ab12ab12…, 467 MB, 12 of 14 steps cached, 3 min 20 s",
		},
		{
			"several platforms, nowhere but in the builder",
			Record{Changes: changes, Seconds: 2, Image: built(func(i *Image) {
				i.Names, i.Pushed, i.Total = nil, nil, 0
				i.Platforms = append(i.Platforms, PlatformImage{Platform: "linux/arm64", Size: 450e6})
			})},
			"Built an image sha256:ab12ab12ab12…, linux/amd64 467 MB (+1.2 MB), linux/arm64 450 MB, 2 s",
		},
		{
			"tests", Record{Image: built(nil), Tests: &Tests{Passed: 40, Total: 40}, Seconds: 12},
			"Tested sandbox:ci: 40 passed, 12 s",
		},
		{
			"failed tests",
			Record{
				ExitCode: 1, Image: built(nil), Tests: &Tests{Total: 43, Passed: 37, Failed: 1, Flaky: 2, Skipped: 3}, Seconds: 12,
			},
			"Tested sandbox:ci: 37 passed, 1 failed, 2 flaky, 3 skipped, 12 s",
		},
		{
			"command without a suite",
			Record{Image: built(func(i *Image) { i.Existing = true }), Tests: &Tests{}, Seconds: 3}, "Tested sandbox:ci, 3 s",
		},
		{
			"existing image",
			Record{Image: built(func(i *Image) { i.Existing, i.Total = true, 0 }), Seconds: 3},
			"Opened sandbox:ci sha256:ab12ab12ab12…, 467 MB, 3 s",
		},
		{
			"snapshot",
			Record{
				Image: built(nil), Tests: &Tests{Passed: 1}, Snapshots: []Snapshot{active}, Seconds: 41,
				Doppler: &Doppler{Written: []string{"app.dev"}, Unchanged: []string{"app.stg"}},
			},
			"Snapshot sandbox-1 is active, verified (suite), named in app.dev, app.stg, 41 s",
		},
		{
			"reused snapshot",
			Record{
				Snapshots: []Snapshot{
					{Name: "a", State: "active", Reused: true, Verified: "none"},
				}, Doppler: &Doppler{}, Seconds: 1,
			},
			"Snapshot a is active, reused, 1 s",
		},
		{
			"several snapshots", Record{Snapshots: []Snapshot{active, {Name: "sandbox-2", State: "active"}}, Seconds: 50},
			"2 snapshots are active: sandbox-1, sandbox-2, 50 s",
		},
		{"failed snapshot", Record{ExitCode: 1, Snapshots: []Snapshot{active}}, ""},
	} {
		if got := test.record.Line(); got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
}

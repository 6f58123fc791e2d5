package actions

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

func TestSnapshotName(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600)) // names are in UTC
	const sha = "0123456789abcdef0123456789abcdef01234567"
	for _, test := range []struct {
		name, prefix, sha string
		dirty             bool
		person, want      string
	}{
		{"commit", "web-sandbox", sha, false, "octocat", "web-sandbox-20260304-040607-0123456-octocat"},
		{"uncommitted changes", "a", sha, true, "octocat", "a-20260304-040607-0123456-dirty-octocat"},
		{"bot", "a", sha, false, "dependabot[bot]", "a-20260304-040607-0123456-dependabot-bot"},
		{"characters that Daytona rejects", "a", sha, false, " Ünal Ö/é: ", "a-20260304-040607-0123456-nal"},
		{"no person", "a", sha, false, "-", "a-20260304-040607-0123456-unknown"},
		{"short SHA", "a", "abc", false, "o", "a-20260304-040607-abc-o"},
		{"long prefix", strings.Repeat("p", 200), sha, false, "octocat",
			strings.Repeat("p", 96) + "-20260304-040607-0123456-octocat"},
		{"long person", "a", sha, false, strings.Repeat("o", 60), "a-20260304-040607-0123456-" + strings.Repeat("o", 39)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := snapshotName(test.prefix, at, test.sha, test.dirty, test.person); got != test.want {
				t.Errorf("%s\nwant %s", got, test.want)
			}
		})
	}
}

var generatedName = regexp.MustCompile(`-[0-9]{8}-[0-9]{6}-[0-9a-f]{0,7}(-dirty)?-[a-zA-Z0-9_.-]+$`)

// Daytona accepts every generated name, and the name begins with the prefix or as much of it as fits.
func FuzzSnapshotName(f *testing.F) {
	for _, person := range []string{
		"octocat", "dependabot[bot]", "", "Ünal Ö", "-", "a/b:latest", strings.Repeat("x", 200), "\n", "a@b.example",
	} {
		f.Add("web-sandbox", uint64(0x1234567), person, false)
		f.Add(strings.Repeat("team/image:", 20)+"x", uint64(0), person, true)
	}
	f.Fuzz(func(t *testing.T, prefix string, commit uint64, person string, dirty bool) {
		if daytona.CheckName(prefix) != nil {
			return
		}
		const digits = "0123456789abcdef"
		sha := make([]byte, 40)
		for i := range sha {
			sha[i] = digits[commit>>(i%16*4)&0xf]
		}
		name := snapshotName(prefix, time.Unix(1_700_000_000, 0), string(sha), dirty, person)
		if err := daytona.CheckName(name); err != nil {
			t.Errorf("prefix %q, person %q: %v", prefix, person, err)
		}
		generated := generatedName.FindStringIndex(name)
		if generated == nil || !strings.HasPrefix(prefix, name[:generated[0]]) || len(name) > maxNameLength {
			t.Errorf("prefix %q, person %q: %q", prefix, person, name)
		}
	})
}

package actions

import (
	"strings"
	"testing"
	"time"
)

func TestSnapshotName(t *testing.T) {
	at := time.Date(2026, 11, 25, 3, 4, 5, 0, time.FixedZone("", 3600))
	const sha = "0123456789abcdef0123456789abcdef01234567"
	for _, test := range []struct {
		name, prefix, sha string
		dirty             bool
		person, want      string
	}{
		{"plain", "iterate-sandbox", sha, false, "octocat", "iterate-sandbox-20261125-020405-0123456-octocat"},
		{"dirty", "iterate-sandbox", sha, true, "octocat", "iterate-sandbox-20261125-020405-0123456-dirty-octocat"},
		{"a name of several words", "p", sha, false, "Ada Lovelace <ada@example.com>", "p-20261125-020405-0123456-Ada-Lovelace-ada-example.com"},
		{"a name in other letters", "p", sha, false, "Ада", "p-20261125-020405-0123456-unknown"},
		{"a bot", "p", sha, false, "dependabot[bot]", "p-20261125-020405-0123456-dependabot-bot"},
		{"long", strings.Repeat("p", 300), sha, false, strings.Repeat("u", 300), strings.Repeat("p", 64) + "-20261125-020405-0123456-" + strings.Repeat("u", 39)},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := snapshotName(test.prefix, at, test.sha, test.dirty, test.person)
			if got != test.want || len(got) > maxName {
				t.Errorf("%s (%d), want %s", got, len(got), test.want)
			}
		})
	}
}

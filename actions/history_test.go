package actions

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/daytona"
)

func TestAddToHistory(t *testing.T) {
	b := namingRecord{Name: "b", Commit: "abc", Action: actionSnapshot}
	verified := b
	verified.Verified = "boot"
	for _, test := range []struct {
		name, before, previous string
		record                 namingRecord
		want                   string // "" for an error
	}{
		{"first", ``, "", b, `[{"name":"b","commit":"abc","action":"snapshot"}]`},
		{"first after a name without a record", ``, "a", b, `[{"name":"a"},{"name":"b","commit":"abc","action":"snapshot"}]`},
		{
			"name that another program wrote", `[{"name":"x"}]`, "a", b,
			`[{"name":"x"},{"name":"a"},{"name":"b","commit":"abc","action":"snapshot"}]`,
		},
		{"reference as the name", `[{"name":"x"}]`, "${prd.NAME}", b, `[{"name":"x"},{"name":"b","commit":"abc","action":"snapshot"}]`},
		{"same name", `[{"name":"b"}]`, "b", b, `[{"name":"b"}]`},
		{"same name, verified since", `[{"name":"b"}]`, "b", verified, `[{"name":"b","verified":"boot"}]`},
		{"same name without a record", `[{"name":"a"}]`, "b", verified, `[{"name":"a"}]`},
		{"not JSON", `words`, "a", b, ""},
		{"other JSON", `[{"title":"x"}]`, "a", b, ""},
	} {
		got, err := addToHistory(test.before, test.previous, test.record)
		if (err != nil) != (test.want == "") || got != test.want {
			t.Errorf("%s: %s, %v; want %s", test.name, got, err, test.want)
		}
	}
}

// The history keeps the newest records within its limits.
func TestHistoryIsLimited(t *testing.T) {
	for _, image := range []string{"", "registry.example/" + strings.Repeat("x", 300)} {
		history, previous := "", ""
		for i := range 40 {
			name := fmt.Sprintf("agent-%d", i)
			var err error
			if history, err = addToHistory(history, previous, namingRecord{Name: name, Image: image}); err != nil {
				t.Fatal(err)
			}
			previous = name
		}
		records, err := parseHistory(history)
		if err != nil || len(history) > maxHistoryBytes || len(records) > maxRecords || len(records) < 4 ||
			records[len(records)-1].Name != "agent-39" {
			t.Errorf("%d bytes, %d records, %v", len(history), len(records), err)
		}
	}
	history, err := addToHistory("", "", namingRecord{Name: "agent", Image: strings.Repeat("x", maxHistoryBytes)})
	if records, _ := parseHistory(history); err != nil || len(records) != 1 {
		t.Errorf("one record beyond the limit: %v, %v", records, err)
	}
}

// Repeated rollbacks go further back. A name that was set again after a rollback from it is a target again.
func TestRollbackTarget(t *testing.T) {
	named := func(names ...string) (records []namingRecord) {
		for _, name := range names {
			record := namingRecord{Name: name, Action: actionSnapshot}
			if to, from, isRollback := strings.Cut(name, "<"); isRollback {
				record = namingRecord{Name: to, Action: actionRollback, Replaced: from}
			}
			records = append(records, record)
		}
		return records
	}
	for _, test := range []struct {
		records []namingRecord
		current string
		want    string
	}{
		{nil, "a", ""},
		{named("a"), "a", ""},
		{named("a", "b"), "b", "a"},
		{named("a", "b", "b"), "b", "a"},
		{named("a", "b", "c", "b<c"), "b", "a"},
		{named("a", "b", "c", "b<c", "a<b"), "a", ""},
		{named("a", "b", "a<b", "b"), "b", "a"},
		{named("a", "b", "a<b", "c"), "c", "a"},
		{named("a", "b", "a<b", "b", "c"), "c", "b"},
		{named("a", "b"), "set by hand", "b"},
	} {
		if got, _ := rollbackTarget(test.records, test.current); got.Name != test.want {
			t.Errorf("%v, %s: %q, want %q", test.records, test.current, got.Name, test.want)
		}
	}
}

func TestCommitOf(t *testing.T) {
	const digest = "sha256:abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"
	var got []string
	for _, s := range []daytona.Snapshot{
		{Name: "agent-20260102-030405-1234567-me", Digest: digest},
		{Name: "agent-20260102-030405-1234567-dirty-me"},
		{Name: "agent-20260102-030405-abcdef0-me", Digest: digest}, // the digest of an image without a commit
		{Name: "agent-v1"},
	} {
		got = append(got, commitOf(s, namingRecord{}))
	}
	got = append(got, commitOf(daytona.Snapshot{Name: "agent"}, namingRecord{Commit: "full"}))
	if want := []string{"1234567", "1234567", "", "", "full"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

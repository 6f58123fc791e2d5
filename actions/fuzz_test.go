package actions

import (
	"encoding/csv"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/org/sandbox-actions/pkg/daytona"
)

// FuzzLists: what a list is read as can be written as one, and read the same; each element is of a line that the input has.
func FuzzLists(f *testing.F) {
	for _, seed := range []string{
		"a", "a\nb\n", "a,b\nc", "\n  a \n\n\tb\n", "# one\na\n  # two\nb#c", `"a,b",c`, "\"A=1\n2\"\nB=3", `"A=say ""yes"""`, `A={"b": 1}`, "a\r\nb\r\n", "\n \n", `"`, `a"`, "\"a\"b", `,`, "\"\"",
		"\"a\r\nb\"", "\u00a0a", "\xff", "a,\n,b", `"a" , "b"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in, _, err := parse(t, nil, []string{"INPUT_ALLOW=" + text, "INPUT_LABELS=" + text})
		if err != nil {
			return
		}
		for name, list := range map[string][]Item{"commas": in.Allow, "lines": in.Labels} {
			last := 1
			for _, item := range list {
				if item.Line < last || item.Line > strings.Count(text, "\n")+1 {
					t.Errorf("by %s: %q is of line %d, after one of line %d", name, item.Text, item.Line, last)
				}
				last = item.Line
			}
		}
		for _, item := range in.Allow {
			if strings.TrimSpace(item.Text) != item.Text || item.Text == "" {
				t.Errorf("split at commas: %q is no element", item.Text)
			}
		}
		again, _, err := parse(t, nil, []string{"INPUT_ALLOW=" + written(t, in.Allow), "INPUT_LABELS=" + written(t, in.Labels)})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(Texts(again.Allow), Texts(in.Allow)) || !slices.Equal(Texts(again.Labels), Texts(in.Labels)) {
			t.Errorf("%q and %q became %q and %q", Texts(in.Allow), Texts(in.Labels), Texts(again.Allow), Texts(again.Labels))
		}
	})
}

// written is a list with one quoted element a line, as somebody would write it by hand.
func written(t *testing.T, list []Item) string {
	var text strings.Builder
	for _, item := range list {
		text.WriteString(`"` + strings.ReplaceAll(item.Text, `"`, `""`) + "\"\n")
	}
	if _, err := csv.NewReader(strings.NewReader(text.String())).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// FuzzReferences: what is taken for an image's reference before a build is one for those who push to it after the build.
func FuzzReferences(f *testing.F) {
	for _, seed := range []string{
		"ghcr.io/a/b:1", "a", "a/b", "localhost/x", "localhost:5000/x:y", "[::1]:5000/x", "HOST/x", "host.example/a//b", "ghcr.io/a/B:1", "a:latest", "x@sha256:" + strings.Repeat("0", 64), "docker.io/library/x",
		"ghcr.io/a__b/c-d.e:T_.-1", "-a", "a:" + strings.Repeat("t", 129), strings.Repeat("a/", 130) + "b", "a b", "\xff", "registry.example.com:99999/a:1", "index.docker.io/a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in, _, err := parse(t, nil, []string{"GITHUB_ACTIONS=true"})
		if err != nil {
			t.Fatal(err)
		}
		in.Push = Lines{{Text: text, Line: 1}}
		p, err := check(in, func(string) string { return "" }, t.TempDir())
		if err != nil {
			return
		}
		ref, err := name.ParseReference(p.push[0])
		if err != nil {
			t.Fatalf("%q is taken, and can not be pushed to: %v", text, err)
		}
		if ref.Name() != p.push[0] && !strings.HasPrefix(ref.Name(), "index.docker.io/") {
			t.Errorf("%q is %s, and would be pushed to %s", text, p.push[0], ref)
		}
	})
}

var madeName = regexp.MustCompile(`-[0-9]{8}-[0-9]{6}-[0-9a-f]{0,7}(-dirty)?-[a-zA-Z0-9_.-]+$`)

// FuzzSnapshotName: whoever builds, the name is one that Daytona takes, and begins with the prefix or with what of it there is room for.
func FuzzSnapshotName(f *testing.F) {
	for _, person := range []string{"octocat", "dependabot[bot]", "", "Ünal Ö", "-", "a/b:latest", strings.Repeat("x", 200), "\n", "a@b.example"} {
		f.Add("iterate-sandbox", uint64(0x1234567), person, false)
		f.Add(strings.Repeat("team/image:", 20)+"x", uint64(0), person, true)
	}
	f.Fuzz(func(t *testing.T, prefix string, commit uint64, person string, dirty bool) {
		if daytona.CheckName(prefix) != nil {
			t.Skip()
		}
		const digits = "0123456789abcdef"
		sha := make([]byte, 40)
		for i := range sha {
			sha[i] = digits[commit>>(i%16*4)&0xf]
		}
		name := snapshotName(prefix, time.Unix(1_700_000_000, 0), string(sha), dirty, person)
		if err := daytona.CheckName(name); err != nil {
			t.Errorf("%q, %q: %v", prefix, person, err)
		}
		ours := madeName.FindStringIndex(name)
		if ours == nil || !strings.HasPrefix(prefix, name[:ours[0]]) || len(name) > maxName {
			t.Errorf("%q, %q: %q", prefix, person, name)
		}
	})
}

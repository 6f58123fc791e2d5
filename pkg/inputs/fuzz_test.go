package inputs

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// Quoting a parsed list and parsing it again yields the same list. Line numbers ascend and exist in the input.
func FuzzLists(f *testing.F) {
	for _, seed := range []string{
		"a", "a\nb\n", "a,b\nc", "\n  a \n\n\tb\n", "# one\na\n  # two\nb#c", `"a,b",c`,
		"\"A=1\n2\"\nB=3", `"A=say ""yes"""`, `A={"b": 1}`, "a\r\nb\r\n", "\n \n", `"`, `a"`, "\"a\"b", `,`, "\"\"",
		"\"a\r\nb\"", "\u00a0a", "\xff", "a,\n,b", `"a" , "b"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in, _, err := parseBuild(t, nil, []string{"INPUT_ALLOW=" + text, "INPUT_LABELS=" + text})
		if err != nil {
			return
		}
		for name, list := range map[string][]Item{"commas": in.Allow, "lines": in.Labels} {
			last := 1
			for _, item := range list {
				if item.Line < last || item.Line > strings.Count(text, "\n")+1 {
					t.Errorf("%s: %q is on line %d, after line %d", name, item.Text, item.Line, last)
				}
				last = item.Line
			}
		}
		for _, item := range in.Allow {
			if strings.TrimSpace(item.Text) != item.Text || item.Text == "" {
				t.Errorf("element %q is not trimmed", item.Text)
			}
		}
		again, _, err := parseBuild(
			t,
			nil,
			[]string{"INPUT_ALLOW=" + quoteItems(t, in.Allow), "INPUT_LABELS=" + quoteItems(t, in.Labels)},
		)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(Texts(again.Allow), Texts(in.Allow)) || !slices.Equal(Texts(again.Labels), Texts(in.Labels)) {
			t.Errorf("%q and %q became %q and %q", Texts(in.Allow), Texts(in.Labels), Texts(again.Allow), Texts(again.Labels))
		}
	})
}

// quoteItems writes a list with one quoted element per line.
func quoteItems(t *testing.T, list []Item) string {
	var text strings.Builder
	for _, item := range list {
		text.WriteString(`"` + strings.ReplaceAll(item.Text, `"`, `""`) + "\"\n")
	}
	if _, err := csv.NewReader(strings.NewReader(text.String())).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// go-containerregistry can push to every reference that validation accepts.
func FuzzReferences(f *testing.F) {
	for _, seed := range []string{
		"ghcr.io/a/b:1", "a", "a/b", "localhost/x", "localhost:5000/x:y", "[::1]:5000/x", "HOST/x",
		"host.example/a//b", "ghcr.io/a/B:1", "a:latest", "x@sha256:" + strings.Repeat(
			"0", 64,
		), "docker.io/library/x",
		"ghcr.io/a__b/c-d.e:T_.-1", "-a", "a:" + strings.Repeat("t", 129), strings.Repeat(
			"a/", 130,
		) + "b", "a b", "\xff", "registry.example.com:99999/a:1", "index.docker.io/a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		in, _, err := parseBuild(t, nil, []string{"GITHUB_ACTIONS=true"})
		if err != nil {
			t.Fatal(err)
		}
		in.Push = List{{Text: text, Line: 1}}
		spec, err := in.Spec(Env{Getenv: noEnv, Dir: t.TempDir()})
		if err != nil {
			return
		}
		ref, err := name.ParseReference(spec.Push[0])
		if err != nil {
			t.Fatalf("%q is accepted but cannot be pushed to: %v", text, err)
		}
		if ref.Name() != spec.Push[0] && !strings.HasPrefix(ref.Name(), "index.docker.io/") {
			t.Errorf("%q is %s but would be pushed to %s", text, spec.Push[0], ref)
		}
	})
}

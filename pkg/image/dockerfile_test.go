package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDockerfileLabels(t *testing.T) {
	for content, want := range map[string][]string{
		"FROM scratch\nLABEL a=b \"c.d\"='e f' g=h\\\n  i=j\nlabel k  l m\nRUN echo LABEL=n\n": {"a", "c.d", "g", "i", "k"},
		"FROM scratch\nLABEL a=b \\\n  # comment\n  c=d\n":                                     {"a", "c"},
		"# syntax=docker/dockerfile:1\nFROM a AS x\nLABEL a=1\nFROM x\nLABEL b=2\n":            {"a", "b"},
		"FROM scratch\n": nil, "LABEL\n": nil, "": nil,
	} {
		file := filepath.Join(t.TempDir(), "Dockerfile")
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		dockerfile, err := ReadDockerfile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := dockerfile.Labels(); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
}

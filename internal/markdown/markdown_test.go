package markdown

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCodeBlocks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.md")
	text := "# Title\n\n```sh\none\ntwo\n```\n\n```yaml steps\n- a\n```\n\n```sh\nthree\n```\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for language, want := range map[string][]string{"sh": {"one\ntwo\n", "three\n"}, "yaml steps": {"- a\n"}, "go": nil} {
		got, err := CodeBlocks(file, language)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", language, got, err, want)
		}
	}
	if got, want := WithoutCode(text), "# Title\n\n\n\n\n\n\n"; got != want {
		t.Errorf("without code %q, want %q", got, want)
	}
}

func TestFiles(t *testing.T) {
	files, err := Files("../..")
	if err != nil || !slices.Contains(files, "README.md") || !slices.Contains(files, "docs/reference.md") {
		t.Errorf("%q, %v; want the documents of this repository", files, err)
	}
}

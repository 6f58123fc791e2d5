package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The generated files are up to date, contain the notice, and are marked as generated for GitHub.
func TestGeneratedFiles(t *testing.T) {
	const root = "../.."
	files, err := generatedFiles(root)
	if err != nil {
		t.Fatal(err)
	}
	attributes, err := os.ReadFile(filepath.Join(root, ".gitattributes"))
	if err != nil {
		t.Fatal(err)
	}
	marked := strings.Split(string(attributes), "\n")
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
		} else if string(got) != want {
			t.Errorf("%s is out of date: run go generate ./internal/gen", path)
		}
		if !strings.Contains(want, notice) {
			t.Errorf("%s does not contain the notice that it is generated", path)
		}
		if !slices.Contains(marked, "/"+path+" linguist-generated") {
			t.Errorf(".gitattributes does not mark %s as linguist-generated", path)
		}
	}
}

// Each action.yml has the fields that GitHub's marketplace shows.
func TestMarketplaceFields(t *testing.T) {
	const maxDescription = 125 // characters
	actions, err := loadActions()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range actions {
		if a.Title == "" || a.About == "" || len(a.About) > maxDescription || a.Icon == "" {
			t.Errorf("%s: title %q, icon %q, description of %d characters, want at most %d",
				a.Name, a.Title, a.Icon, len(a.About), maxDescription)
		}
	}
}

// An unknown dispatch input is an error.
func TestUnknownDispatchInput(t *testing.T) {
	_, err := newWorkflow(action{Name: "build"})
	if err == nil || !strings.Contains(err.Error(), "build-docker-image.yml: unknown dispatch input ref") {
		t.Errorf("got %v", err)
	}
}

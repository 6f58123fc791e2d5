package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestSchemasAreCurrent(t *testing.T) {
	packages, err := filepath.Abs("../../../pkg")
	if err != nil {
		t.Fatal(err)
	}
	for dir, generate := range map[string]func() ([]byte, error){"suite": suiteSchema, "runrecord": recordSchema} {
		t.Chdir(filepath.Join(packages, dir))
		want, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile("schema.json"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("pkg/%s/schema.json is out of date (%v); run go generate ./pkg/%[1]s", dir, err)
		}
	}
}

package main

import (
	"bytes"
	"testing"

	"github.com/org/sandbox-actions/pkg/suite"
)

func TestSchemaIsCurrent(t *testing.T) {
	t.Chdir("../../../pkg/suite")
	want, err := suiteSchema()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(suite.Schema, want) {
		t.Error("pkg/suite/schema.json is out of date; run go generate ./pkg/suite")
	}
}

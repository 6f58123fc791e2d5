package e2e

import (
	"encoding/json"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/suite"
)

// Each suite of the examples names the published schema, which editors use to complete and check it.
func TestExampleSuitesNameTheSchema(t *testing.T) {
	suites := 0
	must(t, filepath.WalkDir("../../examples", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) != "tests.yaml" {
			return err
		}
		suites++
		if !strings.HasPrefix(read(t, path), "# yaml-language-server: $schema="+suite.SchemaURL+"\n") {
			t.Errorf("%s does not begin with a comment that names the schema %s", path, suite.SchemaURL)
		}
		return err
	}))
	if suites < 5 {
		t.Errorf("found only %d suites", suites)
	}
}

// suiteSchema is the part of a JSON schema that describes which keys a value can have.
type suiteSchema struct {
	Ref         string                 `json:"$ref"`
	Definitions map[string]suiteSchema `json:"$defs"`
	Properties  map[string]suiteSchema
	Items       *suiteSchema
	OneOf       []suiteSchema
}

// The examples in docs/suite.md show every key of the format.
func TestDocsShowEverySuiteKey(t *testing.T) {
	var root suiteSchema
	must(t, json.Unmarshal([]byte(read(t, "../../pkg/suite/schema.json")), &root))
	shown := map[string]bool{}
	for name, definition := range root.Definitions {
		for key := range definition.Properties {
			shown[name+"."+key] = false
		}
	}
	var mark func(schema suiteSchema, name string, value any)
	mark = func(schema suiteSchema, name string, value any) {
		if reference, ok := strings.CutPrefix(schema.Ref, "#/$defs/"); ok {
			schema, name = root.Definitions[reference], reference
		}
		for _, alternative := range schema.OneOf {
			mark(alternative, name, value)
		}
		switch value := value.(type) {
		case []any:
			for _, element := range value {
				if schema.Items != nil {
					mark(*schema.Items, name, element)
				}
			}
		case map[string]any:
			for key, element := range value {
				if property, ok := schema.Properties[key]; ok {
					shown[name+"."+key] = true
					mark(property, name, element)
				}
			}
		}
	}
	for _, block := range codeBlocks(t, "docs/suite.md", "yaml") {
		var document any
		must(t, yaml.Unmarshal([]byte(block), &document))
		mark(root, "Suite", document)
	}
	for _, key := range slices.Sorted(maps.Keys(shown)) {
		setting, ok := strings.CutPrefix(key, "Settings.") // keys of defaults and of tests
		if !shown[key] && (!ok || !shown["Test."+setting]) && !shown[strings.Replace(key, "Test.", "Settings.", 1)] {
			t.Errorf("docs/suite.md has no example of %s", key)
		}
	}
	if len(shown) < 100 {
		t.Errorf("found only %d keys", len(shown))
	}
}

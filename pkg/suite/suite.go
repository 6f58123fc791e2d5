// Package suite tests a container image with a declarative test suite: its metadata, its files, commands in new or
// shared containers, and the image as a running service. [Load] reads a suite, [Run] runs it and returns a [Report].
//
// The types in format.go define the format. schema.json, generated from them, describes it to editors.
package suite

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/safefile"
)

// Limits of a suite.
const (
	maxTests  = 5000
	maxMatrix = 256 // tests of one matrix
)

// SchemaURL is the address of the JSON schema of suites.
const SchemaURL = "https://raw.githubusercontent.com/org/sandbox-actions/v1/pkg/suite/schema.json"

// formatURL is the address of the suite format's documentation.
const formatURL = "https://github.com/org/sandbox-actions/blob/v1/docs/suite.md"

// Settings of a test that neither the test nor the suite's defaults set.
const (
	defaultTimeout    = time.Minute
	defaultPIDs       = 512
	defaultPrivileges = "none"
)

// Suite is a validated suite of tests for one image.
type Suite struct {
	File  string  // path of the file, for messages and reports
	Name  string  // name in reports; default: the name of the file
	Tests []*Test // in the order of the file, one for each combination of a matrix

	dir string // absolute path of the file's directory, the base of golden files and mounts
}

// Load reads and validates a suite. name is the file's path in messages and reports. For an invalid file it returns an
// [*InvalidError] with the line of each problem.
func Load(file, name string) (*Suite, error) {
	data, err := safefile.Read(file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("test suite %s not found; create it (%s) or set another path", name, formatURL)
	}
	if of := (*fs.PathError)(nil); errors.As(err, &of) {
		err = of.Err // without the path
	}
	if err != nil {
		return nil, fmt.Errorf("read the test suite %s: %w", name, err)
	}
	s, err := Parse(file, data)
	if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
		invalid.File = name
	}
	if err != nil {
		return nil, err
	}
	s.File = name
	return s, nil
}

// Parse is like [Load] for data that was read from file. Golden files and mounts must exist next to file.
func Parse(file string, data []byte) (*Suite, error) {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("read the test suite %s: %w", file, err)
	}
	validator, err := suiteValidator()
	if err != nil {
		return nil, err
	}
	f := parseYAML(data)
	s := &Suite{File: file, Name: filepath.Base(file), dir: dir}
	validYAML := len(f.problems) == 0
	if f.value != nil {
		violations := validator.validate(f)
		for _, found := range violations {
			f.addf(found.line, "%s", found.message)
		}
		if validYAML {
			s.decode(f, violations)
		}
	}
	if err := f.err(file); err != nil {
		return nil, err
	}
	return s, nil
}

// decode fills in the suite and checks the rules that the schema cannot express. It skips tests with violations, so
// that each mistake is reported once.
func (s *Suite) decode(f *parsedFile, violations []violation) {
	failed := map[string]bool{} // top-level keys, and indexes of tests, with violations
	for _, found := range violations {
		switch l := found.location; {
		case len(l) >= 2 && l[0] == "tests":
			failed[l[1]] = true
		case len(l) > 0:
			failed[l[0]] = true
		default:
			failed["tests"] = true
		}
	}
	if failed["tests"] || failed["defaults"] {
		return
	}
	root, ok := f.value.(map[string]any)
	if !ok {
		return
	}
	if name, ok := root["name"].(string); ok && name != "" {
		s.Name = name
	}
	defaults := Settings{
		Timeout: Duration(defaultTimeout), Privileges: defaultPrivileges, Limits: Limits{PIDs: defaultPIDs},
	}
	c := &checker{parsedFile: f, dir: s.dir}
	if _, ok := root["defaults"]; ok {
		l := location{"defaults"}
		if !f.decodeInto(l, &defaults) {
			return
		}
		c.settings(&defaults, l)
	}
	sessions := map[Word]*Test{}
	tests, _ := root["tests"].([]any)
	for i := range tests {
		l := location{"tests", strconv.Itoa(i)}
		if failed[l[1]] {
			continue
		}
		t := &Test{Settings: defaults}
		t.Env = maps.Clone(t.Env) // the YAML library modifies the map
		if !f.decodeInto(l, t) {
			continue
		}
		common := defaults.Limits
		common.Output = t.Limits.Output
		t.ownLimits = t.Limits != common
		c.test(t, l)
		if first := sessions[t.Session]; first == nil {
			sessions[t.Session] = t
		} else if t.Session != "" && !sameContainer(&first.Settings, &t.Settings) {
			f.addf(t.Line, "session %q has different container settings on line %d; use the same network, privileges, mounts "+
				"and limits, or another session", t.Session, first.Line)
		}
		s.Tests = append(s.Tests, c.expandMatrix(t)...)
	}
	if len(s.Tests) > maxTests {
		f.addf(f.line(location{"tests"}), "suite has %d tests, more than %d; split it", len(s.Tests), maxTests)
	}
	c.uniqueNames(s.Tests)
}

// decodeInto decodes the value at l and reports whether that succeeded. It adds a problem for each error.
func (f *parsedFile) decodeInto(l location, into any) bool {
	_, node := f.find(l)
	err := node.Decode(into)
	var typeError *yaml.TypeError
	switch {
	case errors.As(err, &typeError):
		for _, message := range typeError.Errors {
			f.addYAMLError(node.Line, "", errors.New(message))
		}
	case err != nil:
		f.addYAMLError(node.Line, "", err)
	}
	return err == nil
}

// sameContainer reports whether tests with these settings can share a container.
func sameContainer(a, b *Settings) bool {
	sameMount := func(a, b Mount) bool { return a.Source == b.Source && a.Target == b.Target }
	return a.Network == b.Network && a.Privileges == b.Privileges && a.Limits == b.Limits &&
		slices.EqualFunc(a.Mounts, b.Mounts, sameMount)
}

// expandMatrix returns one test for each combination of values in t's matrix.
func (c *checker) expandMatrix(t *Test) []*Test {
	tests := []*Test{t}
	for _, name := range slices.Sorted(maps.Keys(t.Matrix)) {
		var expanded []*Test
		for _, base := range tests {
			for _, value := range t.Matrix[name] {
				variant := *base
				variant.Env = maps.Clone(base.Env)
				if variant.Env == nil {
					variant.Env = Env{}
				}
				variant.Env[name] = value
				variant.Name += fmt.Sprintf(" [%s=%s]", name, value)
				expanded = append(expanded, &variant)
			}
		}
		if tests = expanded; len(tests) > maxMatrix {
			c.addf(t.Line, "matrix of %q expands to more than %d tests; use fewer values", t.Name, maxMatrix)
			return nil
		}
	}
	return tests
}

// uniqueNames adds a problem for each test with the name of an earlier one.
func (c *checker) uniqueNames(tests []*Test) {
	lines := map[string]int{}
	for _, t := range tests {
		if line, ok := lines[t.Name]; ok {
			c.addf(t.Line, "test name %q is already used on line %d; rename one", t.Name, line)
		}
		lines[t.Name] = t.Line
	}
}

package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"
)

// The types below are those of container-structure-test v1.22.1 (pkg/types), with the names of their fields and their
// YAML keys: encoding/json matches the names of the fields in any case, as there.

// Versions of the source format.
const (
	version1 = "1.0.0"
	version2 = "2.0.0"
)

// structureTest is a file of container-structure-test.
type structureTest struct {
	SchemaVersion       string          `yaml:"schemaVersion"`
	GlobalEnvVars       []envVar        `yaml:"globalEnvVars"`
	CommandTests        []commandTest   `yaml:"commandTests"`
	FileExistenceTests  []existenceTest `yaml:"fileExistenceTests"`
	FileContentTests    []contentTest   `yaml:"fileContentTests"`
	MetadataTest        metadataTest    `yaml:"metadataTest"`
	LicenseTests        []licenseTest   `yaml:"licenseTests"`
	ContainerRunOptions runOptions      `yaml:"containerRunOptions"`
}

// structureTest1 is a file of version 1.0.0.
type structureTest1 struct {
	SchemaVersion      string           `yaml:"schemaVersion"`
	GlobalEnvVars      []envVar         `yaml:"globalEnvVars"`
	CommandTests       []commandTest1   `yaml:"commandTests"`
	FileExistenceTests []existenceTest1 `yaml:"fileExistenceTests"`
	FileContentTests   []contentTest    `yaml:"fileContentTests"`
	LicenseTests       []licenseTest    `yaml:"licenseTests"`
}

type (
	envVar struct {
		Key     string `yaml:"key"`
		Value   string `yaml:"value"`
		IsRegex bool   `yaml:"isRegex"`
	}

	commandTest struct {
		Name           string     `yaml:"name"`
		Setup          [][]string `yaml:"setup"`
		Teardown       [][]string `yaml:"teardown"`
		EnvVars        []envVar   `yaml:"envVars"`
		ExitCode       int        `yaml:"exitCode"`
		Command        string     `yaml:"command"`
		Args           []string   `yaml:"args"`
		ExpectedOutput []string   `yaml:"expectedOutput"`
		ExcludedOutput []string   `yaml:"excludedOutput"`
		ExpectedError  []string   `yaml:"expectedError"`
		ExcludedError  []string   `yaml:"excludedError"`
	}

	commandTest1 struct {
		Name           string     `yaml:"name"`
		Setup          [][]string `yaml:"setup"`
		Teardown       [][]string `yaml:"teardown"`
		EnvVars        []envVar   `yaml:"envVars"`
		ExitCode       int        `yaml:"exitCode"`
		Command        []string   `yaml:"command"`
		ExpectedOutput []string   `yaml:"expectedOutput"`
		ExcludedOutput []string   `yaml:"excludedOutput"`
		ExpectedError  []string   `yaml:"expectedError"`
		ExcludedError  []string   `yaml:"excludedError"`
	}

	existenceTest struct {
		Name           string `yaml:"name"`
		Path           string `yaml:"path"`
		ShouldExist    bool   `yaml:"shouldExist"`
		Permissions    string `yaml:"permissions"`
		Uid            int    `yaml:"uid"`
		Gid            int    `yaml:"gid"`
		IsExecutableBy string `yaml:"isExecutableBy"`
	}

	existenceTest1 struct {
		Name        string `yaml:"name"`
		Path        string `yaml:"path"`
		ShouldExist bool   `yaml:"shouldExist"`
		Permissions string `yaml:"permissions"`
	}

	contentTest struct {
		Name             string   `yaml:"name"`
		Path             string   `yaml:"path"`
		ExpectedContents []string `yaml:"expectedContents"`
		ExcludedContents []string `yaml:"excludedContents"`
	}

	metadataTest struct {
		EnvVars          []envVar  `yaml:"envVars"`
		UnboundEnvVars   []envVar  `yaml:"unboundEnvVars"`
		ExposedPorts     []string  `yaml:"exposedPorts"`
		UnexposedPorts   []string  `yaml:"unexposedPorts"`
		Entrypoint       *[]string `yaml:"entrypoint"`
		Cmd              *[]string `yaml:"cmd"`
		Workdir          string    `yaml:"workdir"`
		Volumes          []string  `yaml:"volumes"`
		UnmountedVolumes []string  `yaml:"unmountedVolumes"`
		Labels           []envVar  `yaml:"labels"`
		User             string    `yaml:"user"`
	}

	licenseTest struct {
		Debian bool     `yaml:"debian"`
		Files  []string `yaml:"files"`
	}

	runOptions struct {
		User         string   `yaml:"user"`
		Privileged   bool     `yaml:"privileged"`
		TTY          bool     `yaml:"allocateTty"`
		EnvVars      []string `yaml:"envVars"`
		EnvFile      string   `yaml:"envFile"`
		Capabilities []string `yaml:"capabilities"`
		BindMounts   []string `yaml:"bindMounts"`
	}
)

// isSet reports whether container-structure-test uses the options.
func (o *runOptions) isSet() bool {
	return o.User != "" || o.Privileged || o.TTY || o.EnvFile != "" ||
		len(o.EnvVars)+len(o.Capabilities)+len(o.BindMounts) > 0
}

// anyOwner is the uid or gid of a test that accepts any owner.
const anyOwner = -1

// UnmarshalYAML sets the defaults, which do not apply to JSON.
func (t *existenceTest) UnmarshalYAML(unmarshal func(any) error) error {
	type mapping existenceTest
	t.ShouldExist, t.Uid, t.Gid = true, anyOwner, anyOwner
	return unmarshal((*mapping)(t))
}

// UnmarshalYAML sets the default, which does not apply to JSON.
func (t *existenceTest1) UnmarshalYAML(unmarshal func(any) error) error {
	type mapping existenceTest1
	t.ShouldExist = true
	return unmarshal((*mapping)(t))
}

// parse decodes a file as container-structure-test does: with encoding/json if its name ends with .json, otherwise with
// the same YAML library. It returns nil after a problem.
func (c *converter) parse(file string, data []byte) *structureTest {
	if len(data) > maxFile {
		c.addf(1, "file is larger than %d bytes; split it", maxFile)
		return nil
	}
	isJSON := filepath.Ext(file) == ".json"
	c.readLines(data)
	var header struct {
		SchemaVersion string `yaml:"schemaVersion"`
	}
	source := &structureTest{}
	switch {
	case !c.decode(data, isJSON, false, &header):
		return nil
	case header.SchemaVersion == version2:
		c.decode(data, isJSON, true, source)
	case header.SchemaVersion == version1:
		old := &structureTest1{}
		c.decode(data, isJSON, true, old)
		source = upgrade(old)
	case header.SchemaVersion == "":
		c.addf(1, "schemaVersion is missing (add schemaVersion: %s)", version2)
	default:
		c.addf(c.line(location{"schemaVersion"}), "schemaVersion is %q; only versions %s and %s of "+
			"container-structure-test can be converted", header.SchemaVersion, version1, version2)
	}
	if len(c.problems) > 0 {
		return nil
	}
	if isJSON {
		c.warnAboutJSON(source)
	}
	return source
}

// upgrade returns a file of version 1.0.0 in the types of version 2.0.0.
func upgrade(old *structureTest1) *structureTest {
	source := &structureTest{
		SchemaVersion: old.SchemaVersion, GlobalEnvVars: old.GlobalEnvVars, FileContentTests: old.FileContentTests,
		LicenseTests: old.LicenseTests,
	}
	for _, t := range old.CommandTests {
		upgraded := commandTest{
			Name: t.Name, Setup: t.Setup, Teardown: t.Teardown, EnvVars: t.EnvVars, ExitCode: t.ExitCode,
			ExpectedOutput: t.ExpectedOutput, ExcludedOutput: t.ExcludedOutput, ExpectedError: t.ExpectedError,
			ExcludedError: t.ExcludedError,
		}
		if len(t.Command) > 0 {
			upgraded.Command, upgraded.Args = t.Command[0], t.Command[1:]
		}
		source.CommandTests = append(source.CommandTests, upgraded)
	}
	for _, t := range old.FileExistenceTests {
		source.FileExistenceTests = append(source.FileExistenceTests, existenceTest{
			Name: t.Name, Path: t.Path, ShouldExist: t.ShouldExist, Permissions: t.Permissions, Uid: anyOwner, Gid: anyOwner,
		})
	}
	return source
}

// warnAboutJSON warns about the defaults of file existence tests, which differ between JSON and YAML.
func (c *converter) warnAboutJSON(source *structureTest) {
	for i, t := range source.FileExistenceTests {
		l := location{"fileExistenceTests", strconv.Itoa(i)}
		isMissing := func(name string) bool {
			key, _ := c.parsedFile.find(l.child(name))
			return key == nil
		}
		switch {
		case c.root == nil:
		case isMissing("shouldExist"):
			c.warnf(c.line(l), "test %q requires that the file is absent; shouldExist is false by default in JSON", t.Name)
		case t.ShouldExist && source.SchemaVersion == version2 && (isMissing("uid") || isMissing("gid")):
			c.warnf(c.line(l), "test %q requires the owner root; uid and gid are 0 by default in JSON (-1 stands for any)",
				t.Name)
		}
	}
}

// readLines reads the positions of values. Without them, problems and warnings are at line 1.
func (c *converter) readLines(data []byte) {
	var document, next yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	if decoder.Decode(&document) != nil || len(document.Content) == 0 {
		return
	}
	c.root = document.Content[0]
	if decoder.Decode(&next) == nil {
		c.warnf(next.Line, "only the first YAML document is converted; container-structure-test ignores the others")
	}
}

// line returns the line of the value at l, or of the closest enclosing value.
func (c *converter) line(l location) int {
	if c.root == nil {
		return 1
	}
	return c.parsedFile.line(l)
}

// decode decodes the file and reports whether that succeeded. If strict, unknown keys are problems in YAML and warnings
// in JSON.
func (c *converter) decode(data []byte, isJSON, strict bool, into any) bool {
	problems := len(c.problems)
	if strict && c.root != nil {
		c.checkKeys(c.root, reflect.TypeOf(into), nil, isJSON)
	}
	hasUnknownKeys := len(c.problems) > problems
	unmarshal := yaml2.Unmarshal
	switch {
	case isJSON:
		unmarshal = json.Unmarshal
	case strict:
		unmarshal = func(data []byte, into any) error { return yaml2.UnmarshalStrict(data, into) }
	}
	err := unmarshal(data, into)
	typeError, syntaxError, valueError := new(yaml2.TypeError), new(json.SyntaxError), new(json.UnmarshalTypeError)
	switch {
	case errors.As(err, &typeError):
		for _, message := range typeError.Errors {
			c.addTypeError(message, hasUnknownKeys)
		}
	case errors.As(err, &syntaxError):
		c.addf(lineAt(data, syntaxError.Offset), "invalid JSON: %v", err)
	case errors.As(err, &valueError):
		c.addf(lineAt(data, valueError.Offset), "%s must be %s, not %s", valueError.Field, nameOf(valueError.Type.String()),
			valueError.Value)
	case err != nil:
		c.addYAMLError(1, "invalid YAML: ", err)
	}
	return len(c.problems) == problems
}

func lineAt(data []byte, offset int64) int {
	return 1 + strings.Count(string(data[:min(int(offset), len(data))]), "\n")
}

// The messages of yaml.v2's TypeError, which has no fields. See terror and mappingStruct in
// https://github.com/yaml/go-yaml/blob/v2.4.0/decode.go.
var (
	yamlWrongType = regexp.MustCompile("^cannot unmarshal (\\S+)(?: `(.*)`)? into (\\S+)$")
	yamlDuplicate = regexp.MustCompile(`^field (\S+) already set in type `)
	yamlUnknown   = regexp.MustCompile(`^field \S+ not found in type `)
)

// addTypeError adds an error of yaml.v2. It omits unknown keys if they are known to be reported.
func (c *converter) addTypeError(message string, hasUnknownKeys bool) {
	line := 1
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	if m := yamlDuplicate.FindStringSubmatch(message); m != nil {
		message = fmt.Sprintf("duplicate key %q; remove one", m[1])
	}
	if m := yamlWrongType.FindStringSubmatch(message); m != nil {
		value := strconv.Quote(m[2])
		switch m[1] {
		case "!!seq":
			value = "a list"
		case "!!map":
			value = "a mapping"
		}
		message = fmt.Sprintf("%s must be %s", value, nameOf(m[3]))
	}
	if !hasUnknownKeys || !yamlUnknown.MatchString(message) {
		c.addf(line, "%s", message)
	}
}

// nameOf describes a Go type in a message.
func nameOf(goType string) string {
	switch goType {
	case "string":
		return "a string"
	case "int":
		return "an integer"
	case "bool":
		return "true or false, without quotes"
	case "[]string":
		return "a list of strings"
	case "[][]string":
		return "a list of commands, each a list of strings"
	}
	if strings.HasPrefix(goType, "[]") {
		return "a list of mappings"
	}
	return "a mapping"
}

// checkKeys reports unknown keys of a node that is decoded to type t. In JSON, it renames the other keys to those of
// YAML, so that locations are the same.
func (c *converter) checkKeys(n *yaml.Node, t reflect.Type, l location, isJSON bool) {
	n = resolve(n)
	where := "the file"
	if len(l) > 0 {
		where = l.String()
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			c.checkKeys(item, t.Elem(), l.child(strconv.Itoa(i)), isJSON)
		}
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		keys := map[string]reflect.StructField{}
		for i := range t.NumField() {
			keys[t.Field(i).Tag.Get("yaml")] = t.Field(i)
		}
		for key, value := range pairsOf(n) {
			for yamlKey, field := range keys {
				if isJSON && strings.EqualFold(field.Name, key.Value) {
					key.Value = yamlKey
					break
				}
			}
			field, known := keys[key.Value]
			switch {
			case known:
				c.checkKeys(value, field.Type, l.child(key.Value), isJSON)
			case isJSON:
				c.warnf(key.Line, "unknown key %q in %s is left out, as in container-structure-test", key.Value, where)
			default:
				c.addf(key.Line, "unknown key %q in %s; %s", key.Value, where, suggest(key.Value, slices.Sorted(maps.Keys(keys))))
			}
		}
		for _, source := range mergesOf(n) {
			c.checkKeys(source, t, l, isJSON)
		}
	}
}

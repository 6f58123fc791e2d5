package suite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Warning reports a part of a converted file that is left out or behaves differently.
type Warning struct {
	Line    int // of the file to convert
	Message string
}

// Convert converts a file of container-structure-test (schema 2.0.0, YAML or JSON; see
// https://github.com/GoogleContainerTools/container-structure-test) to a suite with the same checks. As in
// container-structure-test, commands run as root, with the engine's default privileges and network. For an invalid
// file, Convert returns an [*InvalidError] without a file name.
func Convert(data []byte) ([]byte, []Warning, error) {
	validator, err := structureTestValidator()
	if err != nil {
		return nil, nil, err
	}
	c := &converter{parsedFile: parseYAML(data), names: map[string]bool{}}
	if c.value != nil {
		for _, found := range validator.validate(c.parsedFile) {
			c.addf(found.line, "%s", found.message)
		}
	}
	var source structureTest
	if len(c.problems) == 0 && c.decodeInto(nil, &source) && source.SchemaVersion != structureTestVersion {
		c.addf(c.line(location{"schemaVersion"}), "schemaVersion is %q; only version %s of container-structure-test can be "+
			"converted", source.SchemaVersion, structureTestVersion)
	}
	var suite Document
	if len(c.problems) == 0 {
		suite = c.convert(&source)
	}
	if len(c.problems) == 0 && len(suite.Tests) == 0 {
		c.addf(1, "file has no tests that can be converted")
	}
	if err := c.err(""); err != nil {
		return nil, c.warnings, err
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(suite); err != nil {
		return nil, c.warnings, fmt.Errorf("write the suite: %w", err)
	}
	return b.Bytes(), c.warnings, encoder.Close()
}

// structureTestVersion is the only version of the source format that Convert supports.
const structureTestVersion = "2.0.0"

// structureTest is a file of container-structure-test.
type structureTest struct {
	SchemaVersion scalar          `yaml:"schemaVersion"`
	GlobalEnv     []sourcePair    `yaml:"globalEnvVars"`
	Commands      []commandTest   `yaml:"commandTests"`
	Existence     []existenceTest `yaml:"fileExistenceTests"`
	Content       []contentTest   `yaml:"fileContentTests"`
	Metadata      *metadataTest   `yaml:"metadataTest"`
	Licenses      []licenseTest   `yaml:"licenseTests"`
	Options       runOptions      `yaml:"containerRunOptions"`
}

type (
	// scalar is a string; container-structure-test accepts other scalars too.
	scalar string

	sourcePair struct {
		Position `yaml:"-"`
		Key      scalar `yaml:"key"`
		Value    scalar `yaml:"value"`
		Regex    bool   `yaml:"isRegex"`
	}

	commandTest struct {
		Position       `yaml:"-"`
		Name           scalar       `yaml:"name"`
		Setup          [][]scalar   `yaml:"setup"`
		Teardown       [][]scalar   `yaml:"teardown"`
		Env            []sourcePair `yaml:"envVars"`
		Exit           int          `yaml:"exitCode"`
		Command        scalar       `yaml:"command"`
		Args           []scalar     `yaml:"args"`
		Output         []Pattern    `yaml:"expectedOutput"`
		ExcludedOutput []Pattern    `yaml:"excludedOutput"`
		Error          []Pattern    `yaml:"expectedError"`
		ExcludedError  []Pattern    `yaml:"excludedError"`
	}

	existenceTest struct {
		Position     `yaml:"-"`
		Name         scalar `yaml:"name"`
		Path         scalar `yaml:"path"`
		Exists       *bool  `yaml:"shouldExist"`
		Permissions  scalar `yaml:"permissions"`
		UID          *int   `yaml:"uid"`
		GID          *int   `yaml:"gid"`
		ExecutableBy scalar `yaml:"isExecutableBy"`
	}

	contentTest struct {
		Position `yaml:"-"`
		Name     scalar    `yaml:"name"`
		Path     scalar    `yaml:"path"`
		Expected []Pattern `yaml:"expectedContents"`
		Excluded []Pattern `yaml:"excludedContents"`
	}

	metadataTest struct {
		Position         `yaml:"-"`
		Env              []sourcePair `yaml:"envVars"`
		OldEnv           []sourcePair `yaml:"env"`
		UnboundEnv       []sourcePair `yaml:"unboundEnvVars"`
		Labels           []sourcePair `yaml:"labels"`
		Cmd              *[]string    `yaml:"cmd"`
		Entrypoint       *[]string    `yaml:"entrypoint"`
		ExposedPorts     []scalar     `yaml:"exposedPorts"`
		UnexposedPorts   []scalar     `yaml:"unexposedPorts"`
		Volumes          []string     `yaml:"volumes"`
		UnmountedVolumes []string     `yaml:"unmountedVolumes"`
		Workdir          scalar       `yaml:"workdir"`
		User             scalar       `yaml:"user"`
	}

	licenseTest struct {
		Position `yaml:"-"`
		Name     scalar   `yaml:"name"`
		Debian   bool     `yaml:"debian"`
		Files    []scalar `yaml:"files"`
	}

	runOptions struct {
		Position     `yaml:"-"`
		User         scalar   `yaml:"user"`
		Privileged   bool     `yaml:"privileged"`
		TTY          bool     `yaml:"allocateTty"`
		EnvFile      scalar   `yaml:"envFile"`
		Env          []scalar `yaml:"envVars"`
		Capabilities []scalar `yaml:"capabilities"`
		Mounts       []scalar `yaml:"bindMounts"`
	}
)

func (s *scalar) UnmarshalYAML(n *yaml.Node) error {
	if n.Tag != nullTag {
		*s = scalar(n.Value)
	}
	return nil
}

func (p *sourcePair) UnmarshalYAML(n *yaml.Node) error {
	p.Line = n.Line
	type mapping sourcePair
	return n.Decode((*mapping)(p))
}

func (t *commandTest) UnmarshalYAML(n *yaml.Node) error {
	t.Line = n.Line
	type mapping commandTest
	return n.Decode((*mapping)(t))
}

func (t *existenceTest) UnmarshalYAML(n *yaml.Node) error {
	t.Line = n.Line
	type mapping existenceTest
	return n.Decode((*mapping)(t))
}

func (t *contentTest) UnmarshalYAML(n *yaml.Node) error {
	t.Line = n.Line
	type mapping contentTest
	return n.Decode((*mapping)(t))
}

func (t *metadataTest) UnmarshalYAML(n *yaml.Node) error {
	t.Line = n.Line
	type mapping metadataTest
	return n.Decode((*mapping)(t))
}

func (t *licenseTest) UnmarshalYAML(n *yaml.Node) error {
	t.Line = n.Line
	type mapping licenseTest
	return n.Decode((*mapping)(t))
}

func (o *runOptions) UnmarshalYAML(n *yaml.Node) error {
	o.Line = n.Line
	type mapping runOptions
	return n.Decode((*mapping)(o))
}

var structureTestValidator = sync.OnceValues(func() (*validator, error) {
	schema, err := json.Marshal(typeSchema(reflect.TypeFor[structureTest]()))
	if err != nil {
		return nil, fmt.Errorf("write the schema of container-structure-test: %w", err)
	}
	return newValidator(string(schema))
})

// typeSchema returns a JSON schema for a Go type. It describes only keys and types.
func typeSchema(t reflect.Type) any {
	switch t {
	case reflect.TypeFor[scalar]():
		return map[string]any{"type": []string{"string", "number", "boolean", "null"}}
	case reflect.TypeFor[Pattern]():
		return json.RawMessage(Pattern{}.JSONForm())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": typeSchema(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.String:
		return map[string]any{"type": "string"}
	}
	properties := map[string]any{}
	for i := range t.NumField() {
		if field := t.Field(i); field.Tag.Get("yaml") != "-" {
			properties[field.Tag.Get("yaml")] = typeSchema(field.Type)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

type converter struct {
	*parsedFile
	names    map[string]bool // of the tests so far
	warnings []Warning
}

func (c *converter) warnf(line int, format string, args ...any) {
	c.warnings = append(c.warnings, Warning{line, fmt.Sprintf(format, args...)})
}

func (c *converter) convert(source *structureTest) Document {
	suite := Document{Defaults: c.defaults(source)}
	for i := range source.Commands {
		if t := c.commandTest(&source.Commands[i]); t != nil {
			suite.Tests = append(suite.Tests, t)
		}
	}
	for i := range source.Existence {
		suite.Tests = append(suite.Tests, c.existenceTest(&source.Existence[i]))
	}
	for _, t := range source.Content {
		check := FileCheck{Path: c.path(t.Path, t.Line), Content: textCheck(t.Expected, t.Excluded)}
		suite.Tests = append(suite.Tests, &Test{Name: c.testName(t.Name, t.Line), Files: []FileCheck{check}})
	}
	if source.Metadata != nil {
		if check := c.imageCheck(source.Metadata); !reflect.DeepEqual(check, ImageCheck{}) {
			name := c.testName("metadata", source.Metadata.Line)
			suite.Tests = append(suite.Tests, &Test{Name: name, Image: &check})
		}
	}
	for _, t := range source.Licenses {
		c.warnf(t.Line, "licenseTests are not supported and left out; check the copyright files with files and content")
	}
	return suite
}

func (c *converter) defaults(source *structureTest) Settings {
	o := &source.Options
	settings := Settings{
		User: "root", Privileges: "default", Network: "bridge", TTY: o.TTY, Mounts: c.mounts(o), Env: c.env(source.GlobalEnv),
	}
	if o.User != "" {
		settings.User = Text(o.User)
	}
	if o.Privileged {
		settings.Privileges = "all"
	}
	if o.EnvFile != "" {
		c.warnf(o.Line, "containerRunOptions.envFile %q is left out; add its variables to defaults.env", o.EnvFile)
	}
	if len(o.Env) > 0 {
		c.warnf(o.Line, "containerRunOptions.envVars is left out, because a suite does not read the environment; add the "+
			"values of %s to defaults.env", strings.Join(stringsOf(o.Env), ", "))
	}
	if len(o.Capabilities) > 0 {
		c.warnf(o.Line, "containerRunOptions.capabilities is left out; only privileges: default and all are supported")
	}
	return settings
}

func (c *converter) mounts(o *runOptions) (mounts []Mount) {
	for _, m := range o.Mounts {
		source, rest, _ := strings.Cut(string(m), ":")
		target, mode, _ := strings.Cut(rest, ":")
		if source == "" || path.IsAbs(source) || !path.IsAbs(target) || path.Clean(target) == "/" {
			c.warnf(o.Line, "mount %q is left out; only files in the suite's directory can be mounted", m)
			continue
		}
		if mode != "ro" {
			c.warnf(o.Line, "mount %q becomes read-only", m)
		}
		mounts = append(mounts, Mount{Source: source, Target: target})
	}
	return mounts
}

// commandTest converts a command test. It returns nil if the test is invalid.
func (c *converter) commandTest(t *commandTest) *Test {
	if t.Command == "" {
		c.addf(t.Line, "command test %q has no command", t.Name)
		return nil
	}
	if t.Exit > 255 {
		c.addf(t.Line, "exitCode must be 0 to 255, not %d", t.Exit)
	}
	test := &Test{Name: c.testName(t.Name, t.Line), Settings: Settings{Env: c.env(t.Env)}}
	test.Run = &Command{Args: append([]string{string(t.Command)}, stringsOf(t.Args)...)}
	test.Exit = t.Exit
	test.Stdout = textCheck(t.Output, t.ExcludedOutput)
	test.Stderr = textCheck(t.Error, t.ExcludedError)
	for _, setup := range t.Setup {
		if len(setup) == 0 || setup[0] == "" {
			c.addf(t.Line, "setup command of %q is empty", t.Name)
			continue
		}
		test.Setup = append(test.Setup, Command{Args: stringsOf(setup)})
	}
	if len(t.Setup) > 0 {
		c.warnf(t.Line, "setup of %q runs in the container of the test instead of separate ones, and needs /bin/sh in the "+
			"image", t.Name)
	}
	if len(t.Teardown) > 0 {
		c.warnf(t.Line, "teardown of %q is left out; the container of each test is removed", t.Name)
	}
	for _, arg := range test.Run.Args {
		c.warnAboutVariables(t.Line, "command of "+test.Name, arg)
	}
	return test
}

func (c *converter) existenceTest(t *existenceTest) *Test {
	check := FileCheck{Path: c.path(t.Path, t.Line)}
	if t.Exists != nil && !*t.Exists {
		check.Absent = true
		if t.Permissions != "" || t.UID != nil || t.GID != nil || t.ExecutableBy != "" {
			c.warnf(t.Line, "other checks of %q are left out, because it must not exist", t.Path)
		}
	} else {
		check.Type, check.Mode = c.permissions(string(t.Permissions), t.Line)
		check.Owner = owner(t.UID, t.GID)
		check.ExecutableBy = c.executableBy(t)
	}
	return &Test{Name: c.testName(t.Name, t.Line), Files: []FileCheck{check}}
}

func (c *converter) executableBy(t *existenceTest) string {
	switch t.ExecutableBy {
	case "", "owner", "group", "any":
		return string(t.ExecutableBy)
	case "other":
		return "others"
	}
	c.addf(t.Line, "isExecutableBy must be owner, group, other or any, not %q", t.ExecutableBy)
	return ""
}

func (c *converter) imageCheck(m *metadataTest) ImageCheck {
	check := ImageCheck{
		Env: c.valueChecks(append(m.Env, m.OldEnv...)), Labels: c.valueChecks(m.Labels),
		Entrypoint: m.Entrypoint, Cmd: m.Cmd, User: equalsIfSet(m.User), Workdir: equalsIfSet(m.Workdir),
		Ports: c.ports(m.ExposedPorts, m.Line), PortsAbsent: c.ports(m.UnexposedPorts, m.Line),
		Volumes: m.Volumes, VolumesAbsent: m.UnmountedVolumes,
	}
	for _, pair := range m.UnboundEnv {
		if check.Env == nil {
			check.Env = map[string]ValueCheck{}
		}
		check.Env[string(pair.Key)] = ValueCheck{absent: true}
	}
	return check
}

func equalsIfSet(value scalar) *ValueCheck {
	if value == "" {
		return nil
	}
	return &ValueCheck{equals: string(value)}
}

var portForm = regexp.MustCompile(`^[0-9]{1,5}(/(tcp|udp|sctp))?$`)

func (c *converter) ports(list []scalar, line int) (ports []Port) {
	for _, port := range list {
		if !portForm.MatchString(string(port)) {
			c.addf(line, "invalid port %q (for example 8080/tcp)", port)
		}
		ports = append(ports, Port(port))
	}
	return ports
}

// invalidInName matches characters that are invalid in a test name: line breaks and other control characters.
var invalidInName = regexp.MustCompile(`[\pC\s]+`)

// testName returns a valid and unique name for a test.
func (c *converter) testName(source scalar, line int) string {
	name := strings.TrimSpace(truncate(invalidInName.ReplaceAllString(string(source), " "), 180))
	if name == "" {
		c.addf(line, "test has no name")
		return ""
	}
	unique := name
	for n := 2; c.names[unique]; n++ {
		unique = fmt.Sprintf("%s (%d)", name, n)
	}
	if unique != string(source) {
		c.warnf(line, "test %q is renamed to %q; names must be unique and on one line", source, unique)
	}
	c.names[unique] = true
	return unique
}

var envNameForm = regexp.MustCompile(envName)

func (c *converter) env(pairs []sourcePair) Env {
	var env Env
	for _, pair := range pairs {
		if !envNameForm.MatchString(string(pair.Key)) || strings.ContainsRune(string(pair.Value), 0) {
			c.addf(pair.Line, "invalid environment variable %q", pair.Key)
			continue
		}
		if env == nil {
			env = Env{}
		}
		env[string(pair.Key)] = Text(pair.Value)
		c.warnAboutVariables(pair.Line, string(pair.Key), string(pair.Value))
	}
	return env
}

// variable matches a reference to an environment variable.
var variable = regexp.MustCompile(`\$\{?[A-Za-z_]`)

// warnAboutVariables warns about references that container-structure-test expands with the image's variables.
func (c *converter) warnAboutVariables(line int, where, text string) {
	if variable.MatchString(text) {
		c.warnf(line, "%s: variables in %q are not expanded; write the value, or use a shell (run with a string)",
			where, text)
	}
}

func (c *converter) valueChecks(pairs []sourcePair) map[string]ValueCheck {
	var checks map[string]ValueCheck
	for _, pair := range pairs {
		if checks == nil {
			checks = map[string]ValueCheck{}
		}
		check := ValueCheck{equals: string(pair.Value)}
		if pair.Regex {
			matches, err := regexp.Compile(string(pair.Value))
			if err != nil {
				c.addf(pair.Line, "%v", err)
				continue
			}
			check = ValueCheck{matches: matches}
		}
		checks[string(pair.Key)] = check
	}
	return checks
}

// path returns an absolute path with the special characters of patterns escaped.
func (c *converter) path(source scalar, line int) PathPattern {
	if source == "" {
		c.addf(line, "file test has no path")
		return "/"
	}
	c.warnAboutVariables(line, "path", string(source))
	name := string(source)
	if !path.IsAbs(name) {
		c.warnf(line, "path %q becomes absolute", source)
		name = "/" + name
	}
	escape := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "{", `\{`, "}", `\}`)
	return PathPattern(escape.Replace(name))
}

var permissionForm = regexp.MustCompile(`^([a-zA-Z]*|-)([r-][w-][x-][r-][w-][x-][r-][w-][x-])$`)

// permissions splits a mode in the format of Go's fs.FileMode, for example "drwxr-xr-x" or, with setuid, "urwxr-xr-x".
func (c *converter) permissions(text string, line int) (fileType, mode string) {
	if text == "" {
		return "", ""
	}
	m := permissionForm.FindStringSubmatch(text)
	if m == nil {
		c.addf(line, "invalid permissions %q (for example -rw-r--r--)", text)
		return "", ""
	}
	bits := 0
	for i, r := range m[2] {
		if r != '-' {
			bits |= 1 << (8 - i)
		}
	}
	fileType = "file"
	for _, r := range m[1] {
		switch r {
		case '-':
		case 'd':
			fileType = "directory"
		case 'L':
			return "symlink", "" // the mode of a symbolic link is always the same
		case 'p':
			fileType = "fifo"
		case 'u':
			bits |= 0o4000
		case 'g':
			bits |= 0o2000
		case 't':
			bits |= 0o1000
		default:
			c.warnf(line, "%q in permissions %q is left out", r, text)
		}
	}
	return fileType, fmt.Sprintf("%04o", bits)
}

func owner(uid, gid *int) Text {
	switch {
	case uid != nil && gid != nil:
		return Text(fmt.Sprintf("%d:%d", *uid, *gid))
	case uid != nil:
		return Text(fmt.Sprint(*uid))
	case gid != nil:
		return Text(fmt.Sprintf(":%d", *gid))
	}
	return ""
}

func textCheck(include, exclude []Pattern) *TextCheck {
	if len(include)+len(exclude) == 0 {
		return nil
	}
	return &TextCheck{Include: include, Exclude: exclude}
}

package suite

import (
	"bytes"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Warning is what a conversion could not carry over, or carries over in another way.
type Warning struct {
	Line    int // of the file that was converted
	Message string
}

// Convert makes a suite of a file of container-structure-test's (schema 2.0.0, YAML or JSON), which
// https://github.com/GoogleContainerTools/container-structure-test describes. The error of a file that is none is an [*Invalid] without a
// file's name. What is converted tests the same as it did there: commands run as root, with the engine's default privileges and network.
func Convert(data []byte) ([]byte, []Warning, error) {
	d := &decoder{lines: map[any]int{}}
	var from structureTest
	if root := d.document(data); root != nil {
		d.value(root, reflect.ValueOf(&from).Elem(), "the file")
		if len(d.problems) == 0 && from.SchemaVersion != "2.0.0" {
			d.fail(d.line(&from.SchemaVersion, 1), "schemaVersion is %q: only files of container-structure-test's schema 2.0.0 can be converted",
				from.SchemaVersion)
		}
	}
	c := &converter{decoder: d, names: map[string]bool{}}
	var to ourSuite
	if len(d.problems) == 0 {
		to = c.convert(&from)
	}
	if len(d.problems) == 0 && len(to.Tests) == 0 {
		d.fail(1, "the file holds no test that can be converted")
	}
	if err := d.err(""); err != nil {
		return nil, c.warnings, err
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(to); err != nil {
		return nil, c.warnings, fmt.Errorf("write the suite: %w", err)
	}
	return b.Bytes(), c.warnings, encoder.Close()
}

// loose is a string as container-structure-test reads it: any scalar.
type loose string

func (l *loose) decode(d *decoder, n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n.Line, "this must be text, not %s", kindOf(n))
		return
	}
	if n.Tag != "!!null" {
		*l = loose(n.Value)
	}
}

// structureTest is the other tool's file.
type structureTest struct {
	SchemaVersion loose       `yaml:"schemaVersion"`
	GlobalEnv     []theirPair `yaml:"globalEnvVars"`
	Commands      []struct {
		at
		Name     loose       `yaml:"name"`
		Setup    [][]loose   `yaml:"setup"`
		Teardown [][]loose   `yaml:"teardown"`
		Env      []theirPair `yaml:"envVars"`
		Exit     int         `yaml:"exitCode"`
		Command  loose       `yaml:"command"`
		Args     []loose     `yaml:"args"`
		Output   []pattern   `yaml:"expectedOutput"`
		NoOutput []pattern   `yaml:"excludedOutput"`
		Error    []pattern   `yaml:"expectedError"`
		NoError  []pattern   `yaml:"excludedError"`
	} `yaml:"commandTests"`
	Existence []struct {
		at
		Name         loose `yaml:"name"`
		Path         loose `yaml:"path"`
		Exists       *bool `yaml:"shouldExist"`
		Permissions  loose `yaml:"permissions"`
		UID          *int  `yaml:"uid"`
		GID          *int  `yaml:"gid"`
		ExecutableBy loose `yaml:"isExecutableBy"`
	} `yaml:"fileExistenceTests"`
	Content []struct {
		at
		Name     loose     `yaml:"name"`
		Path     loose     `yaml:"path"`
		Expected []pattern `yaml:"expectedContents"`
		Excluded []pattern `yaml:"excludedContents"`
	} `yaml:"fileContentTests"`
	Metadata *struct {
		at
		Env       []theirPair `yaml:"envVars"`
		OldEnv    []theirPair `yaml:"env"`
		Unbound   []theirPair `yaml:"unboundEnvVars"`
		Labels    []theirPair `yaml:"labels"`
		Cmd       *[]string   `yaml:"cmd"`
		Entry     *[]string   `yaml:"entrypoint"`
		Ports     []loose     `yaml:"exposedPorts"`
		NoPorts   []loose     `yaml:"unexposedPorts"`
		Volumes   []string    `yaml:"volumes"`
		NoVolumes []string    `yaml:"unmountedVolumes"`
		Workdir   loose       `yaml:"workdir"`
		User      loose       `yaml:"user"`
	} `yaml:"metadataTest"`
	Licenses []struct {
		at
		Name   loose   `yaml:"name"`
		Debian bool    `yaml:"debian"`
		Files  []loose `yaml:"files"`
	} `yaml:"licenseTests"`
	Options struct {
		at
		User         loose   `yaml:"user"`
		Privileged   bool    `yaml:"privileged"`
		TTY          bool    `yaml:"allocateTty"`
		EnvFile      loose   `yaml:"envFile"`
		Env          []loose `yaml:"envVars"`
		Capabilities []loose `yaml:"capabilities"`
		Mounts       []loose `yaml:"bindMounts"`
	} `yaml:"containerRunOptions"`
}

type theirPair struct {
	at
	Key   loose `yaml:"key"`
	Value loose `yaml:"value"`
	Regex bool  `yaml:"isRegex"`
}

// What is written: the format's keys in the order in which a person would write them.
type (
	ourSuite struct {
		Defaults ourDefaults `yaml:"defaults"`
		Tests    []ourTest   `yaml:"tests"`
	}
	ourDefaults struct {
		User       string            `yaml:"user"`
		Privileges string            `yaml:"privileges"`
		Network    string            `yaml:"network"`
		TTY        bool              `yaml:"tty,omitempty"`
		Env        map[string]string `yaml:"env,omitempty"`
		Mounts     []ourMount        `yaml:"mounts,omitempty"`
	}
	ourMount struct {
		Source string `yaml:"source"`
		Target string `yaml:"target"`
	}
	ourTest struct {
		Name   string            `yaml:"name"`
		Env    map[string]string `yaml:"env,omitempty"`
		Image  *ourImage         `yaml:"image,omitempty"`
		Files  []ourFile         `yaml:"files,omitempty"`
		Setup  [][]string        `yaml:"setup,omitempty"`
		Run    []string          `yaml:"run,omitempty"`
		Exit   int               `yaml:"exit,omitempty"`
		Stdout *ourOutput        `yaml:"stdout,omitempty"`
		Stderr *ourOutput        `yaml:"stderr,omitempty"`
	}
	ourOutput struct {
		Include []string `yaml:"include,omitempty"`
		Exclude []string `yaml:"exclude,omitempty"`
	}
	ourFile struct {
		Path         string     `yaml:"path"`
		Absent       bool       `yaml:"absent,omitempty"`
		Type         string     `yaml:"type,omitempty"`
		Mode         string     `yaml:"mode,omitempty"`
		Owner        string     `yaml:"owner,omitempty"`
		ExecutableBy string     `yaml:"executable_by,omitempty"`
		Content      *ourOutput `yaml:"content,omitempty"`
	}
	ourImage struct {
		Env           map[string]any `yaml:"env,omitempty"`
		Labels        map[string]any `yaml:"labels,omitempty"`
		Entrypoint    *[]string      `yaml:"entrypoint,omitempty"`
		Cmd           *[]string      `yaml:"cmd,omitempty"`
		User          string         `yaml:"user,omitempty"`
		Workdir       string         `yaml:"workdir,omitempty"`
		Ports         []string       `yaml:"ports,omitempty"`
		PortsAbsent   []string       `yaml:"ports_absent,omitempty"`
		Volumes       []string       `yaml:"volumes,omitempty"`
		VolumesAbsent []string       `yaml:"volumes_absent,omitempty"`
	}
)

type converter struct {
	*decoder
	names    map[string]bool
	warnings []Warning
}

func (c *converter) warn(line int, format string, args ...any) {
	c.warnings = append(c.warnings, Warning{line, fmt.Sprintf(format, args...)})
}

func (c *converter) convert(from *structureTest) ourSuite {
	to := ourSuite{Defaults: ourDefaults{User: "root", Privileges: "default", Network: "bridge"}}
	c.options(from, &to.Defaults)
	to.Defaults.Env = c.env(from.GlobalEnv)
	for i := range from.Commands {
		t := &from.Commands[i]
		if t.Command == "" {
			c.fail(t.Line, "the command test %q has no command", t.Name)
			continue
		}
		out := ourTest{
			Name: c.name(t.Name, t.Line), Env: c.env(t.Env), Run: append([]string{string(t.Command)}, plain(t.Args)...), Exit: t.Exit,
			Stdout: bothOf(t.Output, t.NoOutput), Stderr: bothOf(t.Error, t.NoError),
		}
		if t.Exit > 255 {
			c.fail(t.Line, "exitCode can not be %d: write 0 to 255", t.Exit)
		}
		for _, setup := range t.Setup {
			if len(setup) == 0 || setup[0] == "" {
				c.fail(t.Line, "a setup command of %q is empty", t.Name)
				continue
			}
			out.Setup = append(out.Setup, plain(setup))
		}
		if len(t.Setup) > 0 {
			c.warn(t.Line, "setup of %q runs in the test's own container, not in one each that is committed: the image needs /bin/sh", t.Name)
		}
		if len(t.Teardown) > 0 {
			c.warn(t.Line, "teardown of %q is left out: each test has a container of its own, which is removed", t.Name)
		}
		for _, arg := range out.Run {
			c.variables(t.Line, "the command of "+out.Name, arg)
		}
		to.Tests = append(to.Tests, out)
	}
	for i := range from.Existence {
		t := &from.Existence[i]
		f := ourFile{Path: c.path(t.Path, t.Line)}
		if t.Exists != nil && !*t.Exists {
			f.Absent = true
			if t.Permissions != "" || t.UID != nil || t.GID != nil || t.ExecutableBy != "" {
				c.warn(t.Line, "%q must not exist, so what it must be like is left out", t.Path)
			}
		} else {
			f.Type, f.Mode = c.permissions(string(t.Permissions), t.Line)
			f.Owner = owner(t.UID, t.GID)
			f.ExecutableBy = strings.Replace(string(t.ExecutableBy), "other", "others", 1)
			c.oneOf(&f.ExecutableBy, t.Line, "isExecutableBy", "owner", "group", "others", "any")
		}
		to.Tests = append(to.Tests, ourTest{Name: c.name(t.Name, t.Line), Files: []ourFile{f}})
	}
	for i := range from.Content {
		t := &from.Content[i]
		f := ourFile{Path: c.path(t.Path, t.Line), Content: bothOf(t.Expected, t.Excluded)}
		to.Tests = append(to.Tests, ourTest{Name: c.name(t.Name, t.Line), Files: []ourFile{f}})
	}
	if m := from.Metadata; m != nil {
		image := &ourImage{
			Env: c.values(append(m.Env, m.OldEnv...)), Labels: c.values(m.Labels), Entrypoint: m.Entry, Cmd: m.Cmd,
			User: string(m.User), Workdir: string(m.Workdir), Ports: plain(m.Ports), PortsAbsent: plain(m.NoPorts), Volumes: m.Volumes, VolumesAbsent: m.NoVolumes,
		}
		for _, port := range append(plain(m.Ports), plain(m.NoPorts)...) {
			if !portForm.MatchString(port) {
				c.fail(m.Line, "%q is no port", port)
			}
		}
		for _, pair := range m.Unbound {
			if image.Env == nil {
				image.Env = map[string]any{}
			}
			image.Env[string(pair.Key)] = nil
		}
		if !reflect.DeepEqual(*image, ourImage{}) {
			to.Tests = append(to.Tests, ourTest{Name: c.name("metadata", m.Line), Image: image})
		}
	}
	for _, t := range from.Licenses {
		c.warn(t.Line, "licenseTests are left out: there is no such test; hold the copyright files against patterns with files and content")
	}
	return to
}

func (c *converter) options(from *structureTest, to *ourDefaults) {
	o := &from.Options
	if o.User != "" {
		to.User = string(o.User)
	}
	if o.Privileged {
		to.Privileges = "all"
	}
	to.TTY = o.TTY
	if o.EnvFile != "" {
		c.warn(o.Line, "containerRunOptions.envFile %q is left out: write its variables into defaults.env", o.EnvFile)
	}
	if len(o.Env) > 0 {
		c.warn(o.Line, "containerRunOptions.envVars is left out: a suite does not read the environment that it is run in; write the values of %s "+
			"into defaults.env", strings.Join(plain(o.Env), ", "))
	}
	if len(o.Capabilities) > 0 {
		c.warn(o.Line, "containerRunOptions.capabilities is left out: there are only the engine's default ones and privileges: all")
	}
	for _, m := range o.Mounts {
		source, rest, _ := strings.Cut(string(m), ":")
		target, mode, _ := strings.Cut(rest, ":")
		if source == "" || path.IsAbs(source) || !path.IsAbs(target) || path.Clean(target) == "/" {
			c.warn(o.Line, "the mount %q is left out: only files beside the suite can be mounted", m)
			continue
		}
		if mode != "ro" {
			c.warn(o.Line, "the mount %q is read only now", m)
		}
		to.Mounts = append(to.Mounts, ourMount{source, target})
	}
}

// name is a test's, which is one line and has no double.
func (c *converter) name(theirs loose, line int) string {
	between := func(r rune) bool { return r == ' ' || !nameForm.MatchString(string(r)) }
	name := shorten(strings.Join(strings.FieldsFunc(string(theirs), between), " "), 180)
	if name == "" {
		c.fail(line, "a test has no name")
		return ""
	}
	unique := name
	for n := 2; c.names[unique]; n++ {
		unique = fmt.Sprintf("%s (%d)", name, n)
	}
	if unique != string(theirs) {
		c.warn(line, "the test %q is called %q now: names are unique, and one line", theirs, unique)
	}
	c.names[unique] = true
	return unique
}

func (c *converter) env(pairs []theirPair) map[string]string {
	var env map[string]string
	for _, pair := range pairs {
		if !envForm.MatchString(string(pair.Key)) || strings.ContainsRune(string(pair.Value), 0) {
			c.fail(pair.Line, "%q can not be the name of an environment variable", pair.Key)
			continue
		}
		if env == nil {
			env = map[string]string{}
		}
		env[string(pair.Key)] = string(pair.Value)
		c.variables(pair.Line, string(pair.Key), string(pair.Value))
	}
	return env
}

var variable = regexp.MustCompile(`\$\{?[A-Za-z_]`)

// variables warns of what the other tool replaces by the image's variables.
func (c *converter) variables(line int, where, text string) {
	if variable.MatchString(text) {
		c.warn(line, "%s refers to a variable in %q, which is not replaced here: write its value, or let a shell do it (run with one line of text)",
			where, text)
	}
}

func (c *converter) values(pairs []theirPair) map[string]any {
	var values map[string]any
	for _, pair := range pairs {
		if values == nil {
			values = map[string]any{}
		}
		if !pair.Regex {
			values[string(pair.Key)] = string(pair.Value)
			continue
		}
		if _, err := regexp.Compile(string(pair.Value)); err != nil {
			c.fail(pair.Line, "%v", err)
		}
		values[string(pair.Key)] = map[string]string{"matches": string(pair.Value)}
	}
	return values
}

// path is theirs, with the signs that are a pattern's here escaped.
func (c *converter) path(theirs loose, line int) string {
	if theirs == "" {
		c.fail(line, "a test of a file has no path")
		return "/"
	}
	c.variables(line, "a path", string(theirs))
	name := string(theirs)
	if !path.IsAbs(name) {
		c.warn(line, "the path %q is taken from / now", theirs)
		name = "/" + name
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "{", `\{`, "}", `\}`).Replace(name)
}

var permissionForm = regexp.MustCompile(`^([a-zA-Z]*|-)([r-][w-][x-][r-][w-][x-][r-][w-][x-])$`)

// permissions takes a mode as Go writes it ("drwxr-xr-x", "urwxr-xr-x" with setuid) apart.
func (c *converter) permissions(text string, line int) (kind, mode string) {
	if text == "" {
		return "", ""
	}
	m := permissionForm.FindStringSubmatch(text)
	if m == nil {
		c.fail(line, "permissions %q are not written as -rw-r--r--", text)
		return "", ""
	}
	bits := 0
	for i, r := range m[2] {
		if r != '-' {
			bits |= 1 << (8 - i)
		}
	}
	kind = "file"
	for _, r := range m[1] {
		switch r {
		case '-':
		case 'd':
			kind = "directory"
		case 'L':
			return "symlink", "" // of a link it is always the same
		case 'p':
			kind = "fifo"
		case 'u':
			bits |= 0o4000
		case 'g':
			bits |= 0o2000
		case 't':
			bits |= 0o1000
		default:
			c.warn(line, "%q in the permissions %q is left out", r, text)
		}
	}
	return kind, fmt.Sprintf("%04o", bits)
}

func owner(uid, gid *int) string {
	switch {
	case uid != nil && gid != nil:
		return fmt.Sprintf("%d:%d", *uid, *gid)
	case uid != nil:
		return fmt.Sprint(*uid)
	case gid != nil:
		return fmt.Sprintf(":%d", *gid)
	}
	return ""
}

func plain(list []loose) []string {
	var out []string
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

func bothOf(include, exclude []pattern) *ourOutput {
	if len(include)+len(exclude) == 0 {
		return nil
	}
	out := &ourOutput{}
	for _, p := range include {
		out.Include = append(out.Include, p.String())
	}
	for _, p := range exclude {
		out.Exclude = append(out.Exclude, p.String())
	}
	return out
}

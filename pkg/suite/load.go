package suite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v3"
)

// Bounds of a suite: beyond them something is wrong, and memory and patience end.
const (
	maxFile    = 1 << 20 // bytes
	maxTests   = 5000
	maxMatrix  = 256 // tests that one matrix makes
	maxRetries = 10
)

// What a test has when neither it nor the defaults say.
const (
	defaultTimeout = time.Minute
	defaultPIDs    = 512
)

// Load reads a suite. The error of one that can not be right is an [*Invalid], with a line for each problem.
func Load(file string) (*Suite, error) {
	f, err := os.Open(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no test suite %s: write one (see schema.json), or name another file", file)
		}
		return nil, fmt.Errorf("read the test suite: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the test suite: %w", err)
	}
	return Parse(file, data)
}

// Parse is [Load] for data that came from file: what the suite names is looked for beside it.
func Parse(file string, data []byte) (*Suite, error) {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("read the test suite %s: %w", file, err)
	}
	d := &decoder{lines: map[any]int{}}
	s := &Suite{File: file, Name: filepath.Base(file), dir: dir}
	if root := d.document(data); root != nil {
		d.suite(root, s)
	}
	if err := d.err(file); err != nil {
		return nil, err
	}
	return s, nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?line (\d+): `)

// document is the root of the only document in data, or nil.
func (d *decoder) document(data []byte) *yaml.Node {
	if len(data) > maxFile {
		d.fail(1, "the file is larger than a suite may be (%d bytes): split it", maxFile)
		return nil
	}
	var first, next yaml.Node
	reader := yaml.NewDecoder(strings.NewReader(string(data)))
	err := reader.Decode(&first)
	if err == nil {
		if again := reader.Decode(&next); again == nil {
			d.fail(max(next.Line, 1), "a suite is one YAML document: remove the --- that begins another one")
			return nil
		} else if !errors.Is(again, io.EOF) {
			err = again
		}
	}
	switch {
	case errors.Is(err, io.EOF) || err == nil && (len(first.Content) == 0 || first.Content[0].Tag == "!!null"):
		d.fail(1, "the suite is empty: write tests, a list of what the image must be like")
		return nil
	case err != nil:
		line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = err.Error()[len(m[0]):]
		}
		d.fail(line, "this is no YAML: %s", strings.Join(strings.Fields(message), " "))
		return nil
	}
	return first.Content[0]
}

// document is the file's outermost mapping. Tests are decoded after the defaults, wherever those stand.
type document struct {
	at
	Name     string   `yaml:"name"`
	Defaults settings `yaml:"defaults"`
	Tests    later    `yaml:"tests"`
}

type later struct{ node *yaml.Node }

func (l *later) decode(_ *decoder, n *yaml.Node) { l.node = n }

func (d *decoder) suite(root *yaml.Node, s *Suite) {
	doc := document{Defaults: settings{Timeout: duration(defaultTimeout), Privileges: "none", Limits: limits{PIDs: defaultPIDs}}}
	d.value(root, reflect.ValueOf(&doc).Elem(), "the suite")
	if doc.Name != "" {
		s.Name = doc.Name
	}
	dir := s.dir
	d.settings(&doc.Defaults, doc.Line, dir)
	node := doc.Tests.node
	switch {
	case node == nil:
		d.fail(max(doc.Line, 1), "the suite has no tests: write tests, a list of what the image must be like")
		return
	case node.Kind != yaml.SequenceNode || len(node.Content) == 0:
		d.fail(node.Line, "tests must be a list with at least one test, not %s", kindOf(node))
		return
	}
	sessions := map[string]*Test{}
	for _, item := range node.Content {
		t := &Test{settings: doc.Defaults}
		t.Env = maps.Clone(t.Env)
		noted := len(d.problems)
		d.value(item, reflect.ValueOf(t).Elem(), "a test")
		if len(d.problems) > noted || d.nodes > maxNodes {
			continue // one mistake, one message
		}
		d.test(t, dir)
		if first := sessions[t.Session]; t.Session != "" && first != nil && !sameContainer(first.settings, t.settings) {
			d.fail(t.Line, "session %q is one container, and this test asks for another one than the test on line %d: give both the same network, "+
				"privileges, mounts and limits, or another session", t.Session, first.Line)
		} else if t.Session != "" && first == nil {
			sessions[t.Session] = t
		}
		s.Tests = append(s.Tests, d.expand(t)...)
	}
	if len(s.Tests) > maxTests {
		d.fail(node.Line, "the suite has %d tests, more than %d: split it", len(s.Tests), maxTests)
	}
	d.names(s.Tests)
}

// names refuses a name that two tests have.
func (d *decoder) names(tests []*Test) {
	seen := map[string]int{}
	for _, t := range tests {
		if line, ok := seen[t.Name]; ok {
			d.fail(t.Line, "a test called %q is on line %d already: give this one another name", t.Name, line)
		}
		seen[t.Name] = t.Line
	}
}

// sameContainer says whether two tests can share a container.
func sameContainer(a, b settings) bool {
	mounts := func(a, b mount) bool { return a.Source == b.Source && a.Target == b.Target }
	return a.Network == b.Network && a.Privileges == b.Privileges && a.Limits == b.Limits && slices.EqualFunc(a.Mounts, b.Mounts, mounts)
}

// expand makes a test of each combination of a matrix's values.
func (d *decoder) expand(t *Test) []*Test {
	tests := []*Test{t}
	for _, name := range slices.Sorted(maps.Keys(t.Matrix)) {
		var more []*Test
		for _, base := range tests {
			for _, value := range t.Matrix[name] {
				variant := *base
				variant.Env = maps.Clone(base.Env)
				if variant.Env == nil {
					variant.Env = map[string]text{}
				}
				variant.Env[name] = value
				variant.Name += fmt.Sprintf(" [%s=%s]", name, value)
				more = append(more, &variant)
			}
		}
		if tests = more; len(tests) > maxMatrix {
			d.fail(t.Line, "the matrix of %q makes more than %d tests: use fewer values", t.Name, maxMatrix)
			return nil
		}
	}
	return tests
}

var (
	nameForm = regexp.MustCompile(`^[^\pC]{1,200}$`)
	wordForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	envForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	modeForm = regexp.MustCompile(`^[0-7]{3,4}$`)
	portForm = regexp.MustCompile(`^[0-9]{1,5}(/(tcp|udp|sctp))?$`)
)

// line is where what place points to was written, or fallback when it was not.
func (d *decoder) line(place any, fallback int) int {
	if line, ok := d.lines[place]; ok {
		return line
	}
	return fallback
}

func (d *decoder) test(t *Test, dir string) {
	if !nameForm.MatchString(t.Name) {
		d.fail(d.line(&t.Name, t.Line), "a test needs a name: one line of at most 200 characters")
	}
	kinds := 0
	for _, set := range []bool{t.Image != nil, t.Files != nil, t.Run != nil, t.Service != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		d.fail(t.Line, "test %q must have exactly one of image, files, run and service, not %d", t.Name, kinds)
	}
	if t.Run == nil {
		for _, key := range []struct {
			name string
			set  bool
		}{{"setup", t.Setup != nil}, {"session", t.Session != ""}, {"exit", t.Exit != 0}, {"stdout", t.Stdout != nil}, {"stderr", t.Stderr != nil}} {
			if key.set {
				d.fail(t.Line, "%s of test %q belongs to a command: add run, or remove it", key.name, t.Name)
			}
		}
	}
	if t.Session != "" && !wordForm.MatchString(t.Session) {
		d.fail(d.line(&t.Session, t.Line), "session %q is no name: write letters, digits, _ . and -", t.Session)
	}
	for i := range t.Tags {
		if !wordForm.MatchString(t.Tags[i]) {
			d.fail(d.line(&t.Tags[i], t.Line), "tag %q is no word: write letters, digits, _ . and -", t.Tags[i])
		}
	}
	if t.Retries > maxRetries {
		d.fail(d.line(&t.Retries, t.Line), "%d retries hide what is wrong: write at most %d", t.Retries, maxRetries)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Matrix)) {
		if len(t.Matrix[name]) == 0 || !envForm.MatchString(name) {
			d.fail(d.line(&t.Matrix, t.Line), "matrix.%s must be an environment variable with a list of its values", name)
		}
	}
	d.settings(&t.settings, t.Line, dir)
	d.command(&t.command, dir)
	if t.Image != nil {
		d.image(t.Image)
	}
	for i := range t.Files {
		d.files(&t.Files[i], dir)
	}
	if t.Files != nil && len(t.Files) == 0 {
		d.fail(d.line(&t.Files, t.Line), "files is empty: list at least one path")
	}
	if t.Service != nil {
		d.service(t, dir)
	}
}

// oneOf refuses a word that is not among those; "" is always one.
func (d *decoder) oneOf(place *string, line int, name string, words ...string) {
	if *place != "" && !slices.Contains(words, *place) {
		d.fail(d.line(place, line), "%s can not be %q: write %s", name, *place, strings.Join(words, " or "))
	}
}

func (d *decoder) settings(s *settings, line int, dir string) {
	d.oneOf(&s.Network, line, "network", "none", "bridge")
	d.oneOf(&s.Privileges, line, "privileges", "none", "default", "all")
	d.env(s.Env, &s.Env, line)
	if s.Workdir != "" && !path.IsAbs(s.Workdir) {
		d.fail(d.line(&s.Workdir, line), "workdir %q must be an absolute path", s.Workdir)
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Source == "" || filepath.IsAbs(m.Source) || !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			d.fail(m.Line, "a mount needs a source beside the suite's file, and an absolute target: {source: fixtures, target: /fixtures}")
			continue
		}
		d.beside(m.Source, m.Line, dir)
	}
}

func (d *decoder) env(env map[string]text, place any, line int) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !envForm.MatchString(name) || strings.ContainsRune(string(env[name]), 0) {
			d.fail(d.line(place, line), "%q can not be the name of an environment variable: write letters, digits and _", name)
		}
	}
}

// beside refuses a file that is not there, and one that is elsewhere: a suite may be anybody's, and its containers see of this machine, and its
// failures quote, only what came with it.
func (d *decoder) beside(name string, line int, dir string) {
	if filepath.IsAbs(name) {
		d.fail(line, "%q must be relative to the suite's file", name)
		return
	}
	root, err := os.OpenRoot(dir)
	if err == nil {
		_, err = root.Stat(name)
		_ = root.Close()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.fail(line, "there is no %q beside the suite: paths are relative to its file", name)
	case err != nil:
		d.fail(line, "%q can not be used (%v): it must be beside the suite's file or below it, and no link out of there", name, err)
	}
}

func (d *decoder) command(c *command, dir string) {
	if c.Exit > 255 {
		d.fail(d.line(&c.Exit, 0), "exit can not be %d: write 0 to 255", c.Exit)
	}
	d.output(c.Stdout, dir)
	d.output(c.Stderr, dir)
}

func (d *decoder) output(o *output, dir string) {
	if o != nil && o.Golden != "" {
		d.beside(o.Golden, d.line(&o.Golden, o.Line), dir)
	}
}

func (d *decoder) image(c *imageCheck) {
	if reflect.DeepEqual(*c, imageCheck{at: c.at}) {
		d.fail(c.Line, "image says nothing: write what its metadata must be")
	}
	for _, ports := range [][]text{c.Ports, c.PortsAbsent} {
		for i := range ports {
			if !portForm.MatchString(string(ports[i])) {
				d.fail(d.line(&ports[i], c.Line), "%q is no port: write 8080, 8080/tcp or 53/udp", ports[i])
			}
		}
	}
	if c.Platform != "" && strings.Count(c.Platform, "/")-1 > 1 || c.Platform != "" && !strings.Contains(c.Platform, "/") {
		d.fail(d.line(&c.Platform, c.Line), "%q is no platform: write linux/amd64", c.Platform)
	}
}

func (d *decoder) files(c *fileCheck, dir string) {
	pathLine := d.line(&c.Path, c.Line)
	if !path.IsAbs(c.Path) {
		d.fail(pathLine, "path %q must be absolute, as /etc/passwd or /etc/**/*.pem", c.Path)
	}
	for i, pattern := range append([]string{c.Path}, c.Except...) {
		if !doublestar.ValidatePattern(pattern) {
			if i > 0 {
				pathLine = d.line(&c.Except[i-1], c.Line)
			}
			d.fail(pathLine, "%q is no pattern: * matches within a name, ** across folders, and [ { } ? \\ are written after a \\", pattern)
		}
	}
	for i := range c.Having {
		d.oneOf(&c.Having[i], c.Line, "having", traitNames()...)
	}
	d.oneOf(&c.Type, c.Line, "type", fileTypes...)
	d.oneOf(&c.ExecutableBy, c.Line, "executable_by", "owner", "group", "others", "any")
	if c.Mode != "" && !modeForm.MatchString(c.Mode) {
		d.fail(d.line(&c.Mode, c.Line), `mode %q is written in quotes as "0644" or "4755"`, c.Mode)
	}
	asks := c.Type != "" || c.Mode != "" || c.Owner != "" || c.ExecutableBy != "" || c.Target != nil || c.Size != nil || c.Count != nil || c.Content != nil
	if c.Absent && asks {
		d.fail(c.Line, "a file that must be absent can not be like something: to choose which must be absent write having and except")
	}
	d.output(c.Content, dir)
}

func (d *decoder) service(t *Test, dir string) {
	s, asked := t.Service, false
	http := func(c *httpCheck) {
		if c == nil {
			return
		}
		asked = true
		d.port(&c.Port, c.Line)
		if !strings.HasPrefix(c.Path, "/") && c.Path != "" {
			d.fail(d.line(&c.Path, c.Line), "path %q must begin with /", c.Path)
		}
		if c.Method != "" && !regexp.MustCompile(`^[A-Z]+$`).MatchString(c.Method) {
			d.fail(d.line(&c.Method, c.Line), "%q is no HTTP method: write GET", c.Method)
		}
		if c.Status != 0 && (c.Status < 100 || c.Status > 599) {
			d.fail(d.line(&c.Status, c.Line), "%d is no HTTP status: write 200", c.Status)
		}
		d.output(c.Body, dir)
	}
	if r := s.Ready; r != nil {
		if r.Port != 0 {
			asked = true
			d.port(&r.Port, r.Line)
		}
		http(r.HTTP)
		if !r.Healthy && r.Port == 0 && r.HTTP == nil && r.Log == nil {
			d.fail(r.Line, "ready says nothing: write healthy: true, port, http or log")
		}
	}
	if s.Ready == nil && len(s.Steps) == 0 {
		d.fail(s.Line, "the service is not looked at: write ready or steps")
	}
	stopped := 0
	for i := range s.Steps {
		step := &s.Steps[i]
		kinds := 0
		for _, set := range []bool{step.Run != nil, step.HTTP != nil, step.Restart, step.Stop != nil, step.Logs != nil} {
			if set {
				kinds++
			}
		}
		if kinds != 1 {
			d.fail(step.Line, "a step must be exactly one of run, http, restart, stop and logs, not %d", kinds)
			continue
		}
		if step.Run == nil && (step.Exit != 0 || step.Stdout != nil || step.Stderr != nil || step.User != "" || step.Env != nil || step.Workdir != "") {
			d.fail(step.Line, "exit, stdout, stderr, user, env and workdir of a step belong to run")
		}
		if step.Within != 0 && (step.Restart || step.Stop != nil) {
			d.fail(d.line(&step.Within, step.Line), "within belongs to run, http and logs; a restart is bounded by ready.within, and stop has its own within")
		}
		if stopped > 0 && step.Logs == nil {
			d.fail(step.Line, "the service is stopped on line %d: only logs can follow", stopped)
		}
		if step.Stop != nil {
			stopped = step.Line
			if step.Stop.Signal != "" && !regexp.MustCompile(`^(SIG)?[A-Z0-9+]+$`).MatchString(step.Stop.Signal) {
				d.fail(d.line(&step.Stop.Signal, step.Line), "%q is no signal: write TERM", step.Stop.Signal)
			}
			if step.Stop.Exit > 255 {
				d.fail(d.line(&step.Stop.Exit, step.Line), "exit can not be %d: write 0 to 255", step.Stop.Exit)
			}
		}
		http(step.HTTP)
		d.env(step.Env, &step.Env, step.Line)
		d.command(&step.command, dir)
		if step.Logs != nil {
			d.output(step.Logs.Stdout, dir)
			d.output(step.Logs.Stderr, dir)
			if step.Logs.Stdout == nil && step.Logs.Stderr == nil {
				d.fail(step.Line, "logs says nothing: write stdout or stderr")
			}
		}
	}
	if asked && t.Network == "none" {
		d.fail(d.line(&t.Network, t.Line), "ports of a container without a network can not be reached: leave network out, or write bridge")
	}
}

func (d *decoder) port(place *int, line int) {
	if *place < 1 || *place > 65535 {
		d.fail(d.line(place, line), "port must be 1 to 65535, not %d", *place)
	}
}

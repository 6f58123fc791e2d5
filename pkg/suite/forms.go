package suite

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/docker/go-units"
	"go.yaml.in/yaml/v3"
)

// The types with a custom YAML form. Each has up to three methods: UnmarshalYAML decodes a node that the schema
// accepts, MarshalYAML encodes it, and JSONForm returns its JSON schema. For a type that can also be a mapping,
// JSONForm returns only the schema of the short form.
type (
	// Text is a string. A number is accepted and keeps its notation.
	Text string
	// Word is a name without spaces.
	Word string
	// Duration is a time span.
	Duration time.Duration
	// Size is a number of bytes.
	Size int64
	// Port is a port with an optional protocol: tcp, udp, sctp or any. Default: tcp.
	Port string
	// Glob is a pattern of paths: * matches within a name, ** across directories.
	Glob string
	// PathPattern is an absolute path or a pattern of paths.
	PathPattern string
	// Trait is a property by which files can be selected.
	Trait string
	// Env holds environment variables by name.
	Env map[string]Text
	// Matrix holds the values of environment variables by name.
	Matrix map[string][]Text

	// Pattern is a regular expression.
	Pattern struct {
		Position
		*regexp.Regexp
	}

	// Command is a command with its arguments. A list is run directly, a string by /bin/sh -c.
	Command struct {
		Position
		Args []string
	}

	// ValueCheck checks a value: the value itself, {matches: REGEX}, or null if it must not be set.
	ValueCheck struct {
		Position
		equals  string
		matches *regexp.Regexp
		absent  bool
	}

	// Healthcheck is true or false for any or no HEALTHCHECK, or its exact command, which begins with CMD or CMD-SHELL.
	Healthcheck struct {
		Position
		present bool
		test    []string // nil for any command
	}
)

// formats maps the schema's custom formats to their validation functions.
var formats = map[string]func(string) error{
	"go-duration": func(s string) error { _, err := parseDuration(s); return err },
	"size":        func(s string) error { _, err := parseSize(s); return err },
	"doublestar": func(s string) error {
		if !doublestar.ValidatePattern(s) {
			return fmt.Errorf(`escape the characters [ ] { } ? \ with a backslash`)
		}
		return nil
	},
}

// Parts of JSON schemas that several forms share.
const (
	text     = `{"type": ["string", "number"]}`
	envName  = `^[^=\\p{C}]+$` // the engine accepts everything but =
	envValue = `{"type": ["string", "number"], "title": "value without NUL characters", "pattern": "^[^\\x00]*$"}`
)

// JSONForm returns the JSON schema of the YAML form.
func (Text) JSONForm() string { return text }

// JSONForm returns the JSON schema of the YAML form.
func (Word) JSONForm() string {
	return `{"type": "string", "title": "word", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$", "examples": ["smoke-test"]}`
}

// JSONForm returns the JSON schema of the YAML form.
func (Duration) JSONForm() string {
	return `{"type": "string", "title": "duration", "format": "go-duration", "pattern": "^[+.0-9]",
		"examples": ["500ms", "30s", "2m"]}`
}

// UnmarshalYAML decodes a duration.
func (v *Duration) UnmarshalYAML(n *yaml.Node) error {
	d, err := parseDuration(n.Value)
	*v = Duration(d)
	return err
}

// MarshalYAML encodes the duration in Go's format.
func (v Duration) MarshalYAML() (any, error) { return time.Duration(v).String(), nil }

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("duration %s is not positive", s)
	}
	return d, err
}

// JSONForm returns the JSON schema of the YAML form.
func (Size) JSONForm() string {
	return `{"type": ["string", "number"], "title": "size", "format": "size", "pattern": "^[.0-9]", "minimum": 0,
		"examples": [4096, "10MB", "1GiB"]}`
}

// UnmarshalYAML decodes a size: a number of bytes, or a number with a decimal (MB) or binary (MiB) unit.
func (v *Size) UnmarshalYAML(n *yaml.Node) error {
	size, err := parseSize(n.Value)
	*v = Size(size)
	return err
}

func parseSize(s string) (int64, error) {
	if strings.ContainsAny(s, "iI") {
		return units.RAMInBytes(s)
	}
	return units.FromHumanSize(s)
}

// JSONForm returns the JSON schema of the YAML form.
func (Port) JSONForm() string {
	return `{"type": ["string", "integer"], "title": "port", "pattern": "^[0-9]{1,5}(/(tcp|udp|sctp|any))?$",
		"minimum": 0, "maximum": 99999, "examples": [8080, "8080/tcp", "53/any"]}`
}

// JSONForm returns the JSON schema of the YAML form.
func (Glob) JSONForm() string {
	return `{"type": "string", "title": "path pattern", "format": "doublestar", "examples": ["/etc/**/*.pem"]}`
}

// JSONForm returns the JSON schema of the YAML form.
func (PathPattern) JSONForm() string {
	return `{"type": "string", "title": "absolute path or pattern", "pattern": "^/", "format": "doublestar",
		"examples": ["/etc/passwd", "/etc/**/*.pem"]}`
}

// JSONForm returns the JSON schema of the YAML form.
func (Trait) JSONForm() string {
	names, err := json.Marshal(traitNames())
	if err != nil {
		panic(err) // encoding strings does not fail
	}
	return `{"enum": ` + string(names) + `}`
}

// JSONForm returns the JSON schema of the YAML form.
func (Env) JSONForm() string {
	return `{"type": "object", "title": "environment variable name", "examples": ["LOG_LEVEL"],
		"patternProperties": {"` + envName + `": ` + envValue + `}, "additionalProperties": false}`
}

// JSONForm returns the JSON schema of the YAML form.
func (Matrix) JSONForm() string {
	return `{"type": "object", "title": "environment variable name", "examples": ["LOG_LEVEL"],
		"patternProperties": {"` + envName + `": {"type": "array", "minItems": 1, "items": ` + envValue + `}},
		"additionalProperties": false}`
}

// JSONForm returns the JSON schema of the YAML form.
func (Pattern) JSONForm() string {
	return `{"type": ["string", "number"], "title": "regular expression", "format": "regex"}`
}

// UnmarshalYAML decodes a regular expression.
func (p *Pattern) UnmarshalYAML(n *yaml.Node) (err error) {
	p.Line = n.Line
	p.Regexp, err = regexp.Compile(n.Value)
	return err
}

// MarshalYAML encodes the source of the regular expression.
func (p Pattern) MarshalYAML() (any, error) { return p.String(), nil }

// JSONForm returns the JSON schema of the YAML form.
func (Command) JSONForm() string {
	return `{"oneOf": [
		{"type": "string", "title": "command", "pattern": "\\S", "examples": ["ls /tmp"]},
		{"type": "array", "minItems": 1, "prefixItems": [{"type": ["string", "number"], "minLength": 1}],
			"items": ` + text + `}]}`
}

// UnmarshalYAML decodes a command line, or a list of a program and its arguments.
func (c *Command) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	if n.Kind == yaml.ScalarNode {
		c.Args = []string{"/bin/sh", "-c", n.Value}
		return nil
	}
	return n.Decode(&c.Args)
}

// MarshalYAML encodes the program and its arguments as a list.
func (c Command) MarshalYAML() (any, error) { return c.Args, nil }

// JSONForm returns the JSON schema of the YAML form.
func (ValueCheck) JSONForm() string {
	return `{"oneOf": [
		{"type": ["string", "number", "null"]},
		{"type": "object", "properties": {"matches": ` + Pattern{}.JSONForm() + `}, "required": ["matches"],
			"additionalProperties": false, "examples": ["{matches: '^v[0-9]+$'}"]}]}`
}

// UnmarshalYAML decodes a value, a regular expression, or null.
func (v *ValueCheck) UnmarshalYAML(n *yaml.Node) error {
	v.Line = n.Line
	switch {
	case n.Tag == nullTag:
		v.absent = true
	case n.Kind == yaml.ScalarNode:
		v.equals = n.Value
	default:
		var form struct {
			Matches Pattern `yaml:"matches"`
		}
		if err := n.Decode(&form); err != nil {
			return err
		}
		v.matches = form.Matches.Regexp
	}
	return nil
}

// MarshalYAML encodes the value, the regular expression, or null.
func (v ValueCheck) MarshalYAML() (any, error) {
	switch {
	case v.absent:
		return nil, nil
	case v.matches != nil:
		return map[string]string{"matches": v.matches.String()}, nil
	}
	return v.equals, nil
}

// JSONForm returns the JSON schema of the YAML form.
func (Healthcheck) JSONForm() string {
	return `{"oneOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]}`
}

// UnmarshalYAML decodes a boolean or a command.
func (h *Healthcheck) UnmarshalYAML(n *yaml.Node) error {
	h.Line = n.Line
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&h.present)
	}
	h.present = true
	return n.Decode(&h.test)
}

// JSONForm returns the JSON schema of the short form, a regular expression to match.
func (TextCheck) JSONForm() string { return Pattern{}.JSONForm() }

// UnmarshalYAML decodes a regular expression, or a mapping.
func (c *TextCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	if n.Kind == yaml.ScalarNode {
		c.Include = make([]Pattern, 1)
		return n.Decode(&c.Include[0])
	}
	type mapping TextCheck
	return n.Decode((*mapping)(c))
}

// JSONForm returns the JSON schema of the short form, an exact number.
func (Range) JSONForm() string { return Size(0).JSONForm() }

// UnmarshalYAML decodes a number, or a mapping.
func (r *Range) UnmarshalYAML(n *yaml.Node) error {
	r.Line = n.Line
	if n.Kind == yaml.ScalarNode {
		r.Min = new(Size)
		r.Max = r.Min
		return n.Decode(r.Min)
	}
	type mapping Range
	return n.Decode((*mapping)(r))
}

// JSONForm returns the JSON schema of the short form, a stop without options.
func (StopCheck) JSONForm() string { return `{"const": true}` }

// UnmarshalYAML decodes true, or a mapping.
func (s *StopCheck) UnmarshalYAML(n *yaml.Node) error {
	s.Line = n.Line
	if n.Kind == yaml.ScalarNode {
		return nil
	}
	type mapping StopCheck
	return n.Decode((*mapping)(s))
}

// The other types are mappings. Their methods record the line.

// UnmarshalYAML reads the mapping.
func (t *Test) UnmarshalYAML(n *yaml.Node) error {
	t.Line = n.Line
	type mapping Test
	return n.Decode((*mapping)(t))
}

// UnmarshalYAML reads the mapping.
func (m *Mount) UnmarshalYAML(n *yaml.Node) error {
	m.Line = n.Line
	type mapping Mount
	return n.Decode((*mapping)(m))
}

// UnmarshalYAML reads the mapping.
func (c *ImageCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	type mapping ImageCheck
	return n.Decode((*mapping)(c))
}

// UnmarshalYAML reads the mapping.
func (c *FileCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	type mapping FileCheck
	return n.Decode((*mapping)(c))
}

// UnmarshalYAML reads the mapping.
func (c *ServiceCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	type mapping ServiceCheck
	return n.Decode((*mapping)(c))
}

// UnmarshalYAML reads the mapping.
func (c *ReadinessCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	type mapping ReadinessCheck
	return n.Decode((*mapping)(c))
}

// UnmarshalYAML reads the mapping.
func (s *Step) UnmarshalYAML(n *yaml.Node) error {
	s.Line = n.Line
	type mapping Step
	return n.Decode((*mapping)(s))
}

// UnmarshalYAML reads the mapping.
func (c *HTTPCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	type mapping HTTPCheck
	return n.Decode((*mapping)(c))
}

// UnmarshalYAML reads the mapping.
func (c *LogsCheck) UnmarshalYAML(n *yaml.Node) error {
	c.Line = n.Line
	type mapping LogsCheck
	return n.Decode((*mapping)(c))
}

// String describes the range in an error message.
func (r *Range) String() string {
	switch {
	case r.Max == nil:
		return "at least " + strconv.FormatInt(int64(*r.Min), 10)
	case r.Min == nil:
		return "at most " + strconv.FormatInt(int64(*r.Max), 10)
	case *r.Min == *r.Max:
		return strconv.FormatInt(int64(*r.Min), 10)
	}
	return fmt.Sprintf("%d to %d", *r.Min, *r.Max)
}

// contains reports whether n is in the range.
func (r *Range) contains(n int64) bool {
	return (r.Min == nil || n >= int64(*r.Min)) && (r.Max == nil || n <= int64(*r.Max))
}

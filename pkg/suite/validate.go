package suite

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/agext/levenshtein"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
)

// Schema is the JSON schema (draft 2020-12) of the format, for editors.
//
//go:embed schema.json
var Schema []byte

// schemaURL identifies the schema in its compiler.
const schemaURL = "schema:suite"

// validator validates values against a schema.
type validator struct {
	root *jsonschema.Schema

	mutex    sync.Mutex // guards compiler, which compiles parts of the schema on demand
	compiler *jsonschema.Compiler
}

var suiteValidator = sync.OnceValues(func() (*validator, error) { return newValidator(string(Schema)) })

func newValidator(schema string) (*validator, error) {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return nil, fmt.Errorf("parse the schema: %w", err)
	}
	v := &validator{compiler: jsonschema.NewCompiler()}
	v.compiler.AssertFormat()
	for name, validate := range formats {
		v.compiler.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(value any) error {
			if s, ok := value.(string); ok {
				return validate(s)
			}
			return nil
		}})
	}
	if err := v.compiler.AddResource(schemaURL, document); err != nil {
		return nil, fmt.Errorf("parse the schema: %w", err)
	}
	if v.root, err = v.compiler.Compile(schemaURL); err != nil {
		return nil, fmt.Errorf("compile the schema: %w", err)
	}
	return v, nil
}

// part returns the part of the schema at a URL, as in the library's errors.
func (v *validator) part(url string) *jsonschema.Schema {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	part, err := v.compiler.Compile(url)
	if err != nil {
		return &jsonschema.Schema{}
	}
	return part
}

// violation is a value that breaks a rule of the schema.
type violation struct {
	location location
	line     int
	message  string
	unknown  bool // an unknown key
	missing  bool // a missing key, possibly because another key in the same mapping is misspelled
}

// validation collects the violations in a file.
type validation struct {
	*validator
	file       *parsedFile
	violations []violation
}

// validate returns the violations in an expanded file, without those that are consequences of others.
func (v *validator) validate(f *parsedFile) []violation {
	err := v.root.Validate(f.value)
	invalid := new(jsonschema.ValidationError)
	if !errors.As(err, &invalid) {
		return nil
	}
	c := &validation{validator: v, file: f}
	c.collect(invalid)
	unknown := map[string]bool{}
	for _, found := range c.violations {
		if found.unknown {
			unknown[found.location.String()] = true
		}
	}
	return slices.DeleteFunc(c.violations, func(found violation) bool {
		return found.missing && unknown[found.location.String()]
	})
}

func (c *validation) add(l location, line int, message string) *violation {
	c.violations = append(c.violations, violation{location: l, line: line, message: message})
	return &c.violations[len(c.violations)-1]
}

// addf adds a violation at l. The message begins with the name of l.
func (c *validation) addf(l location, format string, args ...any) *violation {
	return c.add(l, c.file.line(l), c.name(l)+fmt.Sprintf(format, args...))
}

// name returns the name of a location for messages. For a test, it includes the test's name.
func (c *validation) name(l location) string {
	if l.String() == "test" {
		if key, name := c.file.find(l.child("name")); key != nil && name.Kind == yaml.ScalarNode {
			return "test " + strconv.Quote(truncate(name.Value, maxQuoted))
		}
	}
	return l.String()
}

// collect adds the violations in an error of the library.
func (c *validation) collect(e *jsonschema.ValidationError) {
	l := location(e.InstanceLocation)
	rule := c.part(e.SchemaURL)
	_, node := c.file.find(l)
	got := describe(node)
	switch k := e.ErrorKind.(type) {
	case *kind.OneOf:
		c.union(e, k, rule)
	case *kind.Type:
		c.mismatch(l, k.Want, rule)
	case *kind.Const:
		c.mismatch(l, []string{fmt.Sprint(k.Want)}, rule)
	case *kind.Enum:
		c.addf(l, " must be %s, not %s", alternatives(k.Want), got)
	case *kind.Format:
		reason := ""
		if k.Want == "regex" || k.Want == "doublestar" { // reasons of other formats only repeat the value
			reason = ": " + strings.TrimPrefix(k.Err.Error(), "error parsing regexp: ")
		}
		c.addf(l, ": invalid %s %s%s%s", noun(rule), got, reason, examples(rule))
	case *kind.Pattern, *kind.MaxLength:
		c.addf(l, ": invalid %s %s%s", noun(rule), got, examples(rule))
	case *kind.MinLength, *kind.MinItems:
		c.addf(l, " must not be empty%s", examples(rule))
	case *kind.MinProperties:
		c.addf(l, " must not be empty; set %s", orList(slices.Sorted(maps.Keys(rule.Properties))))
	case *kind.Minimum, *kind.Maximum:
		c.addf(l, " must be %s, not %s", bounds(rule), got)
	case *kind.Required:
		c.addf(l, ": missing key %s%s", quotedList(k.Missing), examples(rule)).missing = true
	case *kind.AdditionalProperties:
		c.unknownKeys(l, k.Properties, rule)
	default:
		if len(e.Causes) == 0 {
			c.addf(l, " is invalid")
		}
		for _, cause := range e.Causes {
			c.collect(cause)
		}
	}
}

// typeNames maps the types of JSON schema to names in messages, in the order in which messages list them.
var typeNames = []struct{ schema, message string }{
	{"string", "a string"}, {"number", "a number"}, {"integer", "an integer"}, {"boolean", "true or false"},
	{"true", "true"}, {"array", "a list"}, {"object", "a mapping"},
}

// mismatch adds a violation for a value that has none of the wanted types.
func (c *validation) mismatch(l location, want []string, rule *jsonschema.Schema) {
	_, node := c.file.find(l)
	if isNull(node) {
		c.addf(l, " is empty; set a value or remove the key")
		return
	}
	wantsString := slices.Contains(want, "string")
	if node.Kind == yaml.ScalarNode && wantsString && !isValidString(node.Value, rule) {
		c.addf(l, ": invalid %s %s%s", noun(rule), describe(node), examples(rule)) // quotes would not help
		return
	}
	var list []string
	for _, name := range typeNames {
		if slices.Contains(want, name.schema) {
			list = append(list, name.message)
		}
	}
	hint := ""
	switch {
	case node.Kind == yaml.ScalarNode && wantsString:
		hint = "; put it in quotes"
	case node.Kind == yaml.ScalarNode && slices.Equal(want, []string{"array"}):
		hint = "; put it in brackets [ ]"
	}
	c.addf(l, " must be %s, not %s%s", orList(list), describe(node), hint)
}

// isValidString reports whether a string satisfies the rule's pattern and format.
func isValidString(s string, rule *jsonschema.Schema) bool {
	return (rule.Pattern == nil || rule.Pattern.MatchString(s)) && (rule.Format == nil || rule.Format.Validate(s) == nil)
}

// unknownKeys adds a violation for each unknown key of a mapping.
func (c *validation) unknownKeys(l location, keys []string, rule *jsonschema.Schema) {
	for _, key := range slices.Sorted(slices.Values(keys)) {
		line := c.file.keyLine(l.child(key))
		if len(rule.PatternProperties) > 0 {
			c.add(l, line, fmt.Sprintf("%s: invalid %s %q%s", l, noun(rule), key, examples(rule)))
			continue
		}
		known := slices.Sorted(maps.Keys(rule.Properties))
		c.add(l, line, fmt.Sprintf("unknown key %q in %s; %s", key, c.name(l), suggest(key, known))).unknown = true
	}
}

// union adds a violation for a value that matches none, or more than one, of several rules. The rules differ in the
// type of the value, or in a required key.
func (c *validation) union(e *jsonschema.ValidationError, k *kind.OneOf, rule *jsonschema.Schema) {
	l := location(e.InstanceLocation)
	if keys := alternativeKeys(rule); keys != nil {
		_, node := c.file.find(l)
		present := 0
		for _, key := range keys {
			if hasKey(node, key) {
				present++
			}
		}
		v := c.addf(l, " must have exactly one of %s, not %d", joinList(keys, "and"), present)
		v.missing = len(k.Subschemas) == 0
		return
	}
	var sameType []*jsonschema.ValidationError
	var want []string
	for _, cause := range e.Causes {
		types := mismatchedTypes(cause, len(l))
		if types == nil {
			sameType = append(sameType, cause)
		}
		want = append(want, types...)
	}
	if len(sameType) == 0 {
		c.mismatch(l, want, rule)
		return
	}
	c.collect(sameType[0])
}

// alternativeKeys returns the keys of which a mapping must have exactly one, or nil for other rules.
func alternativeKeys(rule *jsonschema.Schema) (keys []string) {
	for _, alternative := range rule.OneOf {
		if len(alternative.Required) == 0 || alternative.Types != nil {
			return nil
		}
		keys = append(keys, alternative.Required...)
	}
	return keys
}

// mismatchedTypes returns the types that a rule accepts for the value at the given depth, or nil if the type matches.
func mismatchedTypes(e *jsonschema.ValidationError, depth int) []string {
	for {
		if _, isReference := e.ErrorKind.(*kind.Reference); !isReference || len(e.Causes) != 1 {
			break
		}
		e = e.Causes[0]
	}
	if len(e.InstanceLocation) != depth {
		return nil
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		return k.Want
	case *kind.Const:
		return []string{fmt.Sprint(k.Want)}
	}
	return nil
}

// suggest returns a hint with the most similar known key, or with all known keys.
func suggest(key string, known []string) string {
	best, distance := "", 3
	for _, candidate := range known {
		if n := levenshtein.Distance(strings.ToLower(key), candidate, nil); n < distance && n < len(candidate) {
			best, distance = candidate, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "use " + orList(known)
}

// noun returns the title of a rule, or "value" if it has none.
func noun(rule *jsonschema.Schema) string {
	if rule.Title == "" {
		return "value"
	}
	return rule.Title
}

// examples returns a hint with the rule's examples, or "".
func examples(rule *jsonschema.Schema) string {
	if len(rule.Examples) == 0 {
		return ""
	}
	return " (for example " + alternatives(rule.Examples) + ")"
}

// numeric matches text that YAML parses as a number unless it is quoted.
var numeric = regexp.MustCompile(`^[0-9]+$`)

func alternatives(values []any) string {
	var list []string
	for _, value := range values {
		text := fmt.Sprint(value)
		if text == "" {
			continue // "" selects the default
		}
		if _, isString := value.(string); isString && numeric.MatchString(text) {
			text = strconv.Quote(text) // because YAML requires the quotes
		}
		list = append(list, text)
	}
	return orList(list)
}

// bounds describes the range of numbers that a rule allows.
func bounds(rule *jsonschema.Schema) string {
	number := func(n *big.Rat) string { return strings.TrimSuffix(n.RatString(), "/1") }
	switch {
	case rule.Maximum == nil:
		return "at least " + number(rule.Minimum)
	case rule.Minimum == nil:
		return "at most " + number(rule.Maximum)
	}
	return number(rule.Minimum) + " to " + number(rule.Maximum)
}

// orList joins alternatives, as in "a, b or c".
func orList(list []string) string { return joinList(list, "or") }

func joinList(list []string, conjunction string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " " + conjunction + " " + list[last]
}

func quotedList(list []string) string {
	return `"` + strings.Join(list, `", "`) + `"`
}

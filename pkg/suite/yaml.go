package suite

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// Limits of a file.
const (
	maxFile  = 1 << 20 // bytes
	maxNodes = 200_000 // YAML nodes after expanding aliases, which can grow exponentially
)

// nullTag replaces the tag of null values, because the YAML library does not pass nulls to UnmarshalYAML.
const nullTag = "!null"

// Problem is one error in a file.
type Problem struct {
	Line    int // from 1
	Message string
}

// InvalidError reports an invalid suite.
type InvalidError struct {
	File     string    // may be ""
	Problems []Problem // at least one, ordered by line
}

func (e *InvalidError) Error() string {
	where := fmt.Sprintf("%s:%d", e.File, e.Problems[0].Line)
	if e.File == "" {
		where = fmt.Sprintf("line %d", e.Problems[0].Line)
	}
	return where + ": " + e.Problems[0].Message + andMore(len(e.Problems)-1)
}

func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// parsedFile is a YAML document and the problems found so far.
type parsedFile struct {
	root     *yaml.Node // nil if the file is not YAML
	value    any        // the document in the types of encoding/json; nil if it could not be expanded
	problems []Problem

	nodes    int
	expanded []*yaml.Node // mappings and lists that are being expanded, outermost first
	aborted  bool
}

func (f *parsedFile) addf(line int, format string, args ...any) {
	f.problems = append(f.problems, Problem{max(line, 1), safetext.Line(fmt.Sprintf(format, args...), 0)})
}

// err returns the problems as an [*InvalidError], or nil if the file is valid.
func (f *parsedFile) err(file string) error {
	if len(f.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(f.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Message, b.Message)
	})
	return &InvalidError{File: file, Problems: slices.Compact(f.problems)}
}

// yamlLine matches the position at the start of the YAML library's messages.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?line (\d+): `)

// addYAMLError adds an error of the YAML library at the line in its message, or at line if the message has none.
func (f *parsedFile) addYAMLError(line int, prefix string, err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = err.Error()[len(m[0]):]
	}
	f.addf(line, "%s%s", prefix, message)
}

// parseYAML parses data, which must contain exactly one document.
func parseYAML(data []byte) *parsedFile {
	f := &parsedFile{}
	if len(data) > maxFile {
		f.addf(1, "file is larger than %d bytes; split it", maxFile)
		return f
	}
	var first, second yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(string(data)))
	err := decoder.Decode(&first)
	if err == nil {
		switch secondErr := decoder.Decode(&second); {
		case secondErr == nil:
			f.addf(second.Line, "file has more than one YAML document; remove the --- that starts the second one")
			return f
		case !errors.Is(secondErr, io.EOF):
			err = secondErr
		}
	}
	switch {
	case errors.Is(err, io.EOF) || err == nil && (len(first.Content) == 0 || first.Content[0].Tag == "!!null"):
		f.addf(1, "file is empty; add tests")
		return f
	case err != nil:
		f.addYAMLError(1, "invalid YAML: ", err)
		return f
	}
	f.root = first.Content[0]
	if value := f.expand(f.root); !f.aborted {
		f.value = value
	}
	return f
}

// abortf adds a problem and stops the expansion of the document.
func (f *parsedFile) abortf(n *yaml.Node, format string, args ...any) {
	if !f.aborted {
		f.aborted = true
		f.addf(n.Line, format, args...)
	}
}

// enter counts a node and reports whether to expand it.
func (f *parsedFile) enter(n *yaml.Node) bool {
	if f.nodes++; f.nodes > maxNodes {
		f.abortf(n, "file has more than %d values; use fewer aliases or split it", maxNodes)
	}
	if slices.Contains(f.expanded, n) {
		f.abortf(n, "alias refers to a value that contains it; remove the alias")
	}
	return !f.aborted
}

// decimal matches numbers in the notation that a suite accepts.
var decimal = regexp.MustCompile(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)$`)

// expand converts a node to the types of encoding/json and resolves aliases and merges (<<).
func (f *parsedFile) expand(n *yaml.Node) any {
	n = resolve(n)
	if !f.enter(n) {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		f.expanded = append(f.expanded, n)
		mapping := map[string]any{}
		f.expandMapping(n, mapping, map[string]int{})
		f.expanded = f.expanded[:len(f.expanded)-1]
		return mapping
	case yaml.SequenceNode:
		f.expanded = append(f.expanded, n)
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			list[i] = f.expand(item)
		}
		f.expanded = f.expanded[:len(f.expanded)-1]
		return list
	}
	switch n.ShortTag() {
	case "!!null", nullTag:
		n.Tag = nullTag
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return i
		}
		if number, err := strconv.ParseFloat(n.Value, 64); err == nil && decimal.MatchString(n.Value) {
			return number
		}
		return n.Value // other notations are valid only as a string
	case "!!str", "!!timestamp":
		return n.Value
	}
	f.addf(n.Line, "YAML tag %s is not supported; remove it", n.ShortTag())
	return n.Value
}

// expandMapping adds the pairs of n to mapping: first its own, then those of merged mappings that are not set yet.
// lines maps each key to its line.
func (f *parsedFile) expandMapping(n *yaml.Node, mapping map[string]any, lines map[string]int) {
	own := map[string]bool{}
	for key, item := range pairsOf(n) {
		switch {
		case key.Kind != yaml.ScalarNode:
			f.addf(key.Line, "key must be a string, not %s", describe(key))
		case own[key.Value]:
			f.addf(key.Line, "duplicate key %q, first set on line %d; remove one", key.Value, lines[key.Value])
		case lines[key.Value] == 0:
			own[key.Value] = true
			lines[key.Value] = key.Line
			mapping[key.Value] = f.expand(item)
		}
	}
	for _, source := range mergesOf(n) {
		if !f.enter(source) {
			return
		}
		if source.Kind != yaml.MappingNode {
			f.addf(source.Line, "merge key << must refer to a mapping, not %s", describe(source))
			continue
		}
		f.expanded = append(f.expanded, source)
		f.expandMapping(source, mapping, lines)
		f.expanded = f.expanded[:len(f.expanded)-1]
	}
}

// pairsOf yields the keys and values of a mapping without its merges.
func pairsOf(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Tag != "!!merge" && !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// mergesOf returns the nodes that a mapping merges (<<), in order of precedence.
func mergesOf(n *yaml.Node) (sources []*yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		source := resolve(n.Content[i+1])
		if source.Kind != yaml.SequenceNode {
			sources = append(sources, source)
			continue
		}
		for _, item := range source.Content {
			sources = append(sources, resolve(item))
		}
	}
	return sources
}

// resolve returns the node that an alias refers to.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// location is the path of a value in a document. Its elements are keys and decimal indexes.
type location []string

func (l location) child(tokens ...string) location { return append(slices.Clip(l), tokens...) }

// String names the location for a message, relative to its test: "stdout.include[1]".
func (l location) String() string {
	name := ""
	for _, token := range l {
		_, notIndex := strconv.Atoi(token)
		switch {
		case notIndex == nil:
			name += "[" + token + "]"
		case name == "":
			name = token
		default:
			name += "." + token
		}
	}
	switch {
	case name == "":
		return "suite"
	case len(l) == 2 && l[0] == "tests":
		return "test"
	case len(l) > 2 && l[0] == "tests":
		return l[2:].String()
	}
	return name
}

// line returns the line of the value at l, or of the closest enclosing value.
func (f *parsedFile) line(l location) int {
	_, value := f.find(l)
	return value.Line
}

// keyLine returns the line of the key at l.
func (f *parsedFile) keyLine(l location) int {
	if key, _ := f.find(l); key != nil {
		return key.Line
	}
	return f.line(l)
}

// find returns the nodes of the key and the value at l, or of the closest enclosing value. key is nil for a list item.
func (f *parsedFile) find(l location) (key, value *yaml.Node) {
	value = resolve(f.root)
	for _, token := range l {
		var next *yaml.Node
		key = nil
		switch value.Kind {
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(token); err == nil && i < len(value.Content) {
				next = value.Content[i]
			}
		case yaml.MappingNode:
			key, next = findKey(value, token)
		}
		if next == nil {
			return nil, value
		}
		value = resolve(next)
	}
	return key, value
}

// findKey returns a key and its value in a mapping or in the mappings that it merges.
func findKey(mapping *yaml.Node, name string) (key, value *yaml.Node) {
	for key, value := range pairsOf(mapping) {
		if key.Value == name {
			return key, value
		}
	}
	for _, source := range mergesOf(mapping) {
		if key, value := findKey(source, name); key != nil {
			return key, value
		}
	}
	return nil, nil
}

func hasKey(mapping *yaml.Node, name string) bool {
	key, _ := findKey(mapping, name)
	return key != nil
}

// describe returns a quoted scalar, or the kind of another node, for a message.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch {
	case isNull(n):
		return "null"
	case n.ShortTag() != "!!str":
		return truncate(n.Value, 40)
	}
	return strconv.Quote(truncate(n.Value, 40))
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!null" || n.Tag == nullTag)
}

// truncate shortens a text to at most n bytes, without splitting a character, and appends an ellipsis.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

package suite

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/docker/go-units"
	"go.yaml.in/yaml/v3"
)

// maxNodes bounds the YAML nodes that are visited: aliases of aliases grow without end.
const maxNodes = 200_000

// Problem is one thing that is wrong in a file.
type Problem struct {
	Line    int // from 1
	Message string
}

// Invalid is a file that can not be right.
type Invalid struct {
	File     string    // "" where the caller knows it
	Problems []Problem // at least one, in the order of their lines
}

func (e *Invalid) Error() string {
	more := ""
	if n := len(e.Problems) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	where := fmt.Sprintf("%s:%d", e.File, e.Problems[0].Line)
	if e.File == "" {
		where = fmt.Sprintf("line %d", e.Problems[0].Line)
	}
	return where + ": " + e.Problems[0].Message + more
}

// decoder fills structs from YAML nodes and notes all that does not fit.
type decoder struct {
	problems []Problem
	nodes    int
	lines    map[any]int // by the address of what was filled
}

// decoding is a type with a form of its own.
type decoding interface {
	decode(d *decoder, n *yaml.Node)
}

func (d *decoder) fail(line int, format string, args ...any) {
	d.problems = append(d.problems, Problem{line, fmt.Sprintf(format, args...)})
}

// err is what was noted, or nil.
func (d *decoder) err(file string) error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return &Invalid{File: file, Problems: d.problems}
}

// visit counts a node, and says whether there may be so many.
func (d *decoder) visit(n *yaml.Node) bool {
	if d.nodes++; d.nodes == maxNodes+1 {
		d.fail(n.Line, "the file is larger than a suite may be: use fewer aliases, or several files")
	}
	return d.nodes <= maxNodes
}

// value fills v, which is called name, from n.
func (d *decoder) value(n *yaml.Node, v reflect.Value, name string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if !d.visit(n) {
		return
	}
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		d.value(n, fresh.Elem(), name)
		v.Set(fresh)
		return
	}
	place := v.Addr().Interface()
	d.lines[place] = n.Line
	if own, ok := place.(decoding); ok {
		own.decode(d, n)
		return
	}
	if n.Tag == "!!null" {
		d.fail(n.Line, "%s is empty: give it a value, or leave it out", name)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, name)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(n.Line, "%s must be a list, not %s: put it between [ and ]", name, kindOf(n))
			return
		}
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			d.value(item, list.Index(i), "an item of "+name)
		}
		v.Set(list)
	case reflect.Map:
		filled := reflect.MakeMap(v.Type())
		if !v.IsNil() { // what the defaults say
			for _, key := range v.MapKeys() {
				filled.SetMapIndex(key, v.MapIndex(key))
			}
		}
		d.pairs(n, name, func(key string, _, item *yaml.Node) {
			fresh := reflect.New(v.Type().Elem())
			d.value(item, fresh.Elem(), name+"."+key)
			filled.SetMapIndex(reflect.ValueOf(key), fresh.Elem())
		})
		v.Set(filled)
	default:
		d.scalar(n, v, name)
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, name string) {
	wrong := func(want string) { d.fail(n.Line, "%s must be %s, not %s", name, want, kindOf(n)) }
	switch v.Kind() {
	case reflect.String:
		number := v.Type() == reflect.TypeFor[text]() && (n.Tag == "!!int" || n.Tag == "!!float")
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && !number {
			wrong("text (write it in quotes)")
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			wrong("true or false")
			return
		}
		var b bool
		if err := n.Decode(&b); err != nil {
			wrong("true or false")
		}
		v.SetBool(b)
	case reflect.Int:
		i, err := strconv.Atoi(n.Value)
		if n.Tag != "!!int" || err != nil || i < 0 {
			wrong("a whole number from 0")
			return
		}
		v.SetInt(int64(i))
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || err != nil || !(f >= 0 && f < 1e6) {
			wrong("a number from 0")
			return
		}
		v.SetFloat(f)
	default:
		panic("no form for " + v.Type().String())
	}
}

// mapping fills a struct.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, name string) {
	fields := fieldsOf(v)
	if place := v.FieldByName("at"); place.IsValid() {
		v.FieldByName("Line").SetInt(int64(n.Line))
	}
	d.pairs(n, name, func(key string, at, item *yaml.Node) {
		field, ok := fields[key]
		if !ok {
			d.fail(at.Line, "%s has no key %q: %s", name, key, nearest(key, keysOf(fields)))
			return
		}
		d.value(item, field, key)
	})
}

// pairs calls each for every pair of a mapping, those that it merges (<<) last.
func (d *decoder) pairs(n *yaml.Node, name string, each func(key string, at, item *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.fail(n.Line, "%s must be a mapping (key: value), not %s", name, kindOf(n))
		return
	}
	seen := map[string]int{}
	var merged []*yaml.Node
	take := func(from *yaml.Node, own bool) {
		for i := 0; i+1 < len(from.Content); i += 2 {
			key, item := from.Content[i], from.Content[i+1]
			line, twice := seen[key.Value]
			switch {
			case key.Tag == "!!merge":
				for item.Kind == yaml.AliasNode {
					item = item.Alias
				}
				if item.Kind == yaml.SequenceNode {
					merged = append(merged, item.Content...)
				} else {
					merged = append(merged, item)
				}
			case key.Kind != yaml.ScalarNode:
				d.fail(key.Line, "a key of %s must be text, not %s", name, kindOf(key))
			case twice && own:
				d.fail(key.Line, "%s has %q already, on line %d: keep one", name, key.Value, line)
			case !twice:
				seen[key.Value] = key.Line
				each(key.Value, key, item)
			}
		}
	}
	take(n, true)
	for len(merged) > 0 {
		from := merged[0]
		merged = merged[1:]
		for from.Kind == yaml.AliasNode {
			from = from.Alias
		}
		if !d.visit(from) {
			return
		}
		if from.Kind != yaml.MappingNode {
			d.fail(from.Line, "%s merges (<<) something that is no mapping", name)
			continue
		}
		take(from, false)
	}
}

// fieldsOf lists a struct's fields by their keys, those of inlined structs among them.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		switch tag := v.Type().Field(i).Tag.Get("yaml"); tag {
		case "":
		case ",inline":
			for key, field := range fieldsOf(v.Field(i)) {
				fields[key] = field
			}
		default:
			fields[tag] = v.Field(i)
		}
	}
	return fields
}

func keysOf(fields map[string]reflect.Value) []string {
	var keys []string
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// nearest proposes the key that was meant, or lists them all.
func nearest(key string, keys []string) string {
	best, distance := "", 3
	for _, candidate := range keys {
		if n := levenshtein.Distance(strings.ToLower(key), candidate, nil); n < distance && n < len(candidate) {
			best, distance = candidate, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "there are " + strings.Join(keys, ", ")
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return strconv.Quote(shorten(n.Value, 40))
}

// shorten cuts a text to n bytes, at a character's begin.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func (v *duration) decode(d *decoder, n *yaml.Node) {
	parsed, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || parsed <= 0 {
		d.fail(n.Line, "a duration is written as 500ms, 30s or 2m, not %s", kindOf(n))
		return
	}
	*v = duration(parsed)
}

func (v *size) decode(d *decoder, n *yaml.Node) {
	parse := units.FromHumanSize
	if strings.ContainsAny(n.Value, "iI") {
		parse = units.RAMInBytes
	}
	parsed, err := parse(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || parsed < 0 {
		d.fail(n.Line, "a size is written as 4096, 10MB or 1GiB, not %s", kindOf(n))
		return
	}
	*v = size(parsed)
}

func (v *pattern) decode(d *decoder, n *yaml.Node) {
	v.Line = n.Line
	v.Regexp = d.regexp(n)
}

// regexp never answers nil.
func (d *decoder) regexp(n *yaml.Node) *regexp.Regexp {
	var source text
	noted := len(d.problems)
	d.value(n, reflect.ValueOf(&source).Elem(), "a regular expression")
	if len(d.problems) > noted {
		return regexp.MustCompile("")
	}
	compiled, err := regexp.Compile(string(source))
	if err != nil {
		d.fail(n.Line, "%s: mend the pattern (https://github.com/google/re2/wiki/Syntax)", strings.TrimPrefix(err.Error(), "error "))
		return regexp.MustCompile("")
	}
	return compiled
}

func (v *argv) decode(d *decoder, n *yaml.Node) {
	v.Line = n.Line
	if n.Kind == yaml.SequenceNode {
		var list []text
		d.value(n, reflect.ValueOf(&list).Elem(), "a command")
		for _, arg := range list {
			v.args = append(v.args, string(arg))
		}
	} else {
		var line string
		d.value(n, reflect.ValueOf(&line).Elem(), "a command")
		if strings.TrimSpace(line) != "" {
			v.args = []string{"/bin/sh", "-c", line}
		}
	}
	if len(v.args) == 0 || v.args[0] == "" {
		d.fail(n.Line, "a command is empty: write a line for the shell, or a list of the program and its arguments")
		v.args = []string{"/bin/false"}
	}
}

func (v *value) decode(d *decoder, n *yaml.Node) {
	v.Line = n.Line
	switch {
	case n.Tag == "!!null":
		v.absent = true
	case n.Kind == yaml.MappingNode:
		var form struct {
			Matches *pattern `yaml:"matches"`
		}
		d.value(n, reflect.ValueOf(&form).Elem(), "a value")
		if form.Matches == nil {
			d.fail(n.Line, "a value is written as text, as {matches: REGEX}, or as null for none")
			return
		}
		v.matches = form.Matches.Regexp
	default:
		d.value(n, reflect.ValueOf((*text)(&v.equals)).Elem(), "a value")
	}
}

func (v *output) decode(d *decoder, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		v.Line = n.Line
		v.Include = make([]pattern, 1)
		v.Include[0].decode(d, n)
		return
	}
	noted := len(d.problems)
	d.mapping(n, reflect.ValueOf(v).Elem(), "a text's check")
	if len(d.problems) == noted && v.Include == nil && v.Exclude == nil && v.Equals == nil && v.Golden == "" {
		d.fail(n.Line, "a text's check says nothing: write a regular expression, or include, exclude, equals or golden")
	}
}

func (v *between) decode(d *decoder, n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		d.mapping(n, reflect.ValueOf(v).Elem(), "a range")
		if v.Min == nil && v.Max == nil {
			d.fail(n.Line, "a range is written as a number, or as {min: 1, max: 2}")
		}
		return
	}
	exact := new(size)
	exact.decode(d, n)
	v.Line, v.Min, v.Max = n.Line, exact, exact
}

func (v *healthcheck) decode(d *decoder, n *yaml.Node) {
	v.Line = n.Line
	if n.Kind == yaml.SequenceNode {
		v.present = true
		d.value(n, reflect.ValueOf(&v.test).Elem(), "healthcheck")
		return
	}
	d.value(n, reflect.ValueOf(&v.present).Elem(), "healthcheck")
}

func (v *stop) decode(d *decoder, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == "true" {
		v.Line = n.Line
		return
	}
	d.mapping(n, reflect.ValueOf(v).Elem(), "stop")
}

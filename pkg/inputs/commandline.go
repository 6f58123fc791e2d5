package inputs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/alecthomas/kong"
)

// UsageError reports arguments that do not fit a command.
type UsageError struct{ Reason string }

func (e *UsageError) Error() string { return e.Reason }

func usageErrorf(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// explain returns the error of a command line that kong could not parse. It finds the cause in what kong did not parse,
// because kong's errors are only texts (alecthomas/kong v1.17.0, context.go, trace).
func (s *Source) explain(trace *kong.Context) error {
	last := trace.Path[len(trace.Path)-1]
	rest := last.Remainder()
	if len(rest) == 0 {
		return &UsageError{trace.Error.Error()}
	}
	argument, value, hasValue := strings.Cut(rest[0], "=")
	if !strings.HasPrefix(argument, "-") || argument == "-" {
		return s.unexpected(trace, last, rest[0])
	}
	flag := findFlag(trace.Model.Flags, argument)
	if flag == nil {
		return s.unknownFlag(trace.Model.Flags, argument)
	}
	if invalid := (*Error)(nil); errors.As(trace.Error, &invalid) {
		invalid.Flag = argument
		return invalid
	}
	switch {
	case flag.IsBool():
		return usageErrorf("%s: %q must be true or false", argument, value)
	case !hasValue && len(rest) > 1 && findFlag(trace.Model.Flags, rest[1]) == nil:
		return usageErrorf("%[1]s needs a value; write %[1]s=%[2]s if %[2]s is the value", argument, rest[1])
	case !hasValue:
		return usageErrorf("%s needs a value%s", argument, s.exampleValue(flag, trace.Model.Vars()))
	}
	return usageErrorf("%s: %v", argument, trace.Error)
}

// exampleValue completes an error about a flag without a value.
func (s *Source) exampleValue(flag *kong.Flag, vars kong.Vars) string {
	value, _ := s.lookup(flag, vars)
	if value == "" {
		value = flag.Default
	}
	if value == "" || flag.Tag.Has("secret") || strings.Contains(value, "\n") {
		return ""
	}
	return ", for example " + value
}

// unexpected returns the error about an unexpected argument.
func (s *Source) unexpected(trace *kong.Context, last *kong.Path, argument string) error {
	if last.Flag != nil && last.Flag.IsBool() && slices.Contains([]string{"true", "false"}, argument) {
		return usageErrorf("unexpected argument %q; write --%s=%s", argument, last.Flag.Name, argument)
	}
	var names []string
	for _, command := range s.Commands {
		names = append(names, command.Name)
	}
	switch {
	case len(names) == 0:
		return usageErrorf("unexpected argument %q; usage: %s", argument, s.summary(trace.Model))
	case slices.Contains(names, argument):
		return usageErrorf("unexpected argument %q; write the command first: %s %s", argument, s.Program, argument)
	}
	list := strings.Join(names, ", ")
	if similar := mostSimilar(argument, names); similar != "" {
		return usageErrorf("unknown command %q; did you mean %q? Commands: %s", argument, similar, list)
	}
	return usageErrorf("unknown command %q; commands: %s", argument, list)
}

// summary returns the usage of a command.
func (s *Source) summary(app *kong.Application) string {
	words := []string{s.Program}
	for _, argument := range app.Positional {
		words = append(words, argument.Summary())
	}
	return strings.Join(append(words, "[flags]"), " ")
}

// missingArgument returns the first required argument that a command line lacks.
func missingArgument(trace *kong.Context) *kong.Positional {
	for _, argument := range trace.Model.Positional {
		given := slices.ContainsFunc(trace.Path, func(p *kong.Path) bool { return p.Positional == argument })
		if argument.Required && !given {
			return argument
		}
	}
	return nil
}

func (s *Source) missing(argument *kong.Positional) error {
	return usageErrorf("missing argument %s; usage: %s %[1]s [flags]", argument.Summary(), s.Program)
}

// dockerFlags are flags of docker build, and the flags that replace them.
var dockerFlags = map[string]string{
	"-f": "--dockerfile", "--file": "--dockerfile", "-t": "--image-name", "--tag": "--image-name", "-o": "--outputs",
}

func (s *Source) unknownFlag(flags []*kong.Flag, argument string) error {
	var names []string
	for _, flag := range flags {
		for _, name := range append([]string{flag.Name}, flag.Aliases...) {
			names = append(names, "--"+name)
		}
		if isNegatable(flag) {
			names = append(names, "--no-"+flag.Name)
		}
	}
	similar := dockerFlags[argument]
	if !slices.Contains(names, similar) {
		name := "--" + strings.ReplaceAll(strings.TrimLeft(argument, "-"), "_", "-")
		similar = mostSimilar(name, names)
	}
	if similar != "" {
		return usageErrorf("unknown flag %s; did you mean %s?", argument, similar)
	}
	return usageErrorf("unknown flag %s; run %s --help-all for the list", argument, s.Program)
}

// findFlag returns the flag that an argument without its value names, or nil.
func findFlag(flags []*kong.Flag, argument string) *kong.Flag {
	for _, flag := range flags {
		names := []string{"--" + flag.Name}
		if isNegatable(flag) {
			names = append(names, "--no-"+flag.Name)
		}
		if flag.Short != 0 {
			names = append(names, "-"+string(flag.Short))
		}
		for _, alias := range flag.Aliases {
			names = append(names, "--"+alias)
		}
		if slices.Contains(names, argument) {
			return flag
		}
	}
	return nil
}

// mostSimilar returns the name that the user probably meant: one that begins with the text, or that differs in a few
// characters. It returns "" if all names are too different.
func mostSimilar(text string, names []string) string {
	best, distance := "", 1+max(1, len(strings.TrimLeft(text, "-"))/3)
	for _, name := range names {
		d := levenshtein.Distance(text, name, nil)
		if d < distance {
			best, distance = name, d
		}
	}
	if best == "" && len(strings.TrimLeft(text, "-")) > 1 {
		for _, name := range names {
			if strings.HasPrefix(name, text) {
				return name
			}
		}
	}
	return best
}

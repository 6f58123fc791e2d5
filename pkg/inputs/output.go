package inputs

import (
	"reflect"
	"strings"
)

// Output selects what a program writes to standard output at its end.
type Output string

// The values of the flag --output.
const (
	TextOutput Output = "text" // text for people
	EnvOutput  Output = "env"  // one line NAME=VALUE for each output
	JSONOutput Output = "json" // the record of the run, as package runrecord describes it
)

// OutputFormat declares the flag --output. [Source.OutputFormat] reads it.
type OutputFormat struct {
	Output string `cli:""`
}

// OutputFormat returns the value of --output for a command with the inputs of target, or "" if it is not set. It does
// not parse the other arguments, because their errors are written in this format, too.
func (s Source) OutputFormat(target any) (Output, error) {
	if !reflect.Indirect(reflect.ValueOf(target)).FieldByName("Output").IsValid() {
		return "", nil
	}
	value := environment(s.Environ)[Variable("output")]
	for i, arg := range s.Args {
		if arg == "--" {
			break
		}
		if text, ok := strings.CutPrefix(arg, "--output="); ok {
			value = text
		} else if arg == "--output" && i+1 < len(s.Args) {
			value = s.Args[i+1]
		}
	}
	switch output := Output(strings.TrimSpace(value)); output {
	case "", TextOutput, EnvOutput, JSONOutput:
		return output, nil
	}
	return "", Errorf("output", value, "must be text, json or env (the input outputs exports the image)")
}

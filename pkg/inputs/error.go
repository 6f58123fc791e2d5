package inputs

import (
	"cmp"
	"fmt"
)

// Error reports an invalid input.
type Error struct {
	Input  string // the name in a workflow, for example build_args
	Flag   string // the flag that set the value, for example --build-args; "" if something else did
	Line   int    // of the input's text, from 1; 0 for the whole input
	Value  string // the invalid value; empty if it is missing or may be a secret
	Reason string // why the value is invalid, and a correct example
	Err    error  // the cause; nil if the input itself is invalid
}

func (e *Error) Error() string {
	message := cmp.Or(e.Flag, "input "+e.Input)
	if e.Line > 0 {
		message += fmt.Sprintf(", line %d", e.Line)
	}
	message += ":"
	if e.Value != "" {
		message += fmt.Sprintf(" %q", e.Value)
	}
	if e.Reason != "" {
		message += " " + e.Reason
	}
	if e.Err != nil {
		message += " " + e.Err.Error()
	}
	return message
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an error about the value of a whole input.
func Errorf(input, value, format string, args ...any) error {
	return &Error{Input: input, Value: value, Reason: fmt.Sprintf(format, args...)}
}

// Wrap adds the input's name to an error. It returns nil if err is nil.
func Wrap(input string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Input: input, Err: err}
}

// itemErrorf returns an error about one element of a list.
func itemErrorf(input string, item Item, format string, args ...any) error {
	return &Error{Input: input, Line: item.Line, Value: item.Text, Reason: fmt.Sprintf(format, args...)}
}

// wrapItem adds the input's name and the item's line to an error. It returns nil if err is nil.
func wrapItem(input string, item Item, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Input: input, Line: item.Line, Err: err}
}

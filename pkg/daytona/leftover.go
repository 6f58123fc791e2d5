package daytona

import "strings"

// LeftoverError is a failure that left something behind at Daytona, for a person to know of.
type LeftoverError struct {
	Err       error    // why the operation failed
	Leftovers []string // what is left, and what to do about each
}

func (e *LeftoverError) Error() string {
	return e.Err.Error() + "; " + strings.Join(e.Leftovers, "; ")
}

func (e *LeftoverError) Unwrap() error { return e.Err }

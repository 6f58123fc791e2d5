package daytona

import "strings"

// LeftoverError reports a failed operation that left resources behind in Daytona.
type LeftoverError struct {
	Err       error    // why the operation failed
	Leftovers []string // what was left, and how to clean it up
}

func (e *LeftoverError) Error() string {
	return e.Err.Error() + "; " + strings.Join(e.Leftovers, "; ")
}

func (e *LeftoverError) Unwrap() error { return e.Err }

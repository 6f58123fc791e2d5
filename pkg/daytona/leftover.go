package daytona

import (
	"slices"
	"strings"
)

// LeftoverError reports a failed operation that left resources behind in Daytona.
type LeftoverError struct {
	Err       error    // why the operation failed
	Leftovers []string // what was left, and how to clean it up
}

// WithLeftovers returns cause, wrapped in a [LeftoverError] if any of the clean-ups failed. nil means that a clean-up
// succeeded. The leftovers of a cause that is a LeftoverError are kept.
func WithLeftovers(cause error, cleanups ...error) error {
	var leftovers []string
	if earlier, ok := cause.(*LeftoverError); ok {
		cause, leftovers = earlier.Err, slices.Clone(earlier.Leftovers)
	}
	for _, err := range cleanups {
		if err != nil {
			leftovers = append(leftovers, err.Error())
		}
	}
	if len(leftovers) == 0 {
		return cause
	}
	return &LeftoverError{cause, leftovers}
}

func (e *LeftoverError) Error() string {
	return e.Err.Error() + "; " + strings.Join(e.Leftovers, "; ")
}

func (e *LeftoverError) Unwrap() error { return e.Err }

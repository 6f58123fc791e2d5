// Package doctor runs checks of the environment in parallel. The result of a check is one line: what works, or what
// fails and what to do about it.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/safetext"
	"github.com/org/sandbox-actions/pkg/terminal"
)

// Status is the outcome of a check.
type Status string

// The outcomes of checks.
const (
	OK      Status = "ok"
	Failed  Status = "failed"
	Skipped Status = "skipped" // not needed, or not possible because another check failed
)

// Result is the result of one check. Its texts are single lines.
type Result struct {
	Name    string `json:"name"`
	Status  Status `json:"status"`
	Message string `json:"message"`
	Hint    string `json:"hint"` // what to do about a failure; "" if the message says it
}

// Pass returns the result of a successful check.
func Pass(format string, args ...any) Result {
	return Result{Status: OK, Message: safetext.Line(fmt.Sprintf(format, args...), 0)}
}

// Skip returns the result of a check that did not run, with the reason.
func Skip(format string, args ...any) Result {
	return Result{Status: Skipped, Message: safetext.Line(fmt.Sprintf(format, args...), 0)}
}

// Fail returns the result of a failed check. If the text of err ends in parentheses, they contain the hint, as in all
// errors of this module.
func Fail(err error) Result {
	message, hint := splitHint(safetext.Line(err.Error(), 0))
	return Result{Status: Failed, Message: message, Hint: hint}
}

// splitHint splits "cause (hint)". The hint may contain balanced parentheses.
func splitHint(text string) (message, hint string) {
	depth, i := 0, len(text)-1
	for ; i > 0; i-- {
		switch text[i] {
		case ')':
			depth++
		case '(':
			depth--
		}
		if depth == 0 {
			break
		}
	}
	if i <= 0 || text[i] != '(' || text[i-1] != ' ' {
		return text, ""
	}
	return text[:i-1], text[i+1 : len(text)-1]
}

// Check is a check of one part of the environment. It must change nothing, and should return when its context ends.
type Check struct {
	Name string
	Run  func(context.Context) Result // without the name
}

// grace is how long a check may continue after its context has ended.
const grace = 250 * time.Millisecond

// Run runs the checks in parallel, each for at most limit, and returns their results in the same order.
func Run(ctx context.Context, limit time.Duration, checks []Check) []Result {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no result within %s (check the network and any proxy)",
		limit))
	defer cancel()
	results := make([]Result, len(checks))
	var running sync.WaitGroup
	for i, check := range checks {
		running.Go(func() {
			results[i] = check.run(ctx)
			results[i].Name = check.Name
		})
	}
	running.Wait()
	return results
}

// run returns at the end of ctx also if the check does not, as a credential helper of Docker may not.
func (c Check) run(ctx context.Context) Result {
	done := make(chan Result, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case result := <-done:
		return result
	case <-ctx.Done():
	}
	select {
	case result := <-done:
		return result
	case <-time.After(grace):
		return Fail(context.Cause(ctx))
	}
}

// HasFailed reports whether a check has failed.
func HasFailed(results []Result) bool {
	return slices.ContainsFunc(results, func(r Result) bool { return r.Status == Failed })
}

// Line returns the result as one line: "✗ Depot: cause (hint)". Without unicode, the mark is in ASCII.
func (r Result) Line(unicode, color bool) string {
	mark, ascii, style := "-", "-", terminal.Faint
	switch r.Status {
	case OK:
		mark, ascii, style = "✓", "ok", terminal.Green
	case Failed:
		mark, ascii, style = "✗", "FAILED", terminal.Red
	}
	if !unicode {
		mark = ascii
	}
	line := style.Apply(mark, color) + " " + r.Name + ": " + r.Message
	if r.Hint != "" {
		line += " (" + r.Hint + ")"
	}
	return line
}

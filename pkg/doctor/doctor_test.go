package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFail(t *testing.T) {
	for _, test := range []struct{ text, message, hint string }{
		{"a: b (do c)", "a: b", "do c"},
		{"a: b (do c (now), or d)", "a: b", "do c (now), or d"},
		{"read f(x) (do c)", "read f(x)", "do c"},
		{"a (x): b (do c)", "a (x): b", "do c"},
		{"a: b", "a: b", ""},
		{"call f(x)", "call f(x)", ""},
		{"a (b) c", "a (b) c", ""},
		{"a)", "a)", ""},
		{"(a)", "(a)", ""},
		{"", "", ""},
		{"a:\n  \x1b[2Jb (do\nc)", `a: \u001b[2Jb`, "do c"},
	} {
		got := Fail(errors.New(test.text))
		if want := (Result{Status: Failed, Message: test.message, Hint: test.hint}); got != want {
			t.Errorf("%q: got %+v, want %+v", test.text, got, want)
		}
	}
}

// The results have the order of the checks, which run in parallel.
func TestRun(t *testing.T) {
	second := make(chan struct{})
	results := Run(t.Context(), time.Minute, []Check{
		{"first", func(context.Context) Result {
			<-second
			return Pass("a%d", 1)
		}},
		{"second", func(context.Context) Result {
			close(second)
			return Skip("b")
		}},
	})
	want := []Result{{Name: "first", Status: OK, Message: "a1"}, {Name: "second", Status: Skipped, Message: "b"}}
	if len(results) != 2 || results[0] != want[0] || results[1] != want[1] {
		t.Errorf("got %+v, want %+v", results, want)
	}
	if HasFailed(results) || !HasFailed(append(results, Fail(errors.New("c")))) {
		t.Error("HasFailed is wrong")
	}
}

// A check that ignores its context does not delay the results, and one that respects it returns its own result.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		defer close(forever)
		start := time.Now()
		results := Run(t.Context(), 10*time.Second, []Check{
			{"hangs", func(context.Context) Result {
				<-forever
				return Pass("")
			}},
			{"returns", func(ctx context.Context) Result {
				<-ctx.Done()
				return Skip("%v", context.Cause(ctx))
			}},
		})
		if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+grace {
			t.Errorf("took %s", took)
		}
		if results[0].Status != Failed || results[0].Message != "no result within 10s" || results[0].Hint == "" {
			t.Errorf("hangs: %+v", results[0])
		}
		if results[1].Status != Skipped || !strings.HasPrefix(results[1].Message, "no result within 10s") {
			t.Errorf("returns: %+v", results[1])
		}
	})
}

func TestLine(t *testing.T) {
	ok := Result{Name: "Git", Status: OK, Message: "2.39.5"}
	failed := Result{Name: "Depot", Status: Failed, Message: "a: b", Hint: "do c"}
	skipped := Result{Name: "GitHub", Status: Skipped, Message: "not needed"}
	for _, test := range []struct {
		result         Result
		unicode, color bool
		want           string
	}{
		{ok, true, false, "✓ Git: 2.39.5"}, {failed, true, false, "✗ Depot: a: b (do c)"},
		{skipped, true, false, "- GitHub: not needed"},
		{ok, false, false, "ok Git: 2.39.5"}, {failed, false, false, "FAILED Depot: a: b (do c)"},
		{skipped, false, false, "- GitHub: not needed"},
		{ok, true, true, "\x1b[32m✓\x1b[0m Git: 2.39.5"},
		{failed, false, true, "\x1b[31mFAILED\x1b[0m Depot: a: b (do c)"},
	} {
		if got := test.result.Line(test.unicode, test.color); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

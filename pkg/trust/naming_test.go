package trust

import (
	"errors"
	"testing"

	"github.com/org/sandbox-actions/pkg/runner"
)

func TestCheckNaming(t *testing.T) {
	const own, fork = "acme/app", "friend/app"
	for _, test := range []struct {
		name, head string
		pull       int
		allowed    bool
	}{
		{"", "", 0, true},
		{"push", "", 0, true},
		{"workflow_dispatch", "", 0, true},
		{"schedule", "", 0, true},
		{"release", "", 0, true},
		{"repository_dispatch", "", 0, true},
		{"pull_request", fork, 7, false},
		{"pull_request", own, 7, false},
		{"pull_request", own, 0, false}, // without a payload
		{"pull_request_target", own, 7, false},
		{"pull_request_review", own, 7, false},
		{"workflow_run", own, 0, true},
		{"workflow_run", own, 7, false},
		{"workflow_run", fork, 0, false},
		{"workflow_run", "", 0, false},
		{"issue_comment", "", 7, false},
		{"issue_comment", own, 0, false},
		{"issues", own, 0, false},
	} {
		err := CheckNaming(runner.Event{Name: test.name, Repository: own, HeadRepository: test.head, Pull: test.pull})
		refused := (*NamingError)(nil)
		if errors.As(err, &refused) == test.allowed || (err == nil) != test.allowed {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

package source

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	standin "github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// The repository serves the commits of its forks, too. Only a branch or tag proves that a commit belongs to it.
func TestIsPublished(t *testing.T) {
	app := hubDir + "/app"
	sh(t, app, `fork=$(git commit-tree -p trunk -m 'from a fork' trunk^{tree}); git update-ref refs/pull/9/head "$fork"
		tagged=$(git commit-tree -p trunk -m 'only tagged' trunk^{tree}); git tag only "$tagged"`)
	t.Cleanup(func() { sh(t, app, "git update-ref -d refs/pull/9/head; git tag -d only") })
	for _, test := range []struct {
		name, revision string
		want           bool
	}{
		{"head of the default branch", "trunk", true},
		{"head of another branch", "feature/x", true},
		{"history of another branch", "many~250", true},
		{"commit that only a tag names", "only", true},
		{"annotated tag", "v1.0^{commit}", true},
		{"commit of a fork", "refs/pull/9/head", false},
		{"merge of a pull request", "refs/pull/1/merge", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := fromHub("app", goodToken).IsPublished(t.Context(), sh(t, app, "git rev-parse "+test.revision))
			if err != nil || got != test.want {
				t.Errorf("got %t, %v; want %t", got, err, test.want)
			}
		})
	}
	const unknown = "1234567890123456789012345678901234567890"
	if got, err := fromHub("app", goodToken).IsPublished(t.Context(), unknown); got || err != nil {
		t.Errorf("unknown commit: %t, %v", got, err)
	}
	// Without an answer, the commit is not trusted.
	for _, path := range []string{"/branches-where-head", "/compare/", "/tags", "/branches"} {
		t.Run("GitHub fails: "+path, func(t *testing.T) {
			injectFaults(t, standin.Fault{Path: path, Status: http.StatusInternalServerError})
			got, err := fromHub("app", goodToken).IsPublished(t.Context(), sh(t, app, "git rev-parse many~250"))
			if got || httpclient.Status(err) != http.StatusInternalServerError {
				t.Errorf("got %t, %v; want the failure", got, err)
			}
		})
	}
}

func TestParents(t *testing.T) {
	app := hubDir + "/app"
	merge := sh(t, app, "git rev-parse refs/pull/1/merge")
	want := strings.Fields(sh(t, app, "git rev-parse refs/pull/1/merge^1 refs/pull/1/merge^2"))
	got, err := fromHub("app", goodToken).Parents(t.Context(), merge)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("merge: got %q, %v; want %q", got, err, want)
	}
	root := sh(t, app, "git rev-list --max-parents=0 trunk")
	if got, err := fromHub("app", goodToken).Parents(t.Context(), root); err != nil || got == nil || len(got) > 0 {
		t.Errorf("first commit: got %#v, %v; want an empty list", got, err)
	}
	if got, err := fromHub("app", goodToken).Parents(t.Context(), strings.Repeat("1", 40)); err != nil || got != nil {
		t.Errorf("unknown commit: got %#v, %v; want nil", got, err)
	}
	injectFaults(t, standin.Fault{Path: "/commits/", Status: http.StatusInternalServerError})
	if got, err := fromHub("app", goodToken).Parents(t.Context(), merge); got != nil ||
		httpclient.Status(err) != http.StatusInternalServerError {
		t.Errorf("GitHub fails: got %q, %v", got, err)
	}
}

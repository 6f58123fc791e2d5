package actions

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/image"
)

// A registry that only the builder can reach causes a warning. A registry that lacks the image is an error.
func TestCheckPushes(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	unreachable := strings.TrimPrefix(gone.URL, "http://") + "/team/a:1"
	gone.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	forbidden := strings.TrimPrefix(server.URL, "http://") + "/team/a:1"
	digest := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}

	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	if err := checkPushes(t.Context(), job, []string{unreachable}, digest, image.Auth{}); err != nil {
		t.Errorf("unreachable: %v", err)
	}
	if !strings.Contains(stdout.String(), "::warning") || !strings.Contains(stdout.String(), unreachable) {
		t.Errorf("printed %q, want a warning", stdout)
	}
	err := checkPushes(t.Context(), job, []string{forbidden}, digest, image.Auth{})
	if httpclient.Status(err) != http.StatusForbidden {
		t.Errorf("forbidden: %v", err)
	}
}

func TestUnsupportedIsWarnedOnce(t *testing.T) {
	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	warnUnsupported(job, []*image.Result{{Unsupported: []string{"a b"}}, {Unsupported: []string{"a b", "c d"}}, {}})
	for text, want := range map[string]int{"::a b": 1, "::c d": 1, "::warning": 2} {
		if got := strings.Count(stdout.String(), text); got != want {
			t.Errorf("%q %d times, want %d: %s", text, got, want, stdout)
		}
	}
}

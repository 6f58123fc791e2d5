package inputs

import (
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/daytona"
)

func TestNamesOf(t *testing.T) {
	for _, test := range []struct{ repository, prefix string }{
		{"", "sandbox"},
		{"acme/web", "web-sandbox"},
		{"acme/Web", "web-sandbox"},
		{"org/sandbox-actions", "sandbox-actions"},
		{"acme/MySandbox", "mysandbox"},
		{"acme/.github", "github-sandbox"},
		{"acme/www.example.com", "www-example.com-sandbox"},
		{"acme/--", "sandbox"},
		{"acme/a b:ü", "a-b-sandbox"},
		{"acme/" + strings.Repeat("n", 100), strings.Repeat("n", 60) + "-sandbox"},
	} {
		got := NamesOf(test.repository)
		if got.Prefix != test.prefix || got.Image != "sandbox:local" {
			t.Errorf("%q: %+v, want the prefix %q", test.repository, got, test.prefix)
		}
		if err := daytona.CheckName(got.Prefix); err != nil {
			t.Errorf("%q: %v", test.repository, err)
		}
	}
}

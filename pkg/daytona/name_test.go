package daytona

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"typical", "web-sandbox-20260102-030405-abcdef0-jane", ""},
		{"all valid characters", "Team/app_1.2:v3", ""},
		{"digest", "app@sha256:" + strings.Repeat("a", 64), ""},
		{"empty", "", "name is empty"},
		{"too long", strings.Repeat("a", 256), "has 256 characters (use at most 255)"},
		{"longest", strings.Repeat("a", 255), ""},
		{"space", "a b", `invalid snapshot name "a b" (use letters`},
		{"unicode", "größe", `invalid snapshot name "größe"`},
		{"newline", "a\nb", `invalid snapshot name "a\nb"`},
		{"trailing slash", "a/", "invalid snapshot name"},
		{"two slashes", "a//b", "invalid snapshot name"},
		{"truncated digest", "a@sha256:12", "invalid snapshot name"},
		{"latest", "latest", "the tag latest is ambiguous"},
		{"tag latest", "app:latest", "the tag latest is ambiguous"},
		{"name ending in -latest", "app-latest", ""},
		{"www.", "app-www.example", `Daytona takes "www." for a URL (for example, use app-www-example)`},
		{"data:", "Metadata:v1", `Daytona takes "data:" for a URL (for example, use Metadata-v1)`},
		{"tel:", "hotel:1", `Daytona takes "tel:" for a URL (for example, use hotel-1)`},
		{"mailto:", "MAILTO:me", `Daytona takes "MAILTO:" for a URL (for example, use MAILTO-me)`},
		{"javascript:", "javascript:1", `Daytona takes "javascript:" for a URL (for example, use javascript-1)`},
		{"www without a dot", "www-1", ""},
		{"data without a colon", "data-1", ""},
	} {
		t.Run(test.name, func(t *testing.T) { checkError(t, CheckName(test.text), test.want) })
	}
}

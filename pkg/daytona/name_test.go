package daytona

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"typical", "iterate-sandbox-20260102-030405-abcdef0-jane", ""},
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
	} {
		t.Run(test.name, func(t *testing.T) { checkError(t, CheckName(test.text), test.want) })
	}
}

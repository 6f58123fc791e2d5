package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// docs/architecture.md refers to functions as "`one`, `two` in `path/of/file.go`". Each file must define them.
func TestDocsFunctions(t *testing.T) {
	functionList := regexp.MustCompile("((?:`[A-Za-z]+`, )*`[A-Za-z]+`) in\\s+`([a-z/_]+\\.go)`")
	found := functionList.FindAllStringSubmatch(read(t, "../../docs/architecture.md"), -1)
	for _, m := range found {
		code := read(t, "../../"+m[2])
		for _, name := range strings.Split(strings.ReplaceAll(m[1], "`", ""), ", ") {
			definition := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?` + name + `\(`)
			if !definition.MatchString(code) {
				t.Errorf("docs/architecture.md: %s has no function %s", m[2], name)
			}
		}
	}
	if len(found) < 10 {
		t.Errorf("docs/architecture.md: found only %d lists of functions", len(found))
	}
}

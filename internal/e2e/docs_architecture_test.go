package e2e

import (
	"path/filepath"
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
			definition := regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?` + name + `[[(]`)
			if !definition.MatchString(code) {
				t.Errorf("docs/architecture.md: %s has no function %s", m[2], name)
			}
		}
	}
	if len(found) < 10 {
		t.Errorf("docs/architecture.md: found only %d lists of functions", len(found))
	}
}

// docs/security.md refers to tests that exist.
func TestDocsTests(t *testing.T) {
	var code strings.Builder
	for _, pattern := range []string{"../../actions/*_test.go", "../*/*_test.go", "../../pkg/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code.WriteString(read(t, file))
		}
	}
	found := regexp.MustCompile("`(Test[A-Z][A-Za-z]+)`").FindAllStringSubmatch(read(t, "../../docs/security.md"), -1)
	for _, m := range found {
		if !strings.Contains(code.String(), "\nfunc "+m[1]+"(") {
			t.Errorf("docs/security.md: no test %s", m[1])
		}
	}
	if len(found) < 10 {
		t.Errorf("docs/security.md: found only %d names of tests", len(found))
	}
}

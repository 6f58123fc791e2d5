package localcloud

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What users run knows nothing of the local cloud: only tests and its own command import it. And nothing in pkg knows the actions.
func TestWhoImportsWhom(t *testing.T) {
	const module = "github.com/org/sandbox-actions/"
	imports := 0
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, "../../"))
		if e.IsDir() && (strings.HasPrefix(e.Name(), ".") && path != "../.." || name == "internal/tools" || e.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "internal/localcloud/") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(imported, module); ok {
				imports++
				if strings.HasPrefix(ours, "internal/") {
					t.Errorf("%s imports %s", name, ours)
				}
				if strings.HasPrefix(name, "pkg/") && !strings.HasPrefix(ours, "pkg/") {
					t.Errorf("%s imports %s", name, ours)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if imports < 10 {
		t.Errorf("only %d imports were seen", imports)
	}
}

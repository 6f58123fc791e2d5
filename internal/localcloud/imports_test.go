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

// Only tests import the local cloud. Packages outside internal import no internal package. pkg imports only pkg.
func TestImports(t *testing.T) {
	const module = "github.com/org/sandbox-actions/"
	imports := 0
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, "../../"))
		isHidden := strings.HasPrefix(e.Name(), ".") && path != "../.."
		isLocalCloud := name == "internal/localcloud"
		if e.IsDir() && (isHidden || isLocalCloud || name == "internal/tools" || e.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
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
			if own, ok := strings.CutPrefix(imported, module); ok {
				imports++
				isInternal := strings.HasPrefix(name, "internal/")
				if strings.HasPrefix(own, "internal/localcloud") || strings.HasPrefix(own, "internal/") && !isInternal {
					t.Errorf("%s imports %s", name, own)
				}
				if strings.HasPrefix(name, "pkg/") && !strings.HasPrefix(own, "pkg/") {
					t.Errorf("%s imports %s", name, own)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if imports < 10 {
		t.Errorf("found only %d imports", imports)
	}
}

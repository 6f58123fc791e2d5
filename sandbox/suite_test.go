package sandbox_test

import (
	"bytes"
	"testing"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/suite"
)

// The image is what its own suite says, on each engine.
func TestSuite(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	tests, err := suite.Load("tests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for i, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			e, err := dockerengine.Open(t.Context(), func(name string) string {
				return map[string]string{"DOCKER_HOST": hosts[i], "HOME": home}[name]
			})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if _, err := e.Load(t.Context(), imageName, o.image); err != nil {
				t.Fatal(err)
			}
			id, err := e.ImageID(t.Context(), imageName)
			if err != nil {
				t.Fatal(err)
			}
			report, err := suite.Run(t.Context(), tests, suite.Options{Image: o.image, ImageID: id, Engine: e, ReportDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(report.Line())
			if report.Passed != report.Total {
				var text bytes.Buffer
				if err := report.WriteText(&text, &text); err != nil {
					t.Fatal(err)
				}
				t.Error(text.String())
			}
		})
	}
}

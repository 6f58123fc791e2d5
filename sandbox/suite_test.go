package sandbox_test

import (
	"archive/tar"
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/suite"
)

// The image passes its suite on each engine.
func TestSuite(t *testing.T) {
	o := built(t)
	tests, err := suite.Load("tests.yaml", "tests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			host, home := testdaemons.Engine(t, kind), t.TempDir()
			e, err := dockerengine.Open(t.Context(), func(name string) string {
				return map[string]string{"DOCKER_HOST": host, "HOME": home}[name]
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
			report, err := suite.Run(t.Context(), tests, suite.Options{
				Image: o.image, ImageID: id, Target: suite.OnEngine(e, id), ReportDir: t.TempDir(),
			})
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

// The suite fails for an image with secrets, unexpected permissions or leftovers.
func TestSuiteDetectsProblems(t *testing.T) {
	o := built(t)
	tests, err := suite.Load("tests.yaml", "tests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []tar.Header{
		{Name: "home/iterate/.env", Mode: 0o600},
		{Name: "etc/shadow", Mode: 0o644},
		{Name: "opt/tool", Mode: 0o4755},
		{Name: "opt/writable", Mode: 0o666},
		{Name: "tmp/left", Mode: 0o600},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(o.image, static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Config.Env = append(file.Config.Env, "GITHUB_TOKEN=a")
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	report, err := suite.Run(t.Context(), tests, suite.Options{Image: img, Tags: []string{"image"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"config", "user and home", "no secrets", "only the expected setuid and setgid programs",
		"no world-writable files", "no build leftovers",
	}
	var failed []string
	for _, test := range report.Tests {
		if test.Status == suite.Failed {
			failed = append(failed, test.Name)
		}
	}
	if !slices.Equal(failed, want) {
		t.Errorf("failed tests are %q, want %q", failed, want)
	}
}

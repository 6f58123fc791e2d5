package actions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Layers are read only for a report, and only those that the previous run has not read.
func TestReadContents(t *testing.T) {
	img, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	result := &image.Result{Platform: "linux/amd64", Image: img}
	job, stdout, _ := testJob(t, nil)
	if contents, err := readContents(t.Context(), job, result); contents != nil || err != nil {
		t.Errorf("without a report: %v, %v", contents, err)
	}
	job.Report = inputs.Report{Dir: "report"}
	first, err := readContents(t.Context(), job, result)
	if err != nil || len(first) != 1 || !first[0].Layers[0].Read || !first[0].Layers[1].Read {
		t.Fatalf("got %+v (%v); %s", first, err, stdout)
	}
	known := slices.Clone(first[0].Layers)
	known[0].Files = []runrecord.File{{Path: "known"}}
	previous := &runrecord.Record{Image: &runrecord.Image{Platforms: []runrecord.PlatformImage{{Layers: known}}}}
	job.Previous = func() *runrecord.Record { return previous }
	second, err := readContents(t.Context(), job, result)
	if err != nil || second[0].Layers[0].Files[0].Path != "known" {
		t.Errorf("got %+v (%v)", second, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("canceled by the test")
	cancel(cause)
	if _, err := readContents(ctx, job, result); !errors.Is(err, cause) {
		t.Errorf("canceled: %v", err)
	}
}

// The record contains what a later run needs to find the input that broke the cache, but only for a report.
func TestSourceHashes(t *testing.T) {
	job, _, _ := testJob(t, nil)
	job.Runner.Mask("hunter2-hunter2")
	for name, content := range map[string]string{"a": "1", "ignored": "1", ".dockerignore": "ignored\n.dockerignore\n"} {
		if err := os.WriteFile(filepath.Join(job.Dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	built := builtImage{
		Source:   buildSource{Paths: inputs.Paths{Context: job.Dir}},
		Requests: []image.Request{{BuildArgs: map[string]string{"A": "1", "TOKEN": "hunter2-hunter2"}}},
	}
	record := func() runrecord.Source {
		var s runrecord.Source
		built.Files = startSourceHashes(t.Context(), job, built.Source)()
		addSourceHashes(&s, job, built)
		return s
	}
	if s := record(); s.Files != nil || s.BuildArgs != nil {
		t.Errorf("without a report: %+v", s)
	}
	job.Report = inputs.Report{Dir: "report"}
	if s := record(); len(s.Files) != 1 || !strings.HasPrefix(s.Files["a"], "100644 ") ||
		s.BuildArgs["A"] == "" || s.BuildArgs["TOKEN"] != "" {
		t.Errorf("got %+v", s)
	}
	built.Source.Paths.Context = "https://github.com/a/b.git"
	if s := record(); s.Files != nil {
		t.Errorf("remote context: %+v", s)
	}
}

package actions

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"io"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// A sandbox starts what `docker run` starts. Daytona itself ignores CMD, and drops blank words.
func TestEffectiveEntrypoint(t *testing.T) {
	for _, test := range []struct {
		name            string
		input           []string
		class           string
		entrypoint, cmd []string // of the image
		want            []string
	}{
		{name: "ENTRYPOINT", entrypoint: []string{"/init"}, want: []string{"/init"}},
		{name: "ENTRYPOINT and CMD", entrypoint: []string{"/init"}, cmd: []string{"-x"}, want: []string{"/init", "-x"}},
		{name: "CMD without ENTRYPOINT", cmd: []string{"sleep", "60"}, want: []string{"sleep", "60"}},
		{name: "neither"},
		{name: "the input replaces both", input: []string{"/own"}, entrypoint: []string{"/init"}, cmd: []string{"-x"},
			want: []string{"/own"}},
		{name: "blank words", entrypoint: []string{"sh", "-c", " ", ""}, want: []string{"sh", "-c"}},
		{
			name: "an ENTRYPOINT that is reset", entrypoint: []string{""}, cmd: []string{"/program"}, want: []string{"/program"},
		},
		{name: "android", class: inputs.AndroidClass, entrypoint: []string{"/init"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			given := slices.Clone(test.entrypoint)
			image := v1.Config{Entrypoint: test.entrypoint, Cmd: test.cmd}
			got := effectiveEntrypoint(inputs.SnapshotSpec{Entrypoint: test.input, SandboxClass: test.class}, image)
			if !slices.Equal(got, test.want) || !slices.Equal(image.Entrypoint, given) {
				t.Errorf("%q, want %q; the image has %q", got, test.want, image.Entrypoint)
			}
		})
	}
}

func TestLogEntrypoint(t *testing.T) {
	image := v1.Config{
		Volumes:     map[string]struct{}{"/data": {}, "/cache": {}},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}},
		Entrypoint:  []string{"/init", ""},
	}
	job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	logEntrypoint(job, inputs.SnapshotSpec{}, image, []string{"/init"})
	for _, want := range []string{
		"A sandbox starts [\"/init\"]\n", "::warning::Daytona drops the empty words of the entry point",
		"VOLUME /cache, /data", "HEALTHCHECK",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in\n%s", want, stdout)
		}
	}
	job, stdout, _ = testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
	logEntrypoint(job, inputs.SnapshotSpec{}, v1.Config{Healthcheck: &v1.HealthConfig{Test: []string{"NONE"}}}, nil)
	if got := stdout.String(); strings.Contains(got, "::warning") || strings.Contains(got, "HEALTHCHECK") ||
		!strings.Contains(got, "starts no program") {
		t.Errorf("%s", got)
	}
}

// layerOf returns a layer with files. A mode of 0 makes a symbolic link to content.
func layerOf(t *testing.T, files ...tarFile) v1.Layer {
	t.Helper()
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: f.mode, Size: int64(len(f.content))}
		if f.mode == 0 {
			header = &tar.Header{Name: f.name, Typeflag: tar.TypeSymlink, Linkname: f.content, Mode: 0o777}
			f.content = ""
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

type tarFile struct {
	name    string
	mode    int64
	content string
}

func imageOf(t *testing.T, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// A missing or unexecutable program is found before the push, because Daytona never reports it.
func TestCheckEntrypoint(t *testing.T) {
	base := layerOf(t,
		tarFile{"bin", 0, "usr/bin"}, tarFile{"usr/bin/sh", 0, "dash"}, tarFile{"usr/bin/dash", 0o755, "x"},
		tarFile{"usr/bin/sleep", 0o755, "x"}, tarFile{"opt/tool", 0o755, "x"}, tarFile{"opt/data", 0o644, "x"},
		tarFile{"usr/bin/dangling", 0, "absent"}, tarFile{"work/run.sh", 0o755, "x"})
	top := layerOf(t, tarFile{"usr/local/bin/start", 0o644, "x"}, tarFile{"opt/.wh.tool", 0o644, ""})
	img := imageOf(t, base, top)
	onlyOpt := []string{"PATH=/opt"}
	for _, test := range []struct {
		name   string
		img    v1.Image
		start  string
		config v1.Config
		want   string // in the error
	}{
		{name: "in the PATH", img: img, start: "sleep"},
		{name: "a linked directory", img: img, start: "/bin/sleep"},
		{name: "a linked program", img: img, start: "sh"},
		{name: "relative to WORKDIR", img: img, start: "./run.sh", config: v1.Config{WorkingDir: "/work"}},
		{name: "relative without WORKDIR", img: img, start: "./run.sh", want: "home directory"},
		{name: "outside of the image's PATH", img: img, start: "sleep", config: v1.Config{Env: onlyOpt},
			want: "does not exist in the image at /opt/sleep ("},
		{name: "misspelled", img: img, start: "/bin/slep", want: `"/bin/slep" does not exist in the image (`},
		{name: "deleted by a layer", img: img, start: "/opt/tool", want: "does not exist"},
		{name: "a dangling link", img: img, start: "dangling", want: "does not exist"},
		{name: "a directory", img: img, start: "/opt", want: "not an executable file"},
		{name: "without execute permission", img: img, start: "/opt/data", want: "not an executable file"},
		{name: "in the top layer, without execute permission", img: img, start: "start", want: "not an executable file"},
		{name: "an image without a shell", img: imageOf(t, layerOf(t, tarFile{"init", 0o755, "x"})), start: "/init",
			want: "has no shell"},
		{name: "an empty image", img: empty.Image, start: "/init", want: "does not exist"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, _ := testJob(t, nil)
			err := checkEntrypoint(t.Context(), job, test.img, test.config, []string{test.start, "-x"})
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// unreadableLayer reports a size, and fails the test if it is read.
type unreadableLayer struct {
	v1.Layer
	t    *testing.T
	size int64
}

func (l unreadableLayer) Size() (int64, error) { return l.size, nil }

func (l unreadableLayer) Uncompressed() (io.ReadCloser, error) {
	l.t.Error("the layer was read")
	return l.Layer.Uncompressed()
}

// Only the top layers are read if the program is there or if all layers are too large.
func TestCheckEntrypointReadsFewLayers(t *testing.T) {
	top := layerOf(t, tarFile{"start", 0o755, rand.Text()})
	for name, test := range map[string]struct {
		size  int64
		start string
		log   string
	}{
		"in the top layers":       {maxTopLayers, "/start", ""},
		"below, in a large layer": {maxAllLayers, "/below", "is not checked"},
	} {
		t.Run(name, func(t *testing.T) {
			job, stdout, _ := testJob(t, map[string]string{"GITHUB_ACTIONS": "true"})
			img := partialImage{Image: empty.Image, layers: []v1.Layer{unreadableLayer{layerOf(t), t, test.size}, top}}
			if err := checkEntrypoint(t.Context(), job, img, v1.Config{}, []string{test.start}); err != nil {
				t.Error(err)
			}
			if !strings.Contains(stdout.String(), test.log) {
				t.Errorf("log %q, want %q", stdout, test.log)
			}
		})
	}
}

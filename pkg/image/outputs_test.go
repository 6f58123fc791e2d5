package image

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
)

func TestParseOutput(t *testing.T) {
	for _, test := range []struct {
		name, value string
		several     bool
		kind        string            // of the exporter
		attrs       map[string]string // nil: none
		dir         string            // the directory that the output writes
		file        bool              // whether the output writes one file
	}{
		{name: "directory alone", value: "out", kind: "local", dir: "out"},
		{name: "absolute directory alone", value: "/abs/out", kind: "local", dir: "/abs/out"},
		{name: "local", value: "type=local,dest=out", kind: "local", dir: "out"},
		{name: "spaces and upper case", value: "Type=local, Dest=out", kind: "local", dir: "out"},
		{name: "quoted field", value: `type=local,"dest=a,b"`, kind: "local", dir: "a,b"},
		{
			name: "value with an equals sign", value: "type=image,name=x,annotation.a=b=c", kind: "image",
			attrs: map[string]string{"name": "x", "annotation.a": "b=c"},
		},
		{
			name: "local of several platforms", value: "type=local,dest=out", several: true, kind: "local", dir: "out",
			attrs: map[string]string{"platform-split": "true"},
		},
		{name: "tar", value: "type=tar,dest=out.tar", kind: "tar", file: true},
		{
			name: "oci", value: "type=oci,dest=out.tar,compression=zstd", kind: "oci", file: true,
			attrs: map[string]string{"compression": "zstd"},
		},
		{
			name: "oci directory", value: "type=oci,tar=false,dest=out", kind: "oci", dir: "out",
			attrs: map[string]string{"tar": "false"},
		},
		{
			name: "docker", value: "type=docker,dest=out.tar,name=x:1", kind: "docker", file: true,
			attrs: map[string]string{"name": "x:1"},
		},
		{name: "mode of a copy", value: "type=local,mode=copy,dest=out", kind: "local", dir: "out"},
		{
			name: "other forms of booleans", value: "type=oci,tar=0,dest=out", kind: "oci", dir: "out",
			attrs: map[string]string{"tar": "false"},
		},
		{
			name: "pushed image", value: "type=image,name=x:1,push=1,push-by-digest=F", kind: "image",
			attrs: map[string]string{"name": "x:1", "push": "true", "push-by-digest": "false"},
		},
		{name: "load", value: "type=docker", kind: "docker"},
		{name: "cacheonly", value: "type=cacheonly", kind: "cacheonly"},
		{name: "image", value: "type=image,name=x:1", kind: "image", attrs: map[string]string{"name": "x:1"}},
		{
			name: "registry", value: "type=registry,name=x:1", kind: "image",
			attrs: map[string]string{"name": "x:1", "push": "true"},
		},
		{
			name: "several platforms by digest", value: "type=image,name=x,push=true,push-by-digest=true", several: true,
			kind: "image", attrs: map[string]string{"name": "x", "push": "true", "push-by-digest": "true"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			entry, err := ParseOutput(test.value, dir, test.several)
			if err != nil {
				t.Fatal(err)
			}
			wantDir := test.dir
			if wantDir != "" && !filepath.IsAbs(wantDir) {
				wantDir = filepath.Join(dir, wantDir)
			}
			if entry.Type != test.kind || !maps.Equal(entry.Attrs, test.attrs) || entry.OutputDir != wantDir ||
				(entry.Output != nil) != test.file {
				t.Errorf("got %+v, want %s with %v in %q", entry, test.kind, test.attrs, wantDir)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v was created before the build", left)
			}
		})
	}
}

func TestParseInvalidOutput(t *testing.T) {
	for _, test := range []struct {
		name, value string
		several     bool
		phrase      string
	}{
		{"empty", "", false, "empty"},
		{"standard output", "-", false, "use dest=PATH"},
		{"no type", "dest=out", false, "no type"},
		{"unknown type", "type=floppy,dest=out", false, `unknown type "floppy"`},
		{"no destination", "type=tar", false, "use dest=PATH"},
		{"no destination of a directory", "type=local", false, "use dest=PATH"},
		{"tar to standard output", "type=tar,dest=-", false, "use dest=PATH"},
		{"field without a value", "type=local,dest", false, `field "dest" has no value`},
		{"not CSV", `type=local,"dest=x`, false, "not CSV"},
		{"tar that is not a boolean", "type=oci,tar=maybe,dest=x", false, "use true or false"},
		{"push that is not a boolean", "type=image,name=x,push=yes", false, "push=yes is not a boolean"},
		{"pushed image without a name", "type=image,push=1", false, "no name to push"},
		{"invalid name", `type=image,"name=a:1,B:1"`, false, `name "B:1": `},
		{"invalid name of an archive", "type=oci,name=a b,dest=x", false, `name "a b": `},
		{"deletion of other files", "type=local,dest=out,mode=delete", false, "mode=delete would delete"},
		{"file that is a directory", "type=tar,dest=.", false, "is a directory"},
		{"directory that is a file", "type=local,dest=/dev/null", false, "is a file"},
		{"image with a destination", "type=image,dest=x", false, "has no dest"},
		{"image to standard output", "type=registry,name=x,dest=-", false, "has no dest"},
		{"push without a name", "type=image,push=true", false, "no name to push"},
		{"registry without a name", "type=registry", false, "no name to push"},
		{"one name of several platforms", "type=registry,name=x:1", true, "use the input push"},
		{"one pushed image of several platforms", "type=image,name=x:1,push=true", true, "use the input push"},
		{"one file of several platforms", "type=oci,dest=x.tar", true, "one file for several platforms"},
		{"one layout of several platforms", "type=oci,tar=false,dest=x", true, "one layout for several platforms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseOutput(test.value, t.TempDir(), test.several)
			if err == nil || !strings.Contains(err.Error(), test.phrase) ||
				!strings.HasPrefix(err.Error(), fmt.Sprintf("invalid output %q: ", test.value)) {
				t.Fatalf("error = %v, want the value and %q", err, test.phrase)
			}
		})
	}
}

// An output follows no symbolic link that leads out of the repository, but the workflow can set a destination outside.
func TestOutputThroughSymbolicLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	links := map[string]string{"file": filepath.Join(elsewhere, "victim"), "dir": elsewhere, "near": "inner"}
	for link, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for dest, refused := range map[string]bool{
		"file": true, "dir/x": true, "near": false, "new/x": false, filepath.Join(elsewhere, "new/y"): false,
	} {
		entry, err := ParseOutput("type=tar,dest="+dest, dir, false)
		if err != nil {
			t.Fatal(err)
		}
		out, err := entry.Output(nil)
		if refused != (err != nil) {
			t.Errorf("%s: error = %v, want one: %t", dest, err, refused)
		}
		if err == nil {
			_ = out.Close()
		}
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 1 {
		t.Errorf("elsewhere: %v, %v", left, err)
	}
}

func FuzzParseOutput(f *testing.F) {
	for _, seed := range []string{
		"", "out", "-", "type=local,dest=out", `type=local,"dest=a,b"`, "type=oci,tar=false,dest=x", "type=image,name=x",
		"type=,dest=", "=,=", "type=tar,dest=-", "\"", "type=registry,name=a\nb",
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, value string, several bool) {
		entry, err := ParseOutput(value, "/dir", several)
		if err != nil {
			return
		}
		switch entry.Type {
		case client.ExporterImage:
			if entry.Output != nil || entry.OutputDir != "" {
				t.Errorf("%q: an image is written to a file", value)
			}
		case client.ExporterLocal, client.ExporterTar, client.ExporterOCI, client.ExporterDocker:
			if (entry.Output == nil) == (entry.OutputDir == "") {
				t.Errorf("%q: want either a directory or a file", value)
			}
			if entry.OutputDir != "" && !filepath.IsAbs(entry.OutputDir) {
				t.Errorf("%q: the directory %q is relative", value, entry.OutputDir)
			}
		default:
			t.Errorf("%q has the type %q", value, entry.Type)
		}
		if _, ok := entry.Attrs["dest"]; ok {
			t.Errorf("%q: the builder gets a destination on this machine", value)
		}
		if several && entry.Output != nil {
			t.Errorf("%q: several platforms write one file", value)
		}
	})
}

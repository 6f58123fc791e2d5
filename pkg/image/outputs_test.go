package image

import (
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
		folder      string            // written to, below DIR
		file        bool              // one file is written
		refused     string
	}{
		{name: "a folder alone", value: "out", kind: "local", folder: "out"},
		{name: "an absolute folder alone", value: "/abs/out", kind: "local", folder: "/abs/out"},
		{name: "local", value: "type=local,dest=out", kind: "local", folder: "out"},
		{name: "spaces and upper case", value: "Type=local, Dest=out", kind: "local", folder: "out"},
		{name: "a quoted field", value: `type=local,"dest=a,b"`, kind: "local", folder: "a,b"},
		{name: "a value with an equals sign", value: "type=image,name=x,annotation.a=b=c", kind: "image", attrs: map[string]string{"name": "x", "annotation.a": "b=c"}},
		{name: "local of several platforms", value: "type=local,dest=out", several: true, kind: "local", folder: "out", attrs: map[string]string{"platform-split": "true"}},
		{name: "tar", value: "type=tar,dest=out.tar", kind: "tar", file: true},
		{name: "oci", value: "type=oci,dest=out.tar,compression=zstd", kind: "oci", file: true, attrs: map[string]string{"compression": "zstd"}},
		{name: "oci in a folder", value: "type=oci,tar=false,dest=out", kind: "oci", folder: "out", attrs: map[string]string{"tar": "false"}},
		{name: "docker", value: "type=docker,dest=out.tar,name=x:1", kind: "docker", file: true, attrs: map[string]string{"name": "x:1"}},
		{name: "image", value: "type=image,name=x:1", kind: "image", attrs: map[string]string{"name": "x:1"}},
		{name: "registry", value: "type=registry,name=x:1", kind: "image", attrs: map[string]string{"name": "x:1", "push": "true"}},
		{name: "several platforms by digest", value: "type=image,name=x,push=true,push-by-digest=true", several: true, kind: "image", attrs: map[string]string{"name": "x", "push": "true", "push-by-digest": "true"}},

		{name: "nothing", value: "", refused: "is empty"},
		{name: "standard output", value: "-", refused: "standard output is kept for results"},
		{name: "no type", value: "dest=out", refused: "has no type"},
		{name: "an unknown type", value: "type=floppy,dest=out", refused: `has the unknown type "floppy"`},
		{name: "no destination", value: "type=tar", refused: "needs dest=PATH"},
		{name: "tar to standard output", value: "type=tar,dest=-", refused: "standard output"},
		{name: "a field without a value", value: "type=local,dest", refused: `has a field "dest" without a value`},
		{name: "no CSV", value: `type=local,"dest=x`, refused: "is not CSV"},
		{name: "tar that is neither", value: "type=oci,tar=maybe,dest=x", refused: "write true or false"},
		{name: "an image with a destination", value: "type=image,dest=x", refused: "an image has none"},
		{name: "cacheonly", value: "type=cacheonly", refused: "keeps nothing"},
		{name: "one name from several machines", value: "type=registry,name=x:1", several: true, refused: "use the input push"},
		{name: "one file from several machines", value: "type=oci,dest=x.tar", several: true, refused: "is one file for several platforms"},
		{name: "one layout from several machines", value: "type=oci,tar=false,dest=x", several: true, refused: "is one folder for several platforms"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			entry, err := ParseOutput(test.value, dir, test.several)
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || !strings.HasPrefix(err.Error(), `"`) {
					t.Fatalf("got %v, want the quoted value and %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			folder := test.folder
			if folder != "" && !filepath.IsAbs(folder) {
				folder = filepath.Join(dir, folder)
			}
			if entry.Type != test.kind || !maps.Equal(entry.Attrs, test.attrs) || entry.OutputDir != folder || (entry.Output != nil) != test.file {
				t.Errorf("got %+v, want %s with %v into %q", entry, test.kind, test.attrs, folder)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("made %v before anything was built", left)
			}
		})
	}
}

// A link of the repository's leads no output to another file of the machine; a place that the workflow names is used as it is.
func TestOutputThroughALink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for link, to := range map[string]string{"file": filepath.Join(elsewhere, "victim"), "folder": elsewhere, "near": "inner"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for dest, refused := range map[string]bool{"file": true, "folder/x": true, "near": false, "new/x": false, filepath.Join(elsewhere, "new/y"): false} {
		entry, err := ParseOutput("type=tar,dest="+dest, dir, false)
		if err != nil {
			t.Fatal(err)
		}
		out, err := entry.Output(nil)
		if refused != (err != nil) {
			t.Errorf("%s: %v, refused must be %t", dest, err, refused)
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
	for _, seed := range []string{"", "out", "-", "type=local,dest=out", `type=local,"dest=a,b"`, "type=oci,tar=false,dest=x", "type=image,name=x", "type=,dest=", "=,=", "type=tar,dest=-", "\"", "type=registry,name=a\nb"} {
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
				t.Errorf("%q: it is written to one of a folder and a file", value)
			}
			if entry.OutputDir != "" && !filepath.IsAbs(entry.OutputDir) {
				t.Errorf("%q: the folder %q depends on where the program runs", value, entry.OutputDir)
			}
		default:
			t.Errorf("%q has the type %q", value, entry.Type)
		}
		if _, ok := entry.Attrs["dest"]; ok {
			t.Errorf("%q: the builder is told of a destination on this machine", value)
		}
		if several && entry.Output != nil {
			t.Errorf("%q: several machines write one file", value)
		}
	})
}

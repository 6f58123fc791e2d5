package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
)

func TestPlanExports(t *testing.T) {
	layout := client.ExportEntry{Type: client.ExporterOCI, OutputDir: "layout"}
	local := client.ExportEntry{
		Type: client.ExporterLocal, OutputDir: "out", Attrs: map[string]string{"platform-split": "true"},
	}
	r := Request{Platform: "linux/arm/v7", Outputs: []client.ExportEntry{layout, local}}
	describe := func(list []client.ExportEntry) string {
		var text []string
		for _, e := range list {
			text = append(text, e.Type+":"+e.OutputDir+":"+e.Attrs["depot.export.lease"])
		}
		return strings.Join(text, " ")
	}
	for _, test := range []struct {
		features     capabilities
		first, later string
	}{
		{capabilities{severalExporters: true}, "local:out: image::true", "oci:layout:"},
		{capabilities{}, "image::true", "local:out/linux_arm_v7: oci:layout:"},
	} {
		plan := r.planExports(test.features)
		if first, later := describe(plan.first), describe(plan.later); first != test.first || later != test.later {
			t.Errorf("%+v: %q and %q, want %q and %q", test.features, first, later, test.first, test.later)
		}
	}
	r.withoutLease, r.Outputs = true, nil
	if got := describe(r.planExports(capabilities{}).first); got != "image::" {
		t.Errorf("without a lease: %q", got)
	}
}

// A build with fixed timestamps that is loaded and pushed needs two exports. Both happen, whether or not the builder
// runs several exporters in a solve.
func TestPushAndLoadWithFixedTime(t *testing.T) {
	onBothVersions(t, func(t *testing.T, w *services, c *client.Client) {
		r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM small:1\nCOPY file /\n", "file": t.Name()}))
		reference := w.registry.Addr + "/team/epoch:" + strings.ToLower(filepath.Base(t.Name()))
		r.BuildArgs = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
		r.Push, r.Auth, r.LayerDir, r.Compression = []string{reference}, w.login("robot", password), t.TempDir(), Gzip
		r.Attestations = map[string]string{"provenance": "mode=min"}
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		checkDigests(t, result.Image)
		if err := CheckPushed(t.Context(), reference, result.Digest, w.login("reader", password)); err != nil {
			t.Error(err)
		}
		config, err := result.Image.ConfigFile()
		if err != nil || config.Created.Unix() != 1700000000 {
			t.Errorf("created = %v (%v)", config.Created, err)
		}
		// The builder rewrites the times of files, or the result says that it does not.
		rewritten := fileTime(t, result.Image, "file").Unix() == 1700000000
		if unsupported := slices.Contains(result.Unsupported, fileTimes); rewritten == unsupported {
			t.Errorf("times rewritten: %t, unsupported: %q", rewritten, result.Unsupported)
		}
	})
}

// fileTime returns the modification time of a file in the last layer.
func fileTime(t *testing.T, image v1.Image, file string) time.Time {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := layers[len(layers)-1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for entries := tar.NewReader(stream); ; {
		header, err := entries.Next()
		if err == io.EOF {
			t.Fatalf("%s is not in the last layer", file)
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == file {
			return header.ModTime
		}
	}
}

// All outputs are written in addition to the image and the push.
func TestSeveralOutputs(t *testing.T) {
	onBothVersions(t, func(t *testing.T, w *services, c *client.Client) {
		r := request(writeFiles(t, map[string]string{
			"Dockerfile": "FROM debian:bookworm-slim AS made\nRUN --mount=type=secret,id=s cp /run/secrets/s /made\n" +
				"FROM scratch\nCOPY --from=made /made /\n",
		}))
		out := t.TempDir()
		reference := w.registry.Addr + "/team/several:" + strings.ToLower(filepath.Base(t.Name()))
		for _, text := range []string{
			"type=local,dest=local", "type=local,dest=second", "type=tar,dest=out.tar", "type=oci,dest=oci.tar",
			"type=oci,tar=false,dest=layout", "type=docker,dest=docker.tar,name=local:1",
			"type=registry,name=" + reference + "-output",
		} {
			entry, err := ParseOutput(text, out, false)
			if err != nil {
				t.Fatal(err)
			}
			r.Outputs = append(r.Outputs, entry)
		}
		r.Secrets = map[string]func() ([]byte, error){"s": func() ([]byte, error) { return []byte("a value"), nil }}
		r.Push, r.Auth, r.NoCache = []string{reference}, w.login("robot", password), true
		r.LayerDir = t.TempDir()
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		checkDigests(t, result.Image)
		for _, file := range []string{"local/made", "second/made"} {
			if content, err := os.ReadFile(filepath.Join(out, file)); err != nil || string(content) != "a value" {
				t.Errorf("%s: %q, %v", file, content, err)
			}
		}
		for _, file := range []string{"out.tar", "oci.tar", "docker.tar", "layout/index.json"} {
			if info, err := os.Stat(filepath.Join(out, file)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", file, err)
			}
		}
		written, err := Open(t.Context(), "oci-layout://"+filepath.Join(out, "layout"), amd64, Auth{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := written.ConfigName(); err != nil || got != configName(t, result.Image) {
			t.Errorf("the layout has the config %v (%v), the image %s", got, err, configName(t, result.Image))
		}
		for _, reference := range []string{reference, reference + "-output"} {
			image, err := Open(t.Context(), reference, amd64, w.login("reader", password))
			if err != nil {
				t.Error(err)
			} else if configName(t, image) != configName(t, result.Image) {
				t.Errorf("%s is another image", reference)
			}
		}
	})
}

func configName(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	hash, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// A user without root's rights gets the files below read-only directories, also of a second build.
func TestExtractLocal(t *testing.T) {
	onBothVersions(t, func(t *testing.T, _ *services, c *client.Client) {
		out := t.TempDir()
		entry, err := ParseOutput("type=local,dest=new/out", out, false)
		if err != nil {
			t.Fatal(err)
		}
		r := request(writeFiles(t, map[string]string{
			"Dockerfile": "FROM debian:bookworm-slim AS made\n" +
				"RUN mkdir -p /d/a/b && cd /d && echo 1 >a/b/f && chmod 444 a/b/f && ln -s a/b/f l && ln a/b/f h " +
				"&& touch -d @1000000000 a/b/f && chmod 555 a/b a && touch -d @1000000000 a\n" +
				"FROM scratch\nCOPY --from=made /d /\n",
		}))
		r.Outputs = []client.ExportEntry{extractLocal(entry)}
		for range 2 {
			if _, _, err := solve(t.Context(), c, r); err != nil {
				t.Fatal(err)
			}
		}
		old := time.Unix(1_000_000_000, 0)
		for name, mode := range map[string]fs.FileMode{
			"a": 0o555 | fs.ModeDir, "a/b": 0o555 | fs.ModeDir, "a/b/f": 0o444, "h": 0o444, "l": 0o444,
		} {
			info, err := os.Stat(filepath.Join(out, "new/out", name))
			if err != nil || info.Mode() != mode || name != "a/b" && !info.ModTime().Equal(old) {
				t.Errorf("%s: %v, %v; want mode %s of %s", name, info, err, mode, old)
			}
		}
	})
}

// The archive comes from the builder: it can write nothing outside of the directory.
func TestExtractArchive(t *testing.T) {
	file := func(name, content string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o400, Linkname: content, Size: int64(len(content))}
	}
	directory := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o555} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	for name, test := range map[string]struct {
		headers []tar.Header
		refused bool
	}{
		"read-only directory": {[]tar.Header{directory("d"), file("d/f", "x"), directory("d/e"), file("d/e/f", "y")}, false},
		"replaced": {
			[]tar.Header{file("d/old", "x"), link("d", "/etc"), directory("d"), file("d/f", "z")}, false,
		},
		"parent":         {[]tar.Header{file("../f", "x")}, true},
		"absolute":       {[]tar.Header{file("/f", "x")}, true},
		"through a link": {[]tar.Header{link("l", ".."), file("l/f", "x")}, true},
		"hard link":      {[]tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}}, true},
		"device":         {[]tar.Header{{Name: "null", Typeflag: tar.TypeChar}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"secret": "", "out/d/old": ""})
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for _, header := range test.headers {
				content := ""
				if header.Typeflag == tar.TypeReg {
					content, header.Linkname = header.Linkname, ""
				}
				if err := w.WriteHeader(&header); err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(w, content); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			e, err := newExtractor(filepath.Join(dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(e, &archive)
			if err := errors.Join(err, e.Close()); (err != nil) != test.refused {
				t.Errorf("%v, want an error: %t", err, test.refused)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// With several platforms, a local output has a directory for each, whether or not the builder creates it.
func TestLocalOutputOfSeveralPlatforms(t *testing.T) {
	onBothVersions(t, func(t *testing.T, w *services, c *client.Client) {
		out := t.TempDir()
		entry, err := ParseOutput("type=local,dest=.", out, true)
		if err != nil {
			t.Fatal(err)
		}
		r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"}))
		r.Outputs = []client.ExportEntry{entry}
		if _, _, err := solve(t.Context(), c, r); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(out, "linux_amd64", "file")); err != nil {
			t.Error(err)
		}
	})
}

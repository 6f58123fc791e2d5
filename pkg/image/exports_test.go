package image

import (
	"archive/tar"
	"io"
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

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// All compressions produce the same config. With gzip, the manifest does not depend on earlier builds. With zstd, it
// stays the same when the image is published in between.
func TestCompressions(t *testing.T) { onBothVersions(t, testCompressions) }

func testCompressions(t *testing.T, _ *services, c *client.Client) {
	dir := writeFiles(t, map[string]string{
		"Dockerfile": "FROM small:1\nCOPY file /\n",
		"file":       strings.Repeat("the same line, over and over\n", 1000),
	})
	epoch := map[string]string{"SOURCE_DATE_EPOCH": "1700000000"} // makes rebuilt layers identical
	build := func(d Compression, anew bool) *Result {
		t.Helper()
		r := request(dir)
		r.Compression, r.NoCache = d, anew
		r.LayerDir = t.TempDir() // the builder soon removes layers with rewritten timestamps
		r.BuildArgs = epoch
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	var config v1.Hash
	manifests := map[Compression]v1.Hash{}
	for _, test := range []struct {
		to   Compression
		want types.MediaType
	}{
		{DefaultCompression, types.OCILayer},
		{Gzip, types.OCILayer},
		{Uncompressed, types.OCIUncompressedLayer},
		{ZstdFast, types.OCILayerZStd},
	} {
		result := build(test.to, true)
		manifest, err := result.Image.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if got := manifest.Layers[0].MediaType; got != types.OCILayer {
			t.Errorf("%q: the layer of the base image is %s", test.to, got)
		}
		if got := manifest.Layers[1].MediaType; got != test.want {
			t.Errorf("%q: %s, want %s", test.to, got, test.want)
		}
		if name, err := result.Image.ConfigName(); err != nil || config != (v1.Hash{}) && name != config {
			t.Errorf("%q: the config is %s (%v), want %s", test.to, name, err, config)
		} else {
			config = name
		}
		checkDigests(t, result.Image)
		manifests[test.to] = result.Digest
	}
	if manifests[DefaultCompression] != manifests[Gzip] {
		t.Errorf("gzip gives %s, the default %s", manifests[Gzip], manifests[DefaultCompression])
	}
	for _, before := range []Compression{Uncompressed, ZstdFast, Gzip} {
		build(before, true)
		if got := build(Gzip, false).Digest; got != manifests[Gzip] {
			t.Errorf("gzip after %q: %s, want %s", before, got, manifests[Gzip])
		}
	}
	for _, before := range []Compression{ZstdFast, Gzip} { // without rewritten timestamps
		epoch = nil
		first := build(before, true)
		build(Gzip, false)
		if got := build(ZstdFast, false).Digest; got != first.Digest {
			t.Errorf("zstd after %q: %s, want the existing layers: %s", before, got, first.Digest)
		}
	}
}

// checkDigests reads an image completely and checks all digests. validate.Image supports only gzip.
func checkDigests(t testing.TB, image v1.Image) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	gzip := true
	for _, layer := range layers {
		mediaType, err := layer.MediaType()
		if err != nil {
			t.Fatal(err)
		}
		if mediaType == types.OCILayer || mediaType == types.DockerLayer {
			continue
		}
		gzip = false
		stream, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(stream)
		if err := errors.Join(err, stream.Close()); err != nil {
			t.Error(err)
			continue
		}
		hash, err := layer.Digest()
		if err != nil || digest.FromBytes(data).String() != hash.String() {
			t.Errorf("layer %s (%v) has the digest %s", hash, err, digest.FromBytes(data))
		}
		if mediaType == types.OCILayerZStd {
			decoder, err := zstd.NewReader(nil)
			if err == nil {
				data, err = decoder.DecodeAll(data, nil)
			}
			if err != nil {
				t.Error(err)
			}
		}
		diffID, err := layer.DiffID()
		if err != nil || digest.FromBytes(data).String() != diffID.String() {
			t.Errorf("the diff ID of the layer is %s (%v), its content's %s", diffID, err, digest.FromBytes(data))
		}
	}
	if !gzip {
		return
	}
	if err := validate.Image(image); err != nil {
		t.Error(err)
	}
}

// The builder does not pull a base image that no step reads. With a directory, its layers can still be read.
func TestUnpulledLayers(t *testing.T) {
	w := sharedServices(t)
	// The shared daemon has pulled the image for other tests.
	c := w.emptyMachine(t)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM small:1\nLABEL x=y\n"})
	r := request(dir)
	result, _, err := solve(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := result.Image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := layers[0].Compressed()
	if err == nil {
		_, err = io.Copy(io.Discard, stream)
		stream.Close()
	}
	if failure, ok := errors.AsType[*ReadError](err); !ok || !strings.HasPrefix(failure.Reason, "not found") {
		t.Errorf("without a layer directory: error = %#v, want not found", err)
	}
	digest := result.Digest
	r.UnpulledDir = t.TempDir()
	if result, _, err = solve(t.Context(), c, r); err != nil {
		t.Fatal(err)
	}
	if copied, err := os.ReadDir(r.UnpulledDir); err != nil || len(copied) > 0 {
		t.Errorf("layers were copied before they were read: %v, %v", copied, err)
	}
	checkDigests(t, result.Image)
	r.UnpulledDir = ""
	for _, to := range []Compression{DefaultCompression, Uncompressed, Gzip} {
		r.LayerDir, r.Compression = t.TempDir(), to
		if result, _, err = solve(t.Context(), c, r); err != nil {
			t.Fatal(err)
		}
		if result.Digest != digest {
			t.Errorf("%q: %s, without a layer directory %s", to, result.Digest, digest)
		}
		checkDigests(t, result.Image)
	}
}

// With fixed timestamps, the builder rewrites the layers and soon removes them. With a layer directory, they can still
// be read.
func TestLayersOfFixedTime(t *testing.T) {
	w := sharedServices(t)
	c := w.emptyMachine(t)
	r := request(writeFiles(t, map[string]string{"Dockerfile": "FROM small:1\nCOPY Dockerfile /\n"}))
	r.BuildArgs = map[string]string{"SOURCE_DATE_EPOCH": "0"}
	without, _, err := solve(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	r.LayerDir = t.TempDir()
	result, _, err := solve(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	if result.Digest != without.Digest {
		t.Errorf("%s, without a layer directory %s", result.Digest, without.Digest)
	}
	if err := c.Prune(t.Context(), nil, client.PruneAll); err != nil { // instead of waiting for garbage collection
		t.Fatal(err)
	}
	checkDigests(t, result.Image)
}

func TestOutputs(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "content\n"})
	for _, test := range []struct {
		name, output string
		files        []string // that the output writes
	}{
		{"directory alone", "out", []string{"out/file"}},
		{"local", "type=local,dest=out", []string{"out/file"}},
		{"tar", "type=tar,dest=deep/er/out.tar", []string{"deep/er/out.tar"}},
		{"oci", "type=oci,dest=out.tar", []string{"out.tar"}},
		{"oci directory", "type=oci,tar=false,dest=out", []string{"out/index.json", "out/oci-layout"}},
		{"docker", "type=docker,dest=out.tar,name=local:1", []string{"out.tar"}},
		{"image", "type=image,name=docker.io/library/kept:1", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := t.TempDir()
			entry, err := ParseOutput(test.output, out, false)
			if err != nil {
				t.Fatal(err)
			}
			r := request(dir)
			r.Outputs = []client.ExportEntry{entry}
			result, _, err := solve(t.Context(), c, r)
			if err != nil {
				t.Fatal(err)
			}
			checkDigests(t, result.Image)
			for _, file := range test.files {
				if info, err := os.Stat(filepath.Join(out, file)); err != nil || info.Size() == 0 {
					t.Errorf("%s was not written: %v", file, err)
				}
			}
			if strings.Contains(test.output, "type=oci,tar=false") {
				image, err := Open(t.Context(), filepath.Join(out, "out"), amd64, Auth{})
				if err != nil {
					t.Fatal(err)
				}
				if got, err := image.Digest(); err != nil || got != result.Digest {
					t.Errorf("the layout contains %s (%v), the result is %s", got, err, result.Digest)
				}
			}
		})
	}
}

// An output with another compression does not change the image's digest.
func TestOutputsKeepTheDigest(t *testing.T) {
	w := sharedServices(t)
	r := request(writeFiles(t, map[string]string{
		"Dockerfile": "FROM small:1\nCOPY file /\n", "file": strings.Repeat("another line\n", 1000),
	}))
	r.Compression = Uncompressed
	alone, _, err := solve(t.Context(), w.machine(t, amd64), r)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	output, err := ParseOutput("type=oci,tar=false,force-compression=true,compression=zstd,dest="+dir, "/", false)
	if err != nil {
		t.Fatal(err)
	}
	r.Outputs = []client.ExportEntry{output}
	both, _, err := solve(t.Context(), w.machine(t, amd64), r)
	if err != nil || both.Digest != alone.Digest {
		t.Errorf("%v: %s, without the output %s", err, both.Digest, alone.Digest)
	}
	written, err := Open(t.Context(), "oci-layout://"+dir, amd64, Auth{})
	if err != nil {
		t.Fatal(err)
	}
	checkDigests(t, written)
	if manifest, err := written.Manifest(); err != nil || manifest.Layers[1].MediaType != types.OCILayerZStd {
		t.Errorf("%v: %v", err, manifest)
	}
}

func TestFailedOutput(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "content\n"})
	entry, err := ParseOutput("type=tar,dest=file/below", dir, false)
	if err != nil {
		t.Fatal(err)
	}
	r := request(dir)
	r.Outputs = []client.ExportEntry{entry}
	_, _, err = solve(t.Context(), c, r)
	if _, ok := errors.AsType[*OutputError](err); !ok || !strings.Contains(err.Error(), "mkdirat file: file exists") {
		t.Fatalf("error = %v, want an OutputError with the cause", err)
	}
	checkLine(t, err)
}

func TestLayoutContextIsReadOnly(t *testing.T) {
	w := sharedServices(t)
	layout := filepath.Join(t.TempDir(), "layout")
	if err := os.CopyFS(layout, os.DirFS(w.layout)); err != nil {
		t.Fatal(err)
	}
	list := func() (names []string) {
		entries, err := os.ReadDir(layout)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := list()
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM base\nCOPY --from=base /small.txt /again\n"})
	r := request(dir)
	r.Contexts = map[string]string{"base": "oci-layout://" + layout}
	if _, _, err := solve(t.Context(), w.machine(t, amd64), r); err != nil {
		t.Fatal(err)
	}
	if after := list(); !slices.Equal(after, before) {
		t.Errorf("the layout contained %q, now %q", before, after)
	}
}

// A canceled build ends with the cause of the cancellation.
func TestCancel(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM debian:bookworm-slim\nRUN echo running && sleep 600\n"})
	ctx, cancel := context.WithCancelCause(t.Context())
	status := make(chan *client.SolveStatus)
	cause := errors.New("timed out")
	go func() {
		for s := range status {
			if slices.ContainsFunc(s.Logs, func(l *client.VertexLog) bool { return bytes.Contains(l.Data, []byte("running")) }) {
				cancel(cause)
			}
		}
	}()
	r := request(dir)
	r.NoCache = true
	if _, err := Solve(ctx, c, r, status); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

// With the same key, a file is sent to the builder only once.
func TestSharedKey(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	dir := writeFiles(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY big /\n", "big": strings.Repeat("0123456789abcdef", 1<<16),
	})
	sent := func() int64 {
		t.Helper()
		r := request(dir)
		r.SharedKey = "TestSharedKey " + dir
		_, seen, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		var most int64
		for _, s := range seen {
			for _, status := range s.Statuses {
				if status.ID == "transferring context:" || status.Name == "transferring" {
					most = max(most, status.Current)
				}
			}
		}
		return most
	}
	first, second := sent(), sent()
	if first < 1<<20 || second >= 1<<16 {
		t.Errorf("%d bytes were sent first, %d later; want 1 MiB once", first, second)
	}
}

// A named context replaces an image in each of the forms that BuildKit takes for the same.
func TestContextName(t *testing.T) {
	onBothVersions(t, func(t *testing.T, _ *services, c *client.Client) {
		files := writeFiles(t, map[string]string{"file": "x"})
		digest := "@sha256:" + strings.Repeat("a", 64)
		for _, names := range [][]string{
			{"x", "library/x", "docker.io/library/x", "x:latest", "index.docker.io/library/x:latest"},
			{"library/x:1", "x:1"}, {"docker.io/y/x", "y/x:latest"}, {"localhost:5000/x", "localhost:5000/x:latest"},
			{"library/x" + digest, "x" + digest}, {"x:1" + digest, "docker.io/library/x:1" + digest},
		} {
			for i, name := range names {
				used := names[(i+1)%len(names)]
				r := request(writeFiles(t, map[string]string{
					"Dockerfile": fmt.Sprintf("FROM %s\nCOPY --from=%[1]s file /copied\n", used),
				}))
				key, err := ContextName(name)
				if err != nil {
					t.Fatal(err)
				}
				r.Contexts = map[string]string{key: files}
				if _, _, err := solve(t.Context(), c, r); err != nil {
					t.Errorf("%s for %s: %v", name, used, err)
				}
			}
		}
	})
	if name, err := ContextName("Base"); err == nil {
		t.Errorf("a name of no image: %s", name)
	}
}

// A file that changes without another size or time, such as one from an archive with fixed times, is sent again.
func TestSharedKeyOfChangedContent(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	fixed := time.Date(1985, 10, 26, 8, 15, 0, 0, time.UTC)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /\n"})
	for _, content := range []string{"version 1", "version 2"} {
		file := filepath.Join(dir, "file")
		if err := errors.Join(os.WriteFile(file, []byte(content), 0o644), os.Chtimes(file, fixed, fixed)); err != nil {
			t.Fatal(err)
		}
		r := request(dir)
		r.SharedKey, r.CommitFiles = "TestSharedKeyOfChangedContent "+dir, ""
		result, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		files := mutate.Extract(result.Image)
		archive := tar.NewReader(files)
		if _, err := archive.Next(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(archive); err != nil || string(got) != content {
			t.Errorf("the image has %q, %v; want %q", got, err, content)
		}
		_ = files.Close()
	}
}

func TestAnnotations(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	r := request(dir)
	r.Annotations = map[string]string{
		"annotation.com.example.one": "1", "annotation-manifest.com.example.two": "2",
		"annotation-index.com.example.three": "3",
	}
	r.Attestations = map[string]string{"provenance": "mode=min"}
	result, _, err := solve(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := result.Image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err := result.Index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	got := manifest.Annotations["com.example.one"] + manifest.Annotations["com.example.two"] +
		index.Annotations["com.example.three"]
	if got != "123" {
		t.Errorf("annotations of the manifest %v, of the index %v", manifest.Annotations, index.Annotations)
	}
}

// Attestations are in the index and do not change the image.
func TestAttestations(t *testing.T) { onBothVersions(t, testAttestations) }

func testAttestations(t *testing.T, _ *services, c *client.Client) {
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	plain, _, err := solve(t.Context(), c, request(dir))
	if err != nil {
		t.Fatal(err)
	}
	if plain.Index != nil {
		t.Error("the result has an index, but no attestations")
	}
	const provenance, sbom = "https://slsa.dev/provenance", "https://spdx.dev/Document"
	for _, test := range []struct {
		name  string
		asked map[string]string
		want  []string // predicates
	}{
		{"provenance", map[string]string{"provenance": "mode=max"}, []string{provenance}},
		{"sbom", map[string]string{"sbom": "generator=scanner:1"}, []string{sbom}},
		{"both", map[string]string{"provenance": "mode=min", "sbom": "generator=scanner:1"}, []string{provenance, sbom}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(dir)
			r.Attestations = test.asked
			result, _, err := solve(t.Context(), c, r)
			if err != nil {
				t.Fatal(err)
			}
			checkDigests(t, result.Image)
			if got, err := result.Image.Digest(); err != nil || got == result.Digest || got != plain.Digest {
				t.Errorf("the image is %s (%v), without attestations %s; the index is %s",
					got, err, plain.Digest, result.Digest)
			}
			index, err := result.Index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			var predicates []string
			for _, m := range index.Manifests {
				if m.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
					continue
				}
				image, err := result.Index.Image(m.Digest)
				if err != nil {
					t.Fatal(err)
				}
				manifest, err := image.Manifest()
				if err != nil {
					t.Fatal(err)
				}
				for _, layer := range manifest.Layers {
					predicates = append(predicates, layer.Annotations["in-toto.io/predicate-type"])
				}
			}
			for _, want := range test.want {
				if !slices.ContainsFunc(predicates, func(p string) bool { return strings.HasPrefix(p, want) }) {
					t.Errorf("the predicates are %q, want %q", predicates, want)
				}
			}
		})
	}
}

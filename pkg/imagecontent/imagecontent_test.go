package imagecontent

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

// read describes and reads an image.
func read(ctx context.Context, image v1.Image, o Options) (runrecord.PlatformImage, error) {
	p, err := Describe(image, amd64, o.Clean)
	if err == nil {
		err = Read(ctx, image, &p, o)
	}
	return p, err
}

func readEntries(t *testing.T, o Options, layers ...[]entry) runrecord.PlatformImage {
	t.Helper()
	var list []v1.Layer
	for _, entries := range layers {
		list = append(list, static.NewLayer(archiveOf(entries...), types.OCIUncompressedLayer))
	}
	image, err := imageOf(list...)
	if err != nil {
		t.Fatal(err)
	}
	p, err := read(t.Context(), image, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// withoutHashes returns the files of a layer as path, path- for a removal, and path/- for an opaque directory.
func withoutHashes(layer runrecord.Layer) (list []string) {
	for _, f := range layer.Files {
		switch {
		case f.Opaque:
			f.Path += "/-"
		case f.Removed:
			f.Path += "-"
		}
		list = append(list, f.Path)
	}
	return list
}

func TestReadFiles(t *testing.T) {
	long := strings.Repeat("d/", maxPath/2) + "file"
	for _, test := range []struct {
		name    string
		entries []entry
		want    []string
	}{
		{
			"files", []entry{{name: "b", content: "1"}, {name: "./a"}, {name: "/c"}, {name: "d/", kind: tar.TypeDir}},
			[]string{"a", "b", "c"},
		},
		{"links and devices", []entry{
			{name: "file", content: "x"}, {name: "hard", kind: tar.TypeLink, link: "file"},
			{
				name: "soft", kind: tar.TypeSymlink, link: "../../etc",
			}, {name: "device", kind: tar.TypeChar}, {name: "pipe", kind: tar.TypeFifo},
		}, []string{"device", "file", "hard", "pipe", "soft"}},
		{"link to itself", []entry{{name: "a", kind: tar.TypeLink, link: "a"}, {name: "b", kind: tar.TypeSymlink, link: "b"}},
			[]string{"a", "b"}},
		{"whiteouts", []entry{{name: "a/.wh.b"}, {name: ".wh.c"}}, []string{"a/b-", "c-"}},
		{"opaque directories", []entry{{name: "a/.wh..wh..opq"}, {name: ".wh..wh..opq"}}, []string{"./-", "a/-"}},
		{"metadata of aufs", []entry{{name: ".wh..wh.aufs"}, {name: ".wh..wh.plnk/", kind: tar.TypeDir}}, nil},
		{"whiteouts of no file", []entry{{name: "a/.wh."}, {name: "a/.wh.."}, {name: "a/.wh..."}}, nil},
		{"whiteout of dots", []entry{{name: "a/.wh...."}}, []string{"a/...-"}},
		{
			"traversal", []entry{{name: "../../etc/passwd"}, {name: "a/../../b"}, {name: "/", kind: tar.TypeDir}, {name: ".."}},
			[]string{"b", "etc/passwd"},
		},
		{"the last of two", []entry{{name: "a", content: "1"}, {name: "./a", content: "22"}}, []string{"a"}},
		{"control characters", []entry{{name: "a\nb"}, {name: "a\x1b[31m"}, {name: "a\xff"}, {name: "a b"}, {name: "a  b"}},
			[]string{"a  b", "a b", `a\nb`, `a\x1b[31m`, `a\xff`}},
		{"long path", []entry{{name: long}, {name: "a"}}, []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := readEntries(t, Options{}, test.entries)
			layer := p.Layers[0]
			if got := withoutHashes(layer); !layer.Read || !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if omitted := test.name == "long path"; omitted != (layer.Omitted == 1) {
				t.Errorf("%d files omitted", layer.Omitted)
			}
		})
	}
}

func TestReadSizesAndHashes(t *testing.T) {
	layer := readEntries(t, Options{}, []entry{
		{name: "a", content: "same"}, {name: "b", content: "same"}, {name: "c", content: "else"},
		{name: "hard", kind: tar.TypeLink, link: "/a"}, {name: "soft", kind: tar.TypeSymlink, link: "a"},
		{name: "soft2", kind: tar.TypeSymlink, link: "b"},
	}).Layers[0]
	hash := map[string]string{}
	for _, f := range layer.Files {
		hash[f.Path] = f.Hash
		if regular := len(f.Path) == 1; (f.Size == 4) != regular {
			t.Errorf("the size of %s is %d", f.Path, f.Size)
		}
	}
	if hash["a"] != hash["b"] || hash["a"] == hash["c"] || hash["hard"] != hash["a"] || hash["soft"] == hash["soft2"] {
		t.Errorf("hashes: %v", hash)
	}
	if layer.Unpacked != 12 {
		t.Errorf("unpacked: %d bytes, want 12", layer.Unpacked)
	}
}

// An empty directory replaces a file of a lower layer, but not one of its own.
func TestReadDirectoryInsteadOfFile(t *testing.T) {
	p := readEntries(t, Options{},
		[]entry{{name: "a"}, {name: "b"}, {name: "d/c"}},
		[]entry{{name: "a/", kind: tar.TypeDir}, {name: "d/", kind: tar.TypeDir}, {name: "e/", kind: tar.TypeDir}})
	if got := withoutHashes(p.Layers[1]); !slices.Equal(got, []string{"a-"}) {
		t.Errorf("got %q", got)
	}
}

func TestReadCompressions(t *testing.T) {
	content := archiveOf(entry{name: "file", content: strings.Repeat("content ", 10_000)})
	var zipped, zstandard bytes.Buffer
	gzipWriter := gzip.NewWriter(&zipped)
	zstdWriter, err := zstd.NewWriter(&zstandard)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{gzipWriter, zstdWriter} {
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var first []runrecord.File
	for name, layer := range map[string]v1.Layer{
		"gzip": static.NewLayer(zipped.Bytes(), types.OCILayer), "zstd": static.NewLayer(
			zstandard.Bytes(), types.OCILayerZStd,
		),
		"none":             static.NewLayer(content, types.OCIUncompressedLayer),
		"wrong media type": static.NewLayer(zstandard.Bytes(), types.OCILayer),
	} {
		image, err := imageOf(layer)
		if err != nil {
			t.Fatal(err)
		}
		p, err := read(t.Context(), image, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if first == nil {
			first = p.Layers[0].Files
		}
		if got := p.Layers[0].Files; len(got) != 1 || !slices.Equal(got, first) {
			t.Errorf("%s: got %v, want %v", name, got, first)
		}
	}
}

func TestReadPackages(t *testing.T) {
	const status = "Package: bash\nStatus: install ok installed\nInstalled-Size: 10\nVersion: 5.2\nDescription: x\n" +
		" more: y\n\nPackage: old\nStatus: deinstall ok config-files\nVersion: 1\n\nbroken\n\n" +
		"Package: tar\r\nStatus: install ok installed\r\nVersion: 1.34\r\n"
	for _, test := range []struct {
		name   string
		layers [][]entry
		want   []runrecord.Package
	}{
		{"dpkg", [][]entry{{{name: "var/lib/dpkg/status", content: status}}}, []runrecord.Package{
			{Manager: "dpkg", Name: "bash", Version: "5.2", Size: 10 << 10}, {Manager: "dpkg", Name: "tar", Version: "1.34"},
		}},
		{"distroless", [][]entry{{
			{name: "var/lib/dpkg/status.d/base", content: "Package: base-files\nVersion: 12\n"},
			{name: "var/lib/dpkg/status.d/base.md5sums", content: "Package: wrong\nVersion: 1\n"},
		}}, []runrecord.Package{{Manager: "dpkg", Name: "base-files", Version: "12"}}},
		{"apk", [][]entry{
			{{name: "lib/apk/db/installed", content: "C:Q1\nP:musl\nV:1.2.5-r0\nI:4096\nF:lib\n\nP:zlib\nV:1.3\n"}},
		},
			[]runrecord.Package{
				{Manager: "apk", Name: "musl", Version: "1.2.5-r0", Size: 4096}, {Manager: "apk", Name: "zlib", Version: "1.3"},
			}},
		{"npm", [][]entry{{
			{name: "usr/lib/node_modules/npm/package.json", content: `{"name": "npm", "version": "10.0.0"}`},
			{name: "app/node_modules/@types/node/package.json", content: `{"name": "@types/node", "version": "20.1.0"}`},
			{name: "app/node_modules/x/lib/package.json", content: `{"name": "lib", "version": "1.0.0"}`},
			{name: "app/package.json", content: `{"name": "app", "version": "1.0.0"}`},
			{name: "app/node_modules/broken/package.json", content: `{"name": 7}`},
		}}, []runrecord.Package{
			{Manager: "npm", Name: "@types/node", Version: "20.1.0"}, {Manager: "npm", Name: "npm", Version: "10.0.0"},
		}},
		{"pip", [][]entry{{
			{name: "usr/lib/python3/dist-packages/requests-2.31.dist-info/METADATA",
				content: "Metadata-Version: 2.1\nName: requests\nVersion: 2.31\n\nName: description\nVersion: wrong\n"},
			{name: "venv/lib/six.egg-info/PKG-INFO", content: "Name: six\nVersion: 1.16\n"},
			{name: "venv/lib/empty.dist-info/METADATA"},
		}}, []runrecord.Package{
			{Manager: "pip", Name: "requests", Version: "2.31"}, {Manager: "pip", Name: "six", Version: "1.16"},
		}},
		{"replaced and removed", [][]entry{
			{
				{name: "var/lib/dpkg/status", content: status},
				{name: "app/node_modules/x/package.json", content: `{"name":"x","version":"1"}`},
			},
			{{name: "var/lib/dpkg/status", content: "Package: vim\nVersion: 9\n"}, {name: "app/.wh.node_modules"}},
		}, []runrecord.Package{{Manager: "dpkg", Name: "vim", Version: "9"}}},
		{"unsafe names", [][]entry{{
			{name: "node_modules/x/package.json", content: `{"name":"x\n::error::","version":"\u001b[31m"}`},
			{
				name:    "node_modules/y/package.json",
				content: `{"name":"` + strings.Repeat("y", maxPackageText+1) + `","version":"1"}`,
			},
		}}, []runrecord.Package{{Manager: "npm", Name: `x\n::error::`, Version: `\x1b[31m`}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := readEntries(t, Options{}, test.layers...).Packages; !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestReadLimits(t *testing.T) {
	many := func(count int) (entries []entry) {
		for i := range count {
			entries = append(entries, entry{name: strings.Repeat("f", i+1), content: strings.Repeat("x", i)})
		}
		return entries
	}
	essential := []entry{{name: ".wh.gone"}, {name: "node_modules/x/package.json", content: "{}"}}
	first, second := []entry{{name: "a", content: "1"}}, []entry{{name: "b", content: "2"}}
	size := int64(len(archiveOf(first...)))
	for _, test := range []struct {
		name   string
		limits Limits
		layers [][]entry
		read   []bool
		files  []int
		omits  []int // the number and the largest size of the first layer's omitted files
	}{
		{"none", Limits{}, [][]entry{first, second}, []bool{true, true}, []int{1, 1}, []int{0, 0}},
		{"compressed", Limits{Compressed: size}, [][]entry{first, second}, []bool{false, true}, []int{0, 1}, []int{0, 0}},
		{"unpacked", Limits{Unpacked: size}, [][]entry{many(9), second}, []bool{false, true}, []int{0, 1}, []int{0, 0}},
		{
			"files of a layer", Limits{LayerFiles: 3}, [][]entry{slices.Concat(many(9), essential)}, []bool{true}, []int{5},
			[]int{6, 5},
		},
		{"files of an image", Limits{ImageFiles: 5}, [][]entry{slices.Concat(many(9), essential), second}, []bool{true, true},
			[]int{7, 0}, []int{4, 3}},
		{"the last of two entries", Limits{LayerFiles: 1}, [][]entry{{
			{name: "a", content: "x"}, {name: "b", content: "x"}, {name: "a", content: "xxx"},
		}}, []bool{true}, []int{1}, []int{1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := readEntries(t, Options{Limits: test.limits}, test.layers...)
			for i, layer := range p.Layers {
				if layer.Read != test.read[i] || len(layer.Files) != test.files[i] {
					t.Errorf("layer %d: read: %t, %q", i, layer.Read, withoutHashes(layer))
				}
			}
			if first := p.Layers[0]; first.Omitted != test.omits[0] || first.OmittedSize != int64(test.omits[1]) {
				t.Errorf("%d files are omitted, of at most %d bytes", first.Omitted, first.OmittedSize)
			}
			if isComplete := !slices.Contains(test.read, false); isComplete != (p.Packages != nil) && test.name == "unpacked" {
				t.Errorf("packages: %v", p.Packages)
			}
		})
	}
	tooMany := make([]entry, maxEssential+1)
	for i := range tooMany {
		tooMany[i].name = ".wh." + strings.Repeat("x", i%200+1)
	}
	for name, entries := range map[string][]entry{
		"whiteouts": tooMany,
		"packages":  {{name: "lib/apk/db/installed", content: strings.Repeat("P:a\nV:1\n\n", maxPackages+1)}},
		"bytes":     {{name: "var/lib/dpkg/status", content: strings.Repeat("x", maxDatabase+1)}},
	} {
		if p := readEntries(t, Options{}, entries); p.Layers[0].Read {
			t.Errorf("a layer with too many %s was read", name)
		}
	}
}

// openLayer is a layer with the given content.
type openLayer struct {
	v1.Layer
	open func() (io.ReadCloser, error)
}

func (l openLayer) Compressed() (io.ReadCloser, error) { return l.open() }

// openImage is an image whose layers are opened by a function.
type openImage struct {
	v1.Image
	open func(index int, layer v1.Layer) (io.ReadCloser, error)
}

func (i openImage) Layers() ([]v1.Layer, error) {
	layers, err := i.Image.Layers()
	for n, layer := range layers {
		layers[n] = openLayer{layer, func() (io.ReadCloser, error) { return i.open(n, layer) }}
	}
	return layers, err
}

// Layers that the previous run has read are not read again.
func TestReadKnownLayers(t *testing.T) {
	first := static.NewLayer(
		archiveOf(entry{name: "var/lib/dpkg/status", content: "Package: a\nVersion: 1\n"}),
		types.OCIUncompressedLayer,
	)
	second := static.NewLayer(archiveOf(entry{name: "b"}), types.OCIUncompressedLayer)
	image, err := imageOf(first, second)
	if err != nil {
		t.Fatal(err)
	}
	complete, err := read(t.Context(), image, Options{})
	if err != nil {
		t.Fatal(err)
	}
	previous := complete
	previous.Layers = slices.Clone(complete.Layers)
	previous.Layers[1] = runrecord.Layer{DiffID: complete.Layers[1].DiffID} // which the previous run did not read
	var opened []int
	got, err := read(t.Context(), openImage{image, func(index int, layer v1.Layer) (io.ReadCloser, error) {
		opened = append(opened, index)
		return layer.Compressed()
	}}, Options{Known: []runrecord.PlatformImage{previous}})
	if err != nil || !reflect.DeepEqual(got, complete) || !slices.Equal(opened, []int{1}) {
		t.Errorf("got %+v (%v) after reading %v, want %+v", got, err, opened, complete)
	}
}

// A layer that cannot be read does not affect the others.
func TestReadFailures(t *testing.T) {
	failure := errors.New("connection lost")
	image, err := imageOf(static.NewLayer(archiveOf(entry{name: "a"}), types.OCIUncompressedLayer),
		static.NewLayer(archiveOf(entry{name: "b"}), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]io.Reader{
		"truncated": bytes.NewReader(archiveOf(entry{name: "a", content: "content"})[:515]),
		"not a tar": strings.NewReader(strings.Repeat("x", 2000)),
		"bad gzip":  strings.NewReader("\x1f\x8b\x00"),
		"bad zstd":  strings.NewReader("\x28\xb5\x2f\xfd\xff\xff\xff\xff"),
		"failing":   io.MultiReader(strings.NewReader("x"), failingReader{failure}),
		"bad end":   io.MultiReader(bytes.NewReader(archiveOf(entry{name: "a"})), failingReader{failure}), // a wrong digest
	}
	for name, content := range contents {
		p, err := read(t.Context(), openImage{image, func(index int, layer v1.Layer) (io.ReadCloser, error) {
			if index == 0 {
				return io.NopCloser(content), nil
			}
			return layer.Compressed()
		}}, Options{})
		if err == nil || p.Layers[0].Read || !p.Layers[1].Read || p.Packages != nil {
			t.Errorf("%s: got %+v (%v)", name, p, err)
		}
		if name == "failing" && !errors.Is(err, failure) {
			t.Errorf("error = %v, want %v", err, failure)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// A canceled context ends a read for which no data arrives.
func TestReadCanceled(t *testing.T) {
	image, err := imageOf(static.NewLayer(archiveOf(entry{name: "a"}), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("canceled by the test")
	_, err = read(ctx, openImage{image, func(int, v1.Layer) (io.ReadCloser, error) {
		content, _ := io.Pipe()
		cancel(cause)
		return content, nil
	}}, Options{})
	if !errors.Is(err, cause) {
		t.Errorf("error = %v, want %v", err, cause)
	}
}

func TestDescribe(t *testing.T) {
	for createdBy, want := range map[string]string{
		"RUN /bin/sh -c make # buildkit":                     "RUN make",
		"RUN |1 TOKEN=hunter2 /bin/sh -c make it # buildkit": "RUN make it",
		"COPY file / # buildkit":                             "COPY file /",
		"/bin/sh -c #(nop) COPY file:1 in / ":                "COPY file:1 in /",
		"/bin/sh -c apt-get update":                          "RUN apt-get update",
		"|1 A=b /bin/sh -c make":                             "RUN make",
		"RUN make # buildkit":                                "RUN make",
		"RUN |0 make":                                        "RUN |0 make",
		"bazel build ...":                                    "bazel build ...",
		"":                                                   "",
	} {
		if got := dockerInstruction(createdBy); got != want {
			t.Errorf("%q: got %q, want %q", createdBy, got, want)
		}
	}
	image, err := imageOf(static.NewLayer(archiveOf(entry{name: "a"}), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Describe(image, amd64, func(s string) string { return strings.ReplaceAll(s, "0", "***\x1b") })
	if err != nil || p.Platform != amd64 || p.Layers[0].CreatedBy != `RUN ***\u001b` || p.Layers[0].Read {
		t.Errorf("got %+v (%v)", p, err)
	}
	size, err := image.Size()
	manifest, manifestErr := image.Manifest()
	if err != nil || manifestErr != nil || p.Size != manifest.Config.Size+manifest.Layers[0].Size {
		t.Errorf("size: %d, of the manifest %d", p.Size, size)
	}
}

func FuzzReadArchive(f *testing.F) {
	for _, entries := range [][]entry{
		{{name: "a", content: "x"}, {name: "../b"}, {name: ".wh.c"}, {name: "d/.wh..wh..opq"}},
		{{name: "var/lib/dpkg/status", content: "Package: a\nVersion: 1\n\n:\n"}, {name: "l", kind: tar.TypeLink, link: "a"}},
		{{name: "node_modules/x/package.json", content: `{"name":"x","version":"1"}`}, {name: "x/", kind: tar.TypeDir}},
		{
			{name: "lib/apk/db/installed", content: "P:a\nV:1\n"},
			{name: "a.dist-info/METADATA", content: "Name: a\nVersion: 1\n"},
		},
	} {
		f.Add(archiveOf(entries...))
	}
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	limits := Limits{LayerFiles: 3, Unpacked: 1 << 20}.withDefaults()
	f.Fuzz(func(t *testing.T, data []byte) {
		content, err := decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer content.Close()
		got, err := readArchive(t.Context(), content, limits, nil)
		if err != nil {
			return
		}
		layer := got.layer
		if !slices.IsSortedFunc(layer.Files, func(a, b runrecord.File) int { return strings.Compare(a.Path, b.Path) }) {
			t.Errorf("not sorted: %q", withoutHashes(layer))
		}
		count := 0
		for _, file := range layer.Files {
			if file.Path == "" || strings.HasPrefix(file.Path, "/") || strings.HasPrefix(file.Path, "../") ||
				printable(file.Path) != file.Path && !strings.Contains(file.Path, "  ") || file.Size < 0 {
				t.Errorf("unsafe: %+q", file.Path)
			}
			if !isEssential(file, layer.Databases) {
				count++
			}
		}
		if count > limits.LayerFiles || layer.Unpacked < 0 || layer.Unpacked > limits.Unpacked {
			t.Errorf("%d files, %d bytes", count, layer.Unpacked)
		}
		for _, d := range layer.Databases {
			if !slices.ContainsFunc(layer.Files, func(f runrecord.File) bool { return f.Path == d.Path }) {
				t.Errorf("%q lists packages, but is not a file", d.Path)
			}
		}
	})
}

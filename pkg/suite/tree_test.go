package suite

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layerOf returns a layer of entries such as "dir a 755", "file a/b 644 content", "link a/c a/b" (a hard link) or
// "symlink a/d b". An owner may precede the mode: "file a/e 1000:5 4755 content".
func layerOf(t testing.TB, entries ...string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, entry := range entries {
		fields := strings.SplitN(entry, " ", 3)
		header, rest, content := tar.Header{Name: fields[1], Mode: 0o644}, "", ""
		if len(fields) > 2 {
			rest = fields[2]
		}
		switch fields[0] {
		case "link":
			header.Typeflag, header.Linkname = tar.TypeLink, rest
		case "symlink":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, rest, 0o777
		default:
			types := map[string]byte{"dir": tar.TypeDir, "file": tar.TypeReg, "fifo": tar.TypeFifo}
			header.Typeflag = types[fields[0]]
			var owner, mode string
			if before, after, ok := strings.Cut(rest, " "); ok && strings.Contains(before, ":") {
				owner, rest = before, after
			}
			mode, content, _ = strings.Cut(rest, " ")
			fmt.Sscanf(owner, "%d:%d", &header.Uid, &header.Gid)
			fmt.Sscanf(mode, "%o", &header.Mode)
			header.Size = int64(len(content))
		}
		if err := errors.Join(w.WriteHeader(&header), writeAll(w, content)); err != nil {
			t.Fatal(entry, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return static.NewLayer(b.Bytes(), types.DockerUncompressedLayer)
}

func writeAll(w io.Writer, s string) error { _, err := io.WriteString(w, s); return err }

// describeFile describes a file in one line.
func describeFile(f File, content string) string {
	s := fmt.Sprintf("%s %04o %d:%d", f.Type, unixMode(f.Mode), f.UID, f.GID)
	switch f.Type {
	case "symlink":
		s = "symlink " + f.Target
	case "file":
		s += fmt.Sprintf(" %q", content)
	}
	return s
}

// contents returns the descriptions of all files in a tree, by path.
func contents(t *testing.T, tree *Tree) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range tree.Glob("/**") {
		content := ""
		if f.Type == "file" {
			read, err := tree.Contents([]File{f})
			if err != nil {
				t.Fatal(err)
			}
			content = string(read[0])
		}
		files[f.Path] = describeFile(f, content)
	}
	return files
}

var treeTests = []struct {
	name   string
	layers [][]string
	want   map[string]string
}{
	{
		"one layer",
		[][]string{{"dir a 755", "file a/b 1000:5 4755 hello", "symlink a/c ../a/b", "fifo a/f 600"}},
		map[string]string{
			"/a": "directory 0755 0:0", "/a/b": `file 4755 1000:5 "hello"`, "/a/c": "symlink ../a/b", "/a/f": "fifo 0600 0:0",
		},
	},
	{
		"file replaces file",
		[][]string{{"file a 644 old"}, {"file a 600 new"}},
		map[string]string{"/a": `file 0600 0:0 "new"`},
	},
	{
		"directory joins directory",
		[][]string{{"dir a 755", "file a/b 644 b"}, {"dir a 1777", "file a/c 644 c"}},
		map[string]string{"/a": "directory 1777 0:0", "/a/b": `file 0644 0:0 "b"`, "/a/c": `file 0644 0:0 "c"`},
	},
	{
		"file replaces directory",
		[][]string{{"dir a 755", "file a/b 644 b"}, {"file a 644 now"}},
		map[string]string{"/a": `file 0644 0:0 "now"`},
	},
	{
		"directory replaces file",
		[][]string{{"file a 644 old"}, {"dir a 755", "file a/b 644 b"}},
		map[string]string{"/a": "directory 0755 0:0", "/a/b": `file 0644 0:0 "b"`},
	},
	{
		"whiteout",
		[][]string{{"dir a 755", "file a/b 644 b", "file a/c 644 c"}, {"dir a 755", "file a/.wh.b 0"}},
		map[string]string{"/a": "directory 0755 0:0", "/a/c": `file 0644 0:0 "c"`},
	},
	{
		"whiteout of a directory",
		[][]string{{"dir a 755", "dir a/b 755", "file a/b/c 644 c"}, {"dir a 755", "file a/.wh.b 0"}},
		map[string]string{"/a": "directory 0755 0:0"},
	},
	{
		"file after its whiteout",
		[][]string{{"file a 644 one"}, {"file .wh.a 0"}, {"file a 644 three"}},
		map[string]string{"/a": `file 0644 0:0 "three"`},
	},
	{
		"directory after its whiteout",
		[][]string{{"dir a 755", "file a/old 644 o"}, {"file .wh.a 0"}, {"dir a 755", "file a/new 644 n"}},
		map[string]string{"/a": "directory 0755 0:0", "/a/new": `file 0644 0:0 "n"`},
	},
	{
		"opaque whiteout",
		[][]string{
			{"dir a 755", "file a/b 644 b", "dir a/d 755", "file a/d/e 644 e"},
			{"dir a 755", "file a/.wh..wh..opq 0", "file a/c 644 c"},
		},
		map[string]string{"/a": "directory 0755 0:0", "/a/c": `file 0644 0:0 "c"`},
	},
	{
		"opaque whiteout after the files of its directory",
		[][]string{{"dir a 755", "file a/b 644 b"}, {"dir a 755", "file a/c 644 c", "file a/.wh..wh..opq 0"}},
		map[string]string{"/a": "directory 0755 0:0", "/a/c": `file 0644 0:0 "c"`},
	},
	{
		"whiteout of a missing file",
		[][]string{{"dir a 755"}, {"dir a 755", "file a/.wh.b 0"}},
		map[string]string{"/a": "directory 0755 0:0"},
	},
	{
		"hard links", // the owner of the last link applies: root
		[][]string{{"dir a 755", "file a/b 7:8 644 b", "link a/c a/b", "link d /a/c"}},
		map[string]string{
			"/a": "directory 0755 0:0", "/a/b": `file 0644 0:0 "b"`, "/a/c": `file 0644 0:0 "b"`, "/d": `file 0644 0:0 "b"`,
		},
	},
	{
		"hard link without its first name",
		[][]string{{"file a 644 a", "link b a"}, {"file .wh.a 0"}},
		map[string]string{"/b": `file 0644 0:0 "a"`},
	},
	{
		"hard link with a new file at its first name",
		[][]string{{"file a 644 a", "link b a"}, {"file a 600 other"}},
		map[string]string{"/a": `file 0600 0:0 "other"`, "/b": `file 0644 0:0 "a"`},
	},
	{
		"link to a directory",
		[][]string{{"dir usr 755", "dir usr/bin 755", "file usr/bin/sh 755 sh", "symlink bin usr/bin"}},
		map[string]string{
			"/usr": "directory 0755 0:0", "/usr/bin": "directory 0755 0:0", "/usr/bin/sh": `file 0755 0:0 "sh"`,
			"/bin": "symlink usr/bin",
		},
	},
	{
		"files through links of the same layer",
		[][]string{
			{"dir usr 755", "dir usr/bin 755", "file usr/bin/old 755 o"},
			{"dir usr 755", "dir usr/bin 755", "symlink bin usr/bin", "file bin/new 644 n", "link b bin/new"},
		},
		map[string]string{
			"/usr": "directory 0755 0:0", "/usr/bin": "directory 0755 0:0", "/usr/bin/old": `file 0755 0:0 "o"`,
			"/usr/bin/new": `file 0644 0:0 "n"`, "/bin": "symlink usr/bin", "/b": `file 0644 0:0 "n"`,
		},
	},
	{
		"file through a link of a lower layer", // replaces the link
		[][]string{{"dir usr 755", "file usr/old 755 o", "symlink bin usr"}, {"file bin/new 755 n"}},
		map[string]string{
			"/usr": "directory 0755 0:0", "/usr/old": `file 0755 0:0 "o"`, "/bin": "directory 0755 0:0",
			"/bin/new": `file 0755 0:0 "n"`,
		},
	},
	{
		"whiteout through a link of a lower layer", // replaces the link and removes nothing
		[][]string{{"dir usr 755", "file usr/old 755 o", "symlink bin usr"}, {"file bin/.wh.old 0"}},
		map[string]string{
			"/usr": "directory 0755 0:0", "/usr/old": `file 0755 0:0 "o"`, "/bin": "directory 0755 0:0",
		},
	},
	{
		"special names",
		[][]string{{"dir ./a 755", "file ./a/.wh 644 x", "file ./a/[b]*? 644 y", "file ./a/ä\xff 644 z"}},
		map[string]string{
			"/a": "directory 0755 0:0", "/a/.wh": `file 0644 0:0 "x"`, "/a/[b]*?": `file 0644 0:0 "y"`,
			"/a/ä\xff": `file 0644 0:0 "z"`,
		},
	},
}

func TestTree(t *testing.T) {
	for _, test := range treeTests {
		t.Run(test.name, func(t *testing.T) {
			var layers []v1.Layer
			for _, entries := range test.layers {
				layers = append(layers, layerOf(t, entries...))
			}
			img, err := imageOf(v1.Config{}, layers...)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := ReadTree(t.Context(), img)
			if err != nil {
				t.Fatal(err)
			}
			got := contents(t, tree)
			if root := got["/"]; root != "directory 0755 0:0" {
				t.Errorf("root is %s", root)
			}
			delete(got, "/")
			if !maps.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A tree has the same files that a real engine extracts from the layers.
func TestTreeMatchesEngines(t *testing.T) {
	fleet(t)
	// Combine all tests into one image, with a separate directory for each.
	var all [3][]string
	want := map[string]string{}
	for i, test := range treeTests {
		directory := fmt.Sprintf("test-%d", i)
		want["/"+directory] = "directory 0755 0:0"
		for name, file := range test.want {
			want["/"+directory+name] = file
		}
		for n, entries := range test.layers {
			all[n] = append(all[n], "dir "+directory+" 755")
			for _, entry := range entries {
				all[n] = append(all[n], inDirectory(directory, entry))
			}
		}
	}
	config := v1.Config{Cmd: []string{"/none"}}
	img, err := imageOf(config, layerOf(t, all[0]...), layerOf(t, all[1]...), layerOf(t, all[2]...))
	if err != nil {
		t.Fatal(err)
	}
	onBoth(t, func(t *testing.T, m *machine) {
		got := exportedFiles(t, m, img)
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s: engine has %q, want %q", name, got[name], want[name])
			}
			delete(got, name)
		}
		if len(got) > 0 {
			t.Errorf("engine has other files: %q", got)
		}
	})
}

// inDirectory moves an entry of layerOf, and the target of a hard link, into a directory.
func inDirectory(directory, entry string) string {
	fields := strings.SplitN(entry, " ", 3)
	fields[1] = directory + "/" + fields[1]
	if fields[0] == "link" {
		fields[2] = directory + "/" + fields[2]
	}
	return strings.Join(fields, " ")
}

// exportedFiles returns the files of a new container according to docker export.
func exportedFiles(t *testing.T, m *machine, img v1.Image) map[string]string {
	t.Helper()
	const name = "tree:ci"
	if _, err := m.Load(t.Context(), name, img); err != nil {
		t.Fatal(err)
	}
	docker := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("docker", append([]string{"--host", m.Host}, args...)...).Output()
		if err != nil {
			t.Fatalf("docker %v (scripts/setup.sh test installs docker): %v", args, err)
		}
		return out
	}
	id := strings.TrimSpace(string(docker("create", "--network", "none", name)))
	defer docker("rm", id)
	files := map[string]string{}
	targets := map[string]string{} // of hard links
	for reader := tar.NewReader(bytes.NewReader(docker("export", id))); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean("/" + header.Name)
		if isEngineFile(name) {
			continue
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeLink {
			files[name] = targets[path.Clean("/"+header.Linkname)]
			continue
		}
		e := entry{inode: &inode{header: headerOf(header)}}
		files[name] = describeFile(e.file(name), string(content))
		targets[name] = files[name]
	}
	return files
}

// isEngineFile reports whether a file is one that engines add to every container.
func isEngineFile(name string) bool {
	return slices.Contains([]string{"/", "/.dockerenv", "/dev", "/etc", "/proc", "/sys"}, name) ||
		strings.HasPrefix(name, "/dev/") || strings.HasPrefix(name, "/etc/")
}

func TestTreeFollowsLinks(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image, layerOf(t,
		"dir usr 755", "dir usr/bin 755", "file usr/bin/dash 755 sh", "symlink bin usr/bin", "symlink usr/bin/sh dash",
		"symlink abs /usr/bin", "symlink up ../../../usr", "symlink loop loop2", "symlink loop2 loop",
		"symlink dangling /no/such", "symlink self ."))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := ReadTree(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, stat, lstat string }{
		{"/bin/sh", "/usr/bin/dash", "/usr/bin/sh"},
		{"/abs/sh", "/usr/bin/dash", "/usr/bin/sh"},
		{"/up/bin/dash", "/usr/bin/dash", "/usr/bin/dash"},
		{"/self/self/bin/dash", "/usr/bin/dash", "/usr/bin/dash"},
		{"/bin", "/usr/bin", "/bin"},
		{"/bin/../dash", "", ""},
		{"/../../usr", "/usr", "/usr"},
		{"/loop", "", "/loop"},
		{"/dangling", "", "/dangling"},
		{"/loop/x", "", ""},
		{"/usr/bin/dash/x", "", ""},
		{"/", "/", "/"},
	} {
		if f, _ := tree.Stat(test.path); f.Path != test.stat {
			t.Errorf("Stat(%s) is %q, want %q", test.path, f.Path, test.stat)
		}
		if f, _ := tree.Lstat(test.path); f.Path != test.lstat {
			t.Errorf("Lstat(%s) is %q, want %q", test.path, f.Path, test.lstat)
		}
	}
}

// A path can contain at most 40 symbolic links.
func TestTreeLimitsLinks(t *testing.T) {
	entries := []string{"file target 644 x", "symlink link0 target"}
	for i := range maxLinks {
		entries = append(entries, fmt.Sprintf("symlink link%d link%d", i+1, i))
	}
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := ReadTree(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := tree.Stat("/link39"); !ok || f.Path != "/target" {
		t.Errorf("40 links: %+v", f)
	}
	if f, ok := tree.Stat("/link40"); ok {
		t.Errorf("41 links: %+v", f)
	}
}

func TestReadTreeInvalid(t *testing.T) {
	const notInLayer = "which is not a file of the same layer"
	half := archive(tar.Header{Name: "a", Size: 5}, "hello")[:515]
	for _, test := range []struct {
		name, want string
		layer      v1.Layer
	}{
		{"hard link to a missing file", "/a is a hard link to b, " + notInLayer, layerOf(t, "link a b")},
		{"hard link to a directory", "/b is a hard link to a, " + notInLayer, layerOf(t, "dir a 755", "link b a")},
		{"hard link to a lower layer", "/b is a hard link to a, " + notInLayer, layerOf(t, "link b a")},
		{
			"not a tar file", "invalid tar header",
			static.NewLayer(bytes.Repeat([]byte("x"), 1024), types.DockerUncompressedLayer),
		},
		{"incomplete tar file", "unexpected EOF", static.NewLayer(half, types.DockerUncompressedLayer)},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := mutate.AppendLayers(empty.Image, layerOf(t, "file a 644 a"), test.layer)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ReadTree(t.Context(), img)
			const layer = "read layer 2 (sha256:"
			if err == nil || !strings.Contains(err.Error(), layer) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestReadTreeCanceled(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, "file a 644 a"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadTree(ctx, img); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestContentsLimits(t *testing.T) {
	tree := &Tree{}
	var many []File
	for range maxTotalContents/maxContent + 1 {
		many = append(many, File{Path: "/a", Type: "file", Size: maxContent, entry: &entry{inode: &inode{}}})
	}
	for _, test := range []struct {
		name, want string
		files      []File
	}{
		{"directory", "/a is a directory and has no content", []File{{Path: "/a", Type: "directory"}}},
		{"large file", "/a has 16777217 bytes", []File{{Path: "/a", Type: "file", Size: maxContent + 1}}},
		{"many files", "more than 256 MiB in total", many},
	} {
		if _, err := tree.Contents(test.files); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
}

func FuzzTree(f *testing.F) {
	for _, test := range treeTests {
		for _, entries := range test.layers {
			layer, err := layerOf(f, entries...).Uncompressed()
			if err != nil {
				f.Fatal(err)
			}
			data, err := io.ReadAll(layer)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, data)
		}
	}
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		img, err := mutate.AppendLayers(empty.Image, static.NewLayer(lower, types.DockerUncompressedLayer),
			static.NewLayer(upper, types.DockerUncompressedLayer))
		if err != nil {
			t.Skip()
		}
		tree, err := ReadTree(t.Context(), img)
		if err != nil {
			return
		}
		for _, file := range tree.Glob("/**") {
			if !path.IsAbs(file.Path) || path.Clean(file.Path) != file.Path {
				t.Errorf("path %q is not clean", file.Path)
			}
			if found, ok := tree.Lstat(file.Path); !ok || found.Path != file.Path {
				t.Errorf("Lstat(%q) returns %q", file.Path, found.Path)
			}
			if file.Type == "file" && file.Size <= maxContent {
				if _, err := tree.Contents([]File{file}); err != nil {
					t.Errorf("read %q: %v", file.Path, err)
				}
			}
		}
	})
}

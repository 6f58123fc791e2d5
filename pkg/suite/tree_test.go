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

// layerOf is a layer of entries such as "dir a 755", "file a/b 644 content", "link a/c a/b" (hard), "symlink a/d b", with an owner before
// the mode as in "file a/e 1000:5 4755 content".
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
			header.Typeflag = map[string]byte{"dir": tar.TypeDir, "file": tar.TypeReg, "fifo": tar.TypeFifo}[fields[0]]
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

// show is a file in one line.
func show(f File, content string) string {
	s := fmt.Sprintf("%s %04o %d:%d", f.Type, unixMode(f.Mode), f.UID, f.GID)
	switch f.Type {
	case "symlink":
		s = "symlink " + f.Target
	case "file":
		s += fmt.Sprintf(" %q", content)
	}
	return s
}

// contents are all files of a tree, by path.
func contents(t *testing.T, tree *Tree) map[string]string {
	t.Helper()
	files := map[string]string{}
	tree.Glob("/**", func(f File) {
		content := ""
		if f.Type == "file" {
			read, err := tree.Contents([]File{f})
			if err != nil {
				t.Fatal(err)
			}
			content = string(read[0])
		}
		files[f.Path] = show(f, content)
	})
	return files
}

var treeTests = []struct {
	name   string
	layers [][]string
	want   map[string]string
}{
	{"one layer", [][]string{{"dir a 755", "file a/b 1000:5 4755 hello", "symlink a/c ../a/b", "fifo a/f 600"}}, map[string]string{
		"/a": "directory 0755 0:0", "/a/b": `file 4755 1000:5 "hello"`, "/a/c": "symlink ../a/b", "/a/f": "fifo 0600 0:0",
	}},
	{"a file over a file", [][]string{{"file a 644 old"}, {"file a 600 new"}}, map[string]string{"/a": `file 0600 0:0 "new"`}},
	{"a folder over a folder", [][]string{{"dir a 755", "file a/b 644 b"}, {"dir a 1777", "file a/c 644 c"}}, map[string]string{
		"/a": "directory 1777 0:0", "/a/b": `file 0644 0:0 "b"`, "/a/c": `file 0644 0:0 "c"`,
	}},
	{"a file over a folder", [][]string{{"dir a 755", "file a/b 644 b"}, {"file a 644 now"}}, map[string]string{"/a": `file 0644 0:0 "now"`}},
	{"a folder over a file", [][]string{{"file a 644 old"}, {"dir a 755", "file a/b 644 b"}}, map[string]string{"/a": "directory 0755 0:0", "/a/b": `file 0644 0:0 "b"`}},
	{"a whiteout", [][]string{{"dir a 755", "file a/b 644 b", "file a/c 644 c"}, {"dir a 755", "file a/.wh.b 0"}}, map[string]string{
		"/a": "directory 0755 0:0", "/a/c": `file 0644 0:0 "c"`,
	}},
	{"a whiteout of a folder", [][]string{{"dir a 755", "dir a/b 755", "file a/b/c 644 c"}, {"dir a 755", "file a/.wh.b 0"}}, map[string]string{"/a": "directory 0755 0:0"}},
	{"a file again after its whiteout", [][]string{{"file a 644 one"}, {"file .wh.a 0"}, {"file a 644 three"}}, map[string]string{"/a": `file 0644 0:0 "three"`}},
	{"a folder again after its whiteout", [][]string{{"dir a 755", "file a/old 644 o"}, {"file .wh.a 0"}, {"dir a 755", "file a/new 644 n"}}, map[string]string{
		"/a": "directory 0755 0:0", "/a/new": `file 0644 0:0 "n"`,
	}},
	{"an opaque folder", [][]string{{"dir a 755", "file a/b 644 b", "dir a/d 755", "file a/d/e 644 e"}, {"dir a 755", "file a/.wh..wh..opq 0", "file a/c 644 c"}}, map[string]string{
		"/a": "directory 0755 0:0", "/a/c": `file 0644 0:0 "c"`,
	}},
	{"an opaque mark after its folder's files", [][]string{{"dir a 755", "file a/b 644 b"}, {"dir a 755", "file a/c 644 c", "file a/.wh..wh..opq 0"}}, map[string]string{
		"/a": "directory 0755 0:0", "/a/c": `file 0644 0:0 "c"`,
	}},
	{"a whiteout of nothing", [][]string{{"dir a 755"}, {"dir a 755", "file a/.wh.b 0"}}, map[string]string{"/a": "directory 0755 0:0"}},
	{"hard links", [][]string{{"dir a 755", "file a/b 7:8 644 b", "link a/c a/b", "link d /a/c"}}, map[string]string{ // a link's own header counts: ours says root
		"/a": "directory 0755 0:0", "/a/b": `file 0644 0:0 "b"`, "/a/c": `file 0644 0:0 "b"`, "/d": `file 0644 0:0 "b"`,
	}},
	{"a hard link whose first name is removed above", [][]string{{"file a 644 a", "link b a"}, {"file .wh.a 0"}}, map[string]string{"/b": `file 0644 0:0 "a"`}},
	{"a hard link whose first name is another file above", [][]string{{"file a 644 a", "link b a"}, {"file a 600 other"}}, map[string]string{
		"/a": `file 0600 0:0 "other"`, "/b": `file 0644 0:0 "a"`,
	}},
	{"links through folders", [][]string{{"dir usr 755", "dir usr/bin 755", "file usr/bin/sh 755 sh", "symlink bin usr/bin"}}, map[string]string{
		"/usr": "directory 0755 0:0", "/usr/bin": "directory 0755 0:0", "/usr/bin/sh": `file 0755 0:0 "sh"`, "/bin": "symlink usr/bin",
	}},
	{"names of every kind", [][]string{{"dir ./a 755", "file ./a/.wh 644 x", "file ./a/[b]*? 644 y", "file ./a/ä\xff 644 z"}}, map[string]string{
		"/a": "directory 0755 0:0", "/a/.wh": `file 0644 0:0 "x"`, "/a/[b]*?": `file 0644 0:0 "y"`, "/a/ä\xff": `file 0644 0:0 "z"`,
	}},
}

// The tree is what we say it is, and what the engines make of the same layers.
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
				t.Error(root)
			}
			delete(got, "/")
			if !maps.Equal(got, test.want) {
				t.Errorf("the tree is %q, want %q", got, test.want)
			}
		})
	}

	// For the engines all of them are one image, each in a folder of its own.
	var all [3][]string
	want := map[string]string{}
	for i, test := range treeTests {
		folder := fmt.Sprintf("test-%d", i)
		want["/"+folder] = "directory 0755 0:0"
		for name, file := range test.want {
			want["/"+folder+name] = file
		}
		for n, entries := range test.layers {
			all[n] = append(all[n], "dir "+folder+" 755")
			for _, entry := range entries {
				fields := strings.SplitN(entry, " ", 3)
				fields[1] = folder + "/" + fields[1]
				if fields[0] == "link" {
					fields[2] = folder + "/" + fields[2]
				}
				all[n] = append(all[n], strings.Join(fields, " "))
			}
		}
	}
	img, err := imageOf(v1.Config{Cmd: []string{"/none"}}, layerOf(t, all[0]...), layerOf(t, all[1]...), layerOf(t, all[2]...))
	if err != nil {
		t.Fatal(err)
	}
	onBoth(t, func(t *testing.T, m *machine) {
		got := exported(t, m, img)
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("the engine has %q at %s, want %q", got[name], name, want[name])
			}
			delete(got, name)
		}
		if len(got) > 0 {
			t.Errorf("the engine has more: %q", got)
		}
	})
}

// exported is what a container of an image has, as docker export tells it.
func exported(t *testing.T, m *machine, img v1.Image) map[string]string {
	t.Helper()
	const name = "tree:ci"
	if _, err := m.Load(t.Context(), name, img); err != nil {
		t.Fatal(err)
	}
	docker := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("docker", append([]string{"--host", m.Host}, args...)...).Output()
		if err != nil {
			t.Fatalf("docker %v (scripts/packages.sh installs it): %v", args, err)
		}
		return out
	}
	id := strings.TrimSpace(string(docker("create", "--network", "none", name)))
	defer docker("rm", id)
	files := map[string]string{}
	first := map[string]string{} // of hard links
	for reader := tar.NewReader(bytes.NewReader(docker("export", id))); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean("/" + header.Name)
		if slices.Contains([]string{"/", "/.dockerenv", "/dev", "/etc", "/proc", "/sys"}, name) || strings.HasPrefix(name, "/dev/") || strings.HasPrefix(name, "/etc/") {
			continue // the engine's own
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeLink {
			files[name] = first[path.Clean("/"+header.Linkname)]
			continue
		}
		e := entry{inode: &inode{header: *header}}
		files[name] = show(e.file(name), string(content))
		first[name] = files[name]
	}
	return files
}

func TestTreeFollowsLinks(t *testing.T) {
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, "dir usr 755", "dir usr/bin 755", "file usr/bin/dash 755 sh", "symlink bin usr/bin", "symlink usr/bin/sh dash",
		"symlink abs /usr/bin", "symlink up ../../../usr", "symlink round round2", "symlink round2 round", "symlink nowhere /no/such", "symlink self ."))
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
		{"/round", "", "/round"},
		{"/nowhere", "", "/nowhere"},
		{"/round/x", "", ""},
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

func TestTreeRefuses(t *testing.T) {
	for _, test := range []struct {
		name, want string
		layer      v1.Layer
	}{
		{"a hard link to nothing", "a is a hard link to b, which is no file of the layer", layerOf(t, "link a b")},
		{"a hard link to a folder", "b is a hard link to a, which is no file of the layer", layerOf(t, "dir a 755", "link b a")},
		{"a hard link to a layer below", "b is a hard link to a, which is no file of the layer", layerOf(t, "link b a")},
		{"no tar", "invalid tar header", static.NewLayer(bytes.Repeat([]byte("x"), 1024), types.DockerUncompressedLayer)},
		{"half a tar", "unexpected EOF", static.NewLayer(archive(tar.Header{Name: "a", Size: 5}, "hello")[:515], types.DockerUncompressedLayer)},
	} {
		t.Run(test.name, func(t *testing.T) {
			img, err := mutate.AppendLayers(empty.Image, layerOf(t, "file a 644 a"), test.layer)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ReadTree(t.Context(), img)
			if err == nil || !strings.Contains(err.Error(), "read layer 2 (sha256:") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
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
		img, err := mutate.AppendLayers(empty.Image, static.NewLayer(lower, types.DockerUncompressedLayer), static.NewLayer(upper, types.DockerUncompressedLayer))
		if err != nil {
			t.Skip()
		}
		tree, err := ReadTree(t.Context(), img)
		if err != nil {
			return
		}
		tree.Glob("/**", func(file File) {
			if !path.IsAbs(file.Path) || path.Clean(file.Path) != file.Path {
				t.Errorf("%q is no clean path", file.Path)
			}
			if found, ok := tree.Lstat(file.Path); !ok || found.Path != file.Path {
				t.Errorf("%q is walked, and not found (%q)", file.Path, found.Path)
			}
			if file.Type == "file" && file.Size <= maxContent {
				if _, err := tree.Contents([]File{file}); err != nil {
					t.Errorf("%q can not be read: %v", file.Path, err)
				}
			}
		})
	})
}

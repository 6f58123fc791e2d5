package suite

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// linkedImage returns an image with a merged /usr, as in Debian, and links of every kind.
func linkedImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layerOf(t,
		"dir usr 755", "dir usr/bin 755", "file usr/bin/busybox 755 b", "file usr/bin/su 4755 su", "file usr/bin/gone 755 x",
		"symlink usr/bin/sh busybox", "symlink usr/bin/broken /no/such", "symlink usr/bin/list /etc/list",
		"symlink bin usr/bin", "symlink sbin /bin", "symlink up ../../usr", "symlink loop loop2", "symlink loop2 /loop",
		"symlink self .", "symlink file usr/bin/busybox", "symlink broken no/such", "dir etc 755", "file etc/list 644 secret",
		"dir opt 755", "symlink opt/tool ../srv/t", "dir srv 755", "dir srv/t 755", "file srv/t/x 600 x"),
		layerOf(t, "file usr/bin/.wh.gone 0", "file usr/bin/added 755 a"))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestGlob(t *testing.T) {
	tree, err := ReadTree(t.Context(), linkedImage(t))
	if err != nil {
		t.Fatal(err)
	}
	const programs = "/bin/added /bin/broken /bin/busybox /bin/list /bin/sh /bin/su"
	for _, test := range []struct{ pattern, want string }{
		{"/bin/*", programs},
		{"/bin//./*", programs},
		{"/bin/../bin/s*", "/usr/bin/sh /usr/bin/su"},
		{"/sbin/b*", "/sbin/broken /sbin/busybox"},
		{"/up/bin/b*x", "/up/bin/busybox"},
		{"/self/self/bin/[s]u", "/self/self/bin/su"},
		{"/bin/{busybox,gcc,broken}", "/bin/broken /bin/busybox"},
		{"/{bin,sbin,usr/{bin,lib}}/su", "/bin/su"}, // once
		{"/{s,}bin/s{u,h}", "/sbin/sh /sbin/su"},
		{"/b?n/su", "/bin/su"},
		{"/*/busybox", "/bin/busybox"},
		{"/bin/**", "/bin " + programs},
		{"/**/su", "/usr/bin/su"},
		{"/**/bin/su", "/bin/su"},
		{"/**/tool/x", "/opt/tool/x"},
		{"/opt/**", "/opt /opt/tool"},
		{"/opt/**/**", "/opt /opt/tool"},
		{"/opt/*", "/opt/tool"},
		{"/opt/*/", "/opt/tool"},
		{"/usr/bin/*/", ""},
		{"/loop/*", ""},
		{"/file/*", ""},
		{"/broken/*", ""},
		{"/lo*", "/loop /loop2"},
		{"/*/*/*/x", "/self/opt/tool/x"},
		{"/**/*/*/*/*/*/x", "/self/self/self/opt/tool/x"},
	} {
		var got []string
		for _, f := range tree.Glob(test.pattern) {
			got = append(got, f.Path)
		}
		if want := strings.Fields(test.want); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", test.pattern, got, want)
		}
	}
}

func TestExpandBraces(t *testing.T) {
	for pattern, want := range map[string]string{
		"/a": "/a", "/{a,b}": "/a /b", "/{a,b/{c,d}}e": "/ae /b/ce /b/de", "/{,a}{b}": "/b /ab", `/\{a,b\}`: `/\{a,b\}`,
		"/[{,}]x": "/[{,}]x", `/{a\,b,c}`: `/a\,b /c`, "/{[,],b}": "/[,] /b",
	} {
		var got []string
		expandBraces(pattern, func(pattern string) { got = append(got, pattern) })
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q, want %q", pattern, got, want)
		}
	}
}

// Checks of files follow links in directories, and at the end of a path if the check is about the linked file.
func TestLinkedFiles(t *testing.T) {
	runStatic(t, linkedImage(t), "files", []staticTest{
		{"[{path: '/bin/{busybox,gcc}', absent: true}]", "must be absent: /bin/busybox"},
		{"[{path: /bin/busybox, absent: true}]", "must be absent: /bin/busybox"},
		{"[{path: '/bin/{gone,gcc}', absent: true}]", ""},
		{"[{path: '/bin/**', having: [setuid], absent: true}]", "must be absent: /bin/su"},
		{"[{path: '/{bin,sbin,usr/bin}/*', having: [setuid], count: 1}]", ""},
		{"[{path: '/bin/*', except: [/usr/bin/su], having: [setuid], absent: true}]", ""},
		{"[{path: '/usr/bin/*', except: [/sbin/*], count: 0}]", ""},
		{"[{path: /bin/*, count: {max: 2}}]", "/bin/* matches 6 files, want at most 2: /bin/added, /bin/broken, " +
			"/bin/busybox, /bin/list, /bin/sh, /bin/su"},
		{"[{path: '/bin/bus*', mode: '4755'}]", "/bin/busybox has mode 0755, want 4755"},
		{"[{path: /bin/li*, content: {exclude: [secret]}}]", `/bin/list must not match "secret", but contains "secret"`},
		{"[{path: /bin/li*, executable_by: any}]", "/bin/list has mode 0644, which is not executable by any"},
		{"[{path: /bin/li*, size: {max: 5}}]", "/bin/list has 6 bytes, want at most 5"},
		{"[{path: /bin/li*, type: symlink, mode: '0777', target: /etc/list}]", ""},
		{"[{path: /bin/bro*, executable_by: any}]", `/bin/broken is a symbolic link to "/no/such", which does not exist`},
		{"[{path: /file, type: file, mode: '0755', content: b}, {path: /bin/, type: directory}]", ""},
		{"[{path: /file/, absent: true}, {path: /file/*, absent: true}, {path: /loop/x, absent: true}]", ""},
		{"[{path: /sbin/su, having: [setuid], absent: true}]", "must be absent: /sbin/su"},
		{"[{path: /broken, count: 0}]", "/broken matches 1 files, want 0: /broken (and 1 more)"},
		{"[{path: /broken, count: 1}]", `/broken is a symbolic link to "no/such", which does not exist`},
	}, nil)
}

// The time of a search does not depend on the number of ways to a file.
func TestGlobManyWays(t *testing.T) {
	var entries []string
	for i := range 20 {
		entries = append(entries, fmt.Sprintf("symlink self%d .", i))
	}
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, append(entries, "file x 644 x")...))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := ReadTree(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{strings.Repeat("/*", 30) + "/x", strings.Repeat("/**", 30) + "/x"} {
		if files := tree.Glob(pattern); len(files) != 1 {
			t.Errorf("%s: %d files", pattern, len(files))
		}
	}
}

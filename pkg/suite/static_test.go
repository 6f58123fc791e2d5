package suite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// staticTest is a check of metadata or files and its expected failure, which is "" if the check must pass.
type staticTest struct{ check, want string }

// runStatic runs each check as a separate test, without an engine.
func runStatic(t *testing.T, img v1.Image, kind string, tests []staticTest, files map[string]string) {
	t.Helper()
	text := "tests:\n"
	for i, test := range tests {
		text += fmt.Sprintf("  - {name: '%d', %s: %s}\n", i, kind, test.check)
	}
	s := parse(t, text, files)
	s.File = "sandbox/tests.yaml" // as reports show it; files are still read from the original directory
	r, err := Run(t.Context(), s, Options{Image: img})
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range r.Tests {
		want := Passed
		if tests[i].want != "" {
			want = Failed
		}
		if result.Status != want || result.summary() != tests[i].want {
			t.Errorf("%s\ngot  %s %q\nwant %s %q", tests[i].check, result.Status, result.summary(), want, tests[i].want)
		}
		if result.File != s.File || result.Line != i+2 || result.Attempts != 1 {
			t.Errorf("result %d: %+v", i, result)
		}
		for _, failure := range result.Failures {
			if failure.Line != i+2 {
				t.Errorf("failure of test %d is on line %d", i, failure.Line)
			}
		}
	}
}

func TestMetadata(t *testing.T) {
	img, err := imageOf(v1.Config{
		User: "app", Env: []string{"PATH=/usr/bin", "EMPTY="}, Labels: map[string]string{"team": "a"},
		Entrypoint: []string{"/run", "x"}, ExposedPorts: map[string]struct{}{"80": {}, "53/udp": {}},
		Volumes: map[string]struct{}{"/data": {}, "/cache/": {}}, WorkingDir: "/app",
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}},
	}, layerOf(t, "file a 644 hello"), layerOf(t, "file b 644 b"))
	if err != nil {
		t.Fatal(err)
	}
	runStatic(t, img, "image", []staticTest{
		{"{user: app, workdir: /app, stop_signal: null}", ""},
		{"{user: root}", `user is "app", want "root"`},
		{"{ports: [80/any, 53/any], ports_absent: [5/any]}", ""},
		{"{ports: [54/any]}", `port 54/any is not exposed; exposed ports: ["53/udp" "80/tcp"]`},
		{"{ports_absent: [53/any]}", "port 53/any must not be exposed"},
		{"{user: null}", `user is "app", but must not be set`},
		{"{user: {matches: ^a}}", ""},
		{"{user: {matches: ^b}}", `user is "app", want a match of "^b"`},
		{"{workdir: /}", `working directory is "/app", want "/"`},
		{"{stop_signal: TERM}", `stop signal is not set, want "TERM"`},
		{"{stop_signal: {matches: TERM}}", `stop signal is not set, want a match of "TERM"`},
		{"{env: {PATH: {matches: bin$}, EMPTY: '', NO: null}}", ""},
		{"{env: {PATH: null}}", `environment variable PATH is "/usr/bin", but must not be set`},
		{"{env: {EMPTY: null}}", `environment variable EMPTY is "", but must not be set`},
		{"{env: {NO: x}}", `environment variable NO is not set, want "x"`},
		{"{env: {NO: '', PATH: x}}", `environment variable NO is not set, want "" (and 1 more)`},
		{"{labels: {team: a}}", ""},
		{"{labels: {team: {matches: b}}}", `label team is "a", want a match of "b"`},
		{"{entrypoint: [/run, x], cmd: []}", ""},
		{"{entrypoint: []}", `entry point is ["/run" "x"], want []`},
		{"{cmd: [x]}", `default command is [], want ["x"]`},
		{"{ports: [80, 53/udp], ports_absent: [22, 53]}", ""},
		{"{ports: [8080]}", `port 8080/tcp is not exposed; exposed ports: ["53/udp" "80/tcp"]`},
		{"{ports_absent: [80]}", "port 80/tcp must not be exposed"},
		{"{volumes: [/data/, /cache], volumes_absent: [/tmp]}", ""},
		{"{volumes: [/x]}", `volume /x is not declared; declared volumes: ["/cache/" "/data"]`},
		{"{volumes_absent: [/cache]}", "volume /cache must not be declared"},
		{"{volumes_absent: [/data]}", "volume /data must not be declared"},
		{"{healthcheck: true}", ""},
		{"{healthcheck: [CMD, 'true']}", ""},
		{"{healthcheck: false}", "HEALTHCHECK must not be set"},
		{"{healthcheck: [CMD, 'false']}", `HEALTHCHECK is ["CMD" "true"], want ["CMD" "false"]`},
		{"{platform: linux/amd64}", ""},
		{"{platform: linux/arm64}", `platform is "linux/amd64", want linux/arm64`},
		{"{max_size: 4096}", ""},
		{"{max_size: 4095}", "layers of the image have 4096 bytes, want at most 4095"},
		{"{max_layers: 2}", ""},
		{"{max_layers: 1}", "image has 2 layers, want at most 1"},
	}, nil)
}

func TestMissingHealthcheck(t *testing.T) {
	for name, config := range map[string]*v1.HealthConfig{"unset": nil, "disabled": {Test: []string{"NONE"}}} {
		t.Run(name, func(t *testing.T) {
			img, err := imageOf(v1.Config{Healthcheck: config})
			if err != nil {
				t.Fatal(err)
			}
			runStatic(t, img, "image", []staticTest{
				{"{healthcheck: false}", ""},
				{"{healthcheck: true}", "HEALTHCHECK is missing"},
				{"{healthcheck: [CMD, x]}", "HEALTHCHECK is missing"},
			}, nil)
		})
	}
}

// The variant of a platform is compared only if the check has one.
func TestPlatformVariant(t *testing.T) {
	base, err := imageOf(v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := base.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Architecture, file.Variant = "arm", "v7"
	img, err := mutate.ConfigFile(base, file)
	if err != nil {
		t.Fatal(err)
	}
	runStatic(t, img, "image", []staticTest{
		{"{platform: linux/arm}", ""},
		{"{platform: linux/arm/v7}", ""},
		{"{platform: linux/arm/v6}", `platform is "linux/arm/v7", want linux/arm/v6`},
		{"{platform: linux/arm64}", `platform is "linux/arm", want linux/arm64`},
	}, nil)
	runStatic(t, base, "image", []staticTest{
		{"{platform: linux/amd64/v2}", `platform is "linux/amd64", want linux/amd64/v2`},
	}, nil)
}

// filesImage returns an image with files of every type, and a second layer that modifies the first.
func filesImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := imageOf(v1.Config{},
		layerOf(t, "dir etc 755", "file etc/passwd 644 root:x:0:0::/:/bin/sh\napp:x:1000:1001::/app:/bin/sh\n",
			"file etc/group 644 staff:x:50:\n", "dir app 1000:50 755", "file app/main.py 1000:50 755 print(1)\n",
			"file app/key.pem 600 secret", "dir ssl 755", "file ssl/ca.pem 644 ca", "file su 4755 su", "file loose 666 x",
			"file wall 2755 w", "dir shared 1777", "file none 640", "file tool 710 t"),
		layerOf(t, "dir app 1000:50 755", "file app/.wh.key.pem 0", "symlink python /usr/bin/python3",
			"symlink code app/main.py", "file odd[1] 644 odd"))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestFiles(t *testing.T) {
	runStatic(t, filesImage(t), "files", []staticTest{
		{"[{path: /app/main.py, type: file, mode: '0755', owner: 'app:staff', size: 9}]", ""},
		{"[{path: /app/main.py, executable_by: others, content: ^p}]", ""},
		{"[{path: /app/main.py, owner: 1000:50}, {path: /app/main.py, owner: ':50'}, {path: /app/main.py, owner: app}]", ""},
		{"[{path: /app/key.pem, absent: true}, {path: /python, type: symlink}]", ""},
		{"[{path: '/**/*.pem', except: [/ssl/**], absent: true}]", ""},
		{"[{path: /code, type: symlink, target: app/main.py}, {path: /code, mode: '0755', content: print}]", ""},
		{"[{path: '/odd\\[1]', content: odd}]", ""},
		{"[{path: /python, follow: false}, {path: /code, follow: false, mode: '0777', owner: '0'}]", ""},
		{"[{path: /code, follow: false, type: file}]", "/code is a symlink, want a file"},
		{"[{path: /code, follow: true, mode: '0755'}, {path: '/cod*', follow: true, type: file}]", ""},
		{"[{path: '/**/*.pem', count: 1}, {path: /none*, count: {min: 1}}, {path: /no-such*, count: 0}]", ""},
		{"[{path: /su, absent: true}]", "must be absent: /su"},
		{"[{path: /no}]", "/no not found"},
		{"[{path: /no-such*}]", "/no-such* not found"},
		{"[{path: /python}]", `/python is a symbolic link to "/usr/bin/python3", which does not exist`},
		{"[{path: /python, absent: true}]", "must be absent: /python"},
		{"[{path: /app, type: file}]", "/app is a directory, want a file"},
		{"[{path: /su, mode: '0755'}]", "/su has mode 4755, want 0755"},
		{"[{path: /shared, mode: '1777'}, {path: /wall, mode: '2755'}]", ""},
		{"[{path: /su, owner: app}]", "/su is owned by user 0, want app"},
		{"[{path: /app, owner: ':51'}]", "/app is owned by group 50, want 51"},
		{"[{path: /app, owner: ':root'}]", `/app must be owned by group "root", which is not in the image's /etc/group`},
		{"[{path: /app, owner: nobody}]", `/app must be owned by user "nobody", which is not in the image's /etc/passwd`},
		{"[{path: /code, target: {matches: ^/}}]", `target of /code is "app/main.py", want a match of "^/"`},
		{"[{path: /su, target: x}]", "/su is a file, want a symbolic link"},
		{"[{path: /su, size: {min: 2, max: 2}}, {path: /none, size: 0}]", ""},
		{"[{path: /su, size: {min: 3}}]", "/su has 2 bytes, want at least 3"},
		{"[{path: /su, size: {max: 1}}]", "/su has 2 bytes, want at most 1"},
		{"[{path: /su, size: 3}]", "/su has 2 bytes, want 3"},
		{"[{path: /su, size: {min: 3, max: 4}}]", "/su has 2 bytes, want 3 to 4"},
		{"[{path: /none, executable_by: owner}]", "/none has mode 0640, which is not executable by owner"},
		{"[{path: /loose, executable_by: any}]", "/loose has mode 0666, which is not executable by any"},
		{"[{path: /tool, executable_by: group}, {path: /tool, executable_by: owner}]", ""},
		{"[{path: /tool, executable_by: others}]", "/tool has mode 0710, which is not executable by others"},
		{"[{path: /etc/passwd, content: {exclude: [app]}}]", `/etc/passwd must not match "app", but contains "app"`},
		{"[{path: /loose, content: {golden: golden.txt}}]", "/loose differs from golden.txt"},
		{"[{path: /su, content: {golden: su.txt}}, {path: /su, content: {equals: su}}]", ""},
		{"[{path: /app, content: x}]", "/app is a directory and has no content"},
		{"[{path: '/**/*.pem', count: {max: 0}}]", "/**/*.pem matches 1 files, want at most 0: /ssl/ca.pem"},
		{"[{path: /su, content: a}, {path: /loose, content: b}]", `/su: "su" does not match "a" (and 1 more)`},
	}, map[string]string{"golden.txt": "y", "su.txt": "su"})
}

// Each trait selects exactly the files that have it.
// The engine creates the volumes and the working directory of an image in every container.
func TestDirectoriesOfTheConfig(t *testing.T) {
	img, err := imageOf(v1.Config{
		WorkingDir: "/work/dir", Volumes: map[string]struct{}{"/data": {}, "/file": {}, "/link": {}},
		Env: []string{"DIR=/work", "PATTERN=*"},
	}, layerOf(t, "file file 640", "symlink link no-such"))
	if err != nil {
		t.Fatal(err)
	}
	runStatic(t, img, "files", []staticTest{
		{"[{path: /work/dir, type: directory, mode: '0755', owner: '0:0'}, {path: /data, type: directory}]", ""},
		{"[{path: /file, type: file, mode: '0640'}, {path: /link, type: symlink}]", ""},
		{"[{path: /data, absent: true}]", "must be absent: /data"},
	}, nil)
	runStatic(t, img, "expand: true, files", []staticTest{
		{"[{path: /$DIR/dir, type: directory}, {path: '/data/../${DIR}/./dir/'}]", ""},
		{"[{path: /$NO/$PATTERN}]", `/\* not found`},
		{"[{path: /$$DIR}]", "/$DIR not found"},
	}, nil)
}

func TestTraits(t *testing.T) {
	var tests []staticTest
	for _, test := range []struct{ trait, want string }{
		{"setuid", "/su"}, {"setgid", "/wall"}, {"sticky", "/shared"}, {"executable", "/app/main.py, /su, /tool, /wall"},
		{"writable_by_others", "/loose, /shared"}, {"empty", "/none"},
		{"directory", "/, /app, /etc, /shared, /ssl"}, {"symlink", "/code, /python"},
		{"file", "/app/main.py, /etc/group, /etc/passwd, /loose, /none, /odd[1], /ssl/ca.pem, /su, /tool, /wall"},
		{"file, writable_by_others", "/loose"},
	} {
		check := fmt.Sprintf("[{path: /**, having: [%s], absent: true}]", test.trait)
		tests = append(tests, staticTest{check, "must be absent: " + test.want})
	}
	tests = append(tests, staticTest{"[{path: /**, having: [setuid], except: [/su], absent: true}]", ""})
	runStatic(t, filesImage(t), "files", tests, nil)
}

// A message lists at most 10 files, and a check has at most 11 messages.
func TestManyFiles(t *testing.T) {
	var entries []string
	for i := range 20 {
		entries = append(entries, fmt.Sprintf("file f%02d 644 x", i))
	}
	img, err := imageOf(v1.Config{}, layerOf(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	runStatic(t, img, "files", []staticTest{
		{
			"[{path: /f*, absent: true}]",
			"must be absent: /f00, /f01, /f02, /f03, /f04, /f05, /f06, /f07, /f08, /f09, and 10 more",
		},
		{"[{path: /f*, mode: '0600'}]", "/f00 has mode 0644, want 0600 (and 10 more)"},
	}, nil)
}

// Each layer is read at most twice: once for the headers and once for the contents.
func TestLayerReads(t *testing.T) {
	s := parse(t, `
tests:
  - {name: a, files: [{path: /su, content: su}, {path: /code, content: print}, {path: '/odd\[1]', content: odd}]}
  - {name: b, files: [{path: /loose, content: x}], tags: [all]}
  - {name: c, image: {max_size: 1MB}}
`[1:], nil)
	counted := &countedImage{Image: filesImage(t)}
	r, err := Run(t.Context(), s, Options{Image: counted})
	if err != nil || r.Passed != 3 {
		t.Fatal(r.Line(), err)
	}
	if n := counted.opened.Load(); n != 4 {
		t.Errorf("layers were read %d times, want 4", n)
	}
}

// countedImage counts how many times layers are read. If err is set, reading fails.
type countedImage struct {
	v1.Image
	opened atomic.Int64
	err    error
}

func (c *countedImage) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	for i, l := range layers {
		layers[i] = countedLayer{l, c}
	}
	return layers, err
}

type countedLayer struct {
	v1.Layer
	image *countedImage
}

func (l countedLayer) Uncompressed() (io.ReadCloser, error) {
	l.image.opened.Add(1)
	if l.image.err != nil {
		return nil, l.image.err
	}
	return l.Layer.Uncompressed()
}

func TestUnreadableLayers(t *testing.T) {
	img, err := imageOf(v1.Config{}, layerOf(t, "file a 644 a"))
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, "tests:\n  - {name: a, files: [{path: /a}]}\n  - {name: b, image: {max_size: 1}}\n", nil)
	r, err := Run(t.Context(), s, Options{Image: &countedImage{Image: img, err: errors.New("connection lost")}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, map[string]want{
		"a": {Failed, "connection lost"}, "b": {Failed, "cannot determine the size of the image: read layer 1"},
	})
}

// A canceled run reports the tests that did not run as skipped.
func TestCanceledRun(t *testing.T) {
	s := parse(t, "tests:\n  - {name: a, files: [{path: /a}]}\n  - {name: b, image: {max_size: 1}}\n", nil)
	canceled := errors.New("job canceled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(canceled)
	r, err := Run(ctx, s, Options{Image: empty.Image})
	if !errors.Is(err, canceled) || r.Skipped != 2 || r.Tests[0].Reason != "not run: job canceled" {
		t.Errorf("%v, %s: %+v", err, r.Line(), r.Tests[0])
	}
}

func TestRunNeedsAnEngine(t *testing.T) {
	_, err := Run(t.Context(), parse(t, "tests: [{name: c, run: 'true'}]", nil), Options{Image: empty.Image})
	if err == nil || !strings.Contains(err.Error(), `test "c" needs a container, but no Docker Engine is available`) {
		t.Error(err)
	}
	skipped := parse(t, "tests: [{name: c, skip: later, run: 'true'}]", nil)
	if r, err := Run(t.Context(), skipped, Options{Image: empty.Image}); err != nil || r.Skipped != 1 {
		t.Error(r, err)
	}
}

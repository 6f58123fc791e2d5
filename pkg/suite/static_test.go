package suite

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Tests of metadata and files need no engine, and read each layer at most twice.
func TestFilesAndMetadata(t *testing.T) {
	img, err := imageOf(v1.Config{
		User: "app", Env: []string{"PATH=/usr/bin", "EMPTY="}, Labels: map[string]string{"team": "a"}, Entrypoint: []string{"/run", "x"},
		ExposedPorts: map[string]struct{}{"80": {}, "53/udp": {}}, Volumes: map[string]struct{}{"/data": {}}, WorkingDir: "/app",
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}},
	},
		layerOf(t, "dir etc 755", "file etc/passwd 644 root:x:0:0::/:/bin/sh\napp:x:1000:1001::/app:/bin/sh\n", "file etc/group 644 staff:x:50:\n", "dir app 1000:50 755",
			"file app/main.py 1000:50 755 print(1)\n", "file app/key.pem 600 secret", "dir ssl 755", "file ssl/ca.pem 644 ca", "file su 4755 su", "file loose 666 x"),
		layerOf(t, "dir app 1000:50 755", "file app/.wh.key.pem 0", "symlink python /usr/bin/python3", "symlink code app/main.py", "file odd[1] 644 odd"))
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, `
tests:
  - {name: metadata, image: {user: app, workdir: /app, env: {PATH: {matches: bin$}, EMPTY: '', NO: null}, labels: {team: a}, entrypoint: [/run, x], cmd: [], ports: [80, 53/udp], ports_absent: [22],
     volumes: [/data], volumes_absent: [/tmp], healthcheck: [CMD, 'true'], stop_signal: null, platform: linux/amd64, max_size: 1MB, max_layers: 2}}
  - {name: user, image: {user: root}}
  - {name: env, image: {env: {PATH: null}}}
  - {name: no such env, image: {env: {NO: x}}}
  - {name: label, image: {labels: {team: {matches: b}}}}
  - {name: entry point, image: {entrypoint: []}}
  - {name: port, image: {ports: [8080]}}
  - {name: another port, image: {ports_absent: [80]}}
  - {name: volume, image: {volumes: [/x]}}
  - {name: another volume, image: {volumes_absent: [/data]}}
  - {name: healthcheck, image: {healthcheck: false}}
  - {name: another healthcheck, image: {healthcheck: [CMD, 'false']}}
  - {name: platform, image: {platform: linux/arm64}}
  - {name: size, image: {max_size: 100}}
  - {name: layers, image: {max_layers: 1}}
  - {name: a file, files: [{path: /app/main.py, type: file, mode: '0755', owner: 'app:staff', size: 9, executable_by: others, content: ^print}]}
  - {name: removed, files: [{path: /app/key.pem, absent: true}]}
  - {name: no key, files: [{path: '/**/*.pem', except: [/ssl/**], absent: true}]}
  - {name: a link, files: [{path: /code, type: symlink, target: app/main.py}, {path: /code, mode: '0755', content: print}]}
  - {name: a strange name, files: [{path: '/odd\[1]', content: odd}]}
  - {name: a count, files: [{path: '/**/*.pem', count: 1}, {path: /none*, count: 0}]}
  - {name: setuid, files: [{path: /**, having: [setuid], except: [/su], absent: true}]}
  - {name: there, files: [{path: /su, absent: true}]}
  - {name: not there, files: [{path: /no}]}
  - {name: no match, files: [{path: /no*}]}
  - {name: a link to nothing, files: [{path: /python}]}
  - {name: loose, files: [{path: /**, having: [file, writable_by_others], absent: true}]}
  - {name: type, files: [{path: /app, type: file}]}
  - {name: mode, files: [{path: /su, mode: '0755'}]}
  - {name: owner, files: [{path: /su, owner: app}]}
  - {name: group, files: [{path: /app, owner: ':root'}]}
  - {name: nobody, files: [{path: /app, owner: nobody}]}
  - {name: target, files: [{path: /code, target: {matches: ^/}}]}
  - {name: no target, files: [{path: /su, target: x}]}
  - {name: size of a file, files: [{path: /su, size: {min: 3}}]}
  - {name: executable, files: [{path: /loose, executable_by: any}]}
  - {name: content, files: [{path: /etc/passwd, content: {exclude: [app]}}]}
  - {name: golden, files: [{path: /loose, content: {golden: golden.txt}}]}
  - {name: content of a folder, files: [{path: /app, content: x}]}
  - {name: too many, files: [{path: '/**/*.pem', count: {max: 0}}]}
`[1:], map[string]string{"golden.txt": "y"})
	s.File = "sandbox/tests.yaml" // what reports say; files are still looked for where the suite was
	counted := &countedImage{Image: img}
	r, err := Run(t.Context(), s, Options{Image: counted})
	if err != nil {
		t.Fatal(err)
	}
	wants := map[string]want{
		"user": {Failed, `the user is "app", and must be "root"`}, "env": {Failed, `environment variable PATH is "/usr/bin", and must not be there`},
		"no such env": {Failed, `environment variable NO is not there, and must be "x"`}, "label": {Failed, `label team is "a", and must match "b"`},
		"entry point": {Failed, `the entry point is ["/run" "x"], want []`}, "port": {Failed, `port 8080/tcp is not exposed; exposed are ["53/udp" "80/tcp"]`},
		"another port": {Failed, "port 80/tcp is exposed, and must not be"}, "volume": {Failed, `there is no volume /x; there are ["/data"]`},
		"another volume": {Failed, "/data is a volume, and must not be"}, "healthcheck": {Failed, "a HEALTHCHECK is there: true, want false"},
		"another healthcheck": {Failed, `the HEALTHCHECK is ["CMD" "true"], want ["CMD" "false"]`}, "platform": {Failed, `the platform is "linux/amd64", want linux/arm64`},
		"size": {Failed, "more than 100"}, "layers": {Failed, "the image has 2 layers, more than 1"},
		"there": {Failed, "must be absent: /su"}, "not there": {Failed, "there is no /no"}, "no match": {Failed, "there is no /no*"},
		"a link to nothing": {Failed, `/python is a symbolic link to "/usr/bin/python3", where there is nothing`}, "loose": {Failed, "must be absent: /loose"},
		"type": {Failed, "/app is a directory, want a file"}, "mode": {Failed, "/su has mode 4755, want 0755"}, "owner": {Failed, "/su is owned by user 0, want app"},
		"group": {Failed, `/app can not be owned by group "root", of whom the image's /etc/group knows nothing`}, "nobody": {Failed, `/app can not be owned by user "nobody"`},
		"target": {Failed, `the target of /code is "app/main.py", and must match "^/"`}, "no target": {Failed, "/su is a file, want a symbolic link"},
		"size of a file": {Failed, "/su has 2 bytes, want at least 3"}, "executable": {Failed, "/loose has mode 0666, and is not executable by any"},
		"content": {Failed, `/etc/passwd must not match "app", and has "app"`}, "golden": {Failed, "/loose is not what golden.txt holds"},
		"content of a folder": {Failed, "/app is a directory of 0 bytes, and has no content that can be compared"}, "too many": {Failed, "/**/*.pem matches 1 files, want at most 0: /ssl/ca.pem"},
	}
	for _, test := range s.Tests {
		if _, ok := wants[test.Name]; !ok {
			wants[test.Name] = want{Passed, ""}
		}
	}
	check(t, r, wants)
	if got := r.Tests[1]; got.File != "sandbox/tests.yaml" || got.Line != 4 || got.Failures[0].Line != 4 {
		t.Errorf("%+v", got)
	}
	// Both once for headers, both once for contents, and the lower one for passwd and for group.
	if n := counted.opened.Load(); n != 6 {
		t.Errorf("layers were read %d times", n)
	}
}

// countedImage counts how often layers are read, and fails where it is told to.
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

func TestLayersThatCanNotBeRead(t *testing.T) {
	img, err := imageOf(v1.Config{}, layerOf(t, "file a 644 a"))
	if err != nil {
		t.Fatal(err)
	}
	s := parse(t, "tests:\n  - {name: a, files: [{path: /a}]}\n  - {name: b, image: {max_size: 1}}\n", nil)
	r, err := Run(t.Context(), s, Options{Image: &countedImage{Image: img, err: errors.New("the builder is gone")}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, map[string]want{"a": {Failed, "the builder is gone"}, "b": {Failed, "the image's size can not be told: read layer 1"}})

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the time is up"))
	if r, err = Run(ctx, s, Options{Image: img}); err == nil || err.Error() != "the tests were not all run: the time is up" || r.Skipped != 2 {
		t.Error(r, err)
	}
	commands := parse(t, "tests: [{name: c, run: 'true'}]", nil)
	if _, err := Run(t.Context(), commands, Options{Image: img}); err == nil || !strings.Contains(err.Error(), `test "c" starts a container, and there is no Docker Engine`) {
		t.Error(err)
	}
}

package suite

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/internal/localcloud/engine"
)

// verdictEntry is an entry of testdata/verdicts/entries.yaml.
type verdictEntry struct {
	Name    string `yaml:"name"`
	Image   string `yaml:"image"` // root (default), app or scratch
	File    string `yaml:"file"`  // name of the file; default: a YAML file of schema 2.0.0
	Config  string `yaml:"config"`
	Differs string `yaml:"differs"` // the reason why the converted suite has another verdict

	failures []string // of the converted suite
}

// verdictImages returns the images of the entries by name.
func verdictImages(t *testing.T) map[string]v1.Image {
	layer := static.NewLayer(verdictLayer(t), types.DockerUncompressedLayer)
	images := map[string]v1.Image{"scratch": scratch}
	for name, user := range map[string]string{"root": "", "app": "1000:1000"} {
		img, err := mutate.AppendLayers(debian, layer)
		if err != nil {
			t.Fatal(err)
		}
		images[name], err = mutate.Config(img, v1.Config{
			User: user,
			Env: []string{
				"PATH=/usr/local/bin:/usr/bin:/bin", "APP_HOME=/srv/app", "EMPTY=", "DOLLAR=a$b", "SHELL_PATH=/bin/sh",
				`OPTIONS=-Da=b=c "d"`,
			},
			Labels: map[string]string{
				"org.example.name": "structure", "org.example.empty": "", "org.example.json": `{"a": 1}`,
			},
			ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}},
			Volumes:      map[string]struct{}{"/data": {}},
			Entrypoint:   []string{"/bin/sh", "-c"},
			Cmd:          []string{"echo", "$HOME"},
			WorkingDir:   "/srv/work",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return images
}

func verdictLayer(t *testing.T) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(header tar.Header, content string) {
		header.Size = int64(len(content))
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"etc/crlf.ini": "[a]\r\nkey=value\r\nlast=1\r\n", "etc/latin1.txt": "na\xefve\n", "etc/empty": "",
		"etc/multi.conf": "alpha 1\nbeta 2\ngamma 3\n", "opt/[a]*?{b}": "x",
		"opt/licenses/mit": "MIT\n", "opt/licenses/agpl": "the agpl\n",
	} {
		add(tar.Header{Name: name, Mode: 0o644}, content)
	}
	for name, target := range map[string]string{
		"opt/dangling": "/dev/stdout", "opt/passwd": "/etc/passwd", "opt/directory": "/usr/share", "opt/loop": "loop",
		"opt/relative": "multi", "opt/lucky": "../etc/multi.conf", "opt/license": "/opt/licenses/mit",
	} {
		add(tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777, Uid: 7, Gid: 8}, "")
	}
	add(tar.Header{Name: "opt/multi", Mode: 0o644}, "alpha\n")
	add(tar.Header{Name: "opt/ü b", Mode: 0o600}, "")
	add(tar.Header{Name: "usr/local/bin/tool", Mode: 0o4755, Uid: 998, Gid: 998}, "#!/bin/sh\n")
	add(tar.Header{Name: "usr/local/bin/run", Mode: 0o750}, "#!/bin/sh\n")
	add(tar.Header{Name: "srv/shared/", Typeflag: tar.TypeDir, Mode: 0o2775, Gid: 1000}, "")
	add(tar.Header{Name: "srv/app/", Typeflag: tar.TypeDir, Mode: 0o755}, "")
	add(tar.Header{Name: "opt/fifo", Typeflag: tar.TypeFifo, Mode: 0o644}, "")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testdata/verdicts has files of container-structure-test with one check each. The converted suites have the verdicts
// in verdicts.golden, which go test -update records with container-structure-test itself, unless an entry says why not.
func TestVerdicts(t *testing.T) {
	m := fleet(t)[engine.Current]
	images := verdictImages(t)
	ids := map[string]string{}
	for name, img := range images {
		var err error
		if ids[name], err = loadImage(t.Context(), m.Engine, "suite-test:verdicts-"+name, img); err != nil {
			t.Fatal(err)
		}
	}
	entries := verdictEntries(t)
	if *update {
		recordVerdicts(t, m.Host, entries)
	}
	want := readVerdicts(t)
	if len(want) != len(entries) {
		t.Errorf("%d verdicts of %d entries", len(want), len(entries))
	}
	// One run for each image reads the layers once.
	all, owners := map[string]*Suite{}, map[string][]*verdictEntry{}
	for _, e := range entries {
		converted, _, err := Convert(e.File, []byte(e.Config))
		if err != nil {
			e.failures = append(e.failures, err.Error())
			continue
		}
		s, err := Parse("testdata/verdicts/tests.yaml", converted)
		if err != nil {
			t.Fatalf("%s: %v in\n%s", e.Name, err, converted)
		}
		if all[e.Image] == nil {
			all[e.Image] = &Suite{}
		}
		for _, test := range s.Tests {
			all[e.Image].Tests = append(all[e.Image].Tests, test)
			owners[e.Image] = append(owners[e.Image], e)
		}
	}
	for name, s := range all {
		o := Options{Image: images[name], ImageID: ids[name], Target: OnEngine(m, ids[name]), Parallel: 4}
		r, err := Run(t.Context(), s, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range r.Tests {
			if result.Status != Passed {
				owners[name][i].failures = append(owners[name][i].failures, result.details())
			}
		}
	}
	for _, e := range entries {
		equal := (len(e.failures) == 0) == (want[e.Name] == "pass")
		switch {
		case !equal && e.Differs == "":
			t.Errorf("%s: want %s: %q\n%s", e.Name, want[e.Name], e.failures, e.Config)
		case equal && e.Differs != "":
			t.Errorf("%s: same verdict, so remove differs", e.Name)
		}
	}
}

func verdictEntries(t *testing.T) (entries []*verdictEntry) {
	data, err := os.ReadFile("testdata/verdicts/entries.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &entries); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Image == "" {
			e.Image = "root"
		}
		if e.File == "" {
			e.File, e.Config = "structure.yaml", "schemaVersion: 2.0.0\n"+e.Config
		}
	}
	return entries
}

const verdictsFile = "testdata/verdicts/verdicts.golden"

func readVerdicts(t *testing.T) map[string]string {
	data, err := os.ReadFile(verdictsFile)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if verdict, name, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			verdicts[name] = verdict
		}
	}
	return verdicts
}

// recordVerdicts builds container-structure-test and writes its verdicts.
func recordVerdicts(t *testing.T, host string, entries []*verdictEntry) {
	dir := t.TempDir()
	program := filepath.Join(dir, "container-structure-test")
	build := exec.Command("go", "-C", "../../internal/tools/structuretest", "build", "-o", program, "tool")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var verdicts strings.Builder
	for _, e := range entries {
		file := filepath.Join(dir, e.File)
		if err := os.WriteFile(file, []byte(e.Config), 0o644); err != nil {
			t.Fatal(err)
		}
		run := exec.CommandContext(t.Context(), program, "test", "--image", "suite-test:verdicts-"+e.Image, "--config", file)
		run.Env = append(os.Environ(), "DOCKER_HOST="+host, "STRUCTURE_TEST_VARIABLE=value")
		out, err := run.CombinedOutput()
		verdict := "pass"
		if err != nil {
			verdict = "fail"
		}
		t.Logf("%s: %s\n%s", verdict, e.Name, out)
		fmt.Fprintf(&verdicts, "%s: %s\n", verdict, e.Name)
	}
	if err := os.WriteFile(verdictsFile, []byte(verdicts.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

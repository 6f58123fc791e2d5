package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"go.yaml.in/yaml/v3"
)

// expectation is the content of testdata/dockerfiles/NAME/expect.yaml: a request and the expected result. In values,
// ${HTTP}, ${GIT}, ${HUB}, ${COMMIT}, ${LAYOUT} and ${DIR} are replaced with those of the test services. A setup.sh in
// the directory creates files that git cannot store.
type expectation struct {
	Context     string // "": the directory of the case
	Dockerfile  string // "": Dockerfile
	Target      string
	Args        map[string]string
	Labels      map[string]string
	Annotations map[string]string
	Contexts    map[string]string
	Secrets     map[string]string
	SSH         bool
	Allow       []string
	Network     string
	AddHosts    []string `yaml:"add_hosts"`
	Ulimits     []string
	ShmSize     int64 `yaml:"shm_size"`

	Error   string // file:line of the invalid line or the failed step
	Message string // part of the error
	Config  map[string]any
	Files   map[string]*expectedFile // null: must not exist
}

type expectedFile struct {
	Content *string
	Mode    string // octal
	Owner   string // uid:gid
	Link    string // target of a symbolic link
	Size    int64
}

// Solve and buildctl build each Dockerfile on the same daemon and produce the same image, or an error at the same line.
func TestParityWithBuildctl(t *testing.T) {
	w := sharedServices(t)
	cases, err := filepath.Glob("testdata/dockerfiles/*/expect.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 30 {
		t.Errorf("%d Dockerfiles, want at least 30", len(cases))
	}
	for _, file := range cases {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "context")
			e := prepare(t, w, filepath.Dir(file), dir)
			r := e.request(w, dir)
			r.LayerDir = t.TempDir() // to check layers that no step needs, too
			result, _, err := solve(t.Context(), w.machine(t, amd64), r)
			config, line, theirs := buildctl(t, w, r)
			if e.Error != "" || e.Message != "" {
				e.checkFailure(t, err, line, theirs)
				return
			}
			if err != nil || theirs != nil {
				t.Fatalf("Solve: %v\nbuildctl: %v", err, theirs)
			}
			if got, err := result.Image.ConfigName(); err != nil || got.String() != config {
				t.Errorf("config %s (%v), buildctl's %s", got, err, config)
			}
			if err := validate.Image(result.Image); err != nil {
				t.Error(err)
			}
			e.check(t, result.Image)
		})
	}
}

// prepare copies the directory of a case and runs its setup.sh.
func prepare(t *testing.T, w *services, source, dir string) *expectation {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "expect.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	setup := filepath.Join(dir, "setup.sh")
	if script, err := os.ReadFile(setup); err == nil {
		command := exec.Command("bash", "-c", string(script))
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("setup.sh: %v: %s", err, out)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, name := range []string{"setup.sh", "expect.yaml"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.NewReplacer("${HTTP}", w.files.URL, "${GIT}", w.git.URL, "${HUB}", host(w.hub), "${COMMIT}", w.commit,
		"${LAYOUT}", w.layout, "${DIR}", dir).Replace(string(data))
	e := new(expectation)
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(e); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return e
}

func (e *expectation) request(w *services, dir string) Request {
	r := request(dir)
	switch {
	case strings.Contains(e.Context, "://"):
		r.Context, r.Dockerfile = e.Context, "Dockerfile"
	case e.Context != "":
		r.Context = filepath.Join(dir, e.Context)
	}
	if e.Dockerfile != "" {
		r.Dockerfile = filepath.Join(dir, e.Dockerfile)
	}
	r.Target, r.BuildArgs, r.Labels, r.Contexts, r.Allow = e.Target, e.Args, e.Labels, e.Contexts, e.Allow
	r.Network, r.AddHosts, r.Ulimits, r.ShmSize = e.Network, e.AddHosts, e.Ulimits, e.ShmSize
	r.Annotations = map[string]string{}
	for key, value := range e.Annotations {
		r.Annotations[exptypes.AnnotationManifestKey(nil, key)] = value
	}
	r.Secrets = map[string]func() ([]byte, error){}
	for id, value := range e.Secrets {
		r.Secrets[id] = func() ([]byte, error) { return []byte(value), nil }
	}
	if e.SSH {
		r.SSH = []SSH{{ID: "default", Paths: []string{w.agent}}}
	}
	return r
}

// buildctlLine matches the line of an error in buildctl's output, above an excerpt of the Dockerfile.
var buildctlLine = regexp.MustCompile(`(?m)^\S+:(\d+)\n-{20}$`)

// buildctl builds r with BuildKit's command line. It returns the digest of the config, or the error and its line.
func buildctl(t *testing.T, w *services, r Request) (config string, line int, err error) {
	t.Helper()
	program := filepath.Join("..", "..", ".cache", "bin", "buildctl")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v (run scripts/setup.sh test)", err)
	}
	dir := t.TempDir()
	metadata := filepath.Join(dir, "metadata.json")
	arguments := []string{"--addr", w.builders.Address(r.Platform), "build",
		"--progress", "plain", "--metadata-file", metadata,
		"--frontend", "dockerfile.v0", "--opt", "platform=" + r.Platform}
	add := func(flag, format string, values ...any) {
		arguments = append(arguments, flag, fmt.Sprintf(format, values...))
	}
	if !filepath.IsAbs(r.Context) {
		add("--opt", "context=%s", r.Context)
	} else {
		add("--local", "context=%s", r.Context)
		add("--local", "dockerfile=%s", filepath.Dir(r.Dockerfile))
		add("--opt", "filename=%s", filepath.Base(r.Dockerfile))
	}
	for option, value := range map[string]string{"target": r.Target, "force-network-mode": r.Network,
		"add-hosts": strings.Join(r.AddHosts, ","), "ulimit": strings.Join(r.Ulimits, ",")} {
		if value != "" {
			add("--opt", "%s=%s", option, value)
		}
	}
	if r.ShmSize > 0 {
		add("--opt", "shm-size=%d", r.ShmSize)
	}
	for name, value := range r.BuildArgs {
		add("--opt", "build-arg:%s=%s", name, value)
	}
	for name, value := range r.Labels {
		add("--opt", "label:%s=%s", name, value)
	}
	for i, name := range slices.Sorted(maps.Keys(r.Contexts)) {
		from := r.Contexts[name]
		layout, isLayout := strings.CutPrefix(from, "oci-layout://")
		switch {
		case isLayout:
			layoutDir, tag, _ := strings.Cut(layout, ":")
			image, err := Open(t.Context(), layoutDir+":"+tag, "", Auth{})
			if err != nil {
				t.Fatal(err)
			}
			digest, err := image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			add("--oci-layout", "layout%d=%s", i, layoutDir)
			add("--opt", "context:%s=oci-layout://layout%d@%s", name, i, digest)
		case strings.Contains(from, "://"):
			add("--opt", "context:%s=%s", name, from)
		default:
			add("--local", "dir%d=%s", i, from)
			add("--opt", "context:%s=local:dir%d", name, i)
		}
	}
	for id, read := range r.Secrets {
		value, err := read()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, id)
		if err := os.WriteFile(file, value, 0o600); err != nil {
			t.Fatal(err)
		}
		add("--secret", "id=%s,src=%s", id, file)
	}
	for _, s := range r.SSH {
		add("--ssh", "%s=%s", s.ID, s.Paths[0])
	}
	for _, a := range r.Allow {
		add("--allow", "%s", a)
	}
	output := "type=image"
	for key, value := range r.exporterAttrs() {
		output += "," + strconv.Quote(key+"="+value)
	}
	arguments = append(arguments, "--output", output)
	out, err := exec.CommandContext(t.Context(), program, arguments...).CombinedOutput()
	if err != nil {
		if where := buildctlLine.FindSubmatch(out); where != nil {
			line, _ = strconv.Atoi(string(where[1]))
		}
		return "", line, fmt.Errorf("%w: %s", err, out)
	}
	data, err := os.ReadFile(metadata)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(data, &answer); err != nil {
		t.Fatal(err)
	}
	config, _ = answer[exptypes.ExporterImageConfigDigestKey].(string)
	return config, 0, nil
}

// checkFailure checks the error of a build.
func (e *expectation) checkFailure(t *testing.T, ours error, line int, theirs error) {
	t.Helper()
	if ours == nil || theirs == nil {
		t.Fatalf("want both to fail\nSolve: %v\nbuildctl: %v", ours, theirs)
	}
	if text := ours.Error(); !strings.Contains(text, e.Message) || strings.Contains(text, "\n") {
		t.Errorf("got %q, want one line with %q", text, e.Message)
	}
	if e.Error == "" {
		return
	}
	located, ok := errors.AsType[interface {
		error
		Where() Position
	}](ours)
	if !ok {
		t.Fatalf("got %v, want an error with a position", ours)
	}
	failed := located.Where()
	got := fmt.Sprintf("%s:%d", filepath.Base(failed.File), failed.Line)
	if got != e.Error || !strings.HasPrefix(ours.Error(), e.Error) {
		t.Errorf("got %s (%v), want %s", got, ours, e.Error)
	}
	if failed.Line != line {
		t.Errorf("line %d, buildctl's %d (%v)", failed.Line, line, theirs)
	}
	if !strings.Contains(failed.Excerpt, ">>>") {
		t.Errorf("the excerpt does not mark a line: %q", failed.Excerpt)
	}
}

// check checks the config, the annotations and the files of an image.
func (e *expectation) check(t *testing.T, image v1.Image) {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(file.Config)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	for key, want := range e.Config {
		// Convert through JSON, so that numbers have the same type.
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var wanted any
		if err := json.Unmarshal(data, &wanted); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(config[key], wanted) {
			t.Errorf("config %s: %v, want %v", key, config[key], wanted)
		}
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range e.Annotations {
		if got := manifest.Annotations[key]; got != want {
			t.Errorf("annotation %s: %q, want %q", key, got, want)
		}
	}
	files := extract(t, image)
	for name, want := range e.Files {
		got, ok := files[strings.TrimPrefix(name, "/")]
		switch {
		case want == nil && ok:
			t.Errorf("%s exists", name)
		case want == nil:
		case !ok:
			t.Errorf("%s does not exist among %q", name, slices.Sorted(maps.Keys(files)))
		default:
			want.check(t, name, got)
		}
	}
	for id, secret := range e.Secrets {
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("the config contains the secret %s", id)
		}
		for name, f := range files {
			if bytes.Contains(f.content, []byte(secret)) {
				t.Errorf("%s contains the secret %s", name, id)
			}
		}
	}
}

func (want *expectedFile) check(t *testing.T, name string, got extracted) {
	t.Helper()
	if want.Content != nil && string(got.content) != *want.Content {
		t.Errorf("%s: %q, want %q", name, got.content, *want.Content)
	}
	if mode := strconv.FormatInt(got.header.Mode&0o7777, 8); want.Mode != "" && mode != want.Mode {
		t.Errorf("%s has the mode %s, want %s", name, mode, want.Mode)
	}
	if owner := fmt.Sprintf("%d:%d", got.header.Uid, got.header.Gid); want.Owner != "" && owner != want.Owner {
		t.Errorf("%s is owned by %s, want %s", name, owner, want.Owner)
	}
	if want.Link != "" && got.header.Linkname != want.Link {
		t.Errorf("%s points to %q, want %q", name, got.header.Linkname, want.Link)
	}
	if want.Size != 0 && int64(len(got.content)) != want.Size {
		t.Errorf("%s has %d bytes, want %d", name, len(got.content), want.Size)
	}
}

type extracted struct {
	header  *tar.Header
	content []byte
}

// extract reads all files of an image.
func extract(t testing.TB, image v1.Image) map[string]extracted {
	t.Helper()
	stream := mutate.Extract(image)
	defer stream.Close()
	files := map[string]extracted{}
	for reader := tar.NewReader(stream); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.Trim(header.Name, "/")] = extracted{header, content}
	}
}

// tarOf returns an archive with one file.
func tarOf(name, content string) []byte {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	err := w.WriteHeader(&tar.Header{
		Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0),
	})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err) // writing to a buffer does not fail
	}
	return buffer.Bytes()
}

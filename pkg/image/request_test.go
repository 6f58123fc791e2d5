package image

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session/secrets"
)

func TestFrontendAttrs(t *testing.T) {
	for _, test := range []struct {
		name    string
		request Request
		want    map[string]string
	}{
		{"platform only", Request{Platform: amd64, Network: "default"}, map[string]string{"platform": amd64}},
		{
			"everything",
			Request{
				Platform: arm64, Target: "final", Network: "host", CgroupParent: "/g", AddHosts: []string{"a=1", "b=2"},
				Ulimits: []string{"nofile=1:2", "core=0"}, NoCacheFilters: []string{"one", "two"}, Pull: true, ShmSize: 64,
				BuildArgs: map[string]string{"A": "a"}, Labels: map[string]string{"L": "l"},
				Attestations: map[string]string{"sbom": "", "provenance": "mode=max"},
			},
			map[string]string{
				"platform": arm64, "target": "final", "force-network-mode": "host", "cgroup-parent": "/g",
				"add-hosts": "a=1,b=2", "ulimit": "nofile=1:2,core=0", "no-cache": "one,two", "image-resolve-mode": "pull",
				"shm-size": "64", "build-arg:A": "a", "label:L": "l", "attest:sbom": "", "attest:provenance": "mode=max",
			},
		},
		{
			"no cache for all stages", Request{Platform: amd64, NoCache: true, NoCacheFilters: []string{"one"}},
			map[string]string{"platform": amd64, "no-cache": ""},
		},
		{
			"from the cache",
			Request{
				Platform: amd64, NoCache: true, NoCacheFilters: []string{"one"}, Pull: true, Target: "final",
				Attestations: map[string]string{"sbom": ""},
			}.fromCache(),
			map[string]string{"platform": amd64, "target": "final"},
		},
	} {
		if got := test.request.frontendAttrs(); !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestExporterAttrs(t *testing.T) {
	epoch := map[string]string{"SOURCE_DATE_EPOCH": "0"}
	for _, test := range []struct {
		name    string
		request Request
		want    map[string]string
	}{
		{"default", Request{}, map[string]string{}},
		{"gzip", Request{Compression: Gzip}, map[string]string{"compression": "gzip", "force-compression": "true"}},
		{"fast zstd", Request{Compression: ZstdFast}, map[string]string{"compression": "zstd", "compression-level": "1"}},
		{"uncompressed", Request{Compression: Uncompressed}, map[string]string{"compression": "uncompressed"}},
		{"fixed time", Request{BuildArgs: epoch}, map[string]string{"rewrite-timestamp": "true"}},
		{"time that is not fixed", Request{BuildArgs: map[string]string{"SOURCE_DATE_EPOCH": ""}}, map[string]string{}},
		{"annotation", Request{Annotations: map[string]string{"annotation.a": "b"}}, map[string]string{"annotation.a": "b"}},
		{"push", Request{Push: []string{"a", "b"}}, map[string]string{"name": "a,b", "push": "true"}},
		{
			"push by digest",
			Request{Push: []string{"a", "a.b/c:1", "localhost:5000/d", "a.b/c:2", "localhost:5000/e:1"}, PushByDigest: true},
			map[string]string{
				"name": "a,a.b/c,localhost:5000/d,localhost:5000/e", "push": "true", "push-by-digest": "true",
			},
		},
		{"by digest without a push", Request{PushByDigest: true}, map[string]string{}},
	} {
		maps.Copy(test.want, map[string]string{
			"depot.export.image.version": "2", "oci-mediatypes": "true", "buildinfo": "false",
		})
		if got := test.request.exporterAttrs(); !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestSplitOutputs(t *testing.T) {
	output := func(kind, dir string, attrs ...string) client.ExportEntry {
		e := client.ExportEntry{Type: kind, OutputDir: dir, Attrs: map[string]string{}}
		for i := 0; i < len(attrs); i += 2 {
			e.Attrs[attrs[i]] = attrs[i+1]
		}
		return e
	}
	r := Request{Compression: Uncompressed, Outputs: []client.ExportEntry{
		output("local", "out"), output("tar", ""), output("oci", "layout"), output("docker", "", "compression", "zstd"),
		output("image", "", "name", "x"),
	}}
	outputs, layouts := r.splitOutputs()
	describe := func(list []client.ExportEntry) (result []string) {
		for _, e := range list {
			result = append(result, e.Type+" "+e.Attrs["compression"])
		}
		return result
	}
	want := []string{"local ", "tar ", "docker zstd", "image uncompressed"}
	if got := describe(outputs); !slices.Equal(got, want) {
		t.Errorf("outputs = %q, want %q", got, want)
	}
	want = []string{"oci uncompressed"}
	if got := describe(layouts); !slices.Equal(got, want) {
		t.Errorf("layouts = %q, want %q", got, want)
	}
	if len(r.Outputs[2].Attrs) > 0 {
		t.Errorf("the request's own output became %v", r.Outputs[2].Attrs)
	}
}

func TestSolveOptContexts(t *testing.T) {
	dir := writeFiles(t, map[string]string{"sub/App.Dockerfile": "FROM scratch\n"})
	r := Request{
		Platform: amd64, Context: dir, Dockerfile: filepath.Join(dir, "sub", "App.Dockerfile"), SharedKey: "key",
		Allow: []string{"network.host"},
		Contexts: map[string]string{
			"image": "docker-image://debian:12", "url": "https://example.com/a.git", "ssh": "git@example.com:a", "dir": dir,
		},
	}
	opt, files, err := r.solveOpt()
	if err != nil {
		t.Fatal(err)
	}
	for attr, want := range map[string]string{
		"filename": "App.Dockerfile", "context:image": "docker-image://debian:12",
		"context:url": "https://example.com/a.git", "context:ssh": "git@example.com:a",
		"context:dir": "local:" + mountName("dir"),
	} {
		if got := opt.FrontendAttrs[attr]; got != want {
			t.Errorf("attribute %s = %q, want %q", attr, got, want)
		}
	}
	mounts := slices.Sorted(maps.Keys(files.directories))
	want := []string{"context", mountName("dir")}
	slices.Sort(want)
	if !slices.Equal(mounts, want) {
		t.Errorf("mounts = %q, want %q", mounts, want)
	}
	if opt.SharedKey != "key" || !slices.Equal(opt.AllowedEntitlements, r.Allow) {
		t.Errorf("options = %+v", opt)
	}
	r = Request{Context: "https://example.com/b.git", Dockerfile: "sub/Dockerfile"}
	if opt, files, err = r.solveOpt(); err != nil {
		t.Fatal(err)
	}
	attrs := opt.FrontendAttrs
	if attrs["context"] != r.Context || attrs["filename"] != r.Dockerfile || len(files.directories) > 0 {
		t.Errorf("remote context: options = %+v", opt)
	}
}

func TestInvalidRequest(t *testing.T) {
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	absent := filepath.Join(dir, "absent")
	for _, test := range []struct {
		name    string
		change  func(r *Request)
		phrases []string
	}{
		{
			"missing context", func(r *Request) { r.Context = absent },
			[]string{"open build context: ", absent + " does not exist"},
		},
		{"context that is a file", func(r *Request) { r.Context = r.Dockerfile }, []string{"Dockerfile is not a directory"}},
		{
			"missing directory of the Dockerfile", func(r *Request) { r.Dockerfile = filepath.Join(absent, "Dockerfile") },
			[]string{"Dockerfile " + absent, "not found"},
		},
		{
			"missing named context", func(r *Request) { r.Contexts = map[string]string{"x": absent} },
			[]string{`open build context "x": `, absent + " does not exist"},
		},
		{
			"named context that is not a layout",
			func(r *Request) { r.Contexts = map[string]string{"x": "oci-layout://" + dir} },
			[]string{`open build context "x": `, "no index.json"},
		},
		{
			"missing SSH agent", func(r *Request) { r.SSH = []SSH{{ID: "default", Paths: []string{absent}}} },
			[]string{"open the SSH agent default", "a running agent"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(dir)
			test.change(&r)
			_, statuses, err := solve(t.Context(), nil, r) // returns only when status is closed
			if err == nil || len(statuses) > 0 {
				t.Fatalf("error = %v after %d statuses", err, len(statuses))
			}
			for _, phrase := range test.phrases {
				if !strings.Contains(err.Error(), phrase) {
					t.Errorf("error = %v, want %q in it", err, phrase)
				}
			}
			checkLine(t, err)
		})
	}
}

func TestSecretStore(t *testing.T) {
	store := secretStore{"a": func() ([]byte, error) { return []byte("value"), nil }}
	if got, err := store.GetSecret(t.Context(), "a"); err != nil || string(got) != "value" {
		t.Errorf("secret a = %q, %v", got, err)
	}
	if _, err := store.GetSecret(t.Context(), "b"); !errors.Is(err, secrets.ErrNotFound) {
		t.Errorf("secret b: error = %v, want ErrNotFound", err)
	}
}

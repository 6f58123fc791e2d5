package image

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// imageFor returns an image for linux on an architecture.
func imageFor(t testing.TB, architecture string) v1.Image {
	t.Helper()
	image := smallImage(t)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

// indexOf returns an index of images for the given architectures, with one attestation for each.
func indexOf(t testing.TB, architectures ...string) (index v1.ImageIndex, digests []v1.Hash) {
	t.Helper()
	index = empty.Index
	for _, architecture := range architectures {
		image := imageFor(t, architecture)
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
		platform := &v1.Platform{OS: "linux", Architecture: architecture}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}},
			mutate.IndexAddendum{Add: smallImage(t), Descriptor: v1.Descriptor{
				Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
				Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
			}})
	}
	return index, digests
}

func tagged(tag string) layout.Option {
	return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
}

func TestOpenLayout(t *testing.T) {
	newLayout := func(fill func(path layout.Path) error) string {
		dir := filepath.Join(t.TempDir(), "layout")
		path, err := layout.Write(dir, empty.Index)
		if err == nil {
			err = fill(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	one, other := imageFor(t, "amd64"), imageFor(t, "arm64")
	digest, err := one.Digest()
	if err != nil {
		t.Fatal(err)
	}
	both, digests := indexOf(t, "amd64", "arm64")
	single := newLayout(func(p layout.Path) error { return p.AppendImage(one, tagged("v1")) })
	two := newLayout(func(p layout.Path) error {
		if err := p.AppendImage(one, tagged("docker.io/library/app:v1")); err != nil {
			return err
		}
		return p.AppendImage(other, tagged("v2"))
	})
	same := newLayout(func(p layout.Path) error {
		if err := p.AppendImage(one, tagged("v1")); err != nil {
			return err
		}
		return p.AppendImage(one, tagged("latest"))
	})
	suffix := newLayout(func(p layout.Path) error {
		if err := p.AppendImage(one, tagged("v1")); err != nil {
			return err
		}
		return p.AppendImage(other, tagged("old-v1"))
	})
	multi := newLayout(func(p layout.Path) error { return p.AppendIndex(both, tagged("v1")) })
	nothing := newLayout(func(layout.Path) error { return nil })
	blob := func(hash v1.Hash) string { return filepath.Join("blobs", hash.Algorithm, hash.Hex) }
	manifest, err := one.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(what v1.Hash, change func(path string) error) string {
		return newLayout(func(p layout.Path) error {
			if err := p.AppendImage(one); err != nil {
				return err
			}
			return change(filepath.Join(string(p), blob(what)))
		})
	}
	lacking := damaged(manifest.Layers[1].Digest, os.Remove)
	short := damaged(manifest.Layers[0].Digest, func(path string) error { return os.Truncate(path, 10) })
	garbled := damaged(digest, func(path string) error { return os.WriteFile(path, []byte("<html>"), 0o644) })
	noJSON := newLayout(func(p layout.Path) error {
		return os.WriteFile(filepath.Join(string(p), "index.json"), []byte("not JSON"), 0o644)
	})
	config, err := one.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	altered := damaged(manifest.Config.Digest, func(path string) error {
		return os.WriteFile(path, bytes.Replace(config, []byte("amd64"), []byte("AMD64"), 1), 0o644)
	})
	bothDigest, err := both.Digest()
	if err != nil {
		t.Fatal(err)
	}
	rawIndex, err := both.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	alteredIndex := newLayout(func(p layout.Path) error {
		if err := p.AppendIndex(both); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(string(p), blob(bothDigest)), append(rawIndex, ' '), 0o644)
	})
	odd := filepath.Join(t.TempDir(), "with:colon@and at")
	if err := os.Rename(newLayout(func(p layout.Path) error { return p.AppendImage(one) }), odd); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name, reference, platform string
		want                      v1.Hash
	}{
		{name: "only image", reference: single, want: digest},
		{name: "tag", reference: single + ":v1", want: digest},
		{name: "digest", reference: single + "@" + digest.String(), want: digest},
		{name: "tag and digest", reference: single + ":v1@" + digest.String(), want: digest},
		{name: "scheme", reference: "oci-layout://" + single + ":v1", platform: amd64, want: digest},
		{name: "tag of a full name", reference: two + ":v1", want: digest},
		{name: "tag that ends another tag", reference: suffix + ":v1", want: digest},
		{name: "digest instead of an unknown tag", reference: two + ":v3@" + digest.String(), want: digest},
		{name: "same image under two tags", reference: same, want: digest},
		{name: "second platform", reference: multi, platform: arm64, want: digests[1]},
		{name: "first platform", reference: multi + ":v1", platform: amd64, want: digests[0]},
		{name: "directory with colons", reference: odd + ":", want: digest},
	} {
		t.Run(test.name, func(t *testing.T) {
			image, err := Open(t.Context(), test.reference, test.platform, Auth{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := image.Digest(); err != nil || got != test.want {
				t.Errorf("got %s (%v), want %s", got, err, test.want)
			}
			if err := validate.Image(image); err != nil {
				t.Error(err)
			}
		})
	}

	for _, test := range []struct {
		name, reference string
		reason, hint    string // parts of them
	}{
		{"several images", two, `several images: "docker.io/library/app:v1", "v2"`, "use " + two + ":TAG or "},
		{"unknown tag", two + ":v3", `no image "v3"`, `use one of the tags "docker.io/library/app:v1", "v2"`},
		{"unknown digest", single + "@sha256:" + strings.Repeat("0", 64), "", "write it again"},
		{"missing directory", single + "-absent", "no index.json", "use the directory of an OCI layout"},
		{"empty layout", nothing, "no images", ""},
		{"index that is not JSON", noJSON, "parse index.json: invalid character", "write the layout again"},
		{"missing layer", lacking, "no such file or directory", "write it again"},
		{"truncated layer", short, " has 10 of ", "write it again"},
		{"damaged manifest", garbled, "", "write it again"},
		{"damaged index", alteredIndex, "digest mismatch of " + bothDigest.String(), "write it again"},
		{
			"damaged config of the same size", altered, "digest mismatch of " + manifest.Config.Digest.String(),
			"write it again",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(t.Context(), test.reference, "", Auth{})
			failure, ok := errors.AsType[*LayoutError](err)
			if !ok || !strings.Contains(failure.Reason, test.reason) || !strings.Contains(failure.Hint, test.hint) {
				t.Fatalf("error = %#v", err)
			}
			checkLine(t, err)
		})
	}

	const amd64And64 = "linux/amd64, linux/arm64"
	for _, test := range []struct{ name, reference, platform, platforms string }{
		{"several platforms", multi, "", amd64And64},
		{"unknown platform", multi, "linux/riscv64", amd64And64},
		{"other architecture", single, arm64, "linux/amd64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(t.Context(), test.reference, test.platform, Auth{})
			checkPlatformError(t, err, test.platform, test.platforms)
		})
	}
	_, err = Open(t.Context(), single, "a/b/c/d/e", Auth{})
	if err == nil || !strings.Contains(err.Error(), "use for example linux/amd64") {
		t.Errorf("invalid platform: error = %v", err)
	}
}

// checkPlatformError checks the wanted and the available platforms of a PlatformError.
func checkPlatformError(t *testing.T, err error, wanted, platforms string) {
	t.Helper()
	failure, ok := errors.AsType[*PlatformError](err)
	if !ok || failure.Wanted != wanted || strings.Join(failure.Platforms, ", ") != platforms {
		t.Fatalf("error = %#v, want no %q among %s", err, wanted, platforms)
	}
	checkLine(t, err)
}

func TestSelectImage(t *testing.T) {
	descriptor := func(hex, platform string, change ...func(*v1.Descriptor)) v1.Descriptor {
		d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: v1.Hash{Algorithm: "sha256", Hex: hex}}
		if platform != "" {
			d.Platform, _ = v1.ParsePlatform(platform)
		}
		for _, c := range change {
			c(&d)
		}
		return d
	}
	attestation := func(d *v1.Descriptor) {
		d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	}
	index := func(d *v1.Descriptor) { d.MediaType = types.OCIImageIndex }
	v7, v6 := descriptor("7", "linux/arm/v7"), descriptor("6", "linux/arm/v6")
	wantedARM := &v1.Platform{OS: "linux", Architecture: "arm"}
	for _, test := range []struct {
		name      string
		manifests []v1.Descriptor
		wanted    *v1.Platform
		want      string // hex; "": a PlatformError
	}{
		{"preferred variant", []v1.Descriptor{v7, v6}, wantedARM, "7"},
		{"preferred variant in the other order", []v1.Descriptor{v6, v7}, wantedARM, "6"},
		{"several without a wanted platform", []v1.Descriptor{v6, v7}, nil, ""},
		{"image and attestation", []v1.Descriptor{descriptor("a", amd64, attestation), v6}, nil, "6"},
		{"image and nested index", []v1.Descriptor{descriptor("b", amd64, index), v6}, nil, "6"},
		{"one without a platform", []v1.Descriptor{descriptor("c", "")}, nil, "c"},
		{"attestations only", []v1.Descriptor{descriptor("a", amd64, attestation)}, nil, ""},
		{"wanted platform, image without one", []v1.Descriptor{descriptor("c", "")}, wantedARM, ""},
	} {
		got, err := selectImage("x", test.manifests, test.wanted)
		if _, failed := errors.AsType[*PlatformError](err); got.Hex != test.want || failed != (test.want == "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got.Hex, err, test.want)
		}
	}
}

func TestCheckPlatform(t *testing.T) {
	wanted := &v1.Platform{OS: "linux", Architecture: "amd64"}
	matching := &v1.ConfigFile{OS: "linux", Architecture: "amd64"}
	for _, test := range []struct {
		name   string
		config *v1.ConfigFile
		wanted *v1.Platform
		fails  bool
	}{
		{"matching", matching, wanted, false},
		{"any wanted", &v1.ConfigFile{}, nil, false},
		{"config without a platform", &v1.ConfigFile{}, wanted, true},
		{"other OS", &v1.ConfigFile{OS: "windows", Architecture: "amd64"}, wanted, true},
		{"other architecture", &v1.ConfigFile{OS: "linux", Architecture: "arm64"}, wanted, true},
	} {
		err := checkPlatform("x", test.config, test.wanted)
		if _, failed := errors.AsType[*PlatformError](err); failed != test.fails {
			t.Errorf("%s: error = %v", test.name, err)
		}
	}
}

func TestOpenFromRegistry(t *testing.T) {
	w := sharedRegistry(t)
	robot := w.login("robot", password)
	put := func(repository string, write func(ref name.Reference, options ...remote.Option) error) string {
		t.Helper()
		ref, err := name.ParseReference(w.registry.Addr + "/team/" + repository)
		if err != nil {
			t.Fatal(err)
		}
		if err := write(ref, remote.WithAuthFromKeychain(robot)); err != nil {
			t.Fatal(err)
		}
		return ref.String()
	}
	image := imageFor(t, "amd64")
	both, digests := indexOf(t, "amd64", "arm64")
	single := put("open:1", func(ref name.Reference, options ...remote.Option) error {
		return remote.Write(ref, image, options...)
	})
	multi := put("open:both", func(ref name.Reference, options ...remote.Option) error {
		return remote.WriteIndex(ref, both, options...)
	})
	gone := faultproxy.Refused(t)
	answers := func(status int, header, body string) string {
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if key, value, ok := strings.Cut(header, ": "); ok {
				rw.Header().Set(key, value)
			}
			rw.WriteHeader(status)
			fmt.Fprint(rw, body)
		}))
		t.Cleanup(server.Close)
		return host(server) + "/team/x:1"
	}
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)

	for _, test := range []struct {
		name, reference, platform string
		index                     int // of the image in both
	}{
		{"image", single, amd64, -1},
		{"image of any platform", single, "", -1},
		{"one of several", multi, arm64, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			opened, err := Open(t.Context(), test.reference, test.platform, robot)
			if err != nil {
				t.Fatal(err)
			}
			want, err := image.Digest()
			if test.index >= 0 {
				want = digests[test.index]
			}
			if got, failed := opened.Digest(); err != nil || failed != nil || got != want {
				t.Errorf("digest = %s (%v, %v), want %s", got, err, failed, want)
			}
			if err := validate.Image(opened); err != nil {
				t.Error(err)
			}
		})
	}
	for _, test := range []struct{ name, reference, platform, platforms string }{
		{"several platforms", multi, "", "linux/amd64, linux/arm64"},
		{"unknown platform", multi, "linux/s390x", "linux/amd64, linux/arm64"},
		{"other architecture", single, arm64, "linux/amd64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(t.Context(), test.reference, test.platform, robot)
			checkPlatformError(t, err, test.platform, test.platforms)
		})
	}

	login := "log in to " + w.registry.Addr + " (docker login)"
	for _, test := range []struct {
		name, reference string
		auth            Auth
		status          int
		is              error // target of errors.Is; may be nil
		phrase          string
	}{
		{"unknown tag", w.registry.Addr + "/team/open:absent", robot, 404, nil, "check the name and the tag"},
		{"wrong password", single, w.login("robot", "wrong"), 401, ErrUnauthorized, login},
		{"no login", single, Auth{}, 401, ErrUnauthorized, login},
		{
			"403", answers(http.StatusForbidden, "", `{"errors":[{"code":"FORBIDDEN","message":"no"}]}`), Auth{}, 403, nil,
			"grant this account permission to pull from",
		},
		{"404", answers(http.StatusNotFound, "", ""), Auth{}, 404, nil, "check the name"},
		{"429", answers(http.StatusTooManyRequests, "", ""), Auth{}, 429, nil, "try again in a few minutes"},
		{"429 for an hour", answers(http.StatusTooManyRequests, "Retry-After: 3600", ""), Auth{}, 429, nil, "try again"},
		{"503", answers(http.StatusServiceUnavailable, "", "unavailable"), Auth{}, 503, nil, "try again later"},
		{
			"web page", answers(http.StatusOK, "Content-Type: text/html", "<html>It works!</html>"), Auth{}, 0,
			httpclient.ErrFormat, "is a registry",
		},
		{
			"other JSON", answers(http.StatusOK, "Content-Type: application/json", `{"a": "b"}`), Auth{}, 0,
			httpclient.ErrFormat, "is a registry",
		},
		{"no answer", host(silent) + "/team/x:1", Auth{}, 0, os.ErrDeadlineExceeded, "no data from " + host(silent)},
		{"connection refused", gone + "/team/x:1", Auth{}, 0, syscall.ECONNREFUSED, "check that " + gone + " answers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := fastRegistry(test.auth)
			if test.is == os.ErrDeadlineExceeded { //nolint:errorlint // the same value
				client.idleTimeout = 200 * time.Millisecond
			}
			_, err := client.open(t.Context(), test.reference, "")
			failure, ok := errors.AsType[*httpclient.APIError](err)
			if !ok || failure.Op != "read "+test.reference || failure.Status != test.status ||
				test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.phrase) {
				t.Fatalf("error = %v (%#v)", err, failure)
			}
			checkLine(t, err)
		})
	}
	_, err := Open(t.Context(), "UPPER CASE", "", Auth{})
	if err == nil || !strings.Contains(err.Error(), "use a reference such as") {
		t.Errorf("invalid reference: error = %v", err)
	}
}

// Copying an image from a layout or a registry keeps its digest. Within one registry, no layers are sent.
func TestOpenAndPush(t *testing.T) {
	w := sharedServices(t)
	robot := w.login("robot", password)
	layoutImage, err := Open(t.Context(), w.layout+":1", amd64, Auth{})
	if err != nil {
		t.Fatal(err)
	}
	if err := PushImage(t.Context(), w.registry.Addr+"/team/from:layout", layoutImage, robot, nil); err != nil {
		t.Fatal(err)
	}
	image, err := Open(t.Context(), w.registry.Addr+"/team/from:layout", amd64, robot)
	if err != nil {
		t.Fatal(err)
	}
	before := len(w.registry.Requests())
	if err := PushImage(t.Context(), w.registry.Addr+"/team/from-registry:1", image, robot, nil); err != nil {
		t.Fatal(err)
	}
	if blobs, manifests := uploads(w.registry, "team/from-registry", before); blobs > 1 || manifests != 1 {
		t.Errorf("%d blobs and %d manifests were sent, want at most the config and one manifest", blobs, manifests)
	}
	moved, err := Open(t.Context(), w.registry.Addr+"/team/from-registry:1", amd64, robot)
	if err != nil {
		t.Fatal(err)
	}
	want, err := layoutImage.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := moved.Digest(); err != nil || got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}

func FuzzLayoutReference(f *testing.F) {
	hash := "sha256:" + strings.Repeat("ab", 32)
	for _, seed := range []string{
		"", "/dir", "/dir:tag", "/dir@" + hash, "/dir:tag@" + hash, "/a:b/c", "/a@b/c:d", ":", "@", "/dir:", "./rel:x",
		"/dir@sha256:short", "/dir@" + hash + "@" + hash,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, layout string) {
		dir, reference := splitLayout(layout)
		if !strings.HasPrefix(layout, dir) || strings.Contains(reference, "/") {
			t.Errorf("%q is split into %q and %q", layout, dir, reference)
		}
		if again, rest := splitLayout(dir + "@" + hash); again != strings.TrimSuffix(again, "@") && rest == "" {
			t.Errorf("%q with a digest is split into %q and %q", dir, again, rest)
		}
		if dir == layout && reference != "" {
			t.Errorf("%q has no reference, but got %q", layout, reference)
		}
	})
}

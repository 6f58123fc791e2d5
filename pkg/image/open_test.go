package image

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// imageFor is an image for linux on an architecture.
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

// indexOf is an index of images for those architectures, with something in it that is no image.
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
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}},
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
	make := func(fill func(path layout.Path) error) string {
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
	single := make(func(p layout.Path) error { return p.AppendImage(one, tagged("v1")) })
	two := make(func(p layout.Path) error {
		if err := p.AppendImage(one, tagged("docker.io/library/app:v1")); err != nil {
			return err
		}
		return p.AppendImage(other, tagged("v2"))
	})
	same := make(func(p layout.Path) error {
		if err := p.AppendImage(one, tagged("v1")); err != nil {
			return err
		}
		return p.AppendImage(one, tagged("latest"))
	})
	multi := make(func(p layout.Path) error { return p.AppendIndex(both, tagged("v1")) })
	nothing := make(func(layout.Path) error { return nil })
	blob := func(hash v1.Hash) string { return filepath.Join("blobs", hash.Algorithm, hash.Hex) }
	manifest, err := one.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(what v1.Hash, change func(path string) error) string {
		return make(func(p layout.Path) error {
			if err := p.AppendImage(one); err != nil {
				return err
			}
			return change(filepath.Join(string(p), blob(what)))
		})
	}
	lacking := damaged(manifest.Layers[1].Digest, os.Remove)
	short := damaged(manifest.Layers[0].Digest, func(path string) error { return os.Truncate(path, 10) })
	garbled := damaged(digest, func(path string) error { return os.WriteFile(path, []byte("<html>"), 0o644) })
	noJSON := make(func(p layout.Path) error {
		return os.WriteFile(filepath.Join(string(p), "index.json"), []byte("no JSON"), 0o644)
	})
	odd := filepath.Join(t.TempDir(), "with:colon@and at")
	if err := os.Rename(make(func(p layout.Path) error { return p.AppendImage(one) }), odd); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name, reference, platform string
		want                      v1.Hash
		refused                   string
	}{
		{name: "the only image", reference: single, want: digest},
		{name: "by its tag", reference: single + ":v1", want: digest},
		{name: "by its digest", reference: single + "@" + digest.String(), want: digest},
		{name: "by tag and digest", reference: single + ":v1@" + digest.String(), want: digest},
		{name: "with the scheme", reference: "oci-layout://" + single + ":v1", platform: amd64, want: digest},
		{name: "by the tag of a full name", reference: two + ":v1", want: digest},
		{name: "the same image under two tags", reference: same, want: digest},
		{name: "the platform of several", reference: multi, platform: arm64, want: digests[1]},
		{name: "the other platform of several", reference: multi + ":v1", platform: amd64, want: digests[0]},
		{name: "several platforms and none named", reference: multi, refused: "is for several platforms (linux/amd64, linux/arm64): say which one"},
		{name: "a platform that is not there", reference: multi, platform: "linux/riscv64", refused: "is for linux/amd64, linux/arm64, not linux/riscv64: build it for linux/riscv64"},
		{name: "the wrong architecture", reference: single, platform: arm64, refused: "is for linux/amd64, not linux/arm64: build it for linux/arm64"},
		{name: "several images and none named", reference: two, refused: `holds several images ("docker.io/library/app:v1", "v2"): name one as ` + two + ":TAG"},
		{name: "a tag that is not there", reference: two + ":v3", refused: `holds no image "v3", only "docker.io/library/app:v1", "v2"`},
		{name: "a digest that is not there", reference: single + "@sha256:" + strings.Repeat("0", 64), refused: "it is not whole"},
		{name: "no folder", reference: single + "-absent", refused: "is no OCI layout: there is no index.json in it"},
		{name: "nothing in it", reference: nothing, refused: "is empty"},
		{name: "an index that is no JSON", reference: noJSON, refused: "index.json: invalid character"},
		{name: "a layer missing", reference: lacking, refused: "no such file or directory): write it again"},
		{name: "a layer cut off", reference: short, refused: "has 10 of "},
		{name: "a manifest that is none", reference: garbled, refused: "write it again"},
		{name: "a platform that is none", reference: single, platform: "a/b/c/d/e", refused: "write for example linux/amd64"},
		{name: "a folder with colons", reference: odd + ":", want: digest},
	} {
		t.Run(test.name, func(t *testing.T) {
			image, err := Open(t.Context(), test.reference, test.platform, Auth{})
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v, want one line with %q", err, test.refused)
				}
				return
			}
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
}

func TestOpenFromARegistry(t *testing.T) {
	w := theWorld(t)
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
	both, _ := indexOf(t, "amd64", "arm64")
	single := put("open:1", func(ref name.Reference, options ...remote.Option) error {
		return remote.Write(ref, image, options...)
	})
	multi := put("open:both", func(ref name.Reference, options ...remote.Option) error {
		return remote.WriteIndex(ref, both, options...)
	})
	closed := httptest.NewServer(http.NotFoundHandler())
	gone := host(closed)
	closed.Close()
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
	before := registrySilence
	registrySilence = 200 * time.Millisecond
	t.Cleanup(func() { registrySilence = before })
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)

	for _, test := range []struct {
		name, reference, platform string
		auth                      Auth
		want                      string // "": it is opened
	}{
		{name: "an image", reference: single, platform: amd64, auth: robot},
		{name: "an image of any platform", reference: single, auth: robot},
		{name: "one of several", reference: multi, platform: arm64, auth: robot},
		{name: "several platforms and none named", reference: multi, auth: robot, want: "is for several platforms (linux/amd64, linux/arm64): say which one"},
		{name: "the wrong architecture", reference: single, platform: arm64, auth: robot, want: "is for linux/amd64, not linux/arm64: build it for linux/arm64"},
		{name: "a platform that is not there", reference: multi, platform: "linux/s390x", auth: robot, want: "is for linux/amd64, linux/arm64, not linux/s390x"},
		{name: "a tag that is not there", reference: w.registry.Addr + "/team/open:absent", auth: robot, want: "the registry has no such image"},
		{name: "wrong password", reference: single, auth: w.login("robot", "wrong"), want: "log in to " + w.registry.Addr + " (docker login)"},
		{name: "no login", reference: single, want: "log in to " + w.registry.Addr + " (docker login)"},
		{name: "403", reference: answers(http.StatusForbidden, "", `{"errors":[{"code":"FORBIDDEN","message":"no"}]}`), want: "does not let this account read it"},
		{name: "404", reference: answers(http.StatusNotFound, "", ""), want: "check"},
		{name: "429", reference: answers(http.StatusTooManyRequests, "", ""), want: "asks to slow down"},
		{name: "429 for an hour", reference: answers(http.StatusTooManyRequests, "Retry-After: 3600", ""), want: "asks to slow down"},
		{name: "503", reference: answers(http.StatusServiceUnavailable, "", "sorry"), want: "the registry fails"},
		{name: "a web page", reference: answers(http.StatusOK, "Content-Type: text/html", "<html>It works!</html>"), want: "something that is no image"},
		{name: "other JSON", reference: answers(http.StatusOK, "Content-Type: application/json", `{"a": "b"}`), want: "something that is no image"},
		{name: "silence", reference: host(silent) + "/team/x:1", want: "has been silent for 200ms"},
		{name: "nobody", reference: gone + "/team/x:1", want: "check that " + gone + " answers"},
		{name: "no reference", reference: "UPPER CASE", want: "write a reference such as registry.example.com/team/name:tag, or oci-layout://FOLDER"},
	} {
		t.Run(test.name, func(t *testing.T) {
			image, err := Open(t.Context(), test.reference, test.platform, test.auth)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), password) {
					t.Fatalf("got %v, want one line with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(image); err != nil {
				t.Error(err)
			}
		})
	}
}

// From a layout and from a registry to another repository: the digest stays, and from the same registry nothing is moved.
func TestOpenAndPush(t *testing.T) {
	w := theWorld(t)
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
	if blobs, _ := uploads(w.registry, before); blobs > 1 {
		t.Errorf("%d blobs were sent, want at most the config", blobs)
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
	for _, seed := range []string{"", "/dir", "/dir:tag", "/dir@" + hash, "/dir:tag@" + hash, "/a:b/c", "/a@b/c:d", ":", "@", "/dir:", "./rel:x", "/dir@sha256:short", "/dir@" + hash + "@" + hash} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, layout string) {
		dir, reference := splitLayout(layout)
		if !strings.HasPrefix(layout, dir) || strings.Contains(reference, "/") {
			t.Errorf("%q is parted into %q and %q", layout, dir, reference)
		}
		if again, rest := splitLayout(dir + "@" + hash); again != strings.TrimSuffix(again, "@") && rest == "" {
			t.Errorf("%q with a digest is parted into %q and %q", dir, again, rest)
		}
		if dir == layout && reference != "" {
			t.Errorf("%q has no reference, but %q was found", layout, reference)
		}
	})
}

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

// login enters the test's registry.
func (w *world) login(user, password string) Auth {
	return Auth{Credentials: []Credential{{Host: w.registry.Addr, Username: user, Password: password}}}
}

// uploads counts the blobs and manifests that were sent to a registry since its first n requests.
func uploads(r *registry.Registry, n int) (blobs, manifests int) {
	for _, request := range r.Requests()[n:] {
		switch {
		case strings.HasPrefix(request, "PATCH "):
			blobs++
		case strings.HasPrefix(request, "PUT ") && strings.Contains(request, "/manifests/"):
			manifests++
		}
	}
	return blobs, manifests
}

// Each machine pushes its platform by digest, and one index gives them a name: twice the same bytes, and nothing is moved for it.
func TestSeveralPlatforms(t *testing.T) {
	w := theWorld(t)
	for _, test := range []struct {
		name         string
		attestations map[string]string
		annotations  map[string]string
	}{
		{name: "plain"},
		{name: "annotated", annotations: map[string]string{"org.opencontainers.image.title": "a title"}},
		{name: "with provenance", attestations: map[string]string{"provenance": "mode=min"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			repository := w.registry.Addr + "/team/" + strings.ReplaceAll(test.name, " ", "-")
			dir := folderOf(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY file /\n", "file": test.name})
			join := func() ([]*Result, v1.ImageIndex) {
				t.Helper()
				var results []*Result
				for _, platform := range []string{amd64, arm64} {
					r := request(dir)
					r.Platform, r.Push, r.PushByDigest, r.Auth = platform, []string{repository}, true, w.login("robot", password)
					r.Attestations, r.Compression = test.attestations, Gzip
					result, _, err := solve(t.Context(), w.machine(t, platform), r)
					if err != nil {
						t.Fatal(err)
					}
					results = append(results, result)
				}
				index, err := JoinPlatforms(results, test.annotations)
				if err != nil {
					t.Fatal(err)
				}
				return results, index
			}
			results, index := join()
			before := len(w.registry.Requests())
			if err := PushIndex(t.Context(), repository+":both", index, w.login("robot", password)); err != nil {
				t.Fatal(err)
			}
			if blobs, manifests := uploads(w.registry, before); blobs != 0 || manifests != 1 {
				t.Errorf("%d blobs and %d manifests were sent, want only the index", blobs, manifests)
			}
			raw, err := index.RawManifest()
			if err != nil {
				t.Fatal(err)
			}
			if test.attestations == nil { // a provenance holds times
				_, again := join()
				if got, err := again.RawManifest(); err != nil || !bytes.Equal(got, raw) {
					t.Errorf("the second time (%v)\n%s\nand the first\n%s", err, got, raw)
				}
			}
			ref, err := name.ParseReference(repository + ":both")
			if err != nil {
				t.Fatal(err)
			}
			pulled, err := remote.Index(ref, remote.WithAuthFromKeychain(w.login("reader", password)))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := pulled.RawManifest(); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("the registry holds (%v)\n%s\nwant\n%s", err, got, raw)
			}
			if err := validate.Index(pulled); err != nil {
				t.Error(err)
			}
			manifest, err := pulled.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			want := 2
			if test.attestations != nil {
				want = 4
			}
			if len(manifest.Manifests) != want || fmt.Sprint(manifest.Annotations) != fmt.Sprint(test.annotations) {
				t.Errorf("the index holds %d manifests and the annotations %v, want %d and %v", len(manifest.Manifests), manifest.Annotations, want, test.annotations)
			}
			for _, result := range results {
				if result.Index != nil {
					if err := validate.Index(result.Index); err != nil {
						t.Error(err)
					}
				}
				image, err := Open(t.Context(), repository+":both", result.Platform, w.login("reader", password))
				if err != nil {
					t.Fatal(err)
				}
				got, err := image.Digest()
				if err != nil {
					t.Fatal(err)
				}
				if want, err := result.Image.Digest(); err != nil || got != want {
					t.Errorf("%s: %s in the registry, %s in the builder (%v)", result.Platform, got, want, err)
				}
			}
		})
	}
}

// The builder gets tokens for the registry. The password is in nothing that it writes, and we write nothing.
func TestPasswordsStayHere(t *testing.T) {
	w := theWorld(t)
	dir := folderOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	r := request(dir)
	r.Push, r.Auth = []string{w.registry.Addr + "/team/direct:1", w.registry.Addr + "/team/direct:2"}, w.login("robot", password)
	var masked []string
	r.Auth.Mask = func(secret string) { masked = append(masked, secret) }
	result, _, err := solve(t.Context(), w.machine(t, amd64), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"1", "2"} {
		image, err := Open(t.Context(), w.registry.Addr+"/team/direct:"+tag, amd64, w.login("reader", password))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := image.Digest(); err != nil || got != result.Digest {
			t.Errorf("the registry holds %s (%v), want %s", got, err, result.Digest)
		}
	}
	files := 0
	err = filepath.WalkDir(w.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // what is removed meanwhile
		}
		if data, err := os.ReadFile(path); err == nil {
			files++
			if bytes.Contains(data, []byte(password)) {
				t.Errorf("%s holds the password", path)
			}
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("looked into %d files of the daemons: %v", files, err)
	}
	if entries, err := os.ReadDir(os.Getenv("DOCKER_CONFIG")); err == nil && len(entries) > 0 {
		t.Errorf("Docker's configuration has become %v", entries)
	}
}

// What Docker's configuration knows is used where no credential is given, and masked first.
func TestDockersConfiguration(t *testing.T) {
	w := theWorld(t)
	folder := os.Getenv("DOCKER_CONFIG")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	config := fmt.Sprintf(`{"auths": {%q: {"username": "robot", "password": %q}}}`, w.registry.Addr, password)
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var masked []string
	auth := Auth{Mask: func(secret string) { masked = append(masked, secret) }}
	if err := PushImage(t.Context(), w.registry.Addr+"/team/configured:1", smallImage(t), auth, nil); err != nil {
		t.Error(err)
	}
	if !slices.Contains(masked, password) {
		t.Errorf("%q were masked", masked)
	}
}

func smallImage(t testing.TB) v1.Image {
	t.Helper()
	image, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// A push fails with the same sentence whether BuildKit pushes or we do.
func TestPushFails(t *testing.T) {
	w := theWorld(t)
	closed := httptest.NewServer(http.NotFoundHandler())
	gone := host(closed)
	closed.Close()
	dir := folderOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	for _, test := range []struct {
		name, reference string
		auth            Auth
		want            string
		unauthorized    bool
	}{
		{"wrong password", w.registry.Addr + "/team/x:1", w.login("robot", "wrong"), "log in to " + w.registry.Addr + " (docker login)", true},
		{"no login", w.registry.Addr + "/team/x:1", Auth{}, "log in to " + w.registry.Addr + " (docker login)", true},
		{"another's repository", w.registry.Addr + "/other/x:1", w.login("robot", password), "push there", false},
		{"an account that only reads", w.registry.Addr + "/team/x:1", w.login("reader", password), "push there", false},
		{"registry gone", gone + "/team/x:1", Auth{}, "check that " + gone + " answers", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(dir)
			r.Push, r.Auth = []string{test.reference}, test.auth
			_, _, err := solve(t.Context(), w.machine(t, amd64), r)
			for by, err := range map[string]error{"BuildKit": err, "us": PushImage(t.Context(), test.reference, smallImage(t), test.auth, nil)} {
				if err == nil {
					t.Errorf("pushed by %s: no error", by)
					continue
				}
				text := err.Error()
				if !strings.HasPrefix(text, "push "+test.reference+": ") || !strings.Contains(text, test.want) || strings.Contains(text, "\n") {
					t.Errorf("pushed by %s: %q, want one line that begins with the reference and holds %q", by, text, test.want)
				}
				if strings.Contains(text, password) {
					t.Errorf("pushed by %s: the password is in %q", by, text)
				}
				if test.unauthorized && !errors.Is(err, ErrUnauthorized) {
					t.Errorf("pushed by %s: %v is not ErrUnauthorized", by, err)
				}
			}
		})
	}
}

// faulty stands before a registry, and lets fault answer in its place when that wants to.
func faulty(t testing.TB, r *registry.Registry, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: r.Addr}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // the registry names its upload addresses by it
		},
		ModifyResponse: func(answer *http.Response) error { // and clients ask for tokens nowhere else
			answer.Header.Set("WWW-Authenticate", strings.ReplaceAll(answer.Header.Get("WWW-Authenticate"), r.Addr, answer.Request.Host))
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return host(server)
}

// What is safe to send again is sent again, and the image arrives whole.
func TestPushImageThroughTroubles(t *testing.T) {
	w := theWorld(t)
	answer := func(status int, header ...string) func(http.ResponseWriter, *http.Request) {
		return func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for i := 0; i < len(header); i += 2 {
				rw.Header().Set(header[i], header[i+1])
			}
			rw.WriteHeader(status)
		}
	}
	cut := func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 100)
		conn, _, err := rw.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	for _, test := range []struct {
		name, method, path string
		times              int
		fault              func(http.ResponseWriter, *http.Request)
	}{
		{"slow down while looking", http.MethodHead, "/blobs/", 2, answer(http.StatusTooManyRequests, "Retry-After", "0")},
		{"slow down at the beginning of an upload", http.MethodPost, "/blobs/uploads/", 2, answer(http.StatusTooManyRequests)},
		{"slow down in an upload", http.MethodPatch, "/blobs/uploads/", 2, answer(http.StatusTooManyRequests)},
		{"slow down at the manifest", http.MethodPut, "/manifests/", 2, answer(http.StatusTooManyRequests)},
		{"500 in an upload", http.MethodPatch, "/blobs/uploads/", 2, answer(http.StatusInternalServerError)},
		{"503 at an upload's end", http.MethodPut, "/blobs/uploads/", 1, answer(http.StatusServiceUnavailable)},
		{"502 at the manifest", http.MethodPut, "/manifests/", 2, answer(http.StatusBadGateway)},
		{"connection cut in an upload", http.MethodPatch, "/blobs/uploads/", 2, cut},
		{"connection cut at the manifest", http.MethodPut, "/manifests/", 1, cut},
		{"first answer missing", http.MethodGet, "/v2/", 1, answer(http.StatusServiceUnavailable)},
	} {
		t.Run(test.name, func(t *testing.T) {
			var mu sync.Mutex
			left := test.times
			addr := faulty(t, w.registry, func(rw http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				hit := left > 0 && r.Method == test.method && strings.Contains(r.URL.Path, test.path)
				if hit {
					left--
				}
				mu.Unlock()
				if hit {
					test.fault(rw, r)
				}
				return hit
			})
			image := smallImage(t)
			reference := addr + "/team/troubles:1"
			auth := Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}}
			var done, total int64
			err := PushImage(t.Context(), reference, image, auth, func(d, of int64) { done, total = d, of })
			if err != nil {
				t.Fatal(err)
			}
			if left != 0 {
				t.Fatalf("%d of %d faults were not met", left, test.times)
			}
			if done != total || total == 0 {
				t.Errorf("the progress ended at %d of %d", done, total)
			}
			pulled, err := Open(t.Context(), reference, "", auth)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(pulled); err != nil {
				t.Error(err)
			}
		})
	}
}

// What can not be mended ends, in one sentence.
func TestPushImageGivesUp(t *testing.T) {
	w := theWorld(t)
	for _, test := range []struct {
		name   string
		fault  func(rw http.ResponseWriter, r *http.Request) bool
		image  func(v1.Image) v1.Image
		change func(t *testing.T)
		want   string
	}{
		{name: "500 for ever", want: "the registry fails", fault: func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPatch {
				rw.WriteHeader(http.StatusInternalServerError)
			}
			return r.Method == http.MethodPatch
		}},
		{name: "429 for a long time", want: "asks to slow down", fault: func(rw http.ResponseWriter, r *http.Request) bool {
			rw.Header().Set("Retry-After", "3600")
			rw.WriteHeader(http.StatusTooManyRequests)
			return true
		}},
		{name: "403 at the manifest", want: "does not let this account push there", fault: func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
				rw.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		}},
		{name: "garbage", want: "check that", fault: func(rw http.ResponseWriter, r *http.Request) bool {
			fmt.Fprintln(rw, "<html>It works!</html>")
			return true
		}},
		{name: "silence", want: "has been silent for", fault: func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPatch {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				return true
			}
			return false
		}, change: func(t *testing.T) {
			before := registrySilence
			registrySilence = 100 * time.Millisecond
			t.Cleanup(func() { registrySilence = before })
		}},
		{name: "the builder goes away", want: "the builder went away", fault: func(http.ResponseWriter, *http.Request) bool { return false }, image: func(image v1.Image) v1.Image {
			return brokenImage{image, &builderError{sentence: "the builder went away"}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.change != nil {
				test.change(t)
			}
			addr := faulty(t, w.registry, test.fault)
			image := smallImage(t)
			if test.image != nil {
				image = test.image(image)
			}
			auth := Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}}
			err := PushImage(t.Context(), addr+"/team/gives-up:1", image, auth, func(int64, int64) {})
			if err == nil || !strings.HasPrefix(err.Error(), "push "+addr+"/team/gives-up:1: ") || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
			}
		})
	}
}

// brokenImage has layers that can not be read.
type brokenImage struct {
	v1.Image
	err error
}

func (i brokenImage) Layers() ([]v1.Layer, error) {
	layers, err := i.Image.Layers()
	for n, layer := range layers {
		layers[n] = brokenLayer{layer, i.err}
	}
	return layers, err
}

type brokenLayer struct {
	v1.Layer
	err error
}

func (l brokenLayer) Compressed() (io.ReadCloser, error) { return io.NopCloser(l), nil }
func (l brokenLayer) Read([]byte) (int, error)           { return 0, l.err }

// Access that ends during a push: the same call with a fresh login sends what is still missing, and no more.
func TestPushImageGoesOn(t *testing.T) {
	w := theWorld(t)
	image := smallImage(t)
	var mu sync.Mutex
	patches, expired := 0, true
	addr := faulty(t, w.registry, func(rw http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPatch {
			patches++
		}
		if expired && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			rw.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	auth := Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}}
	if err := PushImage(t.Context(), addr+"/team/goes-on:1", image, auth, nil); !errors.Is(err, ErrUnauthorized) {
		t.Fatalf("got %v, want ErrUnauthorized", err)
	}
	mu.Lock()
	first := patches
	expired = false
	mu.Unlock()
	if err := PushImage(t.Context(), addr+"/team/goes-on:1", image, auth, nil); err != nil {
		t.Fatal(err)
	}
	if first != 3 || patches != first {
		t.Errorf("%d blobs were sent first, %d in all; want 3 once", first, patches)
	}
}

// An image of any size passes through little memory, and through no file.
func TestPushImageInLittleMemory(t *testing.T) {
	w := theWorld(t)
	const size = 64 << 20
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "absent"))
	image, err := mutate.AppendLayers(empty.Image, zeros(t, size))
	if err != nil {
		t.Fatal(err)
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	var most uint64
	next := int64(0)
	err = PushImage(t.Context(), w.registry.Addr+"/team/large:1", image, w.login("robot", password), func(done, total int64) {
		if done >= next {
			next = done + size/8
			most = max(most, live())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if next < size || int64(most)-int64(before) > 8<<20 {
		t.Errorf("%d bytes were alive before, %d at most while %d bytes were sent", before, most, next)
	}
}

// zeros is an uncompressed layer of that many bytes, made while it is read.
func zeros(t testing.TB, size int64) v1.Layer {
	t.Helper()
	hash, _, err := v1.SHA256(io.LimitReader(zero{}, size))
	if err != nil {
		t.Fatal(err)
	}
	return &zeroLayer{Layer: gzipped(nil), hash: hash, size: size}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type zeroLayer struct {
	v1.Layer
	hash v1.Hash
	size int64
}

func (l *zeroLayer) Digest() (v1.Hash, error) { return l.hash, nil }
func (l *zeroLayer) DiffID() (v1.Hash, error) { return l.hash, nil }
func (l *zeroLayer) Size() (int64, error)     { return l.size, nil }
func (l *zeroLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(zero{}, l.size)), nil
}

func TestPushIsCanceled(t *testing.T) {
	w := theWorld(t)
	cause := errors.New("the test has seen enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	addr := faulty(t, w.registry, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that we go
		cancel(cause)
		<-r.Context().Done()
		return true
	})
	auth := Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}}
	if err := PushImage(ctx, addr+"/team/canceled:1", smallImage(t), auth, nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

// What was built is pushed later, by the builder, once there is a login for it; the digest is that of what was built.
func TestPushBuilt(t *testing.T) {
	w := theWorld(t)
	c := w.machine(t, amd64)
	dir := folderOf(t, map[string]string{"Dockerfile": "FROM small:1\nCOPY file /\n", "file": "built once\n"})
	for _, test := range []struct {
		name   string
		change func(r *Request)
	}{
		{"plain", func(*Request) {}},
		{"built anew", func(r *Request) { r.NoCache = true }},
		{"with attestations", func(r *Request) { r.Attestations = map[string]string{"provenance": "mode=min"} }},
		{"for an engine", func(r *Request) { r.Compression = Uncompressed }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(dir)
			test.change(&r)
			built, _, err := solve(t.Context(), c, r)
			if err != nil {
				t.Fatal(err)
			}
			reference := w.registry.Addr + "/team/built:" + strings.ReplaceAll(test.name, " ", "-")
			if err := PushFromBuilder(t.Context(), c, r, built, w.login("robot", "expired"), reference); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("with a login that has expired: %v", err)
			}
			if err := PushFromBuilder(t.Context(), c, r, built, w.login("robot", password), reference); err != nil {
				t.Fatal(err)
			}
			image, err := Open(t.Context(), reference, amd64, w.login("reader", password))
			if err != nil {
				t.Fatal(err)
			}
			got, err := image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if want, err := built.Image.Digest(); err != nil || got != want {
				t.Errorf("the registry holds %s, and %s was built (%v)", got, want, err)
			}
			whole(t, image)
		})
	}
	t.Run("the context has changed", func(t *testing.T) {
		r := request(dir)
		built, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("something else\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		err = PushFromBuilder(t.Context(), c, r, built, w.login("robot", password), w.registry.Addr+"/team/built:changed")
		if err == nil || !strings.Contains(err.Error(), "built "+"sha256:") || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want that another image was built", err)
		}
		if _, err := Open(t.Context(), w.registry.Addr+"/team/built:changed", amd64, w.login("reader", password)); err == nil {
			t.Error("the other image was pushed")
		}
	})
}

// Who may push is found out before anything is made, and nothing is left of the question.
func TestMayPush(t *testing.T) {
	w := theWorld(t)
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(context.DeadlineExceeded)
	for _, test := range []struct {
		name string
		ctx  context.Context
		auth Auth
		at   string
		want string // "": it may
	}{
		{name: "who may", ctx: t.Context(), auth: w.login("robot", password), at: "/team/may:1"},
		{name: "nobody", ctx: t.Context(), at: "/team/may:1", want: "the registry does not accept the login"},
		{name: "who may read", ctx: t.Context(), auth: w.login("reader", password), at: "/team/may:1", want: "push "},
		{name: "too late", ctx: ended, auth: w.login("robot", password), at: "/team/may:1", want: context.DeadlineExceeded.Error()},
		{name: "no reference", ctx: t.Context(), at: "/TEAM", want: "write for example"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := len(w.registry.Requests())
			err := CheckPushPermission(test.ctx, w.registry.Addr+test.at, test.auth)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if blobs, manifests := uploads(w.registry, asked); blobs+manifests > 0 {
				t.Errorf("%d blobs and %d manifests were sent", blobs, manifests)
			}
		})
	}
}

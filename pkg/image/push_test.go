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
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/moby/buildkit/client"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/humanize"
)

// login returns the credentials of an account of the registry.
func (w *testRegistry) login(user, password string) Auth {
	return Auth{Credentials: []Credential{{Host: w.registry.Addr, Username: user, Password: password}}}
}

// uploads counts the blobs and manifests that a repository received after the registry's first n requests.
func uploads(r *registry.Registry, repository string, n int) (blobs, manifests int) {
	for _, request := range r.Requests()[n:] {
		switch {
		case !strings.Contains(request, " /v2/"+repository+"/"): // from an earlier test
		case strings.HasPrefix(request, "PATCH "):
			blobs++
		case strings.HasPrefix(request, "PUT ") && strings.Contains(request, "/manifests/"):
			manifests++
		}
	}
	return blobs, manifests
}

// Each builder pushes its platform by digest. The index is reproducible, and pushing it sends no blobs.
func TestSeveralPlatforms(t *testing.T) {
	w := sharedServices(t)
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
			repositoryPath := "team/" + strings.ReplaceAll(test.name, " ", "-")
			repository := w.registry.Addr + "/" + repositoryPath
			dir := writeFiles(t, map[string]string{
				"Dockerfile": "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY file /\n", "file": test.name,
			})
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
			if blobs, manifests := uploads(w.registry, repositoryPath, before); blobs != 0 || manifests != 1 {
				t.Errorf("%d blobs and %d manifests were sent, want only the index", blobs, manifests)
			}
			raw, err := index.RawManifest()
			if err != nil {
				t.Fatal(err)
			}
			if test.attestations == nil { // a provenance contains times
				_, again := join()
				if got, err := again.RawManifest(); err != nil || !bytes.Equal(got, raw) {
					t.Errorf("second build (%v)\n%s\nfirst build\n%s", err, got, raw)
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
				t.Errorf("the registry has (%v)\n%s\nwant\n%s", err, got, raw)
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
				t.Errorf("the index has %d manifests and the annotations %v, want %d and %v",
					len(manifest.Manifests), manifest.Annotations, want, test.annotations)
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

// The builder gets only tokens for the registry: no file of the builder and no Docker configuration has the password.
func TestPasswordsStayInProcess(t *testing.T) {
	w := sharedServices(t)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	r := request(dir)
	repository := w.registry.Addr + "/team/direct"
	r.Push, r.Auth = []string{repository + ":1", repository + ":2"}, w.login("robot", password)
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
			t.Errorf("the registry has %s (%v), want %s", got, err, result.Digest)
		}
	}
	files := 0
	err = filepath.WalkDir(w.state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // a file that was just removed
		}
		if data, err := os.ReadFile(path); err == nil {
			files++
			if bytes.Contains(data, []byte(password)) {
				t.Errorf("%s contains the password", path)
			}
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("read %d files of the daemons: %v", files, err)
	}
	if entries, err := os.ReadDir(os.Getenv("DOCKER_CONFIG")); err == nil && len(entries) > 0 {
		t.Errorf("Docker's configuration contains %v", entries)
	}
}

// Without Credentials, PushImage uses those of Docker's configuration and masks them first.
func TestDockerConfiguration(t *testing.T) {
	w := sharedRegistry(t)
	config := `{"auths": {%q: {"username": "robot", "password": %q}}}`
	writeDockerConfig(t, fmt.Sprintf(config, w.registry.Addr, password))
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

// BuildKit's push and PushImage fail with the same errors.
func TestPushFails(t *testing.T) {
	w := sharedServices(t)
	gone := faultproxy.Refused(t)
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	login := "log in to " + w.registry.Addr + " (docker login)"
	for _, test := range []struct {
		name, reference string
		auth            Auth
		hint            string
		unauthorized    bool
	}{
		{"wrong password", w.registry.Addr + "/team/x:1", w.login("robot", "wrong"), login, true},
		{"no login", w.registry.Addr + "/team/x:1", Auth{}, login, true},
		{"other repository", w.registry.Addr + "/other/x:1", w.login("robot", password), "push to the repository", false},
		{"read-only account", w.registry.Addr + "/team/x:1", w.login("reader", password), "push to the repository", false},
		{"connection refused", gone + "/team/x:1", Auth{}, "check that " + gone + " answers", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(dir)
			r.Push, r.Auth = []string{test.reference}, test.auth
			_, _, err := solve(t.Context(), w.machine(t, amd64), r)
			own := fastRegistry(test.auth).pushImage(t.Context(), test.reference, smallImage(t), nil)
			for by, err := range map[string]error{"BuildKit": err, "this process": own} {
				failure, ok := errors.AsType[*httpclient.APIError](err)
				if !ok || failure.Op != "push "+test.reference || !strings.Contains(failure.Hint, test.hint) {
					t.Errorf("pushed by %s: error = %#v", by, err)
					continue
				}
				checkLine(t, err)
				if test.unauthorized && !errors.Is(err, ErrUnauthorized) {
					t.Errorf("pushed by %s: %v is not ErrUnauthorized", by, err)
				}
			}
		})
	}
}

// faulty starts a proxy for a registry and returns its address. fault returns true if it has answered the request.
func faulty(t testing.TB, r *registry.Registry, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	target := &url.URL{Scheme: "http", Host: r.Addr}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // the registry builds upload URLs from it
		},
		ModifyResponse: func(answer *http.Response) error { // makes clients get tokens through the proxy
			challenge := answer.Header.Get("WWW-Authenticate")
			answer.Header.Set("WWW-Authenticate", strings.ReplaceAll(challenge, r.Addr, answer.Request.Host))
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

func TestPushImageRetries(t *testing.T) {
	w := sharedRegistry(t)
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
		{"429 for the check of a blob", http.MethodHead, "/blobs/", 2, answer(429, "Retry-After", "0")},
		{"429 at the start of an upload", http.MethodPost, "/blobs/uploads/", 2, answer(429)},
		{"429 during an upload", http.MethodPatch, "/blobs/uploads/", 2, answer(http.StatusTooManyRequests)},
		{"429 for the manifest", http.MethodPut, "/manifests/", 2, answer(http.StatusTooManyRequests)},
		{"500 during an upload", http.MethodPatch, "/blobs/uploads/", 2, answer(http.StatusInternalServerError)},
		{"503 at the end of an upload", http.MethodPut, "/blobs/uploads/", 1, answer(http.StatusServiceUnavailable)},
		{"502 for the manifest", http.MethodPut, "/manifests/", 2, answer(http.StatusBadGateway)},
		{"connection lost during an upload", http.MethodPatch, "/blobs/uploads/", 2, cut},
		{"connection lost during the manifest", http.MethodPut, "/manifests/", 1, cut},
		{"503 for the first request", http.MethodGet, "/v2/", 1, answer(http.StatusServiceUnavailable)},
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
			reference := addr + "/team/retries:1"
			auth := Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}}
			var progress humanize.Transfer
			err := fastRegistry(auth).pushImage(t.Context(), reference, image, func(p humanize.Transfer) { progress = p })
			if err != nil {
				t.Fatal(err)
			}
			if left != 0 {
				t.Fatalf("%d of %d faults did not occur", left, test.times)
			}
			if progress.Done != progress.Total || progress.Total == 0 {
				t.Errorf("the progress ended at %+v", progress)
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

func TestPushImageGivesUp(t *testing.T) {
	w := sharedRegistry(t)
	type fault = func(http.ResponseWriter, *http.Request) bool
	always := func(status int, header ...string) fault {
		return func(rw http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i < len(header); i += 2 {
				rw.Header().Set(header[i], header[i+1])
			}
			rw.WriteHeader(status)
			return true
		}
	}
	only := func(method, path string, next fault) fault {
		return func(rw http.ResponseWriter, r *http.Request) bool {
			return r.Method == method && strings.Contains(r.URL.Path, path) && next(rw, r)
		}
	}
	for _, test := range []struct {
		name   string
		fault  fault
		status int
		is     error // target of errors.Is; may be nil
		hint   string
	}{
		{"500", only(http.MethodPatch, "/", always(500)), 500, nil, "try again later"},
		{"429 for an hour", always(429, "Retry-After", "3600"), 429, nil, "try again in a few minutes"},
		{"403 at the manifest", only(http.MethodPut, "/manifests/", always(403)), 403, nil, "permission to push to"},
		{"web page", func(rw http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintln(rw, "<html>It works!</html>")
			return true
		}, 0, nil, "check that"},
		{"no answer", only(http.MethodPatch, "/", func(_ http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		}), 0, os.ErrDeadlineExceeded, "try again later"},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := faulty(t, w.registry, test.fault)
			client := fastRegistry(Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}})
			if test.is == os.ErrDeadlineExceeded { //nolint:errorlint // the same value
				client.idleTimeout = 300 * time.Millisecond
			}
			err := client.pushImage(t.Context(), addr+"/team/gives-up:1", smallImage(t), func(humanize.Transfer) {})
			failure, ok := errors.AsType[*httpclient.APIError](err)
			if !ok || failure.Op != "push "+addr+"/team/gives-up:1" || !strings.Contains(failure.Hint, test.hint) ||
				test.is != nil && !errors.Is(err, test.is) || test.name != "web page" && failure.Status != test.status {
				t.Fatalf("error = %#v", err)
			}
			checkLine(t, err)
		})
	}
	t.Run("the builder fails", func(t *testing.T) {
		broken := &ReadError{Reason: "the connection to the builder was lost"}
		client, image := fastRegistry(w.login("robot", password)), brokenImage{smallImage(t), broken}
		err := client.pushImage(t.Context(), w.registry.Addr+"/team/gives-up:1", image, nil)
		if failure, ok := errors.AsType[*ReadError](err); !ok || failure != broken {
			t.Errorf("error = %#v, want the builder's", err)
		}
	})
}

// brokenImage has layers that cannot be read.
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

// The layer that fails first gives the error of a push, not the others, whose uploads it cancels.
func TestPushKeepsTheCause(t *testing.T) {
	w := sharedRegistry(t)
	image, err := random.Image(1<<10, 3)
	if err != nil {
		t.Fatal(err)
	}
	var uploads atomic.Int32
	addr := faulty(t, w.registry, func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if uploads.Add(1) == 2 {
			rw.WriteHeader(http.StatusInsufficientStorage)
		} else {
			<-r.Context().Done()
		}
		return true
	})
	client := fastRegistry(Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}})
	err = client.pushImage(t.Context(), addr+"/team/cause:1", image, nil)
	if httpclient.Status(err) != http.StatusInsufficientStorage {
		t.Errorf("got %v, want the registry's status", err)
	}
}

// If the credentials expire during a push, the same call with fresh ones sends only the missing layers.
func TestPushImageResumes(t *testing.T) {
	w := sharedRegistry(t)
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
	if err := PushImage(t.Context(), addr+"/team/continues:1", image, auth, nil); !errors.Is(err, ErrUnauthorized) {
		t.Fatalf("got %v, want ErrUnauthorized", err)
	}
	mu.Lock()
	first := patches
	expired = false
	mu.Unlock()
	if err := PushImage(t.Context(), addr+"/team/continues:1", image, auth, nil); err != nil {
		t.Fatal(err)
	}
	if first != 3 || patches != first {
		t.Errorf("%d blobs were sent first, %d in total; want 3 once", first, patches)
	}
}

// PushImage streams, so it needs little memory and no temporary files.
func TestPushImageMemory(t *testing.T) {
	w := sharedRegistry(t)
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
	progress := func(p humanize.Transfer) {
		if p.Done >= next {
			next = p.Done + size/8
			most = max(most, live())
		}
	}
	err = PushImage(t.Context(), w.registry.Addr+"/team/large:1", image, w.login("robot", password), progress)
	if err != nil {
		t.Fatal(err)
	}
	if next < size || int64(most)-int64(before) > 8<<20 {
		t.Errorf("%d bytes of heap before, at most %d while %d bytes were sent", before, most, next)
	}
}

// The progress of a push contains neither the layers that the registry has nor their time.
func TestPushProgress(t *testing.T) {
	updates := make(chan v1.Update)
	go func() {
		defer close(updates)
		for _, complete := range []int64{32 << 10, 64 << 10, 64<<10 + 300<<20, 96<<10 + 300<<20, 64<<10 + 300<<20} {
			updates <- v1.Update{Complete: complete, Total: 400 << 20}
		}
		updates <- v1.Update{Error: errors.New("broken")}
	}()
	var got []int64
	reportTransfer(updates, func(p humanize.Transfer) { got = append(got, p.Done>>10, p.Total>>20) })
	want := []int64{32, 400, 64, 400, 64, 100, 96, 100, 64, 100}
	if !slices.Equal(got, want) {
		t.Errorf("got %v kB of MB, want %v", got, want)
	}
}

// zeros returns an uncompressed layer of size bytes that is generated while it is read.
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

func TestCanceledPush(t *testing.T) {
	w := sharedRegistry(t)
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	addr := faulty(t, w.registry, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // the server detects a canceled request only after the body
		cancel(cause)
		<-r.Context().Done()
		return true
	})
	auth := Auth{Credentials: []Credential{{Host: addr, Username: "robot", Password: password}}}
	if err := PushImage(ctx, addr+"/team/canceled:1", smallImage(t), auth, nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

// The builder can push an image after the build, with the same digest.
func TestPushFromBuilder(t *testing.T) { onBothVersions(t, testPushFromBuilder) }

func testPushFromBuilder(t *testing.T, w *services, c *client.Client) {
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM small:1\nCOPY file /\n", "file": "built once\n"})
	for _, test := range []struct {
		name   string
		change func(r *Request)
	}{
		{"plain", func(*Request) {}},
		{"without cache", func(r *Request) { r.NoCache = true }},
		{"with attestations", func(r *Request) {
			r.Attestations = map[string]string{"provenance": "mode=min", "sbom": "generator=scanner:1"}
		}},
		{"uncompressed", func(r *Request) { r.Compression = Uncompressed }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := request(dir)
			test.change(&r)
			built, _, err := solve(t.Context(), c, r)
			if err != nil {
				t.Fatal(err)
			}
			reference := w.registry.Addr + "/team/built:" + strings.ReplaceAll(test.name, " ", "-")
			err = PushFromBuilder(t.Context(), c, r, built, w.login("robot", "expired"), reference)
			if !errors.Is(err, ErrUnauthorized) {
				t.Errorf("expired login: error = %v", err)
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
				t.Errorf("the registry has %s, want %s (%v)", got, want, err)
			}
			checkDigests(t, image)
		})
	}
	t.Run("changed context", func(t *testing.T) {
		r := request(dir)
		built, _, err := solve(t.Context(), c, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("something else\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		reference := w.registry.Addr + "/team/built:changed"
		err = PushFromBuilder(t.Context(), c, r, built, w.login("robot", password), reference)
		stale, ok := errors.AsType[*StaleCacheError](err)
		if !ok || stale.Want != built.Digest || stale.Built == stale.Want ||
			!slices.Equal(stale.References, []string{reference}) {
			t.Errorf("error = %#v, want a StaleCacheError with the digest of another image", err)
		}
		_, err = Open(t.Context(), reference, amd64, w.login("reader", password))
		if httpclient.Status(err) != http.StatusNotFound {
			t.Errorf("error = %v: the other image was pushed", err)
		}
	})
}

func TestCheckPushPermission(t *testing.T) {
	w := sharedRegistry(t)
	const repository = "/team/permission:1"
	for _, test := range []struct {
		name         string
		auth         Auth
		denied       bool
		unauthorized bool
	}{
		{"account with permission", w.login("robot", password), false, false},
		{"no login", Auth{}, true, true},
		{"read-only account", w.login("reader", password), true, true}, // this registry answers 401 in both cases
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(w.registry.Requests())
			err := CheckPushPermission(t.Context(), w.registry.Addr+repository, test.auth)
			if (err != nil) != test.denied || errors.Is(err, ErrUnauthorized) != test.unauthorized {
				t.Errorf("error = %v", err)
			}
			if blobs, manifests := uploads(w.registry, "team/permission", before); blobs+manifests > 0 {
				t.Errorf("%d blobs and %d manifests were sent", blobs, manifests)
			}
		})
	}
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := CheckPushPermission(ctx, w.registry.Addr+repository, w.login("robot", password)); !errors.Is(err, cause) {
		t.Errorf("canceled: error = %v, want the cause", err)
	}
	err := CheckPushPermission(t.Context(), w.registry.Addr+"/TEAM", Auth{})
	if err == nil || !strings.Contains(err.Error(), "use for example") {
		t.Errorf("invalid reference: error = %v", err)
	}
}

// fastRegistry returns a client that retries without long waits.
func fastRegistry(auth Auth) registryClient {
	return registryClient{keychain: auth, minWait: time.Millisecond}
}

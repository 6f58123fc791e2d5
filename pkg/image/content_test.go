package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
)

// large builds an image with one layer of random bytes, which do not compress.
func large(t testing.TB, c *client.Client, size int) *Result {
	t.Helper()
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // does not fail
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY noise /\n", "noise": string(noise)})
	r := request(dir)
	r.Compression = Uncompressed
	result, _, err := solve(context.WithoutCancel(t.Context()), c, r)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func layerOf(t testing.TB, image v1.Image) io.ReadCloser {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	return stream
}

func TestLostBuilderConnection(t *testing.T) {
	w := sharedServices(t)
	connection, err := w.builders.Open(amd64, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	dir := t.TempDir()
	for name, content := range map[string]string{"ca": connection.CACert, "cert": connection.Cert, "key": connection.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(t.Context(), connection.Endpoint,
		client.WithServerConfig(connection.ServerName, filepath.Join(dir, "ca")),
		client.WithCredentials(filepath.Join(dir, "cert"), filepath.Join(dir, "key")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stream := layerOf(t, large(t, c, 32<<20).Image)
	if _, err := io.CopyN(io.Discard, stream, 1<<20); err != nil {
		t.Fatal(err)
	}
	connection.Close()
	_, err = io.Copy(io.Discard, stream)
	readFailure, ok := errors.AsType[*ReadError](err)
	if !ok || !strings.Contains(readFailure.Reason, "connection to the builder") {
		t.Errorf("error = %#v, want a lost connection", err)
	}
	dockerfile := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	_, _, err = solve(t.Context(), c, request(dockerfile))
	failure, ok := errors.AsType[*BuilderError](err)
	if !ok || !strings.Contains(failure.Message, "connection to the builder") || failure.Hint == "" {
		t.Errorf("build: error = %#v, want a lost connection", err)
	}
}

// Layers are streamed, so a large layer needs little memory.
func TestReadMemory(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	result := large(t, c, 64<<20)
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	stream := layerOf(t, result.Image)
	before, most := live(), int64(0)
	read := int64(0)
	for {
		n, err := io.CopyN(io.Discard, stream, 8<<20)
		read += n
		most = max(most, live())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if read < 64<<20 || most-before > 8<<20 {
		t.Errorf("read %d bytes with a heap of %d before and at most %d", read, before, most)
	}
}

// tamperedContent modifies the responses of a builder.
type tamperedContent struct {
	contentapi.ContentClient
	change func(*contentapi.ReadContentResponse) *contentapi.ReadContentResponse // nil ends the stream
	silent bool
}

func (c tamperedContent) Read(
	ctx context.Context, r *contentapi.ReadContentRequest, options ...grpc.CallOption,
) (contentapi.Content_ReadClient, error) {
	stream, err := c.ContentClient.Read(ctx, r, options...)
	return tamperedStream{stream, ctx, c}, err
}

func (c tamperedContent) Info(
	ctx context.Context, r *contentapi.InfoRequest, options ...grpc.CallOption,
) (*contentapi.InfoResponse, error) {
	if c.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.ContentClient.Info(ctx, r, options...)
}

type tamperedStream struct {
	contentapi.Content_ReadClient
	ctx    context.Context
	client tamperedContent
}

func (s tamperedStream) Recv() (*contentapi.ReadContentResponse, error) {
	if s.client.silent {
		<-s.ctx.Done()
		return nil, s.ctx.Err()
	}
	answer, err := s.Content_ReadClient.Recv()
	if err != nil || s.client.change == nil {
		return answer, err
	}
	if answer = s.client.change(answer); answer == nil {
		return nil, io.EOF
	}
	return answer, nil
}

func TestBlobVerification(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	layers, err := large(t, c, 100_000).Image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := layers[0].Size()
	if err != nil {
		t.Fatal(err)
	}
	type answer = contentapi.ReadContentResponse
	absent := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	const idle = 50 * time.Millisecond
	for _, test := range []struct {
		name   string
		hash   v1.Hash
		client tamperedContent
		reason string
	}{
		{"flipped bit", layer, tamperedContent{change: func(a *answer) *answer {
			a.Data[0] ^= 1
			return a
		}}, "digest mismatch"},
		{"no bytes", layer, tamperedContent{change: func(*answer) *answer { return nil }}, "got 0 of "},
		{"one more byte", layer, tamperedContent{change: func(a *answer) *answer {
			a.Data = append(a.Data, 'x')
			return a
		}}, fmt.Sprintf("got %d of %d bytes", size+1, size)},
		{"no answer", layer, tamperedContent{silent: true}, "no data for 50ms"},
		{"unknown blob", absent, tamperedContent{}, "not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.client.ContentClient = c.ContentClient()
			store := &contentStore{ctx: t.Context(), client: test.client}
			if test.client.silent {
				store.idleTimeout = idle
			}
			checkReadError(t, readBlob(store, test.hash, size), test.hash, test.reason)
		})
	}
	store := &contentStore{ctx: t.Context(), client: c.ContentClient()}
	if err := readBlob(store, layer, size); err != nil {
		t.Errorf("whole blob: %v", err)
	}
	if err := readBlob(store, layer, -1); err != nil {
		t.Errorf("whole blob of unknown size: %v", err)
	}
	if err := readBlob(store, v1.Hash{Algorithm: "md5", Hex: "x"}, -1); !errors.Is(err, digest.ErrDigestUnsupported) {
		t.Errorf("unsupported digest: error = %v", err)
	}
	if err := store.checkHas(layer); err != nil {
		t.Errorf("check for a blob: %v", err)
	}
	silent := &contentStore{
		ctx: t.Context(), client: tamperedContent{ContentClient: c.ContentClient(), silent: true}, idleTimeout: idle,
	}
	checkReadError(t, silent.checkHas(layer), layer, "no answer for 50ms")
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := readBlob(&contentStore{ctx: ctx, client: c.ContentClient()}, layer, -1); !errors.Is(err, cause) {
		t.Errorf("canceled: error = %v, want the cause", err)
	}
}

func readBlob(store *contentStore, hash v1.Hash, size int64) error {
	stream, err := store.open(hash, size)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stream)
	return errors.Join(err, stream.Close())
}

func checkReadError(t *testing.T, err error, hash v1.Hash, reason string) {
	t.Helper()
	failure, ok := errors.AsType[*ReadError](err)
	if !ok || failure.Digest != hash || !strings.Contains(failure.Reason, reason) || failure.Hint == "" {
		t.Fatalf("error = %#v, want a ReadError with %q", err, reason)
	}
	checkLine(t, err)
}

func TestInvalidExporterResponse(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	firstLayer := func(result *Result) v1.Hash {
		t.Helper()
		layers, err := result.Image.Layers()
		if err != nil {
			t.Fatal(err)
		}
		layer, err := layers[0].Digest()
		if err != nil {
			t.Fatal(err)
		}
		return layer
	}
	store := &contentStore{ctx: t.Context(), client: c.ContentClient()}
	for name, descriptor := range map[string]string{
		"missing": "", "not base64": "%%%", "not JSON": "e30", "empty object": "e30=",
	} {
		if _, err := store.result(amd64, map[string]string{exptypes.ExporterImageDescriptorKey: descriptor}); err == nil {
			t.Errorf("descriptor %s: no error", name)
		}
	}
	layer := firstLayer(large(t, c, 1000))
	if _, err := store.image(layer); err == nil || !strings.Contains(err.Error(), "parse manifest "+layer.String()) {
		t.Errorf("layer as a manifest: error = %v", err)
	}
	huge := firstLayer(large(t, c, maxMetadata+1))
	if _, err := store.readAll(huge); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("manifest of 16 MiB: error = %v", err)
	}
}

package image

import (
	"context"
	"errors"
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
	"google.golang.org/grpc"
)

// large is an image with one layer of noise, which no compression makes small.
func large(t testing.TB, c *client.Client, size int) *Result {
	t.Helper()
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	dir := folderOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY noise /\n", "noise": string(noise)})
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

func TestTheBuilderGoesAway(t *testing.T) {
	w := theWorld(t)
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
	c, err := client.New(t.Context(), connection.Endpoint, client.WithServerConfig(connection.ServerName, filepath.Join(dir, "ca")),
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
	if err == nil || !strings.Contains(err.Error(), "the builder went away while sha256:") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want that the builder went away", err)
	}
	dockerfile := folderOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
	if _, _, err := solve(t.Context(), c, request(dockerfile)); err == nil || !strings.Contains(err.Error(), "the builder for linux/amd64 went away") {
		t.Errorf("a build on it: %v", err)
	}
}

// A large layer is read through little memory.
func TestReadInLittleMemory(t *testing.T) {
	c := theWorld(t).machine(t, amd64)
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
		t.Errorf("%d bytes were read; %d bytes were alive before, and %d at most", read, before, most)
	}
}

// tampered is a builder's content with something wrong.
type tampered struct {
	contentapi.ContentClient
	change func(*contentapi.ReadContentResponse) *contentapi.ReadContentResponse // nil ends the stream
	mute   bool
}

func (c tampered) Read(ctx context.Context, r *contentapi.ReadContentRequest, options ...grpc.CallOption) (contentapi.Content_ReadClient, error) {
	stream, err := c.ContentClient.Read(ctx, r, options...)
	return tamperedStream{stream, ctx, c}, err
}

func (c tampered) Info(ctx context.Context, r *contentapi.InfoRequest, options ...grpc.CallOption) (*contentapi.InfoResponse, error) {
	if c.mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.ContentClient.Info(ctx, r, options...)
}

type tamperedStream struct {
	contentapi.Content_ReadClient
	ctx    context.Context
	client tampered
}

func (s tamperedStream) Recv() (*contentapi.ReadContentResponse, error) {
	if s.client.mute {
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

func TestWhatABuilderSendsIsChecked(t *testing.T) {
	c := theWorld(t).machine(t, amd64)
	result := large(t, c, 100_000)
	layers, err := result.Image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	absent := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	for _, test := range []struct {
		name   string
		hash   v1.Hash
		client tampered
		want   string
	}{
		{"a bit turned", layer, tampered{change: func(a *contentapi.ReadContentResponse) *contentapi.ReadContentResponse {
			a.Data[0] ^= 1
			return a
		}}, "the builder sent other bytes than those of " + layer.String()},
		{"nothing at all", layer, tampered{change: func(*contentapi.ReadContentResponse) *contentapi.ReadContentResponse { return nil }}, "the builder sent 0 of "},
		{"a byte more", layer, tampered{change: func(a *contentapi.ReadContentResponse) *contentapi.ReadContentResponse {
			a.Data = append(a.Data, 'x')
			return a
		}}, "bytes of " + layer.String()},
		{"silence", layer, tampered{mute: true}, "the builder sent nothing of " + layer.String() + " for 50ms"},
		{"a blob that is not there", absent, tampered{}, "the builder does not hold " + absent.String()},
		{"a digest that is none", v1.Hash{Algorithm: "md5", Hex: "x"}, tampered{}, "unsupported digest algorithm"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.client.ContentClient = c.ContentClient()
			b := &blobs{ctx: t.Context(), client: test.client, silence: 50 * time.Millisecond}
			if !test.client.mute {
				b.silence = time.Minute
			}
			size, err := layers[0].Size()
			if err != nil {
				t.Fatal(err)
			}
			stream, err := b.open(test.hash, size)
			if err == nil {
				_, err = io.Copy(io.Discard, stream)
				stream.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, test.want)
			}
		})
	}
	t.Run("silence when asked what it holds", func(t *testing.T) {
		b := &blobs{ctx: t.Context(), client: tampered{ContentClient: c.ContentClient(), mute: true}, silence: 50 * time.Millisecond}
		if err := b.has(layer); err == nil || !strings.Contains(err.Error(), "the builder has not said for 50ms") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		cause := errors.New("the test has seen enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		b := &blobs{ctx: ctx, client: c.ContentClient(), silence: time.Minute}
		cancel(cause)
		stream, err := b.open(layer, -1)
		if err == nil {
			_, err = io.Copy(io.Discard, stream)
			stream.Close()
		}
		if !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	})
}

func TestWhatABuilderAnswersIsChecked(t *testing.T) {
	c := theWorld(t).machine(t, amd64)
	result := large(t, c, 1000)
	layers, err := result.Image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	b := &blobs{ctx: t.Context(), client: c.ContentClient(), silence: time.Minute}
	for name, answer := range map[string]map[string]string{
		"no descriptor":            {},
		"a descriptor of no form":  {exptypes.ExporterImageDescriptorKey: "%%%"},
		"a descriptor of no image": {exptypes.ExporterImageDescriptorKey: "e30="}, // {}
	} {
		if _, err := b.result(amd64, answer); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := b.image(layer); err == nil || !strings.Contains(err.Error(), "manifest "+layer.String()) {
		t.Errorf("a layer as a manifest: %v", err)
	}
	huge := large(t, c, smallBlob+1)
	if layers, err = huge.Image.Layers(); err != nil {
		t.Fatal(err)
	}
	if layer, err = layers[0].Digest(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.small(layer); err == nil || !strings.Contains(err.Error(), "larger than a manifest or a config may be") {
		t.Errorf("a manifest of 16 MiB: %v", err)
	}
}

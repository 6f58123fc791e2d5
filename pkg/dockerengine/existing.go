package dockerengine

import (
	"context"
	"net"
	"slices"
	"sync"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// existingLayers returns the archive's layers that the engine is known to have. With the containerd image store these
// are identical blobs of any image. With other stores they are the lowest layers that the image shares with one of the
// engine's images, regardless of compression.
func (e *Engine) existingLayers(ctx context.Context, a *archive) map[v1.Hash]bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if blobs := e.contentStore(ctx); blobs != nil {
		return existingBlobs(ctx, a, blobs)
	}
	return e.existingChain(ctx, a)
}

// content holds the connection to an engine's content store.
type content struct {
	mutex   sync.Mutex
	missing bool // whether the engine has no content store
	conn    *grpc.ClientConn
}

func (c *content) close() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// containerdStore is the driver status of an engine with the containerd image store, as in docker info.
var containerdStore = [2]string{"driver-type", "io.containerd.snapshotter.v1"}

// contentStore returns a client of the engine's containerd content store, or nil if the engine has none. The engine's
// BuildKit serves it. See https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Session and
// https://github.com/moby/buildkit/blob/master/control/control.go.
func (e *Engine) contentStore(ctx context.Context) contentapi.ContentClient {
	e.content.mutex.Lock()
	defer e.content.mutex.Unlock()
	if e.content.missing {
		return nil
	}
	if e.content.conn == nil {
		info, err := retry(ctx, func() (client.SystemInfoResult, error) { return e.client.Info(ctx, client.InfoOptions{}) })
		if err != nil {
			return nil
		}
		if e.content.missing = !slices.Contains(info.Info.DriverStatus, containerdStore); e.content.missing {
			return nil
		}
		dial := func(ctx context.Context, _ string) (net.Conn, error) {
			return hijack(ctx, func(ctx context.Context) (net.Conn, error) {
				return e.client.DialHijack(ctx, "/grpc", "h2c", nil)
			}, func(conn net.Conn) { conn.Close() })
		}
		e.content.conn, err = grpc.NewClient("passthrough:engine", grpc.WithContextDialer(dial),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil
		}
	}
	return contentapi.NewContentClient(e.content.conn)
}

func existingBlobs(ctx context.Context, a *archive, blobs contentapi.ContentClient) map[v1.Hash]bool {
	existing, mutex := map[v1.Hash]bool{}, sync.Mutex{}
	var group errgroup.Group
	group.SetLimit(8)
	for _, f := range a.layers {
		group.Go(func() error {
			info, err := blobs.Info(ctx, &contentapi.InfoRequest{Digest: f.hash.String()})
			if err == nil && info.Info.Size == f.size {
				mutex.Lock()
				defer mutex.Unlock()
				existing[f.hash] = true
			}
			return nil
		})
	}
	_ = group.Wait() // always nil
	return existing
}

func (e *Engine) existingChain(ctx context.Context, a *archive) map[v1.Hash]bool {
	images, err := e.client.ImageList(ctx, client.ImageListOptions{All: true})
	if err != nil {
		return nil
	}
	longest, mutex := 0, sync.Mutex{}
	var group errgroup.Group
	group.SetLimit(8)
	for _, summary := range images.Items {
		group.Go(func() error {
			image, err := e.client.ImageInspect(ctx, summary.ID)
			if err != nil { // the image was removed in the meantime
				return nil
			}
			common := commonChain(a.diffIDs, image.RootFS.Layers)
			mutex.Lock()
			defer mutex.Unlock()
			longest = max(longest, common)
			return nil
		})
	}
	_ = group.Wait() // always nil
	existing := map[v1.Hash]bool{}
	for _, hash := range a.digests[:longest] {
		existing[hash] = true
	}
	// A blob that occurs again above the common layers must be sent for that layer.
	for _, hash := range a.digests[longest:] {
		delete(existing, hash)
	}
	return existing
}

// commonChain returns the number of lowest layers that two images have in common.
func commonChain(diffIDs []v1.Hash, other []string) int {
	n := 0
	for n < min(len(diffIDs), len(other)) && diffIDs[n].String() == other[n] {
		n++
	}
	return n
}

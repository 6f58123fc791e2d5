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

// holds are the archive's layers that the engine has, as far as it tells. What it can do with them decides the store: with
// containerd's a blob counts that is the same byte for byte, in whatever image; with any other the layers that an image of the engine
// begins with, from the lowest on, whatever their compression.
func (e *Engine) holds(ctx context.Context, a *archive) map[v1.Hash]bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if blobs := e.blobs(ctx); blobs != nil {
		return a.amongBlobs(ctx, blobs)
	}
	return e.amongImages(ctx, a)
}

// content is a connection to an engine's content store.
type content struct {
	mutex sync.Mutex
	conn  *grpc.ClientConn
}

func (c *content) close() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// blobs is the engine's content store, or nil where it has none of containerd's: it is part of the BuildKit that engines contain.
// See https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Session and
// https://github.com/moby/buildkit/blob/master/control/control.go.
func (e *Engine) blobs(ctx context.Context) contentapi.ContentClient {
	info, err := e.client.Info(ctx, client.InfoOptions{})
	if err != nil || !slices.Contains(info.Info.DriverStatus, containerdStore) {
		return nil
	}
	e.content.mutex.Lock()
	defer e.content.mutex.Unlock()
	if e.content.conn == nil {
		if e.content.conn, err = grpc.NewClient("passthrough:engine", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return e.client.DialHijack(ctx, "/grpc", "h2c", nil)
			})); err != nil {
			return nil
		}
	}
	return contentapi.NewContentClient(e.content.conn)
}

// containerdStore is what docker info shows of an engine whose images are in containerd's store.
var containerdStore = [2]string{"driver-type", "io.containerd.snapshotter.v1"}

func (a *archive) amongBlobs(ctx context.Context, blobs contentapi.ContentClient) map[v1.Hash]bool {
	held, mutex := map[v1.Hash]bool{}, sync.Mutex{}
	var group errgroup.Group
	group.SetLimit(8)
	for _, f := range a.layers {
		group.Go(func() error {
			info, err := blobs.Info(ctx, &contentapi.InfoRequest{Digest: f.hash.String()})
			if err == nil && info.Info.Size == f.size {
				mutex.Lock()
				defer mutex.Unlock()
				held[f.hash] = true
			}
			return nil
		})
	}
	_ = group.Wait() // its functions answer nothing
	return held
}

func (e *Engine) amongImages(ctx context.Context, a *archive) map[v1.Hash]bool {
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
			if err != nil { // removed meanwhile
				return nil
			}
			common := 0
			for common < min(len(a.diffIDs), len(image.RootFS.Layers)) && a.diffIDs[common].String() == image.RootFS.Layers[common] {
				common++
			}
			mutex.Lock()
			defer mutex.Unlock()
			longest = max(longest, common)
			return nil
		})
	}
	_ = group.Wait() // its functions answer nothing
	held := map[v1.Hash]bool{}
	for _, hash := range a.digests[:longest] {
		held[hash] = true
	}
	for _, hash := range a.digests[longest:] { // the same blob again, at a place where it is not known
		delete(held, hash)
	}
	return held
}

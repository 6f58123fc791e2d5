package dockerengine

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// Info describes an engine.
type Info struct {
	Version  string // of the engine, for example 29.1.0
	Platform string // linux/amd64
	Store    string // of images: containerd, or the name of the storage driver
	Host     string // name of the machine, which may be a virtual one
	Dir      string // where the engine stores its data on that machine
}

// Info describes the engine. It needs no images or containers.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	answer, err := retry(ctx, func() (client.SystemInfoResult, error) { return e.client.Info(ctx, client.InfoOptions{}) })
	if err != nil {
		return Info{}, fmt.Errorf("describe the Docker Engine at %s: %w", e.Host, e.classifyError(ctx, err))
	}
	info := answer.Info
	store := info.Driver
	if slices.Contains(info.DriverStatus, containerdStore) {
		store = "containerd"
	}
	platform, err := e.Platform(ctx)
	return Info{
		Version: safetext.Line(info.ServerVersion, 50), Platform: platform, Store: safetext.Line(store, 50),
		Host: info.Name, Dir: info.DockerRootDir,
	}, err
}

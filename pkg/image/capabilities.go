package image

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// capabilities are the features of a builder that decide how a build is exported.
type capabilities struct {
	// severalExporters is whether a solve runs all of its exporters. BuildKit before v0.13 and Depot's public fork of
	// v0.11 run the first one and ignore the others (depot/buildkit ce9540e, control/control.go, Solve).
	severalExporters bool
	// rewritesTimestamps is whether exporters support the attribute rewrite-timestamp. They did not before v0.13, which
	// also introduced several exporters, and ignore it (depot/buildkit ce9540e, exporter/containerimage/opts.go, Load).
	rewritesTimestamps bool
}

// readCapabilities reads the capabilities of a builder. The version does not imply them: a builder that BuildKit's
// release script did not build, such as Depot's fork, reports 0.0.0+unknown.
func readCapabilities(ctx context.Context, c *client.Client) (capabilities, error) {
	var features capabilities
	read := func(_ context.Context, g gateway.Client) (*gateway.Result, error) {
		declared := g.BuildOpts().LLBCaps
		features.severalExporters = declared.Supports(pb.CapMultipleExporters) == nil
		features.rewritesTimestamps = features.severalExporters
		return nil, nil
	}
	// Internal keeps this solve, which builds nothing, out of the build history.
	if _, err := c.Build(ctx, client.SolveOpt{Internal: true}, "", read, nil); err != nil {
		return capabilities{}, fmt.Errorf("read the builder's capabilities: %w", err)
	}
	return features, nil
}

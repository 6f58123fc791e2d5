package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/buildkit/client"
)

// HostGateway is the address of the builder's host in [Request].AddHosts.
const HostGateway = "host-gateway"

// Labels of a worker: the address of its host, which only the BuildKit in a Docker Engine sets (docker/buildx 461836b,
// driver/docker/driver.go), and the network of its steps (moby/buildkit v0.34.2, worker/label/label.go).
const (
	hostGatewayLabel = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
	networkLabel     = "org.mobyproject.buildkit.worker.network"
)

// resolveHostGateway replaces [HostGateway] in entries of the form name=address with the address of the builder's host.
func resolveHostGateway(ctx context.Context, c *client.Client, hosts []string) ([]string, error) {
	var resolved []string
	for _, host := range hosts {
		if name, ok := strings.CutSuffix(host, "="+HostGateway); ok {
			workers, err := c.ListWorkers(ctx)
			if err != nil {
				return nil, fmt.Errorf("find the host of the builder: %w", err)
			}
			address := hostAddress(workers)
			if address == "" {
				return nil, fmt.Errorf("input add_hosts: the builder does not report the address of its host, which %s needs "+
					"(write the IP address)", host)
			}
			host = name + "=" + address
		}
		resolved = append(resolved, host)
	}
	return resolved, nil
}

// hostAddress returns the address at which a step reaches the builder's host, or "" if the workers do not imply one.
func hostAddress(workers []*client.WorkerInfo) string {
	for _, w := range workers {
		switch {
		case w.Labels[hostGatewayLabel] != "":
			return w.Labels[hostGatewayLabel]
		case w.Labels[networkLabel] == "host":
			return "127.0.0.1"
		}
	}
	return ""
}

package builders

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Attach returns Builders for daemons that another process, or another Builders, started. addresses holds the unix://
// address of each platform's daemon. Stop closes the connections opened through it and leaves the daemons running.
func Attach(addresses map[string]string) (*Builders, error) {
	b := &Builders{machines: map[string]*machine{}, connections: map[*Connection]struct{}{}, tap: io.Discard}
	for platform, address := range addresses {
		socket, ok := strings.CutPrefix(address, "unix://")
		if !ok {
			return nil, fmt.Errorf("builders: attach to %s: address %q must begin with unix://", platform, address)
		}
		fork, err := startFork(address)
		if err != nil {
			return nil, errors.Join(err, b.Stop())
		}
		b.machines[platform] = &machine{platform: platform, socket: socket, fork: fork}
	}
	return b, nil
}

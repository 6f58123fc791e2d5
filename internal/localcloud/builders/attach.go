package builders

import (
	"fmt"
	"io"
	"strings"
)

// Attach returns the daemons that another process, or another Builders, started: by platform their addresses, unix://….
// Its Stop closes the connections that were opened through it, and leaves the daemons running.
func Attach(addresses map[string]string) (*Builders, error) {
	b := &Builders{machines: map[string]*machine{}, connections: map[*Connection]struct{}{}, tap: io.Discard}
	for platform, address := range addresses {
		socket, ok := strings.CutPrefix(address, "unix://")
		if !ok {
			return nil, fmt.Errorf("builders: address %q of %s must begin with unix://", address, platform)
		}
		b.machines[platform] = &machine{platform: platform, socket: socket}
	}
	return b, nil
}

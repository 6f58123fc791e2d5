package builder

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
)

// CertPath is the variable that names [Address.CertDir], as DOCKER_CERT_PATH does for Docker.
const CertPath = "BUILDKIT_CERT_PATH"

// Address acquires a BuildKit daemon that is already running.
type Address struct {
	Addr    string // unix:///path or tcp://host:port
	CertDir string // directory with ca.pem, cert.pem and key.pem, for tcp:// with mutual TLS; "" means no TLS
	Connect ConnectPolicy
}

// CheckAddress returns an error if addr is not a valid BuildKit address. It does not connect.
func CheckAddress(addr string) error {
	const forms = "unix:///path/of/buildkitd.sock or tcp://host:port"
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok || scheme != "unix" && scheme != "tcp" {
		return fmt.Errorf("invalid builder %q: write depot, %s", addr, forms)
	}
	if strings.ContainsFunc(addr, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		return fmt.Errorf("invalid builder %q: it contains a control or invalid character (write %s)", addr, forms)
	}
	if scheme == "unix" {
		if !strings.HasPrefix(rest, "/") || strings.HasSuffix(rest, "/") {
			return fmt.Errorf("invalid builder %q: missing socket (write unix:// and an absolute path)", addr)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || port == "" {
		return fmt.Errorf("invalid builder %q: missing port (write tcp://host:port)", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("invalid builder %q: port must be between 1 and 65535", addr)
	}
	if host == "" || strings.ContainsAny(host, "/@?# ") {
		return fmt.Errorf("invalid builder %q: missing or invalid host (write tcp://host:port)", addr)
	}
	return nil
}

// IsLocal reports whether an address is on this machine, where sending bytes costs less than compressing them. It
// is false for Depot.
func IsLocal(addr string) bool {
	scheme, rest, _ := strings.Cut(addr, "://")
	if scheme == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(rest)
	ip := net.ParseIP(host)
	return err == nil && scheme == "tcp" && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// Acquire returns a lease that connects on the first call of [Lease.Machine]. All platforms are built by the same
// daemon, which must support them.
func (a Address) Acquire(ctx context.Context, _ Request) (*Lease, error) {
	if err := CheckAddress(a.Addr); err != nil {
		return nil, err
	}
	target := endpoint{addr: a.Addr, policy: a.Connect}
	if a.CertDir != "" && strings.HasPrefix(a.Addr, "tcp://") {
		if err := target.readCertificates(a.CertDir); err != nil {
			return nil, err
		}
	}
	lease := newLease(ctx)
	lease.connect = func(ctx context.Context, platform string) (*client.Client, error) {
		c, workers, err := target.connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to builder %s: %w", a.Addr, err)
		}
		supported := supportedPlatforms(workers)
		if !slices.Contains(supported, platform) {
			_ = c.Close()
			return nil, fmt.Errorf("builder %s does not support %s: set platform to one of %s, or use another builder",
				a.Addr, platform, strings.Join(withoutAMD64Levels(supported), ", "))
		}
		return c, nil
	}
	return lease, nil
}

// supportedPlatforms lists what the workers build, sorted, without duplicates.
func supportedPlatforms(workers []*client.WorkerInfo) []string {
	var names []string
	for _, w := range workers {
		for _, p := range w.Platforms {
			names = append(names, platforms.Format(platforms.Normalize(p)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// withoutAMD64Levels drops linux/amd64/v2 and later, which every list with linux/amd64 contains.
func withoutAMD64Levels(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "linux/amd64/") })
}

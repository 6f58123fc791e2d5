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

// CertPath is the environment variable for [Address.CertDir], the equivalent of DOCKER_CERT_PATH.
const CertPath = "BUILDKIT_CERT_PATH"

// Address acquires a BuildKit daemon that is already running.
type Address struct {
	Addr    string // unix:///path or tcp://host:port
	CertDir string // directory with ca.pem, cert.pem and key.pem, for tcp:// with mutual TLS; "" means no TLS
	Connect ConnectPolicy

	AllowPlaintext bool // connect to another machine without TLS
}

// Check returns an error if the address is invalid, or if it is on another machine and has no certificates: source
// code, secrets and credentials would be readable on the network, and any server could answer. It does not connect.
func (a Address) Check() error {
	if err := checkAddress(a.Addr); err != nil {
		return err
	}
	if a.CertDir == "" && !a.AllowPlaintext && !IsLocal(a.Addr) {
		return fmt.Errorf("connect to builder %s: no certificates for TLS (set the variable %s to a directory with ca.pem, "+
			"cert.pem and key.pem; allow_plaintext_builder: true connects without TLS)", a.Addr, CertPath)
	}
	return nil
}

// checkAddress returns an error if addr is not a valid BuildKit address. It does not connect.
func checkAddress(addr string) error {
	const forms = "unix:///path/to/buildkitd.sock or tcp://host:port"
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok || scheme != "unix" && scheme != "tcp" {
		return fmt.Errorf("invalid builder %q: use depot, %s", addr, forms)
	}
	if strings.ContainsFunc(addr, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		return fmt.Errorf("invalid builder %q: contains a control character or invalid UTF-8 (use %s)", addr, forms)
	}
	if scheme == "unix" {
		if !strings.HasPrefix(rest, "/") || strings.HasSuffix(rest, "/") {
			return fmt.Errorf("invalid builder %q: missing socket path (use unix:// followed by an absolute path)", addr)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil || port == "" {
		return fmt.Errorf("invalid builder %q: missing port (use tcp://host:port)", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("invalid builder %q: port must be between 1 and 65535", addr)
	}
	if host == "" || strings.ContainsAny(host, "/@?# ") {
		return fmt.Errorf("invalid builder %q: missing or invalid host (use tcp://host:port)", addr)
	}
	return nil
}

// IsLocal reports whether addr is on this machine, where compressing data costs more than sending it uncompressed. It
// returns false for Depot.
func IsLocal(addr string) bool {
	scheme, rest, _ := strings.Cut(addr, "://")
	if scheme == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(rest)
	ip := net.ParseIP(host)
	return err == nil && scheme == "tcp" && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// String returns the name of the builder in messages.
func (a Address) String() string { return "the builder at " + a.Addr }

// Acquire returns a lease that connects on the first call to [Lease.Machine]. One daemon builds all platforms, so it
// must support each of them.
func (a Address) Acquire(ctx context.Context, _ Request) (*Lease, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	target := endpoint{addr: a.Addr, policy: a.Connect}
	if a.CertDir != "" && strings.HasPrefix(a.Addr, "tcp://") {
		if err := target.readCertificates(a.CertDir); err != nil {
			return nil, err
		}
	}
	lease := newLease(ctx, a.Connect)
	lease.connect = func(ctx context.Context, platform string) (connection, error) {
		c, err := target.connect(ctx)
		if err != nil {
			return connection{}, fmt.Errorf("connect to builder %s: %w", a.Addr, err)
		}
		if err := a.checkPlatform(platform, supportedPlatforms(c.workers)); err != nil {
			_ = c.client.Close()
			return connection{}, err
		}
		return c, nil
	}
	return lease, nil
}

func (a Address) checkPlatform(platform string, supported []string) error {
	if slices.Contains(supported, platform) {
		return nil
	}
	return fmt.Errorf("builder %s does not support %s: set platform to one of %s, or use another builder",
		a.Addr, platform, strings.Join(withoutAMD64Levels(supported), ", "))
}

// supportedPlatforms returns the sorted, distinct platforms that the workers support.
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

// withoutAMD64Levels removes linux/amd64/v2 and higher, which workers list in addition to linux/amd64.
func withoutAMD64Levels(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "linux/amd64/") })
}

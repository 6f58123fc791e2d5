package builder

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
)

func TestCheckAddress(t *testing.T) {
	const (
		scheme    = "use depot, unix:///path"
		character = "control character or invalid UTF-8"
		socket    = "missing socket"
		port      = "missing port"
		number    = "between 1 and 65535"
		host      = "missing or invalid host"
	)
	for addr, want := range map[string]string{ // "" for a valid one
		"unix:///run/buildkit/buildkitd.sock": "",
		"tcp://builder:1234":                  "",
		"tcp://127.0.0.1:1":                   "",
		"tcp://[::1]:65535":                   "",

		"":                        scheme,
		"depot.dev":               scheme,
		"http://builder:1234":     scheme,
		"docker-container://name": scheme,
		"/run/buildkitd.sock":     scheme,
		"TCP://builder:1":         scheme,
		"unix:///run/a\nb":        character,
		"unix:///run/\xff":        character,
		"tcp://builder\x00:1":     character,
		"unix://":                 socket,
		"unix://relative.sock":    socket,
		"unix:///":                socket,
		"unix:///run/":            socket,
		"tcp://":                  port,
		"tcp://builder":           port,
		"tcp://builder:":          port,
		"tcp://::1:1":             port,
		"tcp://builder:http":      number,
		"tcp://builder:0":         number,
		"tcp://builder:65536":     number,
		"tcp://builder:-1":        number,
		"tcp://:1234":             host,
		"tcp://user@builder:1234": host,
		"tcp://a/b:1234":          host,
		"tcp://a?b:1234":          host,
		"tcp://a#b:1234":          host,
		"tcp://a b:1234":          host,
	} {
		err := checkAddress(addr)
		if err == nil != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", addr, err, want)
		}
		if err != nil {
			checkMessage(t, err)
		}
	}
}

// FuzzCheckAddress checks that valid addresses can be dialed unchanged, and that errors are one line.
func FuzzCheckAddress(f *testing.F) {
	for _, seed := range []string{
		"unix:///run/buildkitd.sock", "tcp://builder:1234", "tcp://[::1]:1", "tcp://[fe80::1%eth0]:1", "tcp://:1",
		"tcp://a:b:1", "unix://", "://", "tcp://a:00001", "tcp://\x00:1", "unix:///\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		err := checkAddress(addr)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("got %q", err)
			}
			return
		}
		scheme, rest, _ := strings.Cut(addr, "://")
		switch scheme {
		case "unix":
			if !filepath.IsAbs(rest) || strings.ContainsAny(rest, "\n\x00") {
				t.Errorf("%q is valid but has no socket", addr)
			}
		case "tcp":
			if _, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+rest[strings.LastIndex(rest, ":")+1:]); err != nil {
				t.Errorf("%q is valid but has no port: %v", addr, err)
			}
		default:
			t.Errorf("%q is valid but has an unknown scheme", addr)
		}
	})
}

func TestIsLocal(t *testing.T) {
	for addr, want := range map[string]bool{
		"unix:///run/buildkit/buildkitd.sock": true,
		"tcp://localhost:1234":                true,
		"tcp://127.0.0.1:1234":                true,
		"tcp://127.1.2.3:1234":                true,
		"tcp://[::1]:1234":                    true,

		"depot":                     false,
		"":                          false,
		"tcp://builder:1234":        false,
		"tcp://10.0.0.1:1234":       false,
		"tcp://[2001:db8::1]:1234":  false,
		"tcp://localhost.evil:1234": false,
		"tcp://0.0.0.0:1234":        false,
		"tcp://localhost":           false, // invalid
		"http://localhost:1234":     false, // invalid
	} {
		if got := IsLocal(addr); got != want {
			t.Errorf("%q: got %t", addr, got)
		}
	}
}

// Only a builder on this machine is used without TLS, unless the address allows it. An unset and an empty variable are
// the same.
func TestPlaintext(t *testing.T) {
	for _, test := range []struct {
		address Address
		refused bool
	}{
		{Address{Addr: "tcp://builder:1234"}, true},
		{Address{Addr: "tcp://192.0.2.1:1234"}, true},
		{Address{Addr: "tcp://[2001:db8::1]:1234"}, true},
		{Address{Addr: "tcp://0.0.0.0:1234"}, true},
		{Address{Addr: "tcp://localhost.evil:1234"}, true},
		{Address{Addr: "tcp://builder:1234", AllowPlaintext: true}, false},
		{Address{Addr: "tcp://127.0.0.1:1234"}, false},
		{Address{Addr: "tcp://[::1]:1234"}, false},
		{Address{Addr: "tcp://localhost:1234"}, false},
		{Address{Addr: "unix:///run/buildkit/buildkitd.sock"}, false},
	} {
		lease, err := test.address.Acquire(t.Context(), Request{})
		if refused := err != nil && strings.Contains(err.Error(), CertPath); refused != test.refused {
			t.Errorf("%+v: refused: %t, want %t (%v)", test.address, refused, test.refused, err)
		}
		if lease != nil {
			lease.Release(nil)
		}
	}
}

func TestAddress(t *testing.T) {
	amd64 := machines(t).Address("linux/amd64")
	dir := t.TempDir()
	other, err := machines(t).Open("linux/amd64", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	secure, certificates := serveTLS(t, strings.TrimPrefix(amd64, "unix://"))
	otherCertificates, incomplete, malformed := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, otherCertificates, map[string]string{"ca.pem": other.CACert, "cert.pem": other.Cert, "key.pem": other.Key})
	write(t, incomplete, map[string]string{"ca.pem": other.CACert})
	write(t, malformed, map[string]string{"ca.pem": "garbage", "cert.pem": "garbage", "key.pem": "secret-garbage"})
	stale := filepath.Join(dir, "stale.sock")
	createStaleSocket(t, stale)
	const (
		hintNetwork      = "no response within 300ms; check that BuildKit is running"
		hintCertificates = "the certificates do not match or have expired"
	)
	for _, test := range []struct {
		name, addr, certDir, platform string
		want                          []string // parts of the error; nil for success
	}{
		{name: "unix", addr: amd64, platform: "linux/amd64"},
		{name: "unix ignores certificates", addr: amd64, certDir: incomplete, platform: "linux/amd64"},
		{name: "tcp with certificates", addr: secure, certDir: certificates, platform: "linux/amd64"},
		{
			name: "tcp without the required certificates", addr: secure, platform: "linux/amd64",
			want: []string{"connect to builder " + secure, hintNetwork},
		},
		{
			name: "tcp with the certificates of another daemon",
			addr: secure, certDir: otherCertificates, platform: "linux/amd64",
			want: []string{"connect to builder " + secure, "failed to verify certificate", hintCertificates},
		},
		{
			name: "missing certificate", addr: secure, certDir: incomplete,
			want: []string{"BUILDKIT_CERT_PATH=" + incomplete, "cert.pem: no such file", "the directory must contain ca.pem"},
		},
		{
			name: "malformed certificates", addr: secure, certDir: malformed,
			want: []string{"BUILDKIT_CERT_PATH=" + malformed, "invalid CA certificate"},
		},
		{
			name: "unsupported platform", addr: amd64, platform: "linux/arm64",
			want: []string{"builder " + amd64 + " does not support linux/arm64: set platform to one of linux/amd64, or"},
		},
		{
			name: "missing socket", addr: "unix://" + dir + "/absent.sock", platform: "linux/amd64",
			want: []string{"connect: no such file or directory", "start buildkitd, or correct the path"},
		},
		{
			name: "socket without a listener", addr: "unix://" + stale, platform: "linux/amd64",
			want: []string{"connect: connection refused", hintNetwork},
		},
		{
			name: "another kind of server", addr: notBuildKit(t), platform: "linux/amd64",
			want: []string{hintNetwork},
		},
		{name: "invalid address", addr: "builder", want: []string{`invalid builder "builder"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := Address{
				Addr: test.addr, CertDir: test.certDir,
				Connect: ConnectPolicy{Timeout: 300 * time.Millisecond, FirstWait: time.Millisecond},
			}
			if test.want == nil {
				address.Connect.Timeout = 0
			}
			lease, err := address.Acquire(t.Context(), Request{})
			var c *client.Client
			if err == nil {
				defer lease.Release(nil)
				c, err = lease.Machine(t.Context(), test.platform)
			}
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if err := solve(t.Context(), t, c, oneFile); err != nil {
					t.Error(err)
				}
				if lease.ID+lease.URL+lease.ProjectID != "" {
					t.Errorf("got ID %+v, want none for an address", lease.ID)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got\n%v\nwant %q", err, part)
				}
			}
			checkMessage(t, err, "secret-garbage")
		})
	}
}

func TestConnectRetries(t *testing.T) {
	socket := strings.TrimPrefix(machines(t).Address("linux/amd64"), "unix://")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections := forward(t, listener, socket, 3)
	address := Address{Addr: "tcp://" + listener.Addr().String(), Connect: ConnectPolicy{FirstWait: time.Millisecond}}
	lease, err := address.Acquire(t.Context(), Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(nil)
	if _, err := lease.Machine(t.Context(), "linux/amd64"); err != nil {
		t.Fatal(err)
	}
	if n := connections.Load(); n < 4 {
		t.Errorf("connected after %d connections, of which 3 failed", n)
	}
}

func TestDefaultPolicies(t *testing.T) {
	c := ConnectPolicy{}.withDefaults()
	if c.Timeout != time.Minute || c.FirstWait != 10*time.Millisecond {
		t.Errorf("got %+v", c)
	}
	if noticed := c.PingAfter + c.PingTimeout; noticed > time.Minute {
		t.Errorf("a connection without a response is noticed after %s", noticed)
	}
	p := Policy{}.withDefaults()
	if p.Connect.Timeout != 5*time.Minute || p.HealthPeriod != 5*time.Second || p.NoticeAfter != 2*time.Second ||
		p.Clock == nil {
		t.Errorf("got %+v", p)
	}
	if total := p.CreateGrace + p.ReleaseTimeout/2; p.ReleaseTimeout != 4*time.Second || total > 5*time.Second {
		t.Errorf("releasing a canceled build takes up to %s", total)
	}
}

// Root can connect to every socket, so this test reruns its own binary as another user: see TestMain.
func TestSocketPermission(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to switch users")
	}
	dir, err := os.MkdirTemp("/tmp", "builder-socket-") // accessible to every user
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "buildkitd.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), unprivilegedAddr+"=unix://"+socket)
	output, err := command.Output()
	want := "connect to builder unix://" + socket + ": dial unix " + socket +
		": connect: permission denied (run as root or as a member of the socket's group)"
	if err != nil || string(output) != want {
		t.Errorf("got error %v and output\n%s\nwant\n%s", err, output, want)
	}
}

const unprivilegedAddr = "BUILDER_TEST_UNPRIVILEGED_ADDR"

// connectUnprivileged connects to an address as an unprivileged user and returns the error.
func connectUnprivileged(addr string) error {
	const nobody = 65534
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		return err
	}
	lease, err := Address{Addr: addr}.Acquire(context.Background(), Request{})
	if err != nil {
		return err
	}
	defer lease.Release(nil)
	_, err = lease.Machine(context.Background(), "linux/amd64")
	fmt.Print(err)
	return nil
}

// createStaleSocket creates a socket without a listener, like one that a killed daemon leaves behind.
func createStaleSocket(t *testing.T, socket string) {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}

// notBuildKit starts a plain HTTP server and returns its address.
func notBuildKit(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return "tcp://" + server.Listener.Addr().String()
}

// serveTLS serves a daemon on 127.0.0.1 with mutual TLS, and writes the client's certificates to a directory.
func serveTLS(t *testing.T, socket string) (addr, certificates string) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made, key
	}
	ca, caKey := sign(&x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	server, serverKey := sign(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	user, userKey := sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
	key, err := x509.MarshalPKCS8PrivateKey(userKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"ca.pem":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})),
		"cert.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: user.Raw})),
		"key.pem":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	})
	trusted := x509.NewCertPool()
	trusted.AddCert(ca)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: trusted,
		NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	forward(t, listener, socket, 0)
	return "tcp://" + listener.Addr().String(), dir
}

// forward forwards connections to a daemon after closing the first few. It returns a counter of the connections.
func forward(t *testing.T, listener net.Listener, socket string, failures int32) *atomic.Int32 {
	t.Helper()
	connections := &atomic.Int32{}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if connections.Add(1) <= failures {
				_ = conn.Close()
				continue
			}
			serving.Go(func() {
				defer conn.Close()
				daemon, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer daemon.Close()
				serving.Go(func() { _, _ = io.Copy(daemon, conn); _ = daemon.Close() })
				_, _ = io.Copy(conn, daemon)
			})
		}
	})
	return connections
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

package builder

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
		unknown = " is no builder: write depot, unix:///path/of/buildkitd.sock or tcp://host:port"
		socket  = " names no socket: write unix:// and an absolute path"
		port    = " has no port: write tcp://host:port"
		number  = " has no port between 1 and 65535: write tcp://host:port"
		host    = " names no host: write tcp://host:port"
	)
	for addr, want := range map[string]string{
		"unix:///run/buildkit/buildkitd.sock": "", "tcp://builder:1234": "", "tcp://127.0.0.1:1": "", "tcp://[::1]:65535": "",
		"": unknown, "depot.dev": unknown, "http://builder:1234": unknown, "docker-container://name": unknown, "/run/buildkitd.sock": unknown, "TCP://builder:1": unknown,
		"unix://": socket, "unix://relative.sock": socket, "unix:///": socket, "unix:///run/": socket,
		"tcp://": port, "tcp://builder": port, "tcp://builder:": port, "tcp://::1:1": port,
		"tcp://builder:http": number, "tcp://builder:0": number, "tcp://builder:65536": number, "tcp://builder:-1": number,
		"tcp://:1234": host, "tcp://user@builder:1234": host, "tcp://a/b:1234": host,
		"unix:///run/a\nb": " holds a character that is in no address: write unix:///path/of/buildkitd.sock or tcp://host:port",
	} {
		err := CheckAddress(addr)
		got := ""
		if err != nil {
			oneSentence(t, err)
			quoted, _ := json.Marshal(addr)
			got = strings.TrimPrefix(err.Error(), string(quoted))
		}
		if got != want {
			t.Errorf("%q: got%s, want%s", addr, got, want)
		}
	}
}

// FuzzCheckAddress: what passes can be dialed as it is written, and what does not is told in one line.
func FuzzCheckAddress(f *testing.F) {
	for _, seed := range []string{"unix:///run/buildkitd.sock", "tcp://builder:1234", "tcp://[::1]:1", "tcp://[fe80::1%eth0]:1", "tcp://:1", "tcp://a:b:1", "unix://", "://", "tcp://a:00001", "tcp://\x00:1", "unix:///\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		err := CheckAddress(addr)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Errorf("%q", err)
			}
			return
		}
		scheme, rest, _ := strings.Cut(addr, "://")
		switch scheme {
		case "unix":
			if !filepath.IsAbs(rest) || strings.ContainsAny(rest, "\n\x00") {
				t.Errorf("%q names no socket", addr)
			}
		case "tcp":
			if _, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+rest[strings.LastIndex(rest, ":")+1:]); err != nil {
				t.Errorf("%q has no port: %v", addr, err)
			}
		default:
			t.Errorf("%q has an unknown scheme", addr)
		}
	})
}

func TestAddress(t *testing.T) {
	amd64 := machines(t).Address("linux/amd64")
	dir := t.TempDir()
	lentConnection, err := machines(t).Open("linux/amd64", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lentConnection.Close() })
	secure, certificates := behindTLS(t, strings.TrimPrefix(amd64, "unix://"))
	other := t.TempDir()
	write(t, other, map[string]string{"ca.pem": lentConnection.CACert, "cert.pem": lentConnection.Cert, "key.pem": lentConnection.Key})
	half := t.TempDir()
	write(t, half, map[string]string{"ca.pem": lentConnection.CACert})
	garbage := t.TempDir()
	write(t, garbage, map[string]string{"ca.pem": "garbage", "cert.pem": "garbage", "key.pem": "secret-garbage"})
	stale := filepath.Join(dir, "stale.sock")
	abandon(t, stale)

	for _, test := range []struct {
		name, addr, certPath, platform string
		want                           string // "" for one that works
	}{
		{name: "unix", addr: amd64, platform: "linux/amd64"},
		{name: "tcp with certificates", addr: secure, certPath: certificates, platform: "linux/amd64"},
		{name: "tcp without the certificates that it wants", addr: secure, platform: "linux/amd64", want: "builder ADDR: it can not be reached, tried for 300ms ("},
		{name: "tcp with another's certificates", addr: secure, certPath: other, platform: "linux/amd64", want: "builder ADDR: the TLS connection is refused (tls: failed to verify certificate"},
		{name: "half of the certificates", addr: secure, certPath: half, want: "BUILDKIT_CERT_PATH=" + half + ": open " + half + "/cert.pem: no such file or directory: it is a folder with ca.pem, cert.pem and key.pem"},
		{name: "garbage for certificates", addr: secure, certPath: garbage, want: "BUILDKIT_CERT_PATH=" + garbage + ": "},
		{name: "wrong platform", addr: amd64, platform: "linux/arm64", want: "builder ADDR: it builds linux/amd64, not linux/arm64: change the input platform, or the builder"},
		{name: "missing socket", addr: "unix://" + dir + "/absent.sock", platform: "linux/amd64",
			want: "builder ADDR: there is no such socket (dial unix " + dir + "/absent.sock: connect: no such file or directory): start BuildKit's daemon (buildkitd), or name the right one"},
		{name: "nobody listens on the socket", addr: "unix://" + stale, platform: "linux/amd64", want: "builder ADDR: it can not be reached, tried for 300ms (dial unix " + stale + ": connect: connection refused"},
		{name: "another's daemon", addr: notBuildKit(t), platform: "linux/amd64", want: "builder ADDR: it can not be reached, tried for 300ms ("},
		{name: "no address", addr: "builder", want: `"ADDR" is no builder: write depot,`},
	} {
		t.Run(test.name, func(t *testing.T) {
			set(t, &connectPatience, 300*time.Millisecond)
			b, err := Address{Addr: test.addr, Getenv: environment(map[string]string{CertPath: test.certPath})}.Start(t.Context(), Request{})
			var c *client.Client
			if err == nil {
				defer b.Finish(nil)
				c, err = b.Machine(t.Context(), test.platform)
			}
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := solve(t.Context(), t, c, oneFile); err != nil {
					t.Error(err)
				}
				if b.ID+b.URL+b.ProjectID != "" {
					t.Errorf("an address has no page: %+v", b.ID)
				}
				return
			}
			if err == nil {
				t.Fatal("it works")
			}
			if got := strings.Replace(err.Error(), test.addr, "ADDR", 1); !strings.HasPrefix(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s…", got, test.want)
			}
			oneSentence(t, err, "secret-garbage")
		})
	}
}

// A socket that we may not use, tried as somebody who is not root: see TestMain.
func TestASocketThatMayNotBeUsed(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "builder-socket-") // where anybody may look
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
	command.Env = append(os.Environ(), asNobody+"=unix://"+socket)
	output, err := command.Output()
	want := "builder unix://" + socket + ": its socket may not be used (dial unix " + socket +
		": connect: permission denied): run as a user who may, such as root or a member of the socket's group"
	if err != nil || string(output) != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, output, want)
	}
}

const asNobody = "BUILDER_TEST_AS_NOBODY"

// connectAsNobody prints what a user without rights is told of an address.
func connectAsNobody(addr string) error {
	const nobody = 65534
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		return err
	}
	b, err := Address{Addr: addr}.Start(context.Background(), Request{})
	if err != nil {
		return err
	}
	defer b.Finish(nil)
	_, err = b.Machine(context.Background(), "linux/amd64")
	fmt.Print(err)
	return nil
}

// abandon leaves a socket behind that nobody listens on, as a daemon that was killed does.
func abandon(t *testing.T, socket string) {
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

// notBuildKit is a daemon that speaks something else.
func notBuildKit(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return "tcp://" + server.Listener.Addr().String()
}

// behindTLS puts mutual TLS for 127.0.0.1 in front of a daemon, and writes what a client needs into a folder.
func behindTLS(t *testing.T, socket string) (addr, certificates string) {
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
	ca, caKey := sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	server, serverKey := sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, caKey)
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
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: trusted, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	forward(t, listener, socket, 0)
	return "tcp://" + listener.Addr().String(), dir
}

// forward passes connections on to a daemon; the first few come to nothing. It counts them.
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

package dockerengine

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dockercontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// describe returns the candidates as a list of "name host".
func describe(getenv func(string) string) string {
	var list []string
	for _, c := range candidates(getenv) {
		list = append(list, strings.TrimSpace(c.name+" "+strings.TrimPrefix(c.endpoint.Host, "unix://")))
	}
	return strings.Join(list, ", ")
}

func TestCandidates(t *testing.T) {
	home := t.TempDir()
	writeContext(t, filepath.Join(home, ".docker"), "colima", "unix:///run/colima.sock", nil)
	writeContext(t, filepath.Join(home, "current"), "default-socket", "unix:///var/run/docker.sock", nil)
	write(t, filepath.Join(home, "current", "config.json"), `{"currentContext": "default-socket"}`)
	write(t, filepath.Join(home, "gone", "config.json"), `{"currentContext": "gone"}`)
	write(t, filepath.Join(home, "garbage", "config.json"), `{"currentContext`)
	rest := "OrbStack H/.orbstack/run/docker.sock, Colima H/.colima/default/docker.sock, " +
		"Docker Desktop H/.docker/run/docker.sock"
	podman := ", Podman /run/podman/podman.sock"
	for _, test := range []struct {
		name, want string
		env        map[string]string
	}{
		{"no variables", "default socket /var/run/docker.sock, " + rest + podman, nil},
		{"login session", "default socket /var/run/docker.sock, rootless Docker /run/user/7/docker.sock, " + rest +
			", rootless Podman /run/user/7/podman/podman.sock" + podman, map[string]string{"XDG_RUNTIME_DIR": "/run/user/7"}},
		{"DOCKER_HOST", "DOCKER_HOST /x.sock",
			map[string]string{"DOCKER_HOST": "unix:///x.sock", "DOCKER_CONTEXT": "colima"}},
		{"DOCKER_HOST without a scheme", "DOCKER_HOST tcp://10.0.0.1:2375",
			map[string]string{"DOCKER_HOST": "10.0.0.1:2375"}},
		{"DOCKER_CONTEXT", "DOCKER_CONTEXT colima /run/colima.sock", map[string]string{"DOCKER_CONTEXT": "colima"}},
		{"DOCKER_CONTEXT=default", "default socket /var/run/docker.sock, " + rest + podman,
			map[string]string{"DOCKER_CONTEXT": "default", "DOCKER_CONFIG": home + "/current"}},
		{"current context is the default socket", "docker's context default-socket /var/run/docker.sock, " + rest + podman,
			map[string]string{"DOCKER_CONFIG": home + "/current"}},
		{"unknown current context", "docker's context gone, default socket /var/run/docker.sock, " + rest + podman,
			map[string]string{"DOCKER_CONFIG": home + "/gone"}},
		{"invalid configuration", "docker's current context, default socket /var/run/docker.sock, " + rest + podman,
			map[string]string{"DOCKER_CONFIG": home + "/garbage"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			values := map[string]string{"HOME": home}
			for name, value := range test.env {
				values[name] = value
			}
			if got := strings.ReplaceAll(describe(env(values)), home+"/", "H/"); got != test.want {
				t.Errorf("\n%s, want\n%s", got, test.want)
			}
		})
	}
}

func TestOpenFailures(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	garbage := serve(t, func(conn net.Conn) {
		conn.Read(make([]byte, 1000))
		io.WriteString(conn, "SSH-2.0-OpenSSH\r\n")
		conn.Close()
	})
	plain, unknown := httptest.NewServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	defer plain.Close()
	unknown.Config.ErrorLog = log.New(io.Discard, "", 0)
	unknown.StartTLS()
	defer unknown.Close()
	_, files := certificates(t)
	certs := filepath.Join(dir, "certs")
	for name, content := range map[string][]byte{"ca.pem": files.CA, "cert.pem": files.Cert, "key.pem": files.Key} {
		write(t, filepath.Join(certs, name), string(content))
	}
	for _, test := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"missing socket", map[string]string{"DOCKER_HOST": "unix://" + dir + "/none.sock"},
			[]string{"unix://" + dir + "/none.sock (DOCKER_HOST): no such file", "or unset the variable"}},
		{"stale socket", map[string]string{"DOCKER_HOST": "unix://" + stale}, []string{"connection refused"}},
		{"closed port", map[string]string{"DOCKER_HOST": "tcp://127.0.0.1:1"},
			[]string{"tcp://127.0.0.1:1 (DOCKER_HOST): "}},
		{"not an engine", map[string]string{"DOCKER_HOST": "tcp://" + garbage}, []string{"malformed HTTP"}},
		{"unknown host", map[string]string{"DOCKER_HOST": "tcp://" + strings.Repeat("x", 64) + ".invalid:1"},
			[]string{"check the host name"}},
		{"server without TLS", map[string]string{
			"DOCKER_HOST": "tcp://" + plain.Listener.Addr().String(), "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": certs,
		}, []string{"check the port"}},
		{"unknown authority", map[string]string{
			"DOCKER_HOST": "tcp://" + unknown.Listener.Addr().String(), "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": certs,
		}, []string{"replace ca.pem in DOCKER_CERT_PATH"}},
		{"not an address", map[string]string{"DOCKER_HOST": "carrier-pigeon"}, []string{"tcp://carrier-pigeon"}},
		{"unknown context", map[string]string{"DOCKER_CONTEXT": "gone"},
			[]string{"DOCKER_CONTEXT gone: ", "docker context ls"}},
		{"no certificates", map[string]string{
			"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": dir,
		}, []string{"ca.pem: no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.env["HOME"] = dir
			e, err := Open(t.Context(), env(test.env))
			if err == nil {
				e.Close()
				t.Fatal("Open succeeded")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}

func TestOpenTriesAllCandidates(t *testing.T) {
	dir := t.TempDir()
	getenv := env(map[string]string{"HOME": dir})
	moved := candidates(getenv) // into dir, so that engines on this machine are not found
	for i, c := range moved {
		if !strings.Contains(c.endpoint.Host, dir) {
			moved[i].endpoint.Host = "unix://" + dir + strings.TrimPrefix(c.endpoint.Host, "unix://")
		}
	}
	_, err := newFinder(getenv).open(t.Context(), moved)
	if err == nil {
		t.Fatal("Open succeeded")
	}
	got := strings.ReplaceAll(err.Error(), dir, "H")
	want := "cannot connect to a Docker Engine: unix://H/var/run/docker.sock (default socket): no such file; " +
		"unix://H/.orbstack/run/docker.sock (OrbStack): no such file; " +
		"unix://H/.colima/default/docker.sock (Colima): no such file; " +
		"unix://H/.docker/run/docker.sock (Docker Desktop): no such file; " +
		"unix://H/run/podman/podman.sock (Podman): no such file " +
		"(start Docker with sudo systemctl start docker, Docker Desktop, OrbStack or Colima, or set DOCKER_HOST)"
	if got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}

	colima := filepath.Join(dir, ".colima", "default")
	if err := os.MkdirAll(colima, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(engineHost(t, engine.Current), "unix://")
	if err := os.Symlink(socket, filepath.Join(colima, "docker.sock")); err != nil {
		t.Fatal(err)
	}
	e, err := newFinder(getenv).open(t.Context(), moved)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Host != "unix://"+colima+"/docker.sock" {
		t.Error(e.Host)
	}
}

func TestOpenTimesOut(t *testing.T) {
	host := serve(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	getenv := env(map[string]string{"DOCKER_HOST": "tcp://" + host})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, getenv); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	f := newFinder(getenv)
	if f.responseTimeout != 5*time.Second || f.sshTimeout != 35*time.Second || f.idleTimeout != 5*time.Minute {
		t.Errorf("the default timeouts are %+v", f)
	}
	f.responseTimeout = 100 * time.Millisecond
	_, err := f.open(t.Context(), candidates(getenv))
	if err == nil || !strings.Contains(err.Error(), "timed out after 100ms") {
		t.Errorf("got %v, want a timeout after 100ms", err)
	}
}

// An engine that sends an endless response is not read further than the limit.
func TestEndlessResponse(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("API-Version", "1.47")
	}))
	defer service.Close()
	proxy, err := faultproxy.Start(t.Context(), service.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	const total = 1 << 30
	sent := make(chan int64, 1)
	proxy.Fail(faultproxy.Rule{Path: "/version", Fault: faultproxy.Huge(total, func(n int64) { sent <- n })})
	e, err := Open(t.Context(), env(map[string]string{"DOCKER_HOST": strings.Replace(proxy.URL, "http", "tcp", 1)}))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Platform(t.Context()); !errors.As(err, new(*httpclient.BodyTooLargeError)) {
		t.Errorf("got %v", err)
	}
	if n := <-sent; n > total/4 {
		t.Errorf("read %d bytes", n)
	}
}

func TestOpenAndLoadOverTLS(t *testing.T) {
	home := t.TempDir()
	server, files := certificates(t)
	for name, content := range map[string][]byte{"ca.pem": files.CA, "cert.pem": files.Cert, "key.pem": files.Key} {
		write(t, filepath.Join(home, "certs", name), string(content))
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			host := engineHost(t, kind)
			address := serve(t, func(conn net.Conn) {
				secure := tls.Server(conn, server)
				defer secure.Close()
				relay(secure, host)
			})
			writeContext(t, filepath.Join(home, ".docker"), "remote-"+kind, "tcp://"+address, files)
			for name, values := range map[string]map[string]string{
				"DOCKER_CERT_PATH": {
					"DOCKER_HOST": "tcp://" + address, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": home + "/certs",
				},
				"a context": {"DOCKER_CONTEXT": "remote-" + kind},
			} {
				values["HOME"] = home
				e, err := Open(t.Context(), env(values))
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				removeImage(t, e, "tls:ci")
				if _, err := e.Load(t.Context(), "tls:ci", newImage(t, name)); err != nil {
					t.Error(err)
				}
			}
			getenv := env(map[string]string{"DOCKER_HOST": "tcp://" + address, "HOME": home})
			if _, err := Open(t.Context(), getenv); err == nil {
				t.Error("Open succeeded without certificates")
			}
		})
	}
}

func TestOpenAndLoadOverSSH(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			host := engineHost(t, kind)
			// A fake ssh command that runs the remote command locally.
			bin := t.TempDir()
			write(t, filepath.Join(bin, "ssh"), `#!/bin/sh
case "$*" in *'-l user'*'engine.example docker system dial-stdio') ;; *) exit 1;; esac
exec docker --host `+host+` system dial-stdio
`)
			if err := os.Chmod(filepath.Join(bin, "ssh"), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			writeContext(t, filepath.Join(bin, ".docker"), "remote", "ssh://user@engine.example", nil)
			for name, values := range map[string]map[string]string{
				"DOCKER_HOST": {"DOCKER_HOST": "ssh://user@engine.example"},
				"a context":   {"DOCKER_CONTEXT": "remote"},
			} {
				values["HOME"] = bin
				e, err := Open(t.Context(), env(values))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				defer e.Close()
				removeImage(t, e, "ssh:ci")
				if _, err := e.Load(t.Context(), "ssh:ci", newImage(t, name)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeContext creates a context like docker context create.
func writeContext(t *testing.T, configDir, name, host string, files *dockercontext.TLSData) {
	t.Helper()
	contexts := store.New(filepath.Join(configDir, "contexts"), store.NewConfig(func() any { return &map[string]any{} }))
	if err := contexts.CreateOrUpdate(store.Metadata{
		Name: name, Metadata: map[string]any{},
		Endpoints: map[string]any{docker.DockerEndpoint: docker.EndpointMeta{Host: host}},
	}); err != nil {
		t.Fatal(err)
	}
	if files == nil {
		return
	}
	if err := contexts.ResetEndpointTLSMaterial(name, docker.DockerEndpoint, files.ToStoreTLSData()); err != nil {
		t.Fatal(err)
	}
}

// serve handles connections on a loopback port until the test ends, and returns its address.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return listener.Addr().String()
}

// relay copies data in both directions between a connection and an engine.
func relay(conn net.Conn, host string) {
	engine, err := net.Dial("unix", strings.TrimPrefix(host, "unix://"))
	if err != nil {
		return
	}
	defer engine.Close()
	go func() {
		io.Copy(engine, conn)
		engine.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(conn, engine)
}

// certificates returns the server's and the client's certificates for mutual TLS.
func certificates(t *testing.T) (*tls.Config, *dockercontext.TLSData) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}, &dockercontext.TLSData{
			CA: certificate, Cert: certificate, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		}
}

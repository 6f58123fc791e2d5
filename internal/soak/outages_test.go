//go:build linux

package soak

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/faultproxy"
)

var (
	unreachable = class{"Unreachable services", `The address of one service leads nowhere, for a whole run. The run must
fail before its time limit with one error that names the service and what to check.`, "problem"}
	restarted = class{"Restarts of services", `A service refuses connections for 3 seconds in the middle of a run. The run
must succeed, unless the outage interrupts a request that is not safe to repeat.`, "service"}
)

// address is an address at which no service answers.
type address struct {
	problem string
	hint    *regexp.Regexp // of the error
	scheme  string
	host    string
	caFile  string // of the certificate authority that the program trusts; "" for the system's
	isSlow  bool   // a run takes as long as its time limit
}

// unknownHost has a label that is too long for DNS, so that no resolver sends a query.
var unknownHost = strings.Repeat("x", 64) + ".invalid"

// startAddresses starts the servers of the addresses.
func startAddresses(t *testing.T) []address {
	t.Helper()
	now := time.Now()
	trusted, stale := startTLS(t, now.Add(-2*time.Hour), now.Add(-time.Hour))
	_, unknown := startTLS(t, now.Add(-time.Hour), now.Add(time.Hour))
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	return []address{
		{problem: "connection refused", scheme: "http", host: faultproxy.Refused(t), hint: regexp.MustCompile(`check|start`)},
		{
			problem: "unknown host",
			scheme:  "https",
			host:    unknownHost,
			hint:    regexp.MustCompile(`check (the host name|the network|that)`),
		},
		{
			problem: "certificate of an unknown authority", scheme: "https", host: unknown,
			hint: regexp.MustCompile(`certificate authority`),
		},
		{
			problem: "expired certificate", scheme: "https", host: stale, caFile: trusted,
			hint: regexp.MustCompile(`clock`),
		},
		{
			problem: "server without TLS", scheme: "https", host: plain.Listener.Addr().String(),
			hint: regexp.MustCompile(`check the port`),
		},
		{
			problem: "no answer to the TLS handshake", scheme: "https", host: silentHost(t), isSlow: true,
			hint: regexp.MustCompile(`timed out|no response|check`),
		},
	}
}

// silentHost returns an address that accepts connections and never answers.
func silentHost(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			if conn, err := listener.Accept(); err != nil {
				return
			} else {
				t.Cleanup(func() { _ = conn.Close() })
			}
		}
	}()
	return listener.Addr().String()
}

// startTLS starts an HTTPS server whose certificate has a validity period. It returns the file with the certificate's
// authority, and the address.
func startTLS(t *testing.T, notBefore, notAfter time.Time) (caFile, host string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: notBefore, NotAfter: notAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return caFile, server.Listener.Addr().String()
}

// Each service of each flow has each address at which it does not answer.
func TestUnreachable(t *testing.T) {
	planner := newLab(t)
	addresses := startAddresses(t)
	certificates := clientCertificates(t)
	type unreachableRun struct {
		flow    flow
		service string
		address address
	}
	var cases []unreachableRun
	for _, f := range []flow{push, load, snapshot, testFlow} {
		requests, err := planner.requests(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range servicesOf(requests) {
			for _, a := range addresses {
				isTLS := a.scheme == "https" && a.host != unknownHost
				if service == imageRegistry && isTLS || a.isSlow && !*full { // registries on this machine need no TLS
					continue
				}
				cases = append(cases, unreachableRun{f, service, a})
			}
		}
	}
	inSomeLabs(t, planner, func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 16) && !yield(func(l *lab) { l.tryUnreachable(t, c.flow, c.service, c.address, certificates) }) {
				return
			}
		}
	})
}

// inSomeLabs is [inLabs] for few jobs: without -full, it runs them one after another in l.
func inSomeLabs(t *testing.T, l *lab, jobs iter.Seq[func(*lab)]) {
	t.Helper()
	if *full {
		inLabs(t, jobs)
		return
	}
	for job := range jobs {
		job(l)
	}
}

// withLongTimeout returns the flow with a time limit that it does not reach on a busy machine. It is for faults after
// which the run does not wait.
func (f flow) withLongTimeout() flow {
	f.timeout = time.Minute
	return f
}

// servicesOf returns the services that receive the requests.
func servicesOf(requests []endpoint) (services []string) {
	for _, request := range requests {
		services = append(services, request.service)
	}
	slices.Sort(services)
	return slices.Compact(services)
}

func (l *lab) tryUnreachable(t *testing.T, f flow, service string, a address, certificates string) {
	proxy := l.proxies[service]
	url := proxy.URL
	proxy.URL = a.scheme + "://" + a.host
	if service == imageRegistry {
		proxy.URL = "http://" + a.host
	}
	l.env = map[string]string{"SSL_CERT_FILE": a.caFile, "GIT_SSL_CAINFO": a.caFile}
	if service == docker && a.scheme == "https" {
		l.env = map[string]string{
			"DOCKER_HOST": "tcp://" + a.host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": certificates,
		}
		if a.caFile != "" {
			l.env["DOCKER_CERT_PATH"] = trusting(t, certificates, a.caFile)
		}
	}
	run := l.try(t.Context(), f, nil)
	proxy.URL, l.env = url, nil
	run.name = fmt.Sprintf("%s: %s, %s", f.name, service, a.problem)
	switch {
	case run.ExitCode == 0:
		run.fail("the run succeeded without %s", service)
	case !regexp.MustCompile(names[service]).MatchString(run.message):
		run.fail("the error does not name %s", service)
	case !a.hint.MatchString(run.message):
		run.fail("the error does not say what to check")
	}
	l.record(t, f, run, row{unreachable, a.problem})
}

// clientCertificates creates a directory for DOCKER_CERT_PATH, with another authority than those of the servers.
func clientCertificates(t *testing.T) string {
	t.Helper()
	now := time.Now()
	caFile, _ := startTLS(t, now.Add(-time.Hour), now.Add(time.Hour))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(caFile)
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(
			filepath.Join(dir, "key.pem"),
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
			0o600,
		),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// trusting returns a copy of certificates that trusts the authority of caFile.
func trusting(t *testing.T, certificates, caFile string) string {
	t.Helper()
	dir := t.TempDir()
	for name, file := range map[string]string{
		"ca.pem": caFile, "cert.pem": filepath.Join(
			certificates, "cert.pem",
		), "key.pem": filepath.Join(certificates, "key.pem"),
	} {
		if err := os.Symlink(file, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A service refuses connections for 3 s from a seeded moment on.
func TestRestart(t *testing.T) {
	const outage = 3 * time.Second
	planner := newLab(t)
	random := randv2.New(randv2.NewPCG(5, 6))
	type restart struct {
		flow    flow
		service string
		at      moment
	}
	var cases []restart
	for _, f := range []flow{push, load, snapshot, testFlow} {
		requests, err := planner.requests(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range servicesOf(requests) {
			for range 4 {
				at := randomMoment(random, requests)
				cases = append(cases, restart{f, service, at})
			}
		}
	}
	inSomeLabs(t, planner, func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 29) && !yield(func(l *lab) { l.tryRestart(t, c.flow, c.service, c.at, outage) }) {
				return
			}
		}
	})
}

func (l *lab) tryRestart(t *testing.T, f flow, service string, at moment, outage time.Duration) {
	f.timeout = time.Minute // for the outage, and for retries after it
	var failed error
	run := l.tryWith(t.Context(), f, at, func(int) {
		failed = l.proxies[service].Down()
		time.Sleep(outage)
		failed = cmp.Or(failed, l.proxies[service].Up(t.Context()))
	})
	run.name = fmt.Sprintf("%s: %s down %s after request %d", f.name, service, at.after, at.request)
	if failed != nil {
		run.fail("%w", failed)
	}
	// BuildKit pushes, and does not try again.
	isRefused := regexp.MustCompile(`connection refused|Couldn't connect`).MatchString(run.message)
	if isRefused && service != imageRegistry {
		run.fail("the run did not wait for %s", service)
	}
	if run.message != "" && !regexp.MustCompile(names[service]).MatchString(run.message) {
		run.fail("the error does not name %s", service)
	}
	if strings.Contains(run.Stdout, "Depot will notice missing health reports") {
		l.depotCalls = len(l.Depot.Calls()) // the check does not expect them to be finished
	}
	l.record(t, f, run, row{restarted, service})
}

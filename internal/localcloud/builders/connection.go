package builders

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Connection is one build's access to a machine: an address and PEM certificates for mutual TLS.
type Connection struct {
	Endpoint   string // tcp://127.0.0.1:PORT
	ServerName string // DNS name in the server certificate
	CACert     string // CA that signed the server certificate
	Cert, Key  string // client certificate and private key

	listener net.Listener
	dial     func() (net.Conn, error) // connects to the machine
	tap      io.Writer                // receives what the client sends
	forget   func()                   // removes the connection from its Builders

	mutex  sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	frozen atomic.Bool
	served sync.WaitGroup
}

// Close closes the listener and its connections. Calling Close again has no effect.
func (c *Connection) Close() error {
	c.mutex.Lock()
	first := !c.closed
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
	c.mutex.Unlock()
	if first {
		c.listener.Close()
		if c.forget != nil {
			c.forget()
		}
	}
	c.served.Wait()
	return nil
}

// Freeze makes the connection drop all data from now on, while it stays open.
func (c *Connection) Freeze() { c.frozen.Store(true) }

// IsFrozen reports whether Freeze was called.
func (c *Connection) IsFrozen() bool { return c.frozen.Load() }

// gate drops what is written after the connection is frozen.
type gate struct {
	io.Writer
	frozen *atomic.Bool
}

// Write implements [io.Writer].
func (g gate) Write(p []byte) (int, error) {
	if g.frozen.Load() {
		return len(p), nil
	}
	return g.Writer.Write(p)
}

// open listens on loopback and forwards clients that present this connection's certificate. It copies what they send to
// tap. Its clock is wrong by skew.
func open(dial func() (net.Conn, error), tap io.Writer, lifetime, skew time.Duration) (*Connection, error) {
	const serverName = "builder.localcloud"
	clock := func() time.Time { return time.Now().Add(skew) }
	notBefore := clock().Add(-time.Minute) // tolerates clock skew
	notAfter := clock().Add(lifetime)
	authority, authorityKey, err := certificate(notBefore, notAfter, x509.Certificate{
		Subject:               pkix.Name{CommonName: "builds of one connection"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, nil, nil)
	if err != nil {
		return nil, err
	}
	server, serverKey, err := certificate(notBefore, notAfter, x509.Certificate{
		Subject:     pkix.Name{CommonName: serverName},
		DNSNames:    []string{serverName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	user, userKey, err := certificate(notBefore, notAfter, x509.Certificate{
		Subject:     pkix.Name{CommonName: "build"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(userKey)
	if err != nil {
		return nil, fmt.Errorf("encode the client key: %w", err)
	}

	trusted := x509.NewCertPool()
	trusted.AddCert(authority)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    trusted,
		NextProtos:   []string{"h2"}, // required by gRPC clients
		MinVersion:   tls.VersionTLS12,
		// A resumed session skips the check of the certificate's validity period.
		SessionTicketsDisabled: true,
		Time:                   clock,
	})
	if err != nil {
		return nil, fmt.Errorf("listen for TLS connections: %w", err)
	}
	c := &Connection{
		Endpoint:   "tcp://" + listener.Addr().String(),
		ServerName: serverName,
		CACert:     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})),
		Cert:       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: user.Raw})),
		Key:        string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		listener:   listener,
		dial:       dial,
		tap:        tap,
		open:       map[net.Conn]struct{}{},
	}
	c.served.Go(c.serve)
	return c, nil
}

// certificate creates a key and a certificate for it, signed by parent, or self-signed if parent is nil.
func certificate(
	notBefore, notAfter time.Time,
	template x509.Certificate,
	parent *x509.Certificate,
	parentKey *ecdsa.PrivateKey,
) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("create a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("create a certificate: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = notBefore, notAfter
	if parent == nil {
		parent, parentKey = &template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, fmt.Errorf("create a certificate: %w", err)
	}
	created, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("create a certificate: %w", err)
	}
	return created, key, nil
}

func (c *Connection) serve() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return // closed
		}
		c.served.Go(func() { c.forward(conn.(*tls.Conn)) })
	}
}

// forward completes the TLS handshake and copies data between the client and the daemon.
func (c *Connection) forward(client *tls.Conn) {
	defer client.Close()
	if !c.track(client) {
		return
	}
	defer c.untrack(client)
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	if err := client.Handshake(); err != nil {
		return
	}
	_ = client.SetDeadline(time.Time{})

	daemon, err := c.dial()
	if err != nil {
		return
	}
	defer daemon.Close()
	if !c.track(daemon) {
		return
	}
	defer c.untrack(daemon)
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = io.Copy(gate{daemon, &c.frozen}, io.TeeReader(client, c.tap))
		daemon.Close()
	})
	_, _ = io.Copy(gate{client, &c.frozen}, daemon)
	client.Close()
	sending.Wait()
}

func (c *Connection) track(conn net.Conn) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return false
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *Connection) untrack(conn net.Conn) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.open, conn)
}

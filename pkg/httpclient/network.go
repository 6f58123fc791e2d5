package httpclient

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
)

// IncompleteError reports a response whose body did not arrive whole.
type IncompleteError struct{ Err error }

func (e *IncompleteError) Error() string { return fmt.Sprintf("the body is incomplete: %v", e.Err) }

func (e *IncompleteError) Unwrap() error { return e.Err }

// checkComplete returns an [*IncompleteError] for a response that ends in the middle of a JSON value. A proxy may cut a
// body and send the rest as a complete one.
func checkComplete(response *http.Response, body []byte) error {
	format, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || response.StatusCode/100 != 2 || format != "application/json" && !strings.HasSuffix(format, "+json") {
		return nil
	}
	var value json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&value); errors.Is(err, io.ErrUnexpectedEOF) {
		return &IncompleteError{err}
	}
	return nil
}

// NetworkHint returns what the user can do about a request to url without a response, or "" if the cause is unknown.
func NetworkHint(err error, url string) string {
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "proxyconnect" {
		return "check HTTPS_PROXY and HTTP_PROXY, or add the host to NO_PROXY"
	}
	if status := proxyStatus(err); status != 0 {
		return fmt.Sprintf("the proxy answered %d: check the user and the password in HTTPS_PROXY, and that the proxy "+
			"allows this host", status)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "check the clock of this machine; if it is right, the certificate of " + url + " must be renewed"
	}
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "add the certificate authority of " + url + ", or of a proxy that inspects TLS, to the system's trusted " +
			"certificates, or set SSL_CERT_FILE"
	case errors.As(err, new(x509.HostnameError)):
		return "correct the host name: the certificate is for another one"
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return "check the certificate of " + url
	case isPlaintextServer(err):
		return "check the port: the server there does not use TLS"
	case errors.As(err, new(*net.DNSError)):
		return "check the host name, and the DNS server of this machine"
	case errors.As(err, new(*IncompleteError)):
		return "run again; if it persists, check the network and any proxy"
	}
	return ""
}

// isPlaintextServer reports whether a server answered a TLS handshake without TLS.
func isPlaintextServer(err error) bool {
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, new(tls.RecordHeaderError))
}

// proxyStatus returns the status with which a proxy refused a connection, or 0. net/http returns the text of the status
// as the error (Go 1.26, src/net/http/transport.go, dialConn).
func proxyStatus(err error) int {
	for err := err; err != nil; err = errors.Unwrap(err) {
		for status := http.StatusBadRequest; status <= http.StatusNetworkAuthenticationRequired; status++ {
			if text := http.StatusText(status); text != "" && err.Error() == text {
				return status
			}
		}
	}
	return 0
}

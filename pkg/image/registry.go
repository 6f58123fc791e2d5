package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ErrUnauthorized is what an error of a push or a pull is when the registry does not accept the login, or no longer: with a fresh one
// the same call may go on where it stopped.
var ErrUnauthorized = errors.New("the registry does not accept the login")

// How a registry is waited for. Variables, so that tests need not wait.
var (
	firstWait       = 500 * time.Millisecond // before a request is sent again
	longestWait     = time.Minute            // that a registry may ask for
	registrySilence = 5 * time.Minute        // without a byte in either direction: a large blob is checked at its end
)

// maxTries bounds how often a request is sent.
const maxTries = 4

// registryOptions is how this package speaks to registries.
func registryOptions(ctx context.Context, keychain authn.Keychain) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(keychain),
		remote.WithTransport(patient{registryTransport(registrySilence)}),
		remote.WithRetryBackoff(remote.Backoff{Duration: firstWait, Factor: 3, Jitter: 0.1, Steps: 3}),
		remote.WithRetryStatusCodes(), // patient does that: it knows how long to wait, and sends the body again
	}
}

func registryTransport(silence time.Duration) http.RoundTripper {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return watched{conn, silence}, nil
	}
	return t
}

// watched is a connection that fails when nothing moves on it. Whoever waits to read while much is written is not silent.
type watched struct {
	net.Conn
	silence time.Duration
}

func (c watched) Read(p []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(c.silence)) // fails for a closed connection, as Read does
	return c.Conn.Read(p)
}

func (c watched) Write(p []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(c.silence))
	return c.Conn.Write(p)
}

// patient sends a request again when the registry asks to slow down (429) or fails (5xx). One with a body it gives back, after the
// wait that the registry asked for: the library then sends it again from its beginning, and counts it once.
type patient struct{ next http.RoundTripper }

func (p patient) RoundTrip(r *http.Request) (*http.Response, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	for try := 1; ; try++ {
		response, err := p.next.RoundTrip(r)
		if err != nil || response.StatusCode != http.StatusTooManyRequests && response.StatusCode < 500 || try == maxTries {
			return response, err
		}
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		wait := time.Duration(seconds) * time.Second
		hasBody := r.Body != nil && r.Body != http.NoBody
		if !hasBody {
			wait = max(wait, waits.NextBackOff())
		}
		if wait > longestWait {
			return response, nil
		}
		select {
		case <-r.Context().Done():
			_ = response.Body.Close()
			return nil, context.Cause(r.Context())
		case <-time.After(wait):
		}
		if hasBody {
			return response, nil
		}
		_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection can be used again
		_ = response.Body.Close()
	}
}

// statusInText finds what a registry answered in BuildKit's words. A digest's or a port's digits stand alone nowhere.
var statusInText = regexp.MustCompile(`\b(401|403|404|429|5\d\d) [A-Z]`)

// registryError says what became of doing ("push", "read") at a reference, or one of several by comma, and what to do. What is known of the cause comes as err: an
// error of go-containerregistry, or BuildKit's text.
func registryError(ctx context.Context, doing, reference string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if ours := new(builderError); errors.As(err, &ours) {
		return fmt.Errorf("%s %s: %w", doing, reference, ours)
	}
	var hosts []string
	for part := range strings.SplitSeq(reference, ", ") {
		if ref, err := name.ParseReference(part); err == nil && !slices.Contains(hosts, ref.Context().RegistryStr()) {
			hosts = append(hosts, ref.Context().RegistryStr())
		}
	}
	host := strings.Join(hosts, " and ")
	text := oneLine(err.Error())
	lower := strings.ToLower(text)
	status := 0
	if answer := new(transport.Error); errors.As(err, &answer) {
		status = answer.StatusCode
	} else if found := statusInText.FindStringSubmatch(text); found != nil {
		status, _ = strconv.Atoi(found[1])
	}
	says := func(format string, args ...any) error {
		return &said{fmt.Sprintf("%s %s: %s", doing, reference, fmt.Sprintf(format, args...)), err}
	}
	may := "read it"
	if doing == "push" {
		may = "push there"
	}
	var timeout net.Error
	switch {
	case strings.Contains(lower, "insufficient_scope"), strings.Contains(lower, "denied"), status == http.StatusForbidden:
		return says("the registry does not let this account %s (%s): give it the right, or log in to %s as one that has it", may, text, host)
	case status == http.StatusUnauthorized, strings.Contains(lower, "unauthorized"), strings.Contains(lower, "no basic auth credentials"), strings.Contains(lower, "authentication required"):
		err = errors.Join(ErrUnauthorized, err)
		return says("the registry does not accept the login, or it may not %s (%s): log in to %s (docker login) with a password that has not expired", may, text, host)
	case status == http.StatusNotFound:
		return says("the registry has no such image (%s): check name and tag", text)
	case status == http.StatusTooManyRequests:
		return says("the registry asks to slow down (429): try again in a few minutes, or log in for a higher limit")
	case status >= 500:
		return says("the registry fails (%s): try again later, and look at its status page or log", text)
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return says("the registry at %s has been silent for %s: try again later", host, registrySilence)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return says("the connection to %s broke off (%s): try again", host, text)
	}
	return says("%s: check that %s answers and that the reference is right", text, host)
}

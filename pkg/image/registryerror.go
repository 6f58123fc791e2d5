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

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// ErrUnauthorized is wrapped by the error of a push or pull if the registry rejects the credentials, for example
// because they have expired. The same call can continue with fresh credentials.
var ErrUnauthorized = errors.New("registry rejected the credentials")

// registryOp names the operation of a call to a registry.
type registryOp string

const (
	pushOp registryOp = "push"
	readOp registryOp = "read"
	pullOp registryOp = "pull"

	checkOp registryOp = "check the push to"
)

// registryCall identifies a call in errors.
type registryCall struct {
	op         registryOp
	references []string // several if it is not known which one failed
}

func (c registryCall) String() string { return string(c.op) + " " + strings.Join(c.references, ", ") }

// hosts returns the registries of the references.
func (c registryCall) hosts() string {
	var hosts []string
	for _, reference := range c.references {
		ref, err := name.ParseReference(reference)
		if err != nil {
			continue
		}
		host := ref.Context().RegistryStr()
		if host == name.DefaultRegistry {
			host = "docker.io"
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, " and ")
}

// statusInText finds the status in a message of BuildKit: "401 Unauthorized". Digits of a digest or a port do not
// match.
var statusInText = regexp.MustCompile(`\b(401|403|404|429|5\d\d) [A-Z]`)

// failure returns the error of a failed call: an [*httpclient.APIError], a [*ReadError] of the pushed image, or the
// cause of ctx. message is BuildKit's, or "" for an error of go-containerregistry.
func (c registryCall) failure(ctx context.Context, message string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if failed, ok := errors.AsType[*ReadError](err); ok {
		return fmt.Errorf("%s: %w", c, failed)
	}
	e := &httpclient.APIError{Service: c.hosts(), Op: c.String(), Message: message, Err: err}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		e.Status = answer.StatusCode
		e.Message = diagnostics(answer)
	} else if message == "" {
		e.Message = safetext.Line(err.Error(), maxMessage)
	} else if found := statusInText.FindStringSubmatch(message); found != nil {
		e.Status, _ = strconv.Atoi(found[1])
	}
	c.describe(e)
	return e
}

// diagnostics joins the errors in a registry's response.
func diagnostics(answer *transport.Error) string {
	var list []string
	for _, d := range answer.Errors {
		list = append(list, strings.TrimSuffix(fmt.Sprintf("%s: %s", d.Code, d.Message), ": "))
	}
	return safetext.Line(strings.Join(list, "; "), maxMessage)
}

// describe adds a hint, and wraps [ErrUnauthorized] if the credentials were rejected. Registries answer 401 for both
// missing credentials and missing permissions, so it checks the message as well as the status.
func (c registryCall) describe(e *httpclient.APIError) {
	permission := "pull from"
	if c.op == pushOp {
		permission = "push to"
	}
	contains := func(texts ...string) bool {
		lower := strings.ToLower(e.Message)
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(lower, text) })
	}
	netErr, isNetErr := errors.AsType[net.Error](e.Err)
	switch {
	case contains("insufficient_scope", "denied") || e.Status == http.StatusForbidden:
		e.Hint = fmt.Sprintf("grant this account permission to %s the repository, or log in to %s with another account",
			permission, c.hosts())
	case e.Status == http.StatusUnauthorized ||
		contains("unauthorized", "no basic auth credentials", "authentication required"):
		e.Err = errors.Join(ErrUnauthorized, e.Err)
		e.Hint = fmt.Sprintf("log in to %s (docker login) with valid credentials that may %s the repository",
			c.hosts(), permission)
	case e.Status == http.StatusNotFound, c.op == pullOp && strings.HasSuffix(e.Message, ": not found"),
		c.op == pullOp && e.Message == "not found":
		e.Hint = "check the name and the tag"
		if c.op != pushOp {
			e.Hint += fmt.Sprintf(", and log in to %s (docker login) if the image is private", c.hosts())
		}
	case e.Status == http.StatusTooManyRequests, contains("toomanyrequests"):
		e.Hint = "try again in a few minutes, or log in for a higher limit"
	case e.Status >= 500:
		e.Hint = "try again later; check the registry's status page or log"
	case errors.Is(e.Err, os.ErrDeadlineExceeded), isNetErr && netErr.Timeout():
		e.Message = fmt.Sprintf("no data from %s: %s", c.hosts(), e.Message)
		e.Hint = "try again later"
	case errors.Is(e.Err, io.EOF), errors.Is(e.Err, io.ErrUnexpectedEOF):
		e.Hint = "retry"
	case contains("x509: ", "tls: "):
		e.Hint = fmt.Sprintf("check the TLS certificate of %s, and that the builder trusts it", c.hosts())
	case contains("text/html"):
		e.Hint = fmt.Sprintf("check the reference, and that %s is a registry", c.hosts())
	default:
		e.Hint = fmt.Sprintf("check that %s answers and that the reference is correct", c.hosts())
	}
}

// notAnImage returns the error for a response that is not a valid image.
func (c registryCall) notAnImage(detail string, err error) error {
	return &httpclient.APIError{
		Service: c.hosts(), Op: c.String(), Message: safetext.Line("not an image: "+detail, maxMessage),
		Hint: fmt.Sprintf("check the reference, and that %s is a registry", c.hosts()),
		Err:  errors.Join(httpclient.ErrFormat, err),
	}
}

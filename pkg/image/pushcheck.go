package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// NotPushedError reports an exporter that did not confirm the push to a reference in its response.
type NotPushedError struct{ Reference string }

func (e *NotPushedError) Error() string {
	return fmt.Sprintf("push %s: the builder did not confirm the push "+
		"(run again; if it happens again, update the builder)", e.Reference)
}

// checkConfirmed returns a [*NotPushedError] if the response of an exporter does not contain all references that it was
// to push to.
func checkConfirmed(export client.ExportEntry, response map[string]string) error {
	if export.Attrs[string(exptypes.OptKeyPush)] != "true" {
		return nil
	}
	confirmed := strings.Split(response[exptypes.ExporterImageNameKey], ",")
	for reference := range strings.SplitSeq(export.Attrs[string(exptypes.OptKeyName)], ",") {
		if reference != "*" && !slices.Contains(confirmed, reference) { // the frontend replaces *
			return &NotPushedError{reference}
		}
	}
	return nil
}

// ErrUnreachable is wrapped by the error of [CheckPushed] if the registry does not answer this machine. The builder may
// still reach it.
var ErrUnreachable = errors.New("registry is not reachable from this machine")

// CheckPushed returns an error if the registry does not have the manifest or index with this digest in the repository
// of reference. A few retries allow for registries that are eventually consistent.
func CheckPushed(ctx context.Context, reference string, digest v1.Hash, keychain authn.Keychain) error {
	return registryClient{keychain: keychain, idleTimeout: checkTimeout}.checkPushed(ctx, reference, digest)
}

// checkTimeout limits the wait for one answer about a push.
const checkTimeout = 20 * time.Second

func (c registryClient) checkPushed(ctx context.Context, reference string, digest v1.Hash) error {
	call := registryCall{op: checkOp, references: []string{reference}}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	wanted := ref.Context().Digest(digest.String())
	base := &answerRecorder{next: c.transport()}
	options := append(c.options(ctx), remote.WithTransport(base))
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = c.wait()
	_, err = backoff.Retry(ctx, func() (any, error) {
		_, err := remote.Head(wanted, options...)
		if err != nil && base.answered.Load() && statusOf(err) == 0 {
			_, err = remote.Get(wanted, options...) // HEAD may omit the digest
		}
		if err != nil && statusOf(err) != http.StatusNotFound {
			err = backoff.Permanent(err)
		}
		return nil, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(4))
	answered := base.answered.Load()
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) == nil && answered && statusOf(err) == 0:
		return call.notAnImage(err.Error(), err)
	}
	err = call.failure(ctx, "", err)
	failed, ok := errors.AsType[*httpclient.APIError](err)
	switch {
	case ok && !answered:
		failed.Message = "the builder reported the push as done, but this machine cannot check it: " + failed.Message
		failed.Hint = fmt.Sprintf("make %s reachable from this machine", call.hosts())
		failed.Err = errors.Join(ErrUnreachable, failed.Err)
	case ok && failed.Status == http.StatusNotFound:
		failed.Message = fmt.Sprintf("the builder reported the push as done, but the registry does not have %s", digest)
		failed.Hint = "run again; if it happens again, check the registry's log"
	}
	return err
}

// statusOf returns the HTTP status of a registry's answer, or 0 for other errors.
func statusOf(err error) int {
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.StatusCode
	}
	return 0
}

// answerRecorder records whether a server has answered.
type answerRecorder struct {
	next     http.RoundTripper
	answered atomic.Bool
}

// RoundTrip implements [http.RoundTripper].
func (t *answerRecorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err == nil {
		t.answered.Store(true)
	}
	return response, err
}

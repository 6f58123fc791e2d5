package daytona

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// PushAccess is an account for pushing to and pulling from Registry/Project/NAME:TAG. Its String method omits the
// secret.
//
// Treat the secret as long-lived, although Daytona reports that it expires after an hour: Daytona requests a duration
// of 3600 (getRegistryPushAccess in apps/api/src/docker-registry/services/docker-registry.service.ts), which its
// registry, Harbor, counts in days.
type PushAccess struct {
	Registry string // host[:port]
	Project  string
	User     string
	Secret   string
}

// String implements [fmt.Stringer].
func (p PushAccess) String() string { return p.User + "@" + p.Registry + "/" + p.Project }

// GoString implements [fmt.GoStringer].
func (p PushAccess) GoString() string { return p.String() }

// pushAccess is the response to a request for access.
type pushAccess struct {
	Username    string `json:"username"`
	Secret      string `json:"secret"`
	RegistryURL string `json:"registryUrl"`
	Project     string `json:"project"`
}

func (p pushAccess) check() error {
	return require(field{"registryUrl", p.RegistryURL}, field{"project", p.Project}, field{"secret", p.Secret})
}

// PushAccess requests access to the registry of a region. "" means Daytona's default registry, which an organization's
// default region may not use; see [Client.DefaultRegion].
func (c *Client) PushAccess(ctx context.Context, region string) (PushAccess, error) {
	spec := call{
		op: "request access to Daytona's registry", permission: WriteSnapshots,
		timeout: time.Minute, // Daytona creates an account in its registry
	}
	got, err := do[pushAccess](ctx, c, spec, func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
		request := a.DockerRegistryAPI.GetTransientPushAccess(ctx)
		if region != "" {
			request = request.RegionId(region)
		}
		return response(request.Execute())
	})
	if c.Mask != nil && got.Secret != "" {
		c.Mask(got.Secret)
	}
	if err != nil {
		return PushAccess{}, err
	}
	access := PushAccess{Registry: got.RegistryURL, Project: got.Project, User: got.Username, Secret: got.Secret}
	if _, host, ok := strings.Cut(access.Registry, "://"); ok {
		access.Registry = host
	}
	return access, nil
}

// WaitForImage polls Daytona's registry until it serves a pushed image, and returns the image's digest. The registry,
// Harbor, may serve an image only some time after the push; until then, creating a snapshot of it fails. The Daytona
// CLI waits for the same reason (apps/cli/cmd/snapshot/push.go).
func (c *Client) WaitForImage(ctx context.Context, access PushAccess, image string) (digest string, err error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", fmt.Errorf("invalid image reference %q: %w", image, err)
	}
	options := []remote.Option{
		remote.WithAuth(&authn.Basic{Username: access.User, Password: access.Secret}),
		remote.WithUserAgent(userAgent),
		remote.WithTransport(c.HTTP.Transport()),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), // the transport retries
	}
	clock, limit := c.clock(), c.Timing.withDefaults().ImageVisible
	start, logged := clock.Now(), 0
	for intervals := c.intervals(); ; {
		found, err := remote.Head(ref, append(options, remote.WithContext(ctx))...)
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return "", cause
		case err == nil:
			return found.Digest.String(), nil
		}
		status := http.StatusBadGateway // no response
		if answer, ok := errors.AsType[*transport.Error](err); ok {
			status = answer.StatusCode
		}
		if status == http.StatusUnauthorized || status == http.StatusForbidden {
			return "", &httpclient.APIError{
				Service: "Daytona's registry", Op: "find " + image, Status: status,
				Message: "access has expired", Hint: "run again", Err: err,
			}
		}
		if status != logged && status != http.StatusNotFound && c.Logf != nil {
			c.Logf("Daytona's registry does not serve the image yet: %s; trying again", safetext.Line(err.Error(), 300))
		}
		logged = status
		if clock.Now().Sub(start) >= limit {
			return "", fmt.Errorf("find %s in Daytona's registry: not visible %s after the push (run again): %w",
				image, limit, err)
		}
		if err := clock.Sleep(ctx, intervals.NextBackOff()); err != nil {
			return "", err
		}
	}
}

package daytona

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/cenkalti/backoff/v5"
	api "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/org/sandbox-actions/pkg/grace"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Request describes a snapshot to create.
type Request struct {
	Name         string
	Image        string // HOST/PROJECT/NAME:TAG in Daytona's registry, unique to the run; the tag is not latest
	Resources    Resources
	GPU          int
	SandboxClass string   // "" means the server's default
	Entrypoint   []string // nil means the image's entrypoint
	Region       string   // region ID; "" means the organization's default

	// Keep leaves the snapshot of a canceled Create: it takes the place of one that is deleted already.
	Keep bool
}

// check rejects an image by digest, which Daytona accepts and then reads as the tag sha256 (getFullName in
// apps/api/src/common/utils/docker-image.util.ts), so that the snapshot fails.
func (r Request) check() error {
	if tag, err := name.NewTag(r.Image, name.StrictValidation); err != nil || tag.TagStr() == "latest" {
		return fmt.Errorf("create snapshot %s: %q is not an image with a tag other than latest", r.Name, r.Image)
	}
	return nil
}

// maxCreates is how often Create sends its request at most.
const maxCreates = 4

// Create requests a snapshot; [Client.WaitUntilActive] waits for it. If a request fails but may have created the
// snapshot, or if the name is taken, Create looks for a snapshot with the same name and image. It retries a request
// without a response, also if it cannot look: Daytona refuses the name if the snapshot exists. If ctx ends, Create
// deletes the snapshot that it created and returns the cause.
//
// The error of a refused request explains which limit or rule of the organization the request violates. It is
// [ErrNameTaken] if a snapshot of another image has the name.
func (c *Client) Create(ctx context.Context, r Request) (Snapshot, error) {
	if err := r.check(); err != nil {
		return Snapshot{}, err
	}
	// Wait for the response a little longer than ctx, to learn what to delete.
	graced, stop := grace.Extend(ctx, c.Timing.withDefaults().ResponseGrace, errNoTime)
	defer stop()
	interval := backoff.NewExponentialBackOff()
	uncertain := false // an earlier request may have created the snapshot
	for try := 1; ; try++ {
		created, err := c.post(graced, r)
		isLost := mayHaveCreated(err)
		uncertain = uncertain || isLost || context.Cause(graced) != nil
		switch cause := context.Cause(ctx); {
		case cause != nil && (err == nil || uncertain):
			return Snapshot{}, c.deleteCreated(ctx, r, created, cause)
		case cause != nil:
			return Snapshot{}, cause
		case err == nil:
			return created, c.checkOrganization(ctx, created)
		case !isLost && !errors.Is(err, ErrNameTaken):
			return Snapshot{}, err
		}
		found, ok, findErr := c.Find(graced, r.Name)
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return Snapshot{}, c.deleteCreated(ctx, r, Snapshot{}, cause)
		case ok && found.Image == r.Image:
			return found, c.checkOrganization(ctx, found)
		case !isLost && (findErr == nil || !uncertain):
			return Snapshot{}, err
		case try == maxCreates || findErr != nil && !isInconclusive(findErr):
			return Snapshot{}, &uncertainError{r.Name, err}
		}
		// If ctx ends, the next iteration returns.
		_ = c.clock().Sleep(ctx, interval.NextBackOff())
	}
}

// mayHaveCreated reports whether the request that failed with err may have created a snapshot.
func mayHaveCreated(err error) bool {
	failed, ok := errors.AsType[*httpclient.APIError](err)
	return ok && failed.MayHaveArrived() && (failed.Status < 300 || failed.Status >= 500)
}

// uncertainError reports a request that may still create a snapshot.
type uncertainError struct {
	name string
	err  error
}

func (e *uncertainError) Error() string {
	return fmt.Sprintf("%v; snapshot %s may have been created (run `action-snapshot list`)", e.err, e.name)
}

func (e *uncertainError) Unwrap() error { return e.err }

func (c *Client) post(ctx context.Context, r Request) (Snapshot, error) {
	request := api.NewCreateSnapshot(r.Name)
	request.SetImageName(r.Image)
	request.SetCpu(int32(r.Resources.CPU))
	request.SetMemory(int32(r.Resources.Memory))
	request.SetDisk(int32(r.Resources.Disk))
	if r.GPU > 0 {
		request.SetGpu(int32(r.GPU))
	}
	if r.SandboxClass != "" {
		request.SetSandboxClass(api.SandboxClass(r.SandboxClass))
	}
	if len(r.Entrypoint) > 0 {
		request.SetEntrypoint(r.Entrypoint)
	}
	if r.Region != "" {
		request.SetRegionId(r.Region)
	}
	created, err := do[snapshotDTO](ctx, c, call{op: "create snapshot " + r.Name, permission: WriteSnapshots},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.SnapshotsAPI.CreateSnapshot(ctx).CreateSnapshot(*request).Execute())
		})
	return convert(created), err
}

// checkOrganization deletes a snapshot that was created in an organization other than c.Organization. With an API key,
// Daytona does not check the organization.
func (c *Client) checkOrganization(ctx context.Context, created Snapshot) error {
	if c.Organization == "" || created.Organization == "" || created.Organization == c.Organization {
		return nil
	}
	return WithLeftovers(c.wrongOrganization(created.Organization), c.Remove(ctx, created))
}

// deleteCreated deletes the snapshot that a canceled request created, unless r.Keep is set. If the snapshot is unknown,
// it looks for one with the same name and image, which may appear late.
func (c *Client) deleteCreated(ctx context.Context, r Request, created Snapshot, cause error) error {
	graced, stop := grace.Extend(ctx, c.Timing.withDefaults().CleanupGrace, errNoTime)
	defer stop()
	for intervals := c.intervals(); created.ID == ""; {
		found, ok, _ := c.Find(graced, r.Name) // retried until the grace ends
		switch {
		case ok && found.Image == r.Image:
			created = found
		case ok: // the name is taken, so the request has no effect
			return cause
		case c.clock().Sleep(graced, intervals.NextBackOff()) != nil:
			return WithLeftovers(cause, fmt.Errorf("snapshot %s may have been created (run `action-snapshot list`)", r.Name))
		}
	}
	if r.Keep {
		return WithLeftovers(cause, fmt.Errorf("snapshot %s was not deleted, because it replaces a deleted one (run "+
			"`action-snapshot list`)", r.Name))
	}
	return WithLeftovers(cause, c.remove(graced, created))
}

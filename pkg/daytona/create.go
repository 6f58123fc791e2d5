package daytona

import (
	"context"
	"fmt"
	"net/http"

	"github.com/cenkalti/backoff/v5"
	api "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/google/go-containerregistry/pkg/name"

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
// snapshot, Create looks for a snapshot with the same name and image before it retries. If ctx ends, Create deletes the
// snapshot that it created and returns the cause.
//
// The error of a refused request explains which limit or rule of the organization the request violates. It is
// [ErrNameTaken] if a snapshot with the name exists.
func (c *Client) Create(ctx context.Context, r Request) (Snapshot, error) {
	if err := r.check(); err != nil {
		return Snapshot{}, err
	}
	// Wait for the response a little longer than ctx, to learn what to delete.
	graced, stop := withGrace(ctx, c.Timing.withDefaults().ResponseGrace)
	defer stop()
	interval := backoff.NewExponentialBackOff()
	uncertain := false // an earlier request may have created the snapshot
	for try := 1; ; try++ {
		created, err := c.post(graced, r)
		noResponse := err != nil && (httpclient.Status(err) < 300 || httpclient.Status(err) >= 500)
		uncertain = uncertain || noResponse
		switch cause := context.Cause(ctx); {
		case cause != nil && (err == nil || uncertain):
			return Snapshot{}, c.deleteCreated(ctx, r, created, cause)
		case cause != nil:
			return Snapshot{}, cause
		case err == nil:
			return created, c.checkOrganization(ctx, created)
		case !uncertain || (!noResponse && httpclient.Status(err) != http.StatusConflict):
			return Snapshot{}, err
		}
		found, ok, findErr := c.Find(graced, r.Name)
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return Snapshot{}, c.deleteCreated(ctx, r, Snapshot{}, cause)
		case ok && found.Image == r.Image:
			return found, c.checkOrganization(ctx, found)
		case findErr != nil || !noResponse || try == maxCreates:
			return Snapshot{}, err
		}
		// If ctx ends, the next iteration returns.
		_ = c.clock().Sleep(ctx, interval.NextBackOff())
	}
}

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

// deleteCreated deletes the snapshot that a canceled request created. If the snapshot is unknown, it looks for one with
// the same name and image.
func (c *Client) deleteCreated(ctx context.Context, r Request, created Snapshot, cause error) error {
	if created.ID == "" {
		graced, stop := withGrace(ctx, c.Timing.withDefaults().CleanupGrace)
		defer stop()
		found, ok, err := c.Find(graced, r.Name)
		switch {
		case err != nil:
			return WithLeftovers(cause, fmt.Errorf("snapshot %s may have been created: %w (run `action-snapshot list`)",
				r.Name, err))
		case !ok || found.Image != r.Image:
			return cause
		}
		created = found
	}
	return WithLeftovers(cause, c.Remove(ctx, created))
}

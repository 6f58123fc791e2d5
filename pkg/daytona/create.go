package daytona

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Request describes a snapshot to create.
type Request struct {
	Name       string
	Image      string // in Daytona's registry: HOST/PROJECT/NAME@sha256:…, or with a tag except latest
	Resources  Resources
	Entrypoint []string // nil means the image's entrypoint
	Region     string   // region ID; "" means the organization's default
}

// maxCreates is how often Create sends its request at most.
const maxCreates = 4

// Create requests a snapshot; [Client.WaitUntilActive] waits for it. If a request fails but may have created the
// snapshot, Create looks for a snapshot with the same name and image before it retries. If ctx ends, Create deletes the
// snapshot that it created and returns the cause.
func (c *Client) Create(ctx context.Context, r Request) (Snapshot, error) {
	// Wait for the response a little longer than ctx, to learn what to delete.
	graced, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	grace := c.Timing.withDefaults().ResponseGrace
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()

	interval := backoff.NewExponentialBackOff()
	uncertain := false // an earlier request may have created the snapshot
	for try := 1; ; try++ {
		created, err := c.post(graced, createCall(r), newSnapshot(r))
		status := httpclient.Status(err)
		noResponse := err != nil && (status < 300 || status >= 500)
		uncertain = uncertain || noResponse
		switch cause := context.Cause(ctx); {
		case cause != nil && (err == nil || uncertain):
			return Snapshot{}, c.deleteCreated(ctx, r, created.ID, cause)
		case cause != nil:
			return Snapshot{}, cause
		case err == nil:
			return created, c.checkOrganization(ctx, created)
		case !uncertain || (!noResponse && status != http.StatusConflict):
			return Snapshot{}, err
		}
		found, ok, findErr := c.Find(graced, r.Name)
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return Snapshot{}, c.deleteCreated(ctx, r, "", cause)
		case ok && found.Image == r.Image:
			return found, c.checkOrganization(ctx, found)
		case findErr != nil || !noResponse || try == maxCreates:
			return Snapshot{}, err
		}
		// If ctx ends, the next iteration returns.
		_ = c.clock().Sleep(ctx, interval.NextBackOff())
	}
}

func createCall(r Request) call {
	return call{
		op: "create snapshot " + r.Name, permission: WriteSnapshots, hints: []httpclient.Hint{unknownRegion(r.Region)},
	}
}

func newSnapshot(r Request) api.CreateSnapshot {
	request := api.NewCreateSnapshot(r.Name)
	request.SetImageName(r.Image)
	request.SetCpu(int32(r.Resources.CPU))
	request.SetMemory(int32(r.Resources.Memory))
	request.SetDisk(int32(r.Resources.Disk))
	if len(r.Entrypoint) > 0 {
		request.SetEntrypoint(r.Entrypoint)
	}
	if r.Region != "" {
		request.SetRegionId(r.Region)
	}
	return *request
}

func (c *Client) post(ctx context.Context, spec call, request api.CreateSnapshot) (Snapshot, error) {
	s, err := do(ctx, c, spec, func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
		return convertResponse(a.SnapshotsAPI.CreateSnapshot(ctx).CreateSnapshot(request).Execute())
	})
	if err != nil {
		return Snapshot{}, err
	}
	return *s, nil
}

// checkOrganization deletes a snapshot that was created in an organization other than c.Organization. With an API key,
// Daytona does not check the organization.
func (c *Client) checkOrganization(ctx context.Context, created Snapshot) error {
	if c.Organization == "" || created.Organization == "" || created.Organization == c.Organization {
		return nil
	}
	err := c.wrongOrganization(created.Organization)
	if deleteErr := c.Delete(ctx, created.ID); deleteErr != nil {
		return fmt.Errorf("%w; snapshot %s was created in that organization and could not be deleted: %w",
			err, created.Name, deleteErr)
	}
	return err
}

// deleteCreated deletes the snapshot that a canceled request created. Without an ID, it looks for a snapshot with the
// same name and image, and keeps it if it is active, because it may belong to another run.
func (c *Client) deleteCreated(ctx context.Context, r Request, id string, cause error) error {
	grace := c.Timing.withDefaults().CleanupGrace
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if id == "" {
		found, ok, err := c.Find(ctx, r.Name)
		switch {
		case err != nil:
			return &LeftoverError{cause, []string{
				fmt.Sprintf("snapshot %s may have been created (see `action-snapshot list`)", r.Name),
			}}
		case !ok || found.Image != r.Image || found.State == Active:
			return cause
		}
		id = found.ID
	}
	if c.Delete(ctx, id) != nil {
		return &LeftoverError{cause, []string{
			fmt.Sprintf("snapshot %s was created and could not be deleted (run `action-snapshot delete %[1]s`)", r.Name),
		}}
	}
	return cause
}

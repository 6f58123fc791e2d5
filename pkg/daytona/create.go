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
	Image      string // in Daytona's registry: HOST/PROJECT/NAME@sha256:…, or with a tag other than latest
	Resources  Resources
	Entrypoint []string // empty: the image's own
	Region     string   // ID; "": the organization's default
}

// maxCreates bounds how often Create sends its request.
const maxCreates = 4

// Create requests a snapshot; [Client.WaitUntilActive] waits for it. When a request may have been carried out, Create
// looks for the snapshot, by name and image, before it sends the request again. When ctx ends, Create deletes what it
// created and returns the cause.
func (c *Client) Create(ctx context.Context, r Request) (Snapshot, error) {
	// The answer is awaited a little longer than ctx, to know what to delete.
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	grace := c.Timing.withDefaults().AnswerGrace
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()

	interval := backoff.NewExponentialBackOff()
	unsure := false // an earlier request may have been carried out
	for try := 1; ; try++ {
		created, err := c.post(longer, createCall(r), newSnapshot(r))
		status := httpclient.Status(err)
		noAnswer := err != nil && (status < 300 || status >= 500)
		unsure = unsure || noAnswer
		switch cause := context.Cause(ctx); {
		case cause != nil && (err == nil || unsure):
			return Snapshot{}, c.withdraw(ctx, r, created.ID, cause)
		case cause != nil:
			return Snapshot{}, cause
		case err == nil:
			return created, c.checkOrganization(ctx, created)
		case !unsure || (!noAnswer && status != http.StatusConflict):
			return Snapshot{}, err
		}
		found, ok, findErr := c.Find(longer, r.Name)
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return Snapshot{}, c.withdraw(ctx, r, "", cause)
		case ok && found.Image == r.Image:
			return found, c.checkOrganization(ctx, found)
		case findErr != nil || !noAnswer || try == maxCreates:
			return Snapshot{}, err
		}
		// The next attempt notices the end of ctx.
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

func (c *Client) post(ctx context.Context, about call, request api.CreateSnapshot) (Snapshot, error) {
	s, err := do(ctx, c, about, func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
		return convertAnswer(a.SnapshotsAPI.CreateSnapshot(ctx).CreateSnapshot(request).Execute())
	})
	if err != nil {
		return Snapshot{}, err
	}
	return *s, nil
}

// checkOrganization deletes a snapshot that was created in another organization than c.Organization: with a key,
// Daytona does not check that.
func (c *Client) checkOrganization(ctx context.Context, created Snapshot) error {
	if c.Organization == "" || created.Organization == "" || created.Organization == c.Organization {
		return nil
	}
	err := c.wrongOrganization(created.Organization)
	if deleteErr := c.Delete(ctx, created.ID); deleteErr != nil {
		return fmt.Errorf("%w; snapshot %s was created there and could not be deleted: %w", err, created.Name, deleteErr)
	}
	return err
}

// withdraw deletes what a canceled request has created. Without an ID it looks for the snapshot by name and image; one
// that is active by then may belong to another run and stays.
func (c *Client) withdraw(ctx context.Context, r Request, id string, cause error) error {
	grace := c.Timing.withDefaults().WithdrawGrace
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

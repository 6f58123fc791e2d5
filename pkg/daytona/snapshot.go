package daytona

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	api "github.com/daytonaio/daytona/libs/api-client-go"
)

// State is where a snapshot is in its life. Daytona may have others than these.
type State string

// The states of a snapshot.
const (
	Building    State = "building"
	Pending     State = "pending"
	Pulling     State = "pulling"
	Active      State = "active"
	Inactive    State = "inactive" // not used for long, or switched off: it can be activated
	Failed      State = "error"
	BuildFailed State = "build_failed"
	Removing    State = "removing"
)

// Snapshot is an image that sandboxes start from.
type Snapshot struct {
	ID, Name     string
	Image        string // what it was made from
	Digest       string // of that image, sha256:…; "" while Daytona has not looked at it
	State        State
	Reason       string // why it is in error
	Resources    Resources
	SizeGB       float64 // 0 while it is not known
	Entrypoint   []string
	Regions      []string // IDs
	Organization string
	Created      time.Time
	Used         time.Time // zero: never
	general      bool      // Daytona's own, for every organization
}

// kept finds the digest in the name under which Daytona keeps an image for itself (processSnapshotDigest in snapshot.manager.ts).
var kept = regexp.MustCompile(`/daytona-([a-f0-9]{64}):daytona$`)

func convert(dto api.SnapshotDto) Snapshot {
	s := Snapshot{
		ID: dto.Id, Name: dto.Name, Image: dto.GetImageName(), State: State(dto.State), Reason: dto.GetErrorReason(), SizeGB: float64(dto.GetSize()),
		Resources:  Resources{CPU: int(dto.Cpu), Memory: int(dto.Mem), Disk: int(dto.Disk)},
		Entrypoint: dto.Entrypoint, Regions: dto.RegionIds, Organization: dto.GetOrganizationId(), Created: dto.CreatedAt, general: dto.General,
	}
	if used := dto.LastUsedAt.Get(); used != nil {
		s.Used = *used
	}
	if found := kept.FindStringSubmatch(dto.GetRef()); found != nil {
		s.Digest = "sha256:" + found[1]
	} else if _, digest, ok := strings.Cut(s.Image, "@"); ok {
		s.Digest = digest
	}
	return s
}

// one is an answer that is a snapshot. The client hides the name of a state that it does not know; the answer itself has it.
func one(dto *api.SnapshotDto, response *http.Response, err error) (*Snapshot, *http.Response, error) {
	if err != nil || dto == nil {
		return nil, response, err
	}
	s := convert(*dto)
	if dto.State == api.SNAPSHOTSTATE_UNKNOWN_DEFAULT_OPEN_API {
		var raw struct{ State State }
		if data, err := io.ReadAll(response.Body); err == nil && json.Unmarshal(data, &raw) == nil {
			s.State = raw.State
		}
	}
	return &s, response, nil
}

// Get is the snapshot of an ID.
func (c *Client) Get(ctx context.Context, id string) (Snapshot, error) {
	return c.get(ctx, "look at the snapshot "+id, id)
}

// Find is the organization's snapshot of a name, in whatever state: each keeps the name taken.
func (c *Client) Find(ctx context.Context, name string) (s Snapshot, found bool, err error) {
	s, err = c.get(ctx, "look for the snapshot "+name, name)
	switch {
	case status(err) == http.StatusNotFound:
		return Snapshot{}, false, nil
	case err != nil:
		return Snapshot{}, false, err
	}
	return s, !s.general && s.Name == name, nil
}

func (c *Client) get(ctx context.Context, doing, id string) (Snapshot, error) {
	s, err := ask(ctx, c, call{doing: doing, missing: "it is not there: see `action-snapshot list`"}, func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
		r := a.SnapshotsAPI.GetSnapshot(ctx, id)
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		return one(r.Execute())
	})
	if err != nil {
		return Snapshot{}, err
	}
	return *s, nil
}

// status is HTTP's of a call that failed; 0 when it is none or had no answer.
func status(err error) int {
	if failed := new(Error); errors.As(err, &failed) {
		return failed.Status
	}
	return 0
}

// maxPages is an end that no list comes to: 20000 snapshots.
const (
	pageSize = 100
	maxPages = 200
)

// List are the organization's snapshots whose names begin so, the newest first. Daytona's own are not among them.
func (c *Client) List(ctx context.Context, prefix string) ([]Snapshot, error) {
	list := []Snapshot{}
	seen := map[string]bool{} // what is made meanwhile moves others to the next page
	for number := 1; number <= maxPages; number++ {
		page, err := c.page(ctx, prefix, number, pageSize)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			// Daytona looks for the text anywhere, without regard to case, and takes _ and % for wildcards.
			if !item.General && strings.HasPrefix(item.Name, prefix) && !seen[item.Id] {
				seen[item.Id] = true
				list = append(list, convert(item))
			}
		}
		if len(page.Items) == 0 || number >= int(page.TotalPages) {
			break
		}
	}
	return list, nil
}

func (c *Client) page(ctx context.Context, name string, number, limit int) (*api.PaginatedSnapshots, error) {
	return ask(ctx, c, call{doing: "list the snapshots"}, func(ctx context.Context, a *api.APIClient) (*api.PaginatedSnapshots, *http.Response, error) {
		r := a.SnapshotsAPI.GetAllSnapshots(ctx).Page(float32(number)).Limit(float32(limit)).Sort("createdAt").Order("desc")
		if name != "" {
			r = r.Name(name)
		}
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		return r.Execute()
	})
}

// Request is what a snapshot is made of.
type Request struct {
	Name       string
	Image      string // in Daytona's registry: HOST/PROJECT/NAME@sha256:…, or with a tag that is not latest
	Resources  Resources
	Entrypoint []string // empty: the image's own
	Region     string   // its ID; "" is the organization's default
}

// How long Create goes on when it is cancelled: for the answer, then to delete what was made. Variables for tests.
var (
	graceOfAnswer = 2 * time.Second
	graceOfDelete = 2 * time.Second
)

// Create asks for a snapshot, which [Client.Wait] then waits for. A request that may have been carried out is looked for, by name and image,
// before it is sent again. Cancelled, it leaves no snapshot behind.
func (c *Client) Create(ctx context.Context, r Request) (Snapshot, error) {
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
	about := call{doing: "make the snapshot " + r.Name, permission: WriteSnapshots, missing: noRegion(r.Region), once: true}

	// The answer is waited for a little longer than ctx, to know what there is to delete.
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(graceOfAnswer, cancel) })()

	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	doubtful := false // an earlier request may have been carried out
	for try := 1; ; try++ {
		made, err := c.post(longer, about, *request)
		answered := status(err)
		unclear := err != nil && (answered < 300 || answered >= 500)
		doubtful = doubtful || unclear
		switch cause := context.Cause(ctx); {
		case cause != nil && (err == nil || doubtful):
			return Snapshot{}, c.withdraw(ctx, r, made.ID, cause)
		case cause != nil:
			return Snapshot{}, cause
		case err == nil:
			return made, c.mine(ctx, made)
		case !doubtful || (!unclear && answered != http.StatusConflict):
			return Snapshot{}, err
		}
		found, ok, lookErr := c.Find(longer, r.Name)
		switch {
		case context.Cause(ctx) != nil:
			return Snapshot{}, c.withdraw(ctx, r, "", context.Cause(ctx))
		case ok && found.Image == r.Image:
			return found, c.mine(ctx, found)
		case lookErr != nil || !unclear || try == maxTries:
			return Snapshot{}, err
		}
		select {
		case <-time.After(waits.NextBackOff()):
		case <-ctx.Done():
		}
	}
}

func (c *Client) post(ctx context.Context, about call, request api.CreateSnapshot) (Snapshot, error) {
	s, err := ask(ctx, c, about, func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
		r := a.SnapshotsAPI.CreateSnapshot(ctx).CreateSnapshot(request)
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		return one(r.Execute())
	})
	if err != nil {
		return Snapshot{}, err
	}
	return *s, nil
}

// mine sees that a snapshot is in the organization that was asked for: Daytona does not look at that with a key. In another it is deleted again.
func (c *Client) mine(ctx context.Context, made Snapshot) error {
	if c.Organization == "" || made.Organization == "" || made.Organization == c.Organization {
		return nil
	}
	err := fmt.Errorf("the Daytona key is one of the organization %s, not of %s: give the key of the right organization, or correct DAYTONA_ORG_ID", made.Organization, c.Organization)
	if c.Delete(ctx, made.ID) != nil {
		return fmt.Errorf("%w; the snapshot %s was made there and could not be deleted: delete it by hand", err, made.Name)
	}
	return err
}

// withdraw deletes what a cancelled request has made. Without an ID it looks for it; what is active by then may be another run's, and stays.
func (c *Client) withdraw(ctx context.Context, r Request, id string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceOfDelete)
	defer cancel()
	if id == "" {
		found, ok, err := c.Find(ctx, r.Name)
		switch {
		case err != nil:
			return fmt.Errorf("%w; whether the snapshot %s was made is not known: see `action-snapshot list`", cause, r.Name)
		case !ok || found.Image != r.Image || found.State == Active:
			return cause
		}
		id = found.ID
	}
	if c.Delete(ctx, id) != nil {
		return fmt.Errorf("%w; the snapshot %s was made and could not be deleted: delete it by `action-snapshot delete %s`", cause, r.Name, r.Name)
	}
	return cause
}

// Delete asks for a snapshot to be removed. One that is gone already is no error. Its name is free when [Client.WaitGone] says so.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := ask(ctx, c, call{doing: "delete the snapshot " + id, permission: DeleteSnapshots}, func(ctx context.Context, a *api.APIClient) (*struct{}, *http.Response, error) {
		r := a.SnapshotsAPI.RemoveSnapshot(ctx, id)
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		response, err := r.Execute()
		return &struct{}{}, response, err
	})
	if status(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// Activate switches an inactive snapshot on again; [Client.Wait] then waits for it.
func (c *Client) Activate(ctx context.Context, id string) (Snapshot, error) {
	s, err := ask(ctx, c, call{doing: "activate the snapshot " + id, permission: WriteSnapshots}, func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
		r := a.SnapshotsAPI.ActivateSnapshot(ctx, id)
		if c.user() {
			r = r.XDaytonaOrganizationID(c.Organization)
		}
		return one(r.Execute())
	})
	if err == nil {
		return *s, nil
	}
	if status(err) == http.StatusBadRequest { // an earlier try, or somebody else, was faster
		if now, lookErr := c.Get(ctx, id); lookErr == nil && now.State != Inactive && now.State != Failed {
			return now, nil
		}
	}
	return Snapshot{}, err
}

package daytona

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// State is the state of a snapshot. Newer servers may return states that are not listed here.
type State string

// The states of a snapshot.
const (
	Building    State = "building"
	Pending     State = "pending"
	Pulling     State = "pulling"
	Active      State = "active"
	Inactive    State = "inactive" // deactivated, or unused for a long time; see [Client.Activate]
	Failed      State = "error"
	BuildFailed State = "build_failed"
	Removing    State = "removing"
)

// Snapshot is an image that sandboxes start from.
type Snapshot struct {
	ID, Name     string
	Image        string // the image reference that it was created from
	Digest       string // of that image: sha256:…; "" until Daytona has inspected it
	State        State
	Reason       string // why the snapshot failed
	Resources    Resources
	SizeGB       float64 // 0 until known
	Entrypoint   []string
	Regions      []string // IDs
	Organization string
	Created      time.Time
	Used         time.Time // zero if never used
	general      bool      // provided by Daytona to all organizations
}

// internalRef is the reference under which Daytona stores an image (processSnapshotDigest in snapshot.manager.ts).
var internalRef = regexp.MustCompile(`/daytona-([a-f0-9]{64}):daytona$`)

func convert(dto api.SnapshotDto) Snapshot {
	s := Snapshot{
		ID: dto.Id, Name: dto.Name, Image: dto.GetImageName(),
		State: State(dto.State), Reason: dto.GetErrorReason(), SizeGB: float64(dto.GetSize()),
		Resources:  Resources{CPU: int(dto.Cpu), Memory: int(dto.Mem), Disk: int(dto.Disk)},
		Entrypoint: dto.Entrypoint, Regions: dto.RegionIds, Organization: dto.GetOrganizationId(),
		Created: dto.CreatedAt, general: dto.General,
	}
	if used := dto.LastUsedAt.Get(); used != nil {
		s.Used = *used
	}
	if found := internalRef.FindStringSubmatch(dto.GetRef()); found != nil {
		s.Digest = "sha256:" + found[1]
	} else if _, digest, ok := strings.Cut(s.Image, "@"); ok {
		s.Digest = digest
	}
	return s
}

// convertResponse converts the result of a call. The generated client drops the name of an unknown state, so
// convertResponse reads it from the response body.
func convertResponse(dto *api.SnapshotDto, response *http.Response, err error) (*Snapshot, *http.Response, error) {
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

// Get returns the snapshot with the given ID.
func (c *Client) Get(ctx context.Context, id string) (Snapshot, error) {
	return c.get(ctx, "read snapshot "+id, id)
}

// Find returns the organization's snapshot with the given name, in any state, because a name is taken in every state.
func (c *Client) Find(ctx context.Context, name string) (s Snapshot, found bool, err error) {
	s, err = c.get(ctx, "find snapshot "+name, name)
	switch {
	case httpclient.Status(err) == http.StatusNotFound:
		return Snapshot{}, false, nil
	case err != nil:
		return Snapshot{}, false, err
	}
	return s, !s.general && s.Name == name, nil
}

func (c *Client) get(ctx context.Context, op, id string) (Snapshot, error) {
	missing := httpclient.Hint{On: http.StatusNotFound, Text: "list the snapshots with `action-snapshot list`"}
	s, err := do(ctx, c, call{op: op, hints: []httpclient.Hint{missing}},
		func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
			return convertResponse(a.SnapshotsAPI.GetSnapshot(ctx, id).Execute())
		})
	if err != nil {
		return Snapshot{}, err
	}
	return *s, nil
}

const (
	pageSize = 100
	maxPages = 200 // guards against an endless list
)

// List returns the organization's snapshots with the name prefix, newest first, without those that Daytona provides.
func (c *Client) List(ctx context.Context, prefix string) ([]Snapshot, error) {
	list := []Snapshot{}
	seen := map[string]bool{} // a snapshot created between two requests moves others to the next page
	for number := 1; number <= maxPages; number++ {
		page, err := c.page(ctx, prefix, number, pageSize)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			// Daytona matches the name anywhere, ignores case, and treats _ and % as wildcards.
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
	return do(ctx, c, call{op: "list snapshots"},
		func(ctx context.Context, a *api.APIClient) (*api.PaginatedSnapshots, *http.Response, error) {
			request := a.SnapshotsAPI.GetAllSnapshots(ctx).Page(float32(number)).Limit(float32(limit)).
				Sort("createdAt").Order("desc")
			if name != "" {
				request = request.Name(name)
			}
			return request.Execute()
		})
}

// Delete requests the removal of a snapshot. It returns nil if the snapshot does not exist. The name is available again
// when [Client.WaitUntilRemoved] returns.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := do(ctx, c, call{op: "delete snapshot " + id, permission: DeleteSnapshots},
		func(ctx context.Context, a *api.APIClient) (*struct{}, *http.Response, error) {
			response, err := a.SnapshotsAPI.RemoveSnapshot(ctx, id).Execute()
			return &struct{}{}, response, err
		})
	if httpclient.Status(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// Activate requests the activation of an inactive snapshot. [Client.WaitUntilActive] waits for it.
func (c *Client) Activate(ctx context.Context, id string) (Snapshot, error) {
	s, err := do(ctx, c, call{op: "activate snapshot " + id, permission: WriteSnapshots, idempotent: true},
		func(ctx context.Context, a *api.APIClient) (*Snapshot, *http.Response, error) {
			return convertResponse(a.SnapshotsAPI.ActivateSnapshot(ctx, id).Execute())
		})
	if err == nil {
		return *s, nil
	}
	if httpclient.Status(err) == http.StatusBadRequest { // it may already be active or activating
		if now, getErr := c.Get(ctx, id); getErr == nil && now.State != Inactive && now.State != Failed {
			return now, nil
		}
	}
	return Snapshot{}, err
}

package daytona

import (
	"context"
	"errors"
	"fmt"
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

// Resources are the resources of a sandbox.
type Resources struct {
	CPU    int // cores
	Memory int // GB
	Disk   int // GB
}

// DefaultSandboxClass is the sandbox class of a snapshot if the request does not name one and the operator of the
// server has not configured another.
const DefaultSandboxClass = "container"

// Snapshot is an image that sandboxes start from.
type Snapshot struct {
	ID, Name     string
	Image        string // the image reference that it was created from
	Digest       string // of the image that Daytona found under that reference: sha256:…; "" until it has inspected it
	State        State
	Reason       string // why the snapshot failed
	Resources    Resources
	GPU          int
	SandboxClass string  // "" on servers without classes
	SizeGB       float64 // 0 until known
	Entrypoint   []string
	Regions      []string // IDs
	Runner       string   // ID of the runner that processes the snapshot first; "" until it is assigned
	Organization string
	Created      time.Time
	Used         time.Time // zero if never used
	general      bool      // provided by Daytona to all organizations
}

// snapshotDTO is a snapshot in a response. Newer servers may omit or rename the fields that are not required.
type snapshotDTO struct {
	ID              string    `json:"id"`
	OrganizationID  string    `json:"organizationId"`
	General         bool      `json:"general"`
	Name            string    `json:"name"`
	ImageName       string    `json:"imageName"`
	State           State     `json:"state"`
	Size            float64   `json:"size"`
	Entrypoint      []string  `json:"entrypoint"`
	CPU             float64   `json:"cpu"`
	GPU             float64   `json:"gpu"`
	Memory          float64   `json:"mem"`
	Disk            float64   `json:"disk"`
	ErrorReason     string    `json:"errorReason"`
	CreatedAt       time.Time `json:"createdAt"`
	LastUsedAt      time.Time `json:"lastUsedAt"` // null if never
	RegionIDs       []string  `json:"regionIds"`
	InitialRunnerID string    `json:"initialRunnerId"`
	Ref             string    `json:"ref"`
	SandboxClass    string    `json:"sandboxClass"`
}

func (s snapshotDTO) check() error {
	return require(field{"id", s.ID}, field{"name", s.Name}, field{"state", string(s.State)})
}

// internalRef is the reference under which Daytona stores an image (processSnapshotDigest in
// apps/api/src/sandbox/managers/snapshot.manager.ts). It has the digest that the registry returned for the reference
// that the snapshot was created from.
var internalRef = regexp.MustCompile(`/daytona-([a-f0-9]{64}):daytona$`)

func convert(dto snapshotDTO) Snapshot {
	s := Snapshot{
		ID: dto.ID, Name: dto.Name, Image: dto.ImageName, State: dto.State, Reason: dto.ErrorReason, SizeGB: dto.Size,
		Resources: Resources{CPU: int(dto.CPU), Memory: int(dto.Memory), Disk: int(dto.Disk)}, GPU: int(dto.GPU),
		SandboxClass: dto.SandboxClass, Entrypoint: dto.Entrypoint, Regions: dto.RegionIDs, Runner: dto.InitialRunnerID,
		Organization: dto.OrganizationID, Created: dto.CreatedAt, Used: dto.LastUsedAt, general: dto.General,
	}
	if found := internalRef.FindStringSubmatch(dto.Ref); found != nil {
		s.Digest = "sha256:" + found[1]
	}
	return s
}

// Get returns the snapshot with the given ID.
func (c *Client) Get(ctx context.Context, id string) (Snapshot, error) {
	return c.get(ctx, "read snapshot "+id, id)
}

// Find returns the organization's snapshot with the given name, in any state, because a name is taken in every state.
func (c *Client) Find(ctx context.Context, name string) (s Snapshot, found bool, err error) {
	s, err = c.get(ctx, "find snapshot "+name, name)
	switch {
	case isNotFound(err):
		return Snapshot{}, false, nil
	case err != nil:
		return Snapshot{}, false, err
	}
	return s, !s.general && s.Name == name, nil
}

func (c *Client) get(ctx context.Context, op, id string) (Snapshot, error) {
	missing := httpclient.Hint{On: http.StatusNotFound, Text: "list the snapshots with `action-snapshot list`"}
	dto, err := do[snapshotDTO](ctx, c, call{op: op, hints: []httpclient.Hint{missing}},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.SnapshotsAPI.GetSnapshot(ctx, id).Execute())
		})
	return convert(dto), err
}

const pageSize = 100

// List returns the organization's snapshots with the name prefix, newest first, without those that Daytona provides.
func (c *Client) List(ctx context.Context, prefix string) ([]Snapshot, error) {
	list := []Snapshot{}
	seen := map[string]bool{} // a snapshot created between two requests moves others to the next page
	for number := 1; ; number++ {
		page, err := c.page(ctx, prefix, number, pageSize)
		if err != nil {
			return nil, err
		}
		known := len(seen)
		for _, item := range page.Items {
			// Daytona matches the name anywhere, ignores case, and treats _ and % as wildcards.
			if !item.General && strings.HasPrefix(item.Name, prefix) && !seen[item.ID] {
				list = append(list, convert(item))
			}
			seen[item.ID] = true
		}
		switch {
		case len(page.Items) == 0 || number >= page.TotalPages:
			return list, nil
		case len(seen) == known: // guards against an endless list
			return nil, fmt.Errorf("list snapshots: page %d of %d has only snapshots of earlier pages (try again)",
				number, page.TotalPages)
		}
	}
}

type snapshotPage struct {
	Items      []snapshotDTO `json:"items"`
	TotalPages int           `json:"totalPages"`
}

func (p snapshotPage) check() error {
	if p.Items == nil {
		return errors.New("items are missing")
	}
	for _, item := range p.Items {
		if err := item.check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) page(ctx context.Context, name string, number, limit int) (snapshotPage, error) {
	return do[snapshotPage](ctx, c, call{op: "list snapshots"},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			request := a.SnapshotsAPI.GetAllSnapshots(ctx).Page(float32(number)).Limit(float32(limit)).
				Sort("createdAt").Order("desc")
			if name != "" {
				request = request.Name(name)
			}
			return response(request.Execute())
		})
}

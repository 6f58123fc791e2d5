package daytona

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

const limitsPage = "https://app.daytona.io/dashboard/limits"

// validName matches the names that Daytona accepts for snapshots and images (snapshot.service.ts).
var validName = regexp.MustCompile(`^[a-zA-Z0-9_.\-:]+(/[a-zA-Z0-9_.\-:]+)*(@sha256:[a-f0-9]{64})?$`)

// maxNameLength is the maximum length of a name in characters.
const maxNameLength = 255

// CheckName validates the name of a snapshot.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the snapshot name is empty (for example, use iterate-sandbox-v1)")
	case len(name) > maxNameLength:
		return fmt.Errorf("the snapshot name has %d characters (use at most %d)", len(name), maxNameLength)
	case name == "latest" || strings.HasSuffix(name, ":latest"):
		return fmt.Errorf("invalid snapshot name %q: the tag latest is ambiguous (use a unique name)", name)
	case !validName.MatchString(name):
		return fmt.Errorf("invalid snapshot name %q (use letters, digits, dots, dashes, underscores and colons, "+
			"separated by single slashes)", name)
	}
	return nil
}

// Resources are the resources of a sandbox.
type Resources struct {
	CPU    int // cores
	Memory int // GB
	Disk   int // GB
}

type resource struct {
	name  string
	value int
}

func (r Resources) list() []resource {
	return []resource{{"cpu", r.CPU}, {"memory", r.Memory}, {"disk", r.Disk}}
}

func unit(name string) string {
	if name == "cpu" {
		return "cores"
	}
	return "GB"
}

// Limits are the organization's limits. 0 means unknown.
type Limits struct {
	Sandbox   Resources // maximum for one sandbox
	Snapshots int       // maximum number of snapshots
	Used      int       // number of existing snapshots; valid if Snapshots is known
}

// Check returns an error that names every limit that r exceeds.
func (l Limits) Check(r Resources) error {
	var exceeded []string
	for i, limit := range l.Sandbox.list() {
		if wanted := r.list()[i]; limit.value > 0 && wanted.value > limit.value {
			exceeded = append(exceeded, fmt.Sprintf("%s %d exceeds the maximum of %d %s per sandbox",
				wanted.name, wanted.value, limit.value, unit(wanted.name)))
		}
	}
	if len(exceeded) > 0 {
		return fmt.Errorf("resources exceed the organization's limits: %s (reduce them, or request higher limits at %s)",
			strings.Join(exceeded, "; "), limitsPage)
	}
	if l.Snapshots > 0 && l.Used >= l.Snapshots {
		return fmt.Errorf("the organization has %d of at most %d snapshots (delete one with `action-snapshot delete`, "+
			"or lower the input keep)", l.Used, l.Snapshots)
	}
	return nil
}

// Limits returns the organization's limits in a region; "" means its default region.
//
// With a user's token, Limits reads them from the API. An API key has no access to them, and each attempt counts as a
// failed login. With a key, Limits therefore sends requests that exceed each limit: Daytona rejects them, before it
// creates anything, with a message that contains the limit (validateOrganizationQuotas in snapshot.service.ts). This
// yields the limits per sandbox, but not the number of snapshots. The requests also check the key's permission, the
// region, and that the region has a runner.
func (c *Client) Limits(ctx context.Context, region string) (Limits, error) {
	if c.isUser() {
		return c.usage(ctx, region)
	}
	var l Limits
	for _, probe := range []struct {
		name   string
		limit  *int
		exceed func(*api.CreateSnapshot)
	}{
		{"cpu", &l.Sandbox.CPU, func(s *api.CreateSnapshot) { s.SetCpu(math.MaxInt32) }},
		{"memory", &l.Sandbox.Memory, func(s *api.CreateSnapshot) { s.SetMemory(math.MaxInt32) }},
		{"disk", &l.Sandbox.Disk, func(s *api.CreateSnapshot) { s.SetDisk(math.MaxInt32) }},
	} {
		request := api.NewCreateSnapshot("sandbox-actions-limit-probe-" + probe.name)
		request.SetImageName("sandbox-actions/limit-probe:0")
		if region != "" {
			request.SetRegionId(region)
		}
		probe.exceed(request)
		limit, err := c.probeLimit(ctx, region, *request)
		if err != nil {
			return l, err
		}
		*probe.limit = limit
	}
	return l, nil
}

// probeLimit returns the limit that a request exceeds, or 0 if there is none.
func (c *Client) probeLimit(ctx context.Context, region string, request api.CreateSnapshot) (int, error) {
	created, err := c.post(ctx, call{
		op: "read the organization's limits", permission: WriteSnapshots, idempotent: true,
		hints: []httpclient.Hint{
			unknownRegion(region),
			{On: http.StatusBadRequest, Text: "change the input region, or ask the organization's owner to fix the region"},
		},
	}, request)
	rejected, isAnswer := errors.AsType[*httpclient.APIError](err)
	switch {
	case err == nil:
		return 0, c.Delete(ctx, created.ID)
	case !isAnswer:
		return 0, err
	case rejected.Status == http.StatusConflict: // no limit: Daytona checks the name, in use by another probe, last
		return 0, nil
	case rejected.Status != http.StatusBadRequest:
		return 0, err
	}
	found := exceededLimit.FindStringSubmatch(rejected.Message)
	if found == nil {
		return 0, err
	}
	limit, err := strconv.ParseFloat(found[1], 64)
	return int(limit), err
}

// exceededLimit matches the limit in messages such as "CPU request 8 exceeds maximum allowed per sandbox (4)". The API
// has no field for it.
var exceededLimit = regexp.MustCompile(`exceeds maximum allowed per sandbox \((\d+(?:\.\d+)?)(?:GB)?\)`)

func unknownRegion(region string) httpclient.Hint {
	text := "the organization has no default region: set the input region, or choose a default region at " +
		"https://app.daytona.io/dashboard"
	if region != "" {
		text = fmt.Sprintf("the organization has no region %q: see https://app.daytona.io/dashboard/regions, "+
			"or leave the input region empty for the default", region)
	}
	return httpclient.Hint{On: http.StatusNotFound, Text: text}
}

// usage reads the limits from the API, which requires a user's token.
func (c *Client) usage(ctx context.Context, region string) (Limits, error) {
	organization, err := c.organization(ctx)
	if err != nil {
		return Limits{}, err
	}
	used, err := do(ctx, c, call{op: "read the usage of organization " + c.Organization},
		func(ctx context.Context, a *api.APIClient) (*api.OrganizationUsageOverview, *http.Response, error) {
			return a.OrganizationsAPI.GetOrganizationUsageOverview(ctx, c.Organization).Execute()
		})
	if err != nil {
		return Limits{}, err
	}
	l := Limits{
		Sandbox: Resources{
			CPU:    int(organization.MaxCpuPerSandbox),
			Memory: int(organization.MaxMemoryPerSandbox),
			Disk:   int(organization.MaxDiskPerSandbox),
		},
		Snapshots: int(used.TotalSnapshotQuota),
		Used:      int(used.CurrentSnapshotUsage),
	}
	// A region's limits override the organization's (organization/utils/sandbox-limits.util.ts).
	region = cmp.Or(region, organization.GetDefaultRegionId())
	for _, r := range used.RegionUsage {
		if r.RegionId != region || r.SandboxClass != api.SANDBOXCLASS_CONTAINER {
			continue
		}
		for _, field := range []struct {
			limit    *int
			override api.NullableFloat32
		}{
			{&l.Sandbox.CPU, r.MaxCpuPerSandbox},
			{&l.Sandbox.Memory, r.MaxMemoryPerSandbox},
			{&l.Sandbox.Disk, r.MaxDiskPerSandbox},
		} {
			if value := field.override.Get(); value != nil {
				*field.limit = int(*value)
			}
		}
	}
	return l, nil
}

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
)

// legal is what Daytona takes for a name, of a snapshot as of an image (apps/api/src/sandbox/services/snapshot.service.ts).
var legal = regexp.MustCompile(`^[a-zA-Z0-9_.\-:]+(/[a-zA-Z0-9_.\-:]+)*(@sha256:[a-f0-9]{64})?$`)

// longestName is ours: a reference to an image is no longer.
const longestName = 255

// CheckName says what is wrong with a snapshot's name.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the snapshot's name is empty: give one, such as iterate-sandbox-v1")
	case len(name) > longestName:
		return fmt.Errorf("the snapshot's name is %d characters long: give one of at most %d", len(name), longestName)
	case name == "latest" || strings.HasSuffix(name, ":latest"):
		return fmt.Errorf("the snapshot's name %q would not say which one it is: give one that is not used again", name)
	case !legal.MatchString(name):
		return fmt.Errorf("the snapshot's name %q is not one that Daytona takes: use letters, digits, dots, dashes, underscores and colons, and single slashes between them", name)
	}
	return nil
}

// Resources are what a sandbox gets.
type Resources struct {
	CPU    int // cores
	Memory int // GB
	Disk   int // GB
}

// ParseResources reads whole, positive numbers.
func ParseResources(cpu, memory, disk string) (Resources, error) {
	var r Resources
	for _, one := range []struct {
		name, text string
		to         *int
	}{{"cpu", cpu, &r.CPU}, {"memory", memory, &r.Memory}, {"disk", disk, &r.Disk}} {
		n, err := strconv.Atoi(strings.TrimSpace(one.text))
		if err != nil {
			return Resources{}, fmt.Errorf("%s is %q: give a whole number of %s, such as 2", one.name, one.text, unit(one.name))
		}
		*one.to = n
	}
	return r, CheckResources(r)
}

// CheckResources says which of them is not possible anywhere.
func CheckResources(r Resources) error {
	for _, one := range r.list() {
		if one.value < 1 || one.value > math.MaxInt32 {
			return fmt.Errorf("%s is %d: give a positive number of %s, such as 2", one.name, one.value, unit(one.name))
		}
	}
	return nil
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

// Limits are what the organization may have. 0 is not known.
type Limits struct {
	Sandbox   Resources // the most for one sandbox
	Snapshots int       // the most snapshots at once
	Used      int       // of those, when Snapshots is known
}

// Check says what goes beyond the limits, in one sentence.
func (l Limits) Check(r Resources) error {
	var over []string
	for i, most := range l.Sandbox.list() {
		if asked := r.list()[i]; most.value > 0 && asked.value > most.value {
			over = append(over, fmt.Sprintf("%s is %d and the most for one sandbox is %d %s", asked.name, asked.value, most.value, unit(asked.name)))
		}
	}
	if len(over) > 0 {
		return fmt.Errorf("the organization's limits do not allow it: %s: ask for less, or ask Daytona for more (https://app.daytona.io/dashboard/limits)", strings.Join(over, "; "))
	}
	if l.Snapshots > 0 && l.Used >= l.Snapshots {
		return fmt.Errorf("the organization has %d of at most %d snapshots: delete one (action-snapshot list, action-snapshot delete NAME), or keep fewer with the input keep", l.Used, l.Snapshots)
	}
	return nil
}

// Limits asks what the organization may have in a region; "" is its default.
//
// A user is told in so many words. A key is told nothing of the organization, and to ask with it counts as a failed login; but a request for
// more than anybody can have is refused with a sentence that names the limit, before anything is made (validateOrganizationQuotas in
// snapshot.service.ts). So a key learns the limits for a sandbox, and not how many snapshots there may be. On the way it learns whether it may
// make snapshots, whether the region exists, and whether a runner is there.
func (c *Client) Limits(ctx context.Context, region string) (Limits, error) {
	if c.user() {
		return c.usage(ctx, region)
	}
	var l Limits
	for _, one := range []struct {
		name    string
		to      *int
		request func(*api.CreateSnapshot)
	}{
		{"cpu", &l.Sandbox.CPU, func(s *api.CreateSnapshot) { s.SetCpu(math.MaxInt32) }},
		{"memory", &l.Sandbox.Memory, func(s *api.CreateSnapshot) { s.SetMemory(math.MaxInt32) }},
		{"disk", &l.Sandbox.Disk, func(s *api.CreateSnapshot) { s.SetDisk(math.MaxInt32) }},
	} {
		request := api.NewCreateSnapshot("sandbox-actions-asks-for-the-limit-of-" + one.name)
		request.SetImageName("sandbox-actions/asks-for-the-limits:0")
		if region != "" {
			request.SetRegionId(region)
		}
		one.request(request)
		made, err := c.post(ctx, call{doing: "ask Daytona for the organization's limits", permission: WriteSnapshots, missing: noRegion(region)}, *request)
		refused := new(Error)
		switch {
		case err == nil: // there is no limit
			if err := c.Delete(ctx, made.ID); err != nil {
				return l, err
			}
		case status(err) == http.StatusConflict: // nor here, where another run is asking too: names are looked at last
		case !errors.As(err, &refused) || refused.Status != http.StatusBadRequest:
			return l, err
		default:
			most := named.FindStringSubmatch(refused.Message)
			if most == nil {
				refused.Cure = "correct the input region, or ask the organization's owner to"
				return l, refused
			}
			limit, _ := strconv.ParseFloat(most[1], 64)
			*one.to = int(limit)
		}
	}
	return l, nil
}

// named finds the limit in "CPU request 8 exceeds maximum allowed per sandbox (4)".
var named = regexp.MustCompile(`exceeds maximum allowed per sandbox \((\d+(?:\.\d+)?)(?:GB)?\)`)

func noRegion(region string) string {
	if region == "" {
		return "the organization has no default region: choose one at https://app.daytona.io/dashboard, or give the input region"
	}
	return fmt.Sprintf("there is no region %q for this organization: see https://app.daytona.io/dashboard/regions, or leave the input region empty for the default one", region)
}

// usage asks for the limits as a user may.
func (c *Client) usage(ctx context.Context, region string) (Limits, error) {
	organization, err := c.organization(ctx)
	if err != nil {
		return Limits{}, err
	}
	used, err := ask(ctx, c, call{doing: "read what the organization " + c.Organization + " uses"}, func(ctx context.Context, a *api.APIClient) (*api.OrganizationUsageOverview, *http.Response, error) {
		return a.OrganizationsAPI.GetOrganizationUsageOverview(ctx, c.Organization).Execute()
	})
	if err != nil {
		return Limits{}, err
	}
	l := Limits{
		Sandbox: Resources{
			CPU: int(organization.MaxCpuPerSandbox), Memory: int(organization.MaxMemoryPerSandbox), Disk: int(organization.MaxDiskPerSandbox),
		},
		Snapshots: int(used.TotalSnapshotQuota), Used: int(used.CurrentSnapshotUsage),
	}
	// A region's own limits come before the organization's (organization/utils/sandbox-limits.util.ts).
	region = cmp.Or(region, organization.GetDefaultRegionId())
	for _, r := range used.RegionUsage {
		if r.RegionId != region || r.SandboxClass != api.SANDBOXCLASS_CONTAINER {
			continue
		}
		for to, own := range map[*int]api.NullableFloat32{&l.Sandbox.CPU: r.MaxCpuPerSandbox, &l.Sandbox.Memory: r.MaxMemoryPerSandbox, &l.Sandbox.Disk: r.MaxDiskPerSandbox} {
			if most := own.Get(); most != nil {
				*to = int(*most)
			}
		}
	}
	return l, nil
}

package daytona

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	api "github.com/daytonaio/daytona/libs/api-client-go"
)

type resource struct {
	name  string
	value int
}

func resources(r Resources) []resource {
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

// CheckResources returns an error that names every limit that the resources of a sandbox exceed.
func (l Limits) CheckResources(r Resources) error {
	var exceeded []string
	for i, limit := range resources(l.Sandbox) {
		if wanted := resources(r)[i]; limit.value > 0 && wanted.value > limit.value {
			exceeded = append(exceeded, fmt.Sprintf("%s %d exceeds the maximum of %d %s per sandbox",
				wanted.name, wanted.value, limit.value, unit(wanted.name)))
		}
	}
	if len(exceeded) == 0 {
		return nil
	}
	return fmt.Errorf("resources exceed the organization's limits: %s (reduce them, or request higher limits at %s)",
		strings.Join(exceeded, "; "), limitsPage)
}

// CheckSnapshots returns an error that is [ErrQuota] if the organization cannot have n more snapshots.
func (l Limits) CheckSnapshots(n int) error {
	missing := l.Used + n - l.Snapshots
	switch {
	case n == 0 || l.Snapshots == 0 || missing <= 0:
		return nil
	case n == 1 && missing == 1:
		return fmt.Errorf("%w: Daytona holds %d of %d snapshots (%s)", ErrQuota, l.Used, l.Snapshots, deleteOne)
	}
	return fmt.Errorf("%w: Daytona holds %d of %d snapshots, and %d more are needed (delete %d, see `action-snapshot "+
		"list`, or set make_room: true)", ErrQuota, l.Used, l.Snapshots, n, missing)
}

// organizationUsage is the part of an organization's usage that is used. A field that a server does not return is 0 or
// nil, which means unknown.
type organizationUsage struct {
	TotalSnapshotQuota   float64 `json:"totalSnapshotQuota"`
	CurrentSnapshotUsage float64 `json:"currentSnapshotUsage"`
	RegionUsage          []struct {
		RegionID     string `json:"regionId"`
		SandboxClass string `json:"sandboxClass"`

		MaxCPUPerSandbox       float64 `json:"maxCpuPerSandbox"`
		MaxMemoryPerSandbox    float64 `json:"maxMemoryPerSandbox"`
		MaxDiskPerSandbox      float64 `json:"maxDiskPerSandbox"`
		MaxCPUPerGPUSandbox    float64 `json:"maxCpuPerGpuSandbox"`
		MaxMemoryPerGPUSandbox float64 `json:"maxMemoryPerGpuSandbox"`
		MaxDiskPerGPUSandbox   float64 `json:"maxDiskPerGpuSandbox"`

		// The names since server 0.201 (@daytonaio/api-client 0.205.0).
		MaxCPUPerGPU    float64 `json:"maxCpuPerGpu"`
		MaxMemoryPerGPU float64 `json:"maxMemoryPerGpu"`
		MaxDiskPerGPU   float64 `json:"maxDiskPerGpu"`
	} `json:"regionUsage"` // empty if the organization has no quotas
}

func (organizationUsage) check() error { return nil }

// Limits returns the organization's limits for the region, the sandbox class and the GPUs of r. With an API key, which
// has no access to them, all limits are unknown; Create then explains which limit a request exceeds.
func (c *Client) Limits(ctx context.Context, r Request) (Limits, error) {
	if !c.isUser() {
		return Limits{}, nil
	}
	o, err := c.readOrganization(ctx)
	if err != nil {
		return Limits{}, err
	}
	usage, err := do[organizationUsage](ctx, c, call{op: "read the usage of organization " + c.Organization},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.OrganizationsAPI.GetOrganizationUsageOverview(ctx, c.Organization).Execute())
		})
	if err != nil {
		return Limits{}, err
	}
	cpu, memory, disk := o.MaxCPUPerSandbox, o.MaxMemoryPerSandbox, o.MaxDiskPerSandbox
	// A region's limits override the organization's (apps/api/src/organization/utils/sandbox-limits.util.ts).
	region, class := cmp.Or(r.Region, o.DefaultRegionID), cmp.Or(r.SandboxClass, DefaultSandboxClass)
	for _, u := range usage.RegionUsage {
		if u.RegionID != region || u.SandboxClass != class {
			continue
		}
		cpu, memory = cmp.Or(u.MaxCPUPerSandbox, cpu), cmp.Or(u.MaxMemoryPerSandbox, memory)
		disk = cmp.Or(u.MaxDiskPerSandbox, disk)
		if r.GPU > 0 {
			cpu = cmp.Or(u.MaxCPUPerGPUSandbox, u.MaxCPUPerGPU, cpu)
			memory = cmp.Or(u.MaxMemoryPerGPUSandbox, u.MaxMemoryPerGPU, memory)
			disk = cmp.Or(u.MaxDiskPerGPUSandbox, u.MaxDiskPerGPU, disk)
		}
	}
	return Limits{
		Sandbox:   Resources{CPU: int(cpu), Memory: int(memory), Disk: int(disk)},
		Snapshots: int(usage.TotalSnapshotQuota), Used: int(usage.CurrentSnapshotUsage),
	}, nil
}

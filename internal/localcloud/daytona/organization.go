package daytona

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

// creationTime is the creation time of organizations, keys and regions.
var creationTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *Server) organization(who caller, _ *http.Request) (any, error) {
	o := who.Organization
	answer := map[string]any{
		"id": o.ID, "name": o.Name, "createdBy": "user-1", "personal": false, "createdAt": formatTime(creationTime),
		"updatedAt": formatTime(creationTime),
		"suspended": o.Suspended != "", "suspendedAt": nil, "suspensionReason": nil, "suspendedUntil": nil,
		"suspensionCleanupGracePeriodHours": 24,
		"maxCpuPerSandbox":                  o.cpu(Region{}),
		"maxMemoryPerSandbox":               o.memory(Region{}), "maxDiskPerSandbox": o.disk(Region{}),
		"snapshotDeactivationTimeoutMinutes": 20160, "sandboxLimitedNetworkEgress": false,
		"authenticatedRateLimit": nil, "sandboxCreateRateLimit": nil, "sandboxLifecycleRateLimit": nil,
		"experimentalConfig": nil, "otelConfig": nil,
		"authenticatedRateLimitTtlSeconds": nil, "sandboxCreateRateLimitTtlSeconds": nil,
		"sandboxLifecycleRateLimitTtlSeconds": nil,
	}
	if o.Suspended != "" {
		answer["suspendedAt"], answer["suspensionReason"] = formatTime(creationTime), o.Suspended
	}
	if region, ok := o.defaultRegion(); ok {
		answer["defaultRegionId"] = region.ID
	}
	return answer, nil
}

func (o *Organization) cpu(r Region) int    { return cmp.Or(r.MaxCPU, o.MaxCPU, 4) }
func (o *Organization) memory(r Region) int { return cmp.Or(r.MaxMemory, o.MaxMemory, 8) }
func (o *Organization) disk(r Region) int   { return cmp.Or(r.MaxDisk, o.MaxDisk, 10) }
func (o *Organization) quota() int          { return cmp.Or(o.Snapshots, 30) }

// suspended returns the error for a suspended organization.
func (o *Organization) suspended() error {
	if o.Suspended == "" {
		return nil
	}
	return apiError{http.StatusForbidden, "Organization is suspended: " + o.Suspended}
}

// usage lists the quotas of each region and sandbox class (apps/api/src/organization/services/
// organization-usage.service.ts). Clients from 0.205.0 on know other names for the limits of sandboxes with GPUs.
func (s *Server) usage(who caller, _ *http.Request) (any, error) {
	gpuSuffix := "PerGpuSandbox"
	if s.options.Newer {
		gpuSuffix = "PerGpu"
	}
	quota := func(r Region, class string, cpu, memory, disk any) map[string]any {
		return map[string]any{
			"regionId": r.ID, "sandboxClass": class,
			"totalCpuQuota": 100, "currentCpuUsage": 0, "totalMemoryQuota": 200, "currentMemoryUsage": 0,
			"totalDiskQuota": 300, "currentDiskUsage": 0, "totalGpuQuota": r.GPUs, "currentGpuUsage": 0,
			"maxCpuPerSandbox": cpu, "maxMemoryPerSandbox": memory, "maxDiskPerSandbox": disk,
			"maxDiskPerNonEphemeralSandbox": nil,
			"maxCpu" + gpuSuffix:            nil, "maxMemory" + gpuSuffix: nil, "maxDisk" + gpuSuffix: nil,
		}
	}
	regions := []any{}
	for _, r := range who.Regions {
		if !r.NoQuotas {
			// Limits are separate for each sandbox class.
			regions = append(regions, quota(r, "android", 64, 128, 256),
				quota(r, defaultClass, orNull(r.MaxCPU), orNull(r.MaxMemory), orNull(r.MaxDisk)))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]any{
		"regionUsage": regions, "totalSnapshotQuota": who.quota(), "currentSnapshotUsage": s.used(who.Organization),
		"totalVolumeQuota": 10, "currentVolumeUsage": 0,
	}, nil
}

func (s *Server) regions(who caller, _ *http.Request) (any, error) {
	list := []any{}
	for _, r := range who.Regions {
		list = append(list, map[string]any{
			"id": r.ID, "name": r.Name, "organizationId": nil, "regionType": "shared", "createdAt": formatTime(creationTime),
			"updatedAt": formatTime(creationTime),
			"proxyUrl":  nil, "sshGatewayUrl": nil, "snapshotManagerUrl": nil,
		})
	}
	return list, nil
}

// runs reports whether the region has runners for a sandbox class. Android runs on runners for containers
// (apps/api/src/sandbox/utils/sandbox-class.util.ts).
func (r Region) runs(class string) bool {
	if class == "android" {
		class = defaultClass
	}
	return !r.NoRunners && (len(r.Classes) == 0 && class == defaultClass || slices.Contains(r.Classes, class))
}

// region returns the region with an ID or the default region (getValidatedOrDefaultRegion of
// apps/api/src/sandbox/services/snapshot.service.ts).
func (s *Server) region(who caller, id string) (Region, error) {
	region, ok := who.defaultRegion()
	if !ok {
		return Region{}, badRequest("This organization does not have a default region. " +
			"Please open the Daytona Dashboard to set a default region.")
	}
	id = strings.TrimSpace(id)
	if id == "" {
		return region, nil
	}
	if region, ok := find(who.Regions, id); ok {
		return region, nil
	}
	if _, ok := s.anyRegion(id); ok {
		return Region{}, apiError{http.StatusForbidden, "Region " + id + " is not available to the organization"}
	}
	return Region{}, apiError{http.StatusNotFound, "Region not found"}
}

// defaultRegion returns the region for requests without one.
func (o *Organization) defaultRegion() (Region, bool) {
	if o.Default == "" && len(o.Regions) > 0 {
		return o.Regions[0], true
	}
	return find(o.Regions, o.Default)
}

// anyRegion returns a region of any organization.
func (s *Server) anyRegion(id string) (Region, bool) {
	for _, o := range s.options.Organizations {
		if region, ok := find(o.Regions, id); ok {
			return region, true
		}
	}
	return Region{}, false
}

func find(regions []Region, id string) (Region, bool) {
	for _, r := range regions {
		if r.ID == id {
			return r, true
		}
	}
	return Region{}, false
}

package daytona

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tokens selects the kinds of credentials that an endpoint accepts.
type tokens int

const (
	anyToken  tokens = iota
	keysOnly         // API keys only
	usersOnly        // tokens of users (JWT) only
)

// caller is an authenticated client.
type caller struct {
	*Organization
	key *Key // nil for a user
}

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

var (
	errCredentials = apiError{http.StatusUnauthorized, "Invalid credentials"} // also for an expired key
	errContext     = apiError{http.StatusForbidden, "Invalid authentication context"}
	errPermission  = apiError{http.StatusForbidden, "Access denied"}
)

// authorize returns the organization that a request is for: the organization of the API key, or the one that a user
// names in the path or the X-Daytona-Organization-ID header.
func (s *Server) authorize(r *http.Request, c call) (caller, error) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	isUser := jwt.MatchString(token)
	if token == "" || isUser && c.tokens == keysOnly || !isUser && c.tokens == usersOnly {
		return caller{}, errCredentials
	}
	who, known := caller{}, false
	wanted := r.PathValue("organization")
	for i := range s.options.Organizations {
		o := &s.options.Organizations[i]
		if slices.Contains(o.UserTokens, token) {
			known = true
			if named := r.Header.Get("X-Daytona-Organization-ID"); o.ID == wanted || (wanted == "" && o.ID == named) {
				who.Organization = o
			}
		}
		for k := range o.Keys {
			if key := &o.Keys[k]; key.Value == token && (key.Expires.IsZero() || time.Now().Before(key.Expires)) {
				who, known = caller{o, key}, true
			}
		}
	}
	switch {
	case !known:
		return caller{}, errCredentials
	case who.Organization == nil:
		return caller{}, errContext
	case who.key != nil && len(c.any) > 0 && !slices.ContainsFunc(c.any, who.key.has):
		return caller{}, errPermission
	}
	return who, nil
}

func (k *Key) has(permission string) bool { return slices.Contains(k.Permissions, permission) }

func (s *Server) currentKey(who caller, _ *http.Request) (any, error) {
	k := who.key
	var expires any
	if !k.Expires.IsZero() {
		expires = formatTime(k.Expires)
	}
	permissions := k.Permissions
	if permissions == nil {
		permissions = []string{}
	}
	masked := strings.Repeat("*", 20)
	if len(k.Value) > 8 {
		masked = k.Value[:3] + masked + k.Value[len(k.Value)-3:]
	}
	return map[string]any{
		"name": k.Name, "value": masked, "createdAt": formatTime(creationTime), "permissions": permissions,
		"lastUsedAt": formatTime(time.Now()), "expiresAt": expires, "userId": "user-1",
	}, nil
}

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
	if len(o.Regions) > 0 {
		answer["defaultRegionId"] = o.Regions[0].ID
	}
	return answer, nil
}

func (o *Organization) cpu(r Region) int    { return cmp.Or(r.MaxCPU, o.MaxCPU, 4) }
func (o *Organization) memory(r Region) int { return cmp.Or(r.MaxMemory, o.MaxMemory, 8) }
func (o *Organization) disk(r Region) int   { return cmp.Or(r.MaxDisk, o.MaxDisk, 10) }
func (o *Organization) quota() int          { return cmp.Or(o.Snapshots, 30) }

func (s *Server) usage(who caller, _ *http.Request) (any, error) {
	regions := []any{}
	orNull := func(v int) any {
		if v == 0 {
			return nil
		}
		return v
	}
	for _, r := range who.Regions {
		// Limits are separate for each sandbox class.
		regions = append(regions, map[string]any{
			"regionId": r.ID, "sandboxClass": "android",
			"totalCpuQuota": 100, "currentCpuUsage": 0, "totalMemoryQuota": 200, "currentMemoryUsage": 0,
			"totalDiskQuota": 300, "currentDiskUsage": 0, "totalGpuQuota": 0, "currentGpuUsage": 0,
			"maxCpuPerSandbox": 64, "maxMemoryPerSandbox": 128, "maxDiskPerSandbox": 256,
			"maxDiskPerNonEphemeralSandbox": nil, "maxCpuPerGpuSandbox": nil, "maxMemoryPerGpuSandbox": nil,
			"maxDiskPerGpuSandbox": nil,
		})
		regions = append(regions, map[string]any{
			"regionId": r.ID, "sandboxClass": class,
			"totalCpuQuota": 100, "currentCpuUsage": 0, "totalMemoryQuota": 200, "currentMemoryUsage": 0,
			"totalDiskQuota": 300, "currentDiskUsage": 0, "totalGpuQuota": 0, "currentGpuUsage": 0,
			"maxCpuPerSandbox": orNull(r.MaxCPU), "maxMemoryPerSandbox": orNull(r.MaxMemory),
			"maxDiskPerSandbox":             orNull(r.MaxDisk),
			"maxDiskPerNonEphemeralSandbox": nil, "maxCpuPerGpuSandbox": nil, "maxMemoryPerGpuSandbox": nil,
			"maxDiskPerGpuSandbox": nil,
		})
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

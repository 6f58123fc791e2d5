package daytona

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// This file follows daytonaio/daytona v0.190.0, apps/api/src/sandbox/dto/create-snapshot.dto.ts and createFromPull of
// apps/api/src/sandbox/services/snapshot.service.ts.

var (
	classes  = []string{"linux-vm", "container", "android", "windows"} // apps/api/src/sandbox/enums/sandbox-class.enum.ts
	gpuTypes = []string{"H100", "RTX-PRO-6000"}                        // apps/api/src/sandbox/enums/gpu-type.enum.ts
)

// defaultClass is the sandbox class of snapshots and runners that do not name one.
const defaultClass = "container"

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_.\-:]+(/[a-zA-Z0-9_.\-:]+)*(@sha256:[a-f0-9]{64})?$`)

var digestPattern = regexp.MustCompile(`^[a-f0-9]{64}$`)

// checkImage validates an image name (validateImageName). A digest is valid here, but see inspect.
func checkImage(name string) error {
	if image, digest, ok := strings.Cut(name, "@sha256:"); ok {
		if image == "" || !digestPattern.MatchString(digest) {
			return badRequest("Invalid digest format. Must be image@sha256:64_hex_characters")
		}
		return nil
	}
	switch {
	case !strings.Contains(name, ":") || strings.HasSuffix(strings.TrimSpace(name), ":"):
		return badRequest("Image name must include a tag (e.g., ubuntu:22.04) or digest (@sha256:...)")
	case strings.HasSuffix(name, ":latest"):
		return badRequest(`Images with tag ":latest" are not allowed`)
	case !namePattern.MatchString(name):
		return badRequest("Invalid image name format. " +
			"Must be lowercase, may contain digits, dots, dashes, and single slashes between components")
	}
	return nil
}

// request is a valid body of POST /snapshots.
type request struct {
	name, image, region, class string
	entrypoint                 []string
	cpu, memory, disk, gpu     *float64
	gpuType                    string
}

// parseRequest validates the body of POST /snapshots.
func parseRequest(body map[string]any) (request, error) {
	var v violations
	v.name("name", body["name"])
	v.text("name", body["name"])
	v.optional("imageName", body["imageName"], "a string")
	v.texts("entrypoint", body["entrypoint"])
	v.number("cpu", body["cpu"], -1)
	v.number("gpu", body["gpu"], 1)
	types, isList := body["gpuType"].([]any)
	if body["gpuType"] != nil && !isList {
		types = []any{body["gpuType"]}
	}
	isUnknown := func(t any) bool { text, ok := t.(string); return !ok || !slices.Contains(gpuTypes, text) }
	v.check(!slices.ContainsFunc(types, isUnknown), "each value in gpuType must be one of the following values: %s",
		strings.Join(gpuTypes, ", "))
	v.check(len(types) <= 1, "gpuType must contain no more than 1 elements")
	v.number("memory", body["memory"], -1)
	v.number("disk", body["disk"], -1)
	v.optional("buildInfo", body["buildInfo"], "an object")
	v.optional("regionId", body["regionId"], "a string")
	if body["sandboxClass"] != nil {
		v.oneOf("sandboxClass", body["sandboxClass"], classes)
	}
	if err := v.err(); err != nil {
		return request{}, err
	}
	in := request{class: defaultClass}
	for field, to := range map[string]*string{
		"name": &in.name, "imageName": &in.image, "regionId": &in.region, "sandboxClass": &in.class,
	} {
		if text, ok := body[field].(string); ok {
			*to = text
		}
	}
	for field, to := range map[string]**float64{
		"cpu": &in.cpu, "memory": &in.memory, "disk": &in.disk, "gpu": &in.gpu,
	} {
		if number, ok := body[field].(float64); ok {
			*to = &number
		}
	}
	words, _ := body["entrypoint"].([]any)
	for _, word := range words {
		if text := word.(string); strings.TrimSpace(text) != "" {
			in.entrypoint = append(in.entrypoint, text)
		}
	}
	if len(types) == 1 {
		in.gpuType = types[0].(string)
	}
	switch build := body["buildInfo"]; {
	case build != nil && in.image != "":
		return in, badRequest("Cannot specify an image name when using a build info entry")
	case build != nil && body["entrypoint"] != nil:
		return in, badRequest("Cannot specify an entrypoint when using a build info entry")
	case build != nil:
		return in, apiError{http.StatusNotImplemented, "The stand-in does not build images"}
	case in.image == "":
		return in, badRequest("Must specify an image name when not using a build info entry")
	}
	return in, nil
}

// create creates a snapshot. It validates in the order of the server: body, region, name, image, class, runners,
// suspension, sandbox limits, snapshot quota, existing name.
func (s *Server) create(who caller, r *http.Request) (any, error) {
	in, err := parseRequest(decode(r))
	if err != nil {
		return nil, err
	}
	region, err := s.region(who, in.region)
	if err != nil {
		return nil, err
	}
	if !namePattern.MatchString(in.name) {
		return nil, badRequest("Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes")
	}
	if err := checkImage(in.image); err != nil {
		return nil, err
	}
	if in.class == "windows" {
		return nil, badRequest("Windows snapshots cannot be created via this endpoint; " +
			"they are produced by snapshot-from-sandbox flows.")
	}
	if !region.runs(in.class) {
		return nil, badRequest("No runners are configured in region '%s' for sandbox class '%s'. "+
			"Try a different region or sandbox class.", region.Name, in.class)
	}
	if err := who.suspended(); err != nil {
		return nil, err
	}
	if err := s.checkLimits(who, region, in.cpu, in.memory, in.disk, in.gpu); err != nil {
		return nil, err
	}
	gpuType, err := region.gpuType(in)
	if err != nil {
		return nil, err
	}
	it := &snapshot{
		id: newID(), organization: who.ID, name: in.name, image: in.image, state: "pending", region: region.ID,
		created: s.now(), updated: s.now(), class: in.class, gpuType: gpuType, entrypoint: in.entrypoint,
		cpu: 1, memory: 1, disk: 3, changes: make(chan struct{}, 1),
	}
	for _, column := range []struct {
		value *float64
		to    *int
	}{{in.cpu, &it.cpu}, {in.memory, &it.memory}, {in.disk, &it.disk}, {in.gpu, &it.gpu}} {
		switch {
		case column.value == nil:
		case *column.value != math.Trunc(*column.value): // a database error: 500
			return nil, fmt.Errorf("invalid input syntax for type integer: %v", *column.value)
		default:
			*column.to = int(*column.value)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkQuota(who); err != nil {
		return nil, err
	}
	for _, other := range s.snapshots {
		if other.organization == who.ID && other.name == it.name { // in any state
			message := fmt.Sprintf("Snapshot with name %q already exists for this organization", it.name)
			return nil, apiError{http.StatusConflict, message}
		}
	}
	f, _ := s.nextFaultLocked(func(f Fault) bool { return f.Snapshot != "" })
	it.fault = f.Snapshot
	s.snapshots = append(s.snapshots, it)
	body := it.dto()
	delete(body, "ref") // not a column of the row that the server inserts
	delete(body, "initialRunnerId")
	s.sync(it)
	return body, nil
}

// checkLimits checks the limits per sandbox and the GPU quota (validateOrganizationQuotas).
func (s *Server) checkLimits(who caller, region Region, cpu, memory, disk, gpu *float64) error {
	const more = "\nNeed higher resource limits per-sandbox? " +
		"Contact us at support@daytona.io and let us know about your use case."
	over := func(value *float64, limit int) bool { return value != nil && *value > float64(limit) }
	switch {
	case over(cpu, who.cpu(region)):
		return badRequest("CPU request %s exceeds maximum allowed per sandbox (%d).%s",
			number(*cpu), who.cpu(region), more)
	case over(memory, who.memory(region)):
		return badRequest("Memory request %sGB exceeds maximum allowed per sandbox (%dGB).%s",
			number(*memory), who.memory(region), more)
	case over(disk, who.disk(region)):
		return badRequest("Disk request %sGB exceeds maximum allowed per sandbox (%dGB).%s",
			number(*disk), who.disk(region), more)
	case over(gpu, 0) && !region.NoQuotas && region.GPUs == 0:
		return badRequest("GPU quota exceeded. Maximum allowed: 0.")
	}
	return nil
}

// checkQuota checks that the organization can have another snapshot. The caller must hold s.mu.
func (s *Server) checkQuota(who caller) error {
	if s.used(who.Organization) >= who.quota() {
		return badRequest("Snapshot quota exceeded. Maximum allowed: %d", who.quota())
	}
	return nil
}

// gpuType returns the GPU type of the runner that the server would choose (resolveSnapshotGpuType).
func (r Region) gpuType(in request) (string, error) {
	switch {
	case in.gpu == nil || *in.gpu == 0:
		return "", nil
	case r.GPUs > 0:
		return cmp.Or(in.gpuType, gpuTypes[0]), nil
	case in.gpuType != "":
		return "", badRequest("No available runners with GPU type: %s.", in.gpuType)
	}
	return "", badRequest("No available runners")
}

// number formats a number as JavaScript does.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

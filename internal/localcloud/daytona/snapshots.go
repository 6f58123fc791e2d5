package daytona

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Snapshot is an existing snapshot for [Server.Put].
type Snapshot struct {
	Organization string // ID of its organization
	Name         string
	Image        string // reference of the image it was created from
	Digest       string // digest of that image: sha256:…
	State        string // default: active
	Reason       string // error reason
	Log          string // build log; "": not built by Daytona
	General      bool   // provided by Daytona and visible to every organization

	CPU, Memory, Disk int       // default: 1, 1, 3
	Region            string    // default: the organization's first region
	Created           time.Time // default: now
}

// Put adds a snapshot and returns its ID.
func (s *Server) Put(p Snapshot) string {
	it := &snapshot{
		id: newID(), organization: p.Organization, general: p.General, name: p.Name, image: p.Image,
		state:  cmp.Or(p.State, "active"),
		reason: p.Reason, log: p.Log, cpu: cmp.Or(p.CPU, 1), memory: cmp.Or(p.Memory, 1), disk: cmp.Or(p.Disk, 3),
		region: p.Region, created: p.Created, ended: make(chan struct{}), seen: make(chan struct{}, 1), stop: func() {},
	}
	close(it.ended)
	if it.created.IsZero() {
		it.created = time.Now()
	}
	it.updated = it.created
	if digest, ok := strings.CutPrefix(p.Digest, "sha256:"); ok {
		it.ref = s.internal(digest)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.options.Organizations {
		if o.ID == p.Organization && it.region == "" && len(o.Regions) > 0 {
			it.region = o.Regions[0].ID
		}
	}
	s.snapshots = append(s.snapshots, it)
	return it.id
}

type snapshot struct {
	id, organization, name, image, ref, region string
	general                                    bool
	state, reason, log                         string
	size                                       float64 // GB; 0: not known yet
	cpu, memory, disk                          int
	entrypoint                                 []string
	created, updated, used                     time.Time
	fault                                      SnapshotFault

	reads int           // number of reads of the current state
	seen  chan struct{} // signals a read
	stop  context.CancelFunc
	ended chan struct{} // closed when the runner has finished
}

const class = "container" // sandbox class of every snapshot

// read returns a snapshot in the API's format and counts the read.
func (it *snapshot) read() any {
	it.reads++
	select {
	case it.seen <- struct{}{}:
	default:
	}
	answer := map[string]any{
		"id": it.id, "organizationId": it.organization, "general": it.general, "name": it.name, "imageName": it.image,
		"state": it.state,
		"size":  nil, "entrypoint": it.entrypoint, "cpu": it.cpu, "gpu": 0, "mem": it.memory, "disk": it.disk,
		"errorReason": nil,
		"createdAt":   formatTime(it.created), "updatedAt": formatTime(it.updated), "lastUsedAt": nil,
		"regionIds": []string{it.region}, "sandboxClass": class,
	}
	if it.size > 0 {
		answer["size"] = it.size
	}
	if it.reason != "" {
		answer["errorReason"] = it.reason
	}
	if !it.used.IsZero() {
		answer["lastUsedAt"] = formatTime(it.used)
	}
	if it.ref != "" {
		answer["ref"], answer["initialRunnerId"] = it.ref, "00000000-0000-4000-8000-000000000002"
	}
	if it.log != "" {
		answer["buildInfo"] = map[string]any{
			"dockerfileContent": "FROM debian:bookworm-slim\n", "contextHashes": []string{}, "snapshotRef": "daytona-" + it.id,
			"createdAt": formatTime(it.created), "updatedAt": formatTime(it.updated),
		}
	}
	return answer
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_.\-:]+(/[a-zA-Z0-9_.\-:]+)*(@sha256:[a-f0-9]{64})?$`)

func badRequest(format string, args ...any) error {
	return apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// checkImage validates an image name as Daytona does.
func checkImage(name string) error {
	if image, digest, ok := strings.Cut(name, "@sha256:"); ok {
		if image == "" || !regexp.MustCompile(`^[a-f0-9]{64}$`).MatchString(digest) {
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

// request is the body of POST /snapshots, without fields that the stand-in ignores.
type request struct {
	Name       *string         `json:"name"`
	Image      string          `json:"imageName"`
	Entrypoint []string        `json:"entrypoint"`
	CPU        *float64        `json:"cpu"`
	Memory     *float64        `json:"memory"`
	Disk       *float64        `json:"disk"`
	Region     string          `json:"regionId"`
	BuildInfo  json.RawMessage `json:"buildInfo"`
}

// create creates a snapshot. It validates in the order of the real server: format, region, names, runners, suspension,
// sandbox limits, snapshot quota, existing name.
func (s *Server) create(who caller, r *http.Request) (any, error) {
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, badRequest("%s", err)
	}
	if in.Name == nil {
		return nil, badRequest("name must be a string")
	}
	for name, value := range map[string]*float64{"cpu": in.CPU, "memory": in.Memory, "disk": in.Disk} {
		if value != nil && *value < 0 {
			return nil, badRequest("%s must not be less than 0", name)
		}
	}
	if len(in.BuildInfo) > 0 {
		return nil, apiError{http.StatusNotImplemented, "The stand-in does not build images"}
	}
	if in.Image == "" {
		return nil, badRequest("Must specify an image name when not using a build info entry")
	}
	region, err := s.region(who, in.Region)
	if err != nil {
		return nil, err
	}
	if !namePattern.MatchString(*in.Name) {
		return nil, badRequest("Invalid snapshot name format. May contain letters, digits, dots, colons, and dashes")
	}
	if err := checkImage(in.Image); err != nil {
		return nil, err
	}
	if region.NoRunners {
		return nil, badRequest("No runners are configured in region '%s' for sandbox class '%s'. "+
			"Try a different region or sandbox class.", region.Name, class)
	}
	if who.Suspended != "" {
		return nil, apiError{http.StatusForbidden, "Organization is suspended: " + who.Suspended}
	}
	it := &snapshot{
		id: newID(), organization: who.ID, name: *in.Name, image: in.Image, state: "pending", region: region.ID,
		created: time.Now(), updated: time.Now(),
		cpu: 1, memory: 1, disk: 3, seen: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	for _, word := range in.Entrypoint {
		if strings.TrimSpace(word) != "" {
			it.entrypoint = append(it.entrypoint, word)
		}
	}
	if err := overQuota(who, region, in); err != nil {
		return nil, err
	}
	for value, to := range map[*float64]*int{in.CPU: &it.cpu, in.Memory: &it.memory, in.Disk: &it.disk} {
		switch {
		case value == nil:
		case *value != math.Trunc(*value):
			return nil, fmt.Errorf("invalid input syntax for type integer: %v", *value) // a database error: 500
		default:
			*to = int(*value)
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used(who.Organization) >= who.quota() {
		return nil, badRequest("Snapshot quota exceeded. Maximum allowed: %d", who.quota())
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
	body := it.read()
	it.reads = 0
	s.start(it, who.Organization)
	return body, nil
}

// overQuota returns an error for the first sandbox limit that a request exceeds.
func overQuota(who caller, region Region, in request) error {
	const more = "\nNeed higher resource limits per-sandbox? " +
		"Contact us at support@daytona.io and let us know about your use case."
	over := func(value *float64, limit int) bool { return value != nil && *value > float64(limit) }
	switch {
	case over(in.CPU, who.cpu(region)):
		return badRequest("CPU request %v exceeds maximum allowed per sandbox (%d).%s",
			number(*in.CPU), who.cpu(region), more)
	case over(in.Memory, who.memory(region)):
		return badRequest("Memory request %vGB exceeds maximum allowed per sandbox (%dGB).%s",
			number(*in.Memory), who.memory(region), more)
	case over(in.Disk, who.disk(region)):
		return badRequest("Disk request %vGB exceeds maximum allowed per sandbox (%dGB).%s",
			number(*in.Disk), who.disk(region), more)
	}
	return nil
}

// number formats a number as JavaScript does.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (s *Server) region(who caller, id string) (Region, error) {
	if len(who.Regions) == 0 {
		return Region{}, badRequest("This organization does not have a default region. " +
			"Please open the Daytona Dashboard to set a default region.")
	}
	id = strings.TrimSpace(id)
	if id == "" {
		return who.Regions[0], nil
	}
	if region, ok := find(who.Regions, id); ok {
		return region, nil
	}
	for _, o := range s.options.Organizations {
		if _, ok := find(o.Regions, id); ok {
			return Region{}, apiError{http.StatusForbidden, "Region " + id + " is not available to the organization"}
		}
	}
	return Region{}, apiError{http.StatusNotFound, "Region not found"}
}

// used returns the number of snapshots that count towards the quota. The caller must hold s.mu.
func (s *Server) used(o *Organization) int {
	n := 0
	for _, it := range s.snapshots {
		if it.organization == o.ID && slices.Contains([]string{"building", "pending", "pulling", "active"}, it.state) {
			n++
		}
	}
	return n
}

// find returns a snapshot by ID or name. It includes general snapshots, which a client can read but not change, if
// general is set. The caller must hold s.mu.
func (s *Server) find(who caller, id string, general bool) (*snapshot, error) {
	for _, it := range s.snapshots {
		if it.id == id && (it.organization == who.ID || (it.general && general)) {
			return it, nil
		}
	}
	for _, it := range s.snapshots {
		if it.name == id && (it.organization == who.ID || (it.general && general)) {
			return it, nil
		}
	}
	return nil, apiError{http.StatusNotFound, "Snapshot with ID or name " + id + " not found"}
}

func (s *Server) get(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.find(who, r.PathValue("id"), true)
	if err != nil {
		return nil, err
	}
	return it.read(), nil
}

func (s *Server) list(who caller, r *http.Request) (any, error) {
	page, err := integer(r, "page", 1, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	limit, err := integer(r, "limit", 100, 200)
	if err != nil {
		return nil, err
	}
	sort, order := cmp.Or(r.FormValue("sort"), "lastUsedAt"), cmp.Or(r.FormValue("order"), "desc")
	if !slices.Contains([]string{"name", "state", "lastUsedAt", "createdAt"}, sort) {
		return nil, badRequest("sort must be one of the following values: name, state, lastUsedAt, createdAt")
	}
	if order != "asc" && order != "desc" {
		return nil, badRequest("order must be one of the following values: asc, desc")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*snapshot
	for _, it := range s.snapshots {
		isVisible := it.organization == who.ID || it.general
		if isVisible && strings.Contains(strings.ToLower(it.name), strings.ToLower(r.FormValue("name"))) {
			all = append(all, it)
		}
	}
	slices.SortStableFunc(all, func(a, b *snapshot) int {
		if a.general != b.general { // general snapshots come last
			if a.general {
				return 1
			}
			return -1
		}
		if sort == "lastUsedAt" && a.used.IsZero() != b.used.IsZero() { // unused snapshots come last
			if a.used.IsZero() {
				return 1
			}
			return -1
		}
		by := map[string]int{
			"name": strings.Compare(a.name, b.name), "state": strings.Compare(a.state, b.state),
			"lastUsedAt": a.used.Compare(b.used), "createdAt": a.created.Compare(b.created),
		}[sort]
		if order == "desc" {
			by = -by
		}
		return cmp.Or(by, b.created.Compare(a.created))
	})
	items := []any{}
	for _, it := range all[min(len(all), (page-1)*limit):min(len(all), page*limit)] {
		items = append(items, it.read())
	}
	pages := (len(all) + limit - 1) / limit
	return map[string]any{"items": items, "total": len(all), "page": page, "totalPages": pages}, nil
}

func integer(r *http.Request, name string, fallback, limit int) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return 0, badRequest("%s must be an integer number", name)
	case n < 1:
		return 0, badRequest("%s must not be less than 1", name)
	case n > limit:
		return 0, badRequest("%s must not be greater than %d", name, limit)
	}
	return n, nil
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// findToChange returns a snapshot that the client can change. Like the real server, it looks up names too, but then
// rejects them.
func (s *Server) findToChange(who caller, id string) (*snapshot, error) {
	it, err := s.find(who, id, false)
	if err == nil && !uuid.MatchString(id) {
		err = badRequest("Validation failed (uuid is expected)")
	}
	return it, err
}

// remove marks a snapshot as removing. The snapshot exists until the runner has stopped processing it.
func (s *Server) remove(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findToChange(who, r.PathValue("id"))
	if err != nil || it.state == "removing" {
		return nil, err
	}
	s.setState(it, "removing")
	it.stop()
	if s.ctx.Err() == nil {
		s.running.Go(func() { s.finishRemoval(it) })
	}
	return nil, nil
}

func (s *Server) activate(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findToChange(who, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case it.state == "active":
		return nil, badRequest("Snapshot %s is already active", it.id)
	case it.state != "inactive":
		return nil, badRequest("Snapshot %s cannot be activated - it is in %s state", it.id, it.state)
	case time.Since(it.updated) < 10*time.Minute:
		return nil, badRequest("Snapshot deactivation is still in progress. Please try again in a few minutes.")
	case who.Suspended != "":
		return nil, apiError{http.StatusForbidden, "Organization is suspended: " + who.Suspended}
	case s.used(who.Organization) >= who.quota():
		return nil, badRequest("Snapshot quota exceeded. Maximum allowed: %d", who.quota())
	}
	s.setState(it, "pending")
	body := it.read()
	it.reads = 0
	s.start(it, who.Organization)
	return body, nil
}

func (s *Server) deactivate(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findToChange(who, r.PathValue("id"))
	if err != nil || it.state == "inactive" {
		return nil, err
	}
	it.stop()
	s.setState(it, "inactive")
	return nil, nil
}

// setState sets the state and resets the read counter. The caller must hold s.mu.
func (s *Server) setState(it *snapshot, state string) {
	it.state, it.updated, it.reads = state, time.Now(), 0
}

func (s *Server) findBuilt(who caller, r *http.Request) (*snapshot, error) {
	it, err := s.find(who, r.PathValue("id"), false)
	if err == nil && it.log == "" {
		err = apiError{http.StatusNotFound, "Snapshot " + it.id + " has no build info"}
	}
	return it, err
}

func (s *Server) buildLogsURL(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findBuilt(who, r)
	if err != nil {
		return nil, err
	}
	return map[string]any{"url": s.URL() + "/snapshots/" + it.id + "/build-logs"}, nil
}

func (s *Server) buildLogs(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findBuilt(who, r)
	if err != nil || it.state == "active" {
		return nil, err
	}
	return it.log, nil
}

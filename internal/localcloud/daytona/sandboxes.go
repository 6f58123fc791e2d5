package daytona

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// This file follows daytonaio/daytona v0.190.0, apps/api/src/sandbox/controllers/sandbox.controller.ts and
// apps/api/src/sandbox/services/sandbox.service.ts.

// Sandbox is an existing sandbox for [Server.PutSandbox].
type Sandbox struct {
	Organization string // ID of its organization
	Name         string // default: its ID
	Snapshot     string // name of its snapshot
	State        string // default: started
	Region       string
	Labels       map[string]any
	Created      time.Time // default: now
}

// WarmPool is a warm pool for [Server.PutWarmPool]. Its sandboxes wait until a client of the organization creates a
// sandbox from the snapshot.
type WarmPool struct {
	Organization string
	Snapshot     string // name
	Region       string
	Size         int
}

// unassigned is the organization of sandboxes in warm pools (apps/api/src/sandbox/constants/sandbox.constants.ts).
const unassigned = "00000000-0000-0000-0000-000000000000"

type sandbox struct {
	id, organization, name, snapshot, region string
	state, desired, reason                   string
	labels                                   map[string]any
	class, pool                              string // pool is the ID of the warm pool of an unclaimed sandbox
	cpu, memory, disk, gpu                   int
	autoStop, autoDelete                     float64
	env                                      []string // NAME=VALUE
	token                                    string   // for its previews
	created, active                          time.Time
	changed                                  chan struct{} // closed when it is started or has failed
	fault                                    SandboxFault
	hasAnswer                                bool       // the response to the request that created it was sent
	container                                *container // nil: not running, or no engine
}

type warmPool struct {
	id string
	WarmPool
	created time.Time
}

// PutSandbox adds a sandbox and returns its ID.
func (s *Server) PutSandbox(p Sandbox) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addSandbox(p, "").id
}

// addSandbox adds a sandbox. The caller must hold s.mu.
func (s *Server) addSandbox(p Sandbox, pool string) *sandbox {
	id := newID()
	box := &sandbox{
		id: id, organization: p.Organization, name: cmp.Or(p.Name, id), snapshot: p.Snapshot, region: p.Region,
		state: cmp.Or(p.State, "started"), desired: "started", class: defaultClass, pool: pool,
		cpu: 1, memory: 1, disk: 3, autoStop: 15, autoDelete: -1, created: s.now(), changed: make(chan struct{}),
		active: s.now(), token: strings.ToLower(rand.Text()), labels: p.Labels,
	}
	if !p.Created.IsZero() {
		box.created = p.Created
	}
	s.sandboxes = append(s.sandboxes, box)
	return box
}

// PutWarmPool adds a warm pool with its sandboxes and returns its ID.
func (s *Server) PutWarmPool(p WarmPool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	pool := &warmPool{newID(), p, s.now()}
	s.warmPools = append(s.warmPools, pool)
	for range p.Size {
		s.addSandbox(Sandbox{Organization: unassigned, Snapshot: p.Snapshot, Region: p.Region}, pool.id)
	}
	return pool.id
}

// visibleState returns the state that clients see (getSandboxState of apps/api/src/sandbox/dto/sandbox.dto.ts).
func (box *sandbox) visibleState() string {
	switch {
	case box.desired == "destroyed" && (box.state == "started" || box.state == "stopped"):
		return "destroying"
	case box.desired == "started" && box.state == "unknown":
		return "creating"
	}
	return box.state
}

// sandboxDTO returns a sandbox in the API's format (apps/api/src/sandbox/dto/sandbox.dto.ts).
func (s *Server) sandboxDTO(box *sandbox) map[string]any {
	labels := box.labels
	if labels == nil {
		labels = map[string]any{}
	}
	answer := map[string]any{
		"id": box.id, "organizationId": box.organization, "name": box.name, "target": box.region,
		"snapshot": box.snapshot, "user": "daytona", "env": map[string]any{}, "cpu": box.cpu, "gpu": box.gpu,
		"memory": box.memory, "disk": box.disk, "public": false, "networkBlockAll": false,
		"networkAllowList": nil, "domainAllowList": nil, "labels": labels,
		"volumes": []any{}, "state": box.visibleState(), "desiredState": box.desired, "errorReason": orNull(box.reason),
		"recoverable": false, "backupState": "None", "autoStopInterval": box.autoStop, "autoArchiveInterval": 10080,
		"autoDeleteInterval": box.autoDelete, "sandboxClass": box.class, "createdAt": formatTime(box.created),
		"updatedAt": formatTime(box.created), "lastActivityAt": formatTime(box.active), "runnerId": runnerID,
		"toolboxProxyUrl": s.URL() + "/toolbox",
	}
	if box.state == "started" {
		answer["daemonVersion"] = "v0.190.0"
	}
	if box.pool != "" && s.options.Newer {
		answer["warmPoolId"] = box.pool
	}
	return answer
}

// isVisible reports whether a client can see a sandbox. Unclaimed sandboxes of warm pools belong to no organization on
// v0.190.0. On newer servers, they show the ID of the organization's pool.
func (s *Server) isVisible(who caller, box *sandbox) bool {
	isOwnPool := func(p *warmPool) bool { return p.id == box.pool && p.Organization == who.ID }
	return box.organization == who.ID || s.options.Newer && slices.ContainsFunc(s.warmPools, isOwnPool)
}

// createSandbox starts a sandbox from a snapshot and waits until it is started, has failed, or StartTimeout is over.
// The response has the state at the beginning.
func (s *Server) createSandbox(who caller, r *http.Request) (any, error) {
	body := decode(r)
	if err := checkSandbox(body); err != nil {
		return nil, err
	}
	box, answer, err := s.startSandbox(who, body)
	if err != nil || box == nil {
		return answer, err
	}
	timeout := time.NewTimer(s.options.StartTimeout)
	defer timeout.Stop()
	select {
	case <-box.changed:
	case <-timeout.C:
	case <-r.Context().Done():
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if box.state == "error" {
		return nil, badRequest("Sandbox failed to start: %s", box.reason)
	}
	box.hasAnswer = true
	return answer, nil
}

// checkSandbox validates the body of POST /sandbox (apps/api/src/sandbox/dto/create-sandbox.dto.ts), without its lists.
func checkSandbox(body map[string]any) error {
	const text, object, flag = "a string", "an object", "a boolean value"
	var v violations
	v.name("name", body["name"])
	for _, field := range []struct{ name, kind string }{
		{"name", text}, {"snapshot", text}, {"user", text}, {"env", object}, {"labels", object}, {"public", flag},
		{"networkBlockAll", flag}, {"networkAllowList", text}, {"domainAllowList", text}, {"target", text},
	} {
		v.optional(field.name, body[field.name], field.kind)
	}
	v.number("cpu", body["cpu"], -1)
	v.number("gpu", body["gpu"], 1)
	v.number("memory", body["memory"], -1)
	v.number("disk", body["disk"], -1)
	for _, field := range []string{"autoStopInterval", "autoArchiveInterval", "autoDeleteInterval"} {
		v.optional(field, body[field], "a number conforming to the specified constraints")
	}
	v.optional("buildInfo", body["buildInfo"], object)
	v.optional("linkedSandbox", body["linkedSandbox"], text)
	if err := v.err(); err != nil {
		return err
	}
	switch {
	case body["buildInfo"] != nil && body["snapshot"] != nil:
		return badRequest("Cannot specify a snapshot when using a build info entry")
	case body["buildInfo"] != nil || body["linkedSandbox"] != nil || body["volumes"] != nil:
		return apiError{http.StatusNotImplemented, "The stand-in starts sandboxes from snapshots only"}
	}
	for _, field := range []string{"cpu", "gpu", "memory", "disk"} {
		if n, _ := body[field].(float64); n != 0 {
			return badRequest("Cannot specify Sandbox resources when using a snapshot")
		}
	}
	if body["gpuType"] != nil {
		return badRequest("Cannot specify GPU type when creating sandbox from snapshot. " +
			"GPU type is inherited from snapshot.")
	}
	return nil
}

// startSandbox creates a sandbox, or takes one from a warm pool and returns nil (createFromSnapshot).
func (s *Server) startSandbox(who caller, body map[string]any) (*sandbox, any, error) {
	target, _ := body["target"].(string)
	region, err := s.region(who, target)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _ := body["snapshot"].(string)
	it := s.findForSandbox(who, id)
	autoDelete, hasAutoDelete := body["autoDeleteInterval"].(float64)
	switch {
	case it == nil:
		return nil, nil, badRequest("Snapshot %s not found. Did you add it through the Daytona Dashboard?", id)
	case it.region != region.ID && !it.general:
		return nil, nil, badRequest("Snapshot %s is not available in region %s", id, region.ID)
	case it.state != "active":
		return nil, nil, badRequest("Snapshot %s is %s", id, it.state)
	case it.ref == "":
		return nil, nil, badRequest("Snapshot ref is not defined")
	case it.gpu > 0 && (!hasAutoDelete || autoDelete != 0):
		return nil, nil, badRequest("GPU sandboxes must be ephemeral - set autoDeleteInterval to 0")
	case it.class == "android":
		return nil, nil, badRequest("Android sandboxes must be linked to another sandbox")
	}
	if err := who.suspended(); err != nil {
		return nil, nil, err
	}
	if !region.runs(it.class) {
		return nil, nil, badRequest("No available runners")
	}
	boxName, _ := body["name"].(string)
	if slices.ContainsFunc(s.sandboxes, func(box *sandbox) bool {
		return boxName != "" && box.organization == who.ID && box.name == boxName
	}) {
		return nil, nil, apiError{http.StatusConflict, fmt.Sprintf("Sandbox with name %s already exists", boxName)}
	}
	labels, _ := body["labels"].(map[string]any)
	it.used = s.now()
	for _, box := range s.sandboxes {
		if box.pool != "" && box.snapshot == it.name && box.region == region.ID && box.state == "started" {
			box.organization, box.pool, box.labels = who.ID, "", labels
			return nil, s.sandboxDTO(box), nil
		}
	}
	box := s.addSandbox(Sandbox{
		Organization: who.ID, Name: boxName, Snapshot: it.name, State: "unknown", Region: region.ID,
	}, "")
	box.labels, box.class = labels, it.class
	box.cpu, box.memory, box.disk, box.gpu = it.cpu, it.memory, it.disk, it.gpu
	if stop, ok := body["autoStopInterval"].(float64); ok {
		box.autoStop = stop
	}
	if hasAutoDelete {
		box.autoDelete = autoDelete
	}
	variables, _ := body["env"].(map[string]any)
	for name, value := range variables {
		box.env = append(box.env, fmt.Sprintf("%s=%v", name, value))
	}
	f, _ := s.nextFaultLocked(func(f Fault) bool { return f.Sandbox != "" })
	box.fault = f.Sandbox
	if s.ctx.Err() == nil && (box.fault == "" || box.fault == RunnerFails) {
		ref, entrypoint := it.ref, it.entrypoint
		s.running.Go(func() { s.bootSandbox(box, ref, entrypoint) })
	}
	answer := s.sandboxDTO(box)
	for _, column := range []string{"errorReason", "networkAllowList", "domainAllowList"} { // not set by the request
		delete(answer, column)
	}
	return box, answer, nil
}

// findForSandbox returns a snapshot by name or ID, preferably an active one. The caller must hold s.mu.
func (s *Server) findForSandbox(who caller, id string) *snapshot {
	var found *snapshot
	for _, it := range s.snapshots {
		isAllowed := it.organization == who.ID || it.general
		if isAllowed && (it.name == id || it.id == id) && (found == nil || found.state != "active") {
			found = it
		}
	}
	return found
}

// bootSandbox starts a sandbox as the runner does (apps/runner/pkg/docker/create.go).
func (s *Server) bootSandbox(box *sandbox, ref string, entrypoint []string) {
	started, err := s.startImage(box, ref, entrypoint)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case box.desired != "started" || s.ctx.Err() != nil:
		if started != nil {
			s.running.Go(func() { s.removeContainer(started) })
		}
		return
	case errors.Is(err, errNoDaemon):
		box.fault = NoShell
		return
	case err != nil:
		box.state, box.reason = "error", err.Error()
	default:
		box.state, box.container = "started", started
	}
	close(box.changed)
}

// errNoDaemon is the error after the time that a daemon has to start (apps/runner/pkg/docker/daemon.go).
const errNoDaemon = reason("timeout waiting for daemon to start")

// startImage checks the architecture of an image (validateImageArchitecture) and starts a container, if there is an
// engine.
func (s *Server) startImage(box *sandbox, ref string, entrypoint []string) (*container, error) {
	if box.fault == RunnerFails {
		return nil, errUnavailable
	}
	at, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(at, s.remote(s.ctx)...)
	if err != nil {
		return nil, errors.New(pullText(err, ref))
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, errors.New(pullText(err, ref))
	}
	if config.Architecture != "amd64" && config.Architecture != "x86_64" {
		id, err := img.ConfigName()
		if err != nil {
			return nil, err
		}
		return nil, reason(fmt.Sprintf("conflict: image %s architecture (%s) is not x64 compatible", id, config.Architecture))
	}
	if s.engine == nil {
		return nil, nil
	}
	if len(entrypoint) == 0 {
		entrypoint = config.Config.Entrypoint
	}
	env := append([]string{"DAYTONA_SANDBOX_ID=" + box.id, "DAYTONA_SANDBOX_SNAPSHOT=" + ref}, box.env...)
	started, err := s.startContainer(s.local(ref), config.Config, env, entrypoint)
	if err != nil {
		return nil, errNoDaemon
	}
	return started, nil
}

// findSandbox returns a sandbox by ID or name. The caller must hold s.mu.
func (s *Server) findSandbox(who caller, id string) (*sandbox, error) {
	for _, box := range s.sandboxes {
		isGone := box.state == "error" && box.desired == "destroyed"
		if (box.id == id || box.name == id) && box.organization == who.ID && !isGone {
			return box, nil
		}
	}
	return nil, apiError{http.StatusNotFound, "Sandbox with ID or name " + id + " not found"}
}

func (s *Server) getSandbox(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box, err := s.findSandbox(who, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.sandboxDTO(box), nil
}

// sandboxStates are the states that a list can be filtered by (apps/api/src/sandbox/dto/list-sandboxes-query.dto.ts).
var sandboxStates = strings.Fields("creating restoring destroying started stopped starting stopping error " +
	"build_failed pending_build building_snapshot unknown pulling_snapshot archived archiving resizing snapshotting " +
	"forking pausing paused resuming")

// listSandboxes lists the sandboxes of the organization, newest first, regardless of the requested order
// (apps/api/src/sandbox/adapters/sandbox-typeorm-search.adapter.ts). It requires no permission.
func (s *Server) listSandboxes(who caller, r *http.Request) (any, error) {
	query := r.URL.Query()
	var v violations
	limit := v.integer(query, "limit", 100, 200)
	isKnown := func(state string) bool { return slices.Contains(sandboxStates, state) }
	unknown := slices.DeleteFunc(slices.Clone(query["states"]), isKnown)
	v.check(len(unknown) == 0, "each value must be one of the following values: %s", strings.Join(sandboxStates, ", "))
	v.choice(query, "sort", "", strings.Fields("name cpu memoryGib diskGib lastActivityAt createdAt"))
	v.choice(query, "order", "", []string{"asc", "desc"})
	if err := v.err(); err != nil {
		return nil, err
	}
	var labels map[string]any
	if text := query.Get("labels"); text != "" && json.Unmarshal([]byte(text), &labels) != nil {
		return nil, badRequest("Invalid labels JSON format")
	}
	var after struct {
		SortValue, ID string
	}
	if cursor := query.Get("cursor"); cursor != "" {
		data, err := base64.StdEncoding.DecodeString(cursor)
		if err != nil || json.Unmarshal(data, &after) != nil {
			return nil, badRequest("Invalid cursor provided: %s", cursor)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*sandbox
	for _, box := range s.sandboxes {
		bySnapshot := !query.Has("snapshots") || slices.Contains(query["snapshots"], box.snapshot)
		byState := !query.Has("states") || slices.Contains(query["states"], box.state)
		isGone := box.state == "error" && box.desired == "destroyed"
		byLabels := true
		for label, value := range labels {
			byLabels = byLabels && box.labels[label] == value
		}
		if s.isVisible(who, box) && bySnapshot && byState && byLabels && !isGone {
			all = append(all, box)
		}
	}
	key := func(box *sandbox) string { return formatTime(box.created) + box.id }
	slices.SortFunc(all, func(a, b *sandbox) int { return strings.Compare(key(b), key(a)) })
	if after.ID != "" {
		all = slices.DeleteFunc(all, func(box *sandbox) bool { return key(box) >= after.SortValue+after.ID })
	}
	items, next := []any{}, any(nil)
	for _, box := range all[:min(limit, len(all))] {
		item := s.sandboxDTO(box)
		for _, field := range []string{"env", "networkBlockAll", "networkAllowList", "domainAllowList", "volumes"} {
			delete(item, field) // not in apps/api/src/sandbox/dto/sandbox-list-item.dto.ts
		}
		items = append(items, item)
	}
	if len(all) > limit {
		last := all[limit-1]
		data, err := json.Marshal(map[string]string{"sortValue": formatTime(last.created), "id": last.id})
		if err != nil {
			return nil, err
		}
		next = base64.StdEncoding.EncodeToString(data)
	}
	return map[string]any{"items": items, "nextCursor": next}, nil
}

// destroySandbox marks a sandbox for destruction. It exists until the next Tick.
func (s *Server) destroySandbox(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box, err := s.findSandbox(who, r.PathValue("id"))
	switch {
	case err != nil:
		return nil, err
	case box.desired == "destroyed" || box.state == "unknown": // an operation is pending
		return nil, apiError{http.StatusConflict, "Sandbox state change in progress"}
	}
	s.markDestroyed(box)
	return s.sandboxDTO(box), nil
}

// markDestroyed implements getSoftDeleteUpdate of apps/api/src/sandbox/entities/sandbox.entity.ts. The caller must hold
// s.mu.
func (s *Server) markDestroyed(box *sandbox) {
	box.desired, box.name = "destroyed", fmt.Sprintf("DESTROYED_%s_%d", box.name, s.now().UnixMilli())
}

// stopIdle stops a sandbox after its auto-stop interval without activity, or deletes it if it is ephemeral
// (autostopCheck of apps/api/src/sandbox/managers/sandbox.manager.ts). The caller must hold s.mu.
func (s *Server) stopIdle(box *sandbox) {
	interval := time.Duration(box.autoStop * float64(time.Minute))
	isIdle := box.state == "started" && box.desired == "started" && box.pool == "" && interval > 0 &&
		s.now().Sub(box.active) > interval
	switch {
	case isIdle && box.autoDelete == 0:
		s.markDestroyed(box)
	case isIdle:
		box.state, box.desired = "stopped", "stopped"
		if started := box.container; started != nil && s.ctx.Err() == nil {
			box.container = nil
			s.running.Go(func() { s.removeContainer(started) })
		}
	}
}

// advanceSandboxes stops idle sandboxes, removes those that are to be destroyed, and lets those without a daemon fail
// after the response to POST: the server waits 30 seconds for a sandbox, and the runner 60 for its daemon. The caller
// must hold s.mu.
func (s *Server) advanceSandboxes() {
	for _, box := range s.sandboxes {
		if box.fault == NoShell && box.hasAnswer && box.state == "unknown" {
			box.state, box.reason = "error", string(errNoDaemon)
		}
		s.stopIdle(box)
		if started := box.container; started != nil && box.desired == "destroyed" && s.ctx.Err() == nil {
			s.running.Go(func() { s.removeContainer(started) })
		}
	}
	s.sandboxes = slices.DeleteFunc(s.sandboxes, func(box *sandbox) bool { return box.desired == "destroyed" })
}

// removeWarmPools removes the warm pools of a deleted snapshot with their unclaimed sandboxes, as newer servers do. In
// v0.190.0, they stay. The caller must hold s.mu.
func (s *Server) removeWarmPools(it *snapshot) {
	if !s.options.Newer {
		return
	}
	s.warmPools = slices.DeleteFunc(s.warmPools, func(p *warmPool) bool {
		isOf := p.Snapshot == it.name && p.Organization == it.organization
		if isOf {
			s.sandboxes = slices.DeleteFunc(s.sandboxes, func(box *sandbox) bool { return box.pool == p.id })
		}
		return isOf
	})
}

// listWarmPools lists the warm pools of the organization, as clients from 0.205.0 on expect. v0.190.0 lacks this
// endpoint.
func (s *Server) listWarmPools(who caller, _ *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []any{}
	for _, p := range s.warmPools {
		if p.Organization == who.ID {
			current := 0
			for _, box := range s.sandboxes {
				if box.pool == p.id {
					current++
				}
			}
			list = append(list, map[string]any{
				"id": p.id, "organizationId": p.Organization, "snapshot": p.Snapshot, "target": p.Region, "pool": p.Size,
				"currentSize": current, "cpu": 1, "mem": 1, "disk": 3, "osUser": "daytona", "env": map[string]any{},
				"errorReason": nil, "createdAt": formatTime(p.created), "updatedAt": formatTime(p.created),
			})
		}
	}
	return list, nil
}

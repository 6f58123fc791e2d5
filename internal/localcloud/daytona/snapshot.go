package daytona

import (
	"cmp"
	"slices"
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
	GPU               int       // default: 0
	SandboxClass      string    // default: container
	Entrypoint        []string  // default: null
	Region            string    // default: the organization's default region
	Created           time.Time // default: now
	Updated           time.Time // default: Created
	Used              time.Time // default: never
}

// Put adds a snapshot and returns its ID. No runner processes it.
func (s *Server) Put(p Snapshot) string {
	it := &snapshot{
		id: newID(), organization: p.Organization, general: p.General, name: p.Name, image: p.Image,
		state: cmp.Or(p.State, "active"), reason: p.Reason, log: p.Log, cpu: cmp.Or(p.CPU, 1),
		memory: cmp.Or(p.Memory, 1), disk: cmp.Or(p.Disk, 3), gpu: p.GPU, class: cmp.Or(p.SandboxClass, defaultClass),
		entrypoint: p.Entrypoint, region: p.Region, created: p.Created, used: p.Used,
		changes: make(chan struct{}, 1),
	}
	if it.created.IsZero() {
		it.created = s.now()
	}
	if it.updated = p.Updated; it.updated.IsZero() {
		it.updated = it.created
	}
	if digest, ok := strings.CutPrefix(p.Digest, "sha256:"); ok {
		it.ref = s.internal(digest)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.options.Organizations {
		if region, ok := o.defaultRegion(); ok && o.ID == p.Organization {
			it.region = cmp.Or(it.region, region.ID)
		}
	}
	if it.ref != "" || it.log != "" {
		it.runner = runnerID
	}
	s.snapshots = append(s.snapshots, it)
	return it.id
}

type snapshot struct {
	id, organization, name, image, ref, region string
	runner                                     string // ID of the first runner; "": not chosen yet
	general                                    bool
	state, reason, log, class, gpuType         string
	size                                       float64 // GB; 0: not known yet
	cpu, memory, disk, gpu                     int
	entrypoint                                 []string
	created, updated, used                     time.Time
	fault                                      SnapshotFault

	hasHandler bool          // the handler of the state pending runs
	isDeleted  bool          // the row is deleted
	reads      int           // number of reads of the current state
	changes    chan struct{} // signals a read or a change
}

// signal wakes up hold.
func (it *snapshot) signal() {
	select {
	case it.changes <- struct{}{}:
	default:
	}
}

// read returns a snapshot in the API's format and counts the read.
func (it *snapshot) read() any {
	it.reads++
	it.signal()
	return it.dto()
}

// dto returns a snapshot in the API's format (apps/api/src/sandbox/dto/snapshot.dto.ts). Columns without a value are
// null.
func (it *snapshot) dto() map[string]any {
	answer := map[string]any{
		"id": it.id, "organizationId": it.organization, "general": it.general, "name": it.name, "imageName": it.image,
		"state": it.state, "size": nil, "entrypoint": nil, "cpu": it.cpu, "gpu": it.gpu, "mem": it.memory,
		"disk": it.disk, "errorReason": orNull(it.reason), "createdAt": formatTime(it.created),
		"updatedAt": formatTime(it.updated), "lastUsedAt": nil, "regionIds": []string{}, "sandboxClass": it.class,
		"ref": orNull(it.ref), "initialRunnerId": orNull(it.runner),
	}
	if it.organization == "" {
		answer["organizationId"] = nil
	}
	if it.region != "" {
		answer["regionIds"] = []string{it.region}
	}
	if it.size > 0 {
		answer["size"] = it.size
	}
	if len(it.entrypoint) > 0 {
		answer["entrypoint"] = it.entrypoint
	}
	if it.gpuType != "" {
		answer["gpuType"] = it.gpuType
	}
	if !it.used.IsZero() {
		answer["lastUsedAt"] = formatTime(it.used)
	}
	if it.log != "" {
		answer["buildInfo"] = map[string]any{
			"dockerfileContent": "FROM debian:bookworm-slim\n", "contextHashes": []string{}, "snapshotRef": "daytona-" + it.id,
			"createdAt": formatTime(it.created), "updatedAt": formatTime(it.updated),
		}
	}
	return answer
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

// SetState changes the state of a snapshot, as the server does after a race of its handlers.
func (s *Server) SetState(id, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.snapshots {
		if it.id == id {
			s.setState(it, state)
		}
	}
}

// setState overwrites the state of a snapshot and resets the read counter. The caller must hold s.mu.
func (s *Server) setState(it *snapshot, state string) {
	it.state, it.updated, it.reads = state, s.now(), 0
	it.signal()
}

// isIn reports whether a snapshot exists and is in one of the states.
func (s *Server) isIn(it *snapshot, states ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !it.isDeleted && slices.Contains(states, it.state)
}

// hold waits until clients have read the snapshot Options.ReadsPerState times in its state, or until it is in none of
// the states.
func (s *Server) hold(it *snapshot, states ...string) error {
	return s.holdReads(it, s.options.ReadsPerState, states...)
}

// holdReads is hold with another number of reads.
func (s *Server) holdReads(it *snapshot, reads int, states ...string) error {
	for {
		s.mu.Lock()
		done := it.isDeleted || it.reads >= reads || !slices.Contains(states, it.state)
		s.mu.Unlock()
		if s.ctx.Err() != nil || done {
			return s.ctx.Err()
		}
		select {
		case <-it.changes:
		case <-s.ctx.Done():
		}
	}
}

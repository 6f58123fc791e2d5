package daytona

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// This file follows daytonaio/daytona v0.190.0, apps/api/src/sandbox/controllers/snapshot.controller.ts and
// apps/api/src/sandbox/services/snapshot.service.ts.

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// find returns a snapshot by ID or name. General snapshots can be read, but not changed
// (apps/api/src/sandbox/guards/snapshot-access.guard.ts and snapshot-read-access.guard.ts). The caller must hold s.mu.
func (s *Server) find(who caller, id string, general bool) (*snapshot, error) {
	hidden := apiError{http.StatusNotFound, "Snapshot with ID or name " + id + " not found"}
	isAllowed := func(it *snapshot) bool { return it.organization == who.ID || it.general && general }
	for _, it := range s.snapshots {
		switch {
		case it.id == id && isAllowed(it):
			return it, nil
		case it.id == id:
			return nil, hidden
		}
	}
	var found *snapshot
	for _, it := range s.snapshots {
		isOwn := it.organization == who.ID
		if it.name == id && (isOwn || it.general) && (found == nil || isOwn) {
			found = it
		}
	}
	switch {
	case found == nil:
		return nil, apiError{http.StatusNotFound, "Snapshot with name " + id + " not found"}
	case !isAllowed(found):
		return nil, hidden
	}
	return found, nil
}

func (s *Server) get(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickForReader()
	it, err := s.find(who, r.PathValue("id"), true)
	if err != nil {
		return nil, err
	}
	return it.read(), nil
}

// list follows apps/api/src/sandbox/dto/list-snapshots-query.dto.ts and getAllSnapshots.
func (s *Server) list(who caller, r *http.Request) (any, error) {
	query := r.URL.Query()
	var v violations
	page, limit := v.integer(query, "page", 1, 0), v.integer(query, "limit", 100, 200)
	v.check(len(query["name"]) <= 1, "name must be a string")
	sort := v.choice(query, "sort", "lastUsedAt", []string{"name", "state", "lastUsedAt", "createdAt"})
	order := v.choice(query, "order", "desc", []string{"asc", "desc"})
	if err := v.err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickForReader()
	var all []*snapshot
	for _, it := range s.snapshots {
		isVisible := it.organization == who.ID || it.general
		if isVisible && strings.Contains(strings.ToLower(it.name), strings.ToLower(query.Get("name"))) {
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
	first := min(len(all), (page-1)*limit)
	for _, it := range all[first:min(len(all), first+limit)] {
		items = append(items, it.read())
	}
	pages := (len(all) + limit - 1) / limit
	return map[string]any{"items": items, "total": len(all), "page": page, "totalPages": pages}, nil
}

// findToChange returns a snapshot that the client can change. The server finds names, too, but then rejects them.
func (s *Server) findToChange(who caller, id string) (*snapshot, error) {
	it, err := s.find(who, id, false)
	if err == nil && !uuid.MatchString(id) {
		err = badRequest("Validation failed (uuid is expected)")
	}
	return it, err
}

// remove marks a snapshot as removing, in any state and even if it is in use (removeSnapshot). A job deletes it later,
// see Tick.
func (s *Server) remove(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findToChange(who, r.PathValue("id"))
	if err == nil && it.state != "removing" {
		s.setState(it, "removing")
	}
	return nil, err
}

// cooldown is the time between the deactivation of a snapshot and its next activation.
const cooldown = 10 * time.Minute

// activate makes an inactive snapshot pending (activateSnapshot).
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
	case s.now().Sub(it.updated) < cooldown:
		return nil, badRequest("Snapshot deactivation is still in progress. Please try again in a few minutes.")
	}
	if err := who.suspended(); err != nil {
		return nil, err
	}
	region, _ := find(who.Regions, it.region)
	values := []float64{float64(it.cpu), float64(it.memory), float64(it.disk), float64(it.gpu)}
	if err := s.checkLimits(who, region, &values[0], &values[1], &values[2], &values[3]); err != nil {
		return nil, err
	}
	if err := s.checkQuota(who); err != nil {
		return nil, err
	}
	s.setState(it, "pending")
	body := it.dto()
	s.sync(it)
	return body, nil
}

// deactivate makes a snapshot inactive, in any state (deactivateSnapshot).
func (s *Server) deactivate(who caller, r *http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.findToChange(who, r.PathValue("id"))
	if err == nil && it.state != "inactive" {
		s.setState(it, "inactive")
	}
	return nil, err
}

// findBuilt returns a snapshot for its build log. The server accepts a name here and then fails, because it looks for
// an ID.
func (s *Server) findBuilt(who caller, r *http.Request) (*snapshot, error) {
	id := r.PathValue("id")
	it, err := s.find(who, id, false)
	switch {
	case err != nil:
		return nil, err
	case it.id != id:
		return nil, http.ErrNotSupported // 500
	case it.log == "":
		return nil, apiError{http.StatusNotFound, "Snapshot " + it.id + " has no build info"}
	}
	return it, nil
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

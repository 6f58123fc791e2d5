package daytona

import "slices"

// runnerID is the ID of the only runner.
const runnerID = "00000000-0000-4000-8000-000000000002"

// reason is an error reason that the server, not the engine, gives a snapshot.
type reason string

func (r reason) Error() string { return string(r) }

// errConflict is the answer of the database to a second unfinished job for a resource of a runner. It becomes the
// error reason of the snapshot (apps/api/src/sandbox/entities/job.entity.ts, errors/job-conflict.error.ts).
const errConflict = reason("An operation is already in progress for this resource")

// startJob starts a job of the runner for a resource: an image name or a ref.
func (s *Server) startJob(resource string) (finish func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[resource] {
		return nil, errConflict
	}
	s.jobs[resource] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !slices.Contains(s.abandoned, resource) {
			delete(s.jobs, resource)
		}
	}, nil
}

// abandonJob keeps a job unfinished until the next Tick.
func (s *Server) abandonJob(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abandoned = append(s.abandoned, resource)
}

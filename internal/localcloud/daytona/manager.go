package daytona

import (
	"fmt"
	"slices"
	"time"
)

// This file follows daytonaio/daytona v0.190.0, apps/api/src/sandbox/managers/snapshot.manager.ts, with a runner of
// API version 2 (apps/api/src/sandbox/runner-adapter/runnerAdapter.v2.ts and services/job-state-handler.service.ts).

// sync starts the handler of the state pending. The caller must hold s.mu.
func (s *Server) sync(it *snapshot) {
	if s.ctx.Err() != nil || it.fault == Stuck { // no runner is available
		return
	}
	it.hasHandler = true
	s.running.Go(func() {
		err := s.handlePending(it)
		s.mu.Lock()
		it.hasHandler = false
		if err != nil {
			s.fail(it, err)
		} else {
			s.setState(it, "pulling")
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
		if err := s.handlePulling(it); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.fail(it, err)
		}
	})
}

// fail overwrites the state of a snapshot with error. The caller must hold s.mu.
func (s *Server) fail(it *snapshot, err error) {
	if !it.isDeleted && s.ctx.Err() == nil {
		it.reason = err.Error()
		s.setState(it, "error")
	}
}

// handlePending resolves the image of a snapshot, unless it has been active before (handleSnapshotStatePending). After
// it, the snapshot is pulling. It overwrites the state that a request may have set: the server pulls a snapshot that
// was deleted or deactivated while it was pending. On the server, this depends on whether the job that deletes
// snapshots runs first; here, it never does.
func (s *Server) handlePending(it *snapshot) error {
	if err := s.hold(it, "pending", "removing", "inactive"); err != nil {
		return err
	}
	s.mu.Lock()
	it.runner = runnerID
	isResolved := it.ref != ""
	s.mu.Unlock()
	if isResolved {
		return nil
	}
	found, err := s.inspect(it)
	if err != nil {
		return err
	}
	if err := s.hold(it, "removing", "inactive"); err != nil {
		return err
	}
	return s.resolve(it, found)
}

// resolve sets the ref and the size of a snapshot (processSnapshotDigest). An image that is too large gets no ref.
func (s *Server) resolve(it *snapshot, found inspection) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.size = found.sizeGB
	if most := s.maxSnapshotGB(it.organization); found.sizeGB > most {
		return reason(fmt.Sprintf("Snapshot size (%.2fGB) exceeds maximum allowed size of %vGB", found.sizeGB, most))
	}
	it.ref = s.internal(found.digest.Hex)
	return nil
}

func (s *Server) maxSnapshotGB(organization string) float64 {
	for _, o := range s.options.Organizations {
		if o.ID == organization && o.MaxSnapshotGB > 0 {
			return o.MaxSnapshotGB
		}
	}
	return 20
}

// handlePulling pulls the image on the runner and makes the snapshot active (handleCheckInitialRunnerSnapshot and
// handlePullSnapshotJobCompletion). The entry point of the image is not copied to the snapshot. With a runner of API
// version 0, a snapshot can stay pulling for an hour, if another one with the same digest removed the image from the
// runner.
func (s *Server) handlePulling(it *snapshot) error {
	finish, err := s.startJob(it.ref) // also for another image name with the same digest
	if err != nil {
		return err
	}
	defer finish()
	if err := s.hold(it, "pulling"); err != nil || it.fault == StuckPulling {
		return err
	}
	if s.isReady(it) {
		s.changePulling(it, "active", "")
		return nil
	}
	if err := s.pull(it); err != nil {
		s.changePulling(it, "error", err.Error())
		return nil
	}
	if it.fault == UnknownState {
		s.changePulling(it, "snapshotting", "")
		if err := s.hold(it, "snapshotting"); err != nil {
			return err
		}
	}
	// The server deletes the image right after the snapshot is active. Before, a client cannot see the difference,
	// and tests need not wait.
	if s.isIn(it, "pulling", "snapshotting") {
		s.removeArtifact(it.image)
	}
	s.changePulling(it, "active", "")
	if it.fault != FailsAfterActive {
		return nil
	}
	// A check of the state pulling that began before and ends after the change to active.
	if err := s.holdReads(it, 1, "active"); err != nil || !s.isIn(it, "active") {
		return err
	}
	return reason("Timeout processing snapshot on initial runner")
}

// isReady reports whether the runner has the image because of another active snapshot with the same digest. The server
// then keeps the pushed image.
func (s *Server) isReady(it *snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.snapshots, func(other *snapshot) bool {
		return other != it && other.ref == it.ref && other.state == "active"
	})
}

// changePulling changes the state of a snapshot, unless it was removed or deactivated while the runner pulled its
// image.
func (s *Server) changePulling(it *snapshot, state, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if it.isDeleted || it.state != "pulling" && it.state != "snapshotting" {
		return
	}
	s.setState(it, state)
	it.reason = reason
	if state == "active" {
		it.used = s.now()
	}
}

// runCron runs Tick at Options.Cron intervals until the server stops.
func (s *Server) runCron() {
	ticker := time.NewTicker(s.options.Cron)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.Tick()
		case <-s.ctx.Done():
			return
		}
	}
}

// Tick runs the jobs that the server runs every 10 seconds: it deletes the snapshots in the state removing
// (checkSnapshotCleanup) that clients have read ReadsPerState times, and destroys sandboxes. Unless Options.Cron is
// negative, clients that poll cause it, too, so that they can use a fake clock.
func (s *Server) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick()
}

// readsUntilTick is the number of reads of a snapshot in the state removing, after those of ReadsPerState, that cause a
// Tick.
const readsUntilTick = 3

// tickForReader runs the jobs if clients have read a snapshot in the state removing often enough. The caller must hold
// s.mu.
func (s *Server) tickForReader() {
	if s.options.Cron > 0 && slices.ContainsFunc(s.snapshots, func(it *snapshot) bool {
		return it.state == "removing" && !it.hasHandler && it.reads >= s.options.ReadsPerState+readsUntilTick
	}) {
		s.tick()
	}
}

// tick implements Tick. The caller must hold s.mu.
func (s *Server) tick() {
	var removed []*snapshot
	for _, it := range s.snapshots {
		if it.state == "removing" && !it.hasHandler && it.reads >= s.options.ReadsPerState {
			it.isDeleted = true
			it.signal()
			removed = append(removed, it)
		}
	}
	s.snapshots = slices.DeleteFunc(s.snapshots, func(it *snapshot) bool { return it.isDeleted })
	for _, it := range removed {
		s.removeWarmPools(it)
		isUsed := it.ref == "" || slices.ContainsFunc(s.snapshots, func(other *snapshot) bool {
			return other.ref == it.ref && other.state == "active"
		})
		if !isUsed && s.engine != nil && s.ctx.Err() == nil {
			s.running.Go(func() { s.removeImage(it.ref) })
		}
	}
	for _, job := range s.abandoned {
		delete(s.jobs, job)
	}
	s.abandoned = nil
	s.advanceSandboxes()
}

package actions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// createdSnapshot is an active snapshot of a run: the only one, or that of a variant.
type createdSnapshot struct {
	Spec     inputs.SnapshotSpec
	Target   snapshotTarget
	Upload   imageUpload
	Snapshot daytona.Snapshot
	Elapsed  time.Duration // from the start of the run until the snapshot was active
	Verified verification
}

// ensureSnapshots returns an active, verified snapshot for each of spec.Each, with the target of the same index. It
// pushes the image first, because the builder is not needed afterwards, and then creates the snapshots at the same
// time. If one fails, the others are still created and kept, so that the next run can reuse them. With an error, it
// returns what it reached.
func ensureSnapshots(
	ctx context.Context, job job, spec inputs.SnapshotSpec, session snapshotSession, targets []snapshotTarget,
) (created []createdSnapshot, err error) {
	specs := spec.Each()
	uploads, err := uploadImage(ctx, job, specs, session, targets)
	if err != nil {
		for i, upload := range uploads {
			created = append(created, createdSnapshot{Spec: specs[i], Target: targets[i], Upload: upload})
		}
		return created, err
	}
	session.exclusive = &sync.Mutex{}
	created = make([]createdSnapshot, len(specs))
	failures := make([]error, len(specs))
	var group sync.WaitGroup
	for i, spec := range specs {
		group.Go(func() {
			upload, snapshot, err := ensureSnapshot(ctx, job, spec, session, targets[i], uploads[i])
			var verified verification
			elapsed := time.Since(job.Started)
			if err == nil {
				verified, err = verify(ctx, job, spec, targets[i], upload, snapshot)
			}
			created[i], failures[i] = createdSnapshot{spec, targets[i], upload, snapshot, elapsed, verified}, err
		})
	}
	group.Wait()
	return created, joinVariants(created, failures)
}

// joinVariants returns the errors of the variants as one, which also names the snapshots that were created.
func joinVariants(created []createdSnapshot, errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	var failures, notes []error
	var kept []string
	for i, err := range errs {
		c := created[i]
		switch {
		case err == nil && c.Upload.isReused():
			continue
		case err == nil:
			kept = append(kept, c.Snapshot.Name)
			continue
		}
		if left := (*daytona.LeftoverError)(nil); errors.As(err, &left) {
			err = left.Err
			for _, leftover := range left.Leftovers {
				notes = append(notes, errors.New(leftover))
			}
		}
		failures = append(failures, wrapVariant(c.Spec, err))
	}
	if len(failures) == 0 {
		return nil
	}
	if len(kept) > 0 {
		notes = append(notes, fmt.Errorf("active and kept for the next run, which reuses them: %s", strings.Join(kept, ", ")))
	}
	return daytona.WithLeftovers(joinErrors(failures), notes...)
}

// wrapVariant adds the name of the variant to an error, if there is one.
func wrapVariant(spec inputs.SnapshotSpec, err error) error {
	if err == nil || spec.Variant == "" {
		return err
	}
	return fmt.Errorf("variant %s: %w", spec.Variant, err)
}

// variantOutput is an element of the output snapshots.
type variantOutput struct {
	Variant       string  `json:"variant"` // empty without the input variants
	Name          string  `json:"name"`
	ID            string  `json:"id"`
	State         string  `json:"state"`
	SizeGB        float64 `json:"size_gb"`
	Reused        bool    `json:"reused"`
	Verified      string  `json:"verified"`
	CPU           int     `json:"cpu"`
	Memory        int     `json:"memory"`
	Disk          int     `json:"disk"`
	GPU           int     `json:"gpu"`
	SandboxClass  string  `json:"sandbox_class"`
	Region        string  `json:"region"`
	DopplerSecret string  `json:"doppler_secret"`
}

// variantList is the output snapshots.
type variantList []variantOutput

// String returns the list as JSON.
func (l variantList) String() string {
	data, err := json.Marshal(l)
	if err != nil { // not for these types
		return ""
	}
	return string(data)
}

func variantOutputs(created []createdSnapshot) variantList {
	var list variantList
	for _, c := range created {
		s := c.Snapshot
		list = append(list, variantOutput{
			Variant: c.Spec.Variant, Name: s.Name, ID: s.ID, State: string(s.State), SizeGB: s.SizeGB,
			Reused: c.Upload.isReused(), Verified: c.Verified.output(),
			CPU: s.Resources.CPU, Memory: s.Resources.Memory, Disk: s.Resources.Disk, GPU: s.GPU,
			SandboxClass: s.SandboxClass, Region: strings.Join(s.Regions, ","), DopplerSecret: c.Spec.Record.Secret,
		})
	}
	return list
}

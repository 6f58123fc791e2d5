package actions

import (
	"fmt"
	"strings"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// snapshotOutputs returns the outputs of a run. Those about one snapshot are about the first variant.
func snapshotOutputs(created []createdSnapshot, update dopplerUpdate) SnapshotOutputs {
	upload, snapshot, verified := created[0].Upload, created[0].Snapshot, created[0].Verified
	return SnapshotOutputs{
		Snapshots: variantOutputs(created), BuildOutputs: upload.Build, SnapshotName: snapshot.Name, SnapshotID: snapshot.ID,
		SnapshotState: string(snapshot.State), SnapshotSizeGB: snapshot.SizeGB, Reused: upload.isReused(),
		DopplerUpdated: len(update.Written) > 0, Verified: verified.output(),
	}
}

// snapshotSummary returns the Markdown summary of a run.
func snapshotSummary(job job, created []createdSnapshot, update dopplerUpdate, pruned []string) string {
	spec, upload, snapshot := created[0].Spec, created[0].Upload, created[0].Snapshot
	isSingle := len(created) == 1
	t := newTable("Snapshot created")
	switch {
	case !isSingle:
		t = newTable(fmt.Sprintf("%d snapshots of one image", len(created)))
	case upload.isReused():
		t = newTable("Snapshot reused")
	}
	if isSingle {
		t.row("Name", code(snapshot.Name))
	}
	t.row("Digest", code(upload.Wanted.digest.String()))
	t.row("State", code(string(snapshot.State)))
	if isSingle {
		t.row("Verified", created[0].Verified.describe())
		t.row("Sandbox", sandboxSize(snapshot))
		t.row("Sandbox class", code(spec.SandboxClass))
	}
	t.row("Starts", code(strings.Join(upload.Wanted.entrypoint, " ")))
	if snapshot.SizeGB > 0 {
		t.row("Size", fmt.Sprintf("%.2f GB", snapshot.SizeGB))
	}
	switch {
	case !spec.UpdateDoppler:
		t.row("Doppler", "not updated (update_doppler: false)")
	case len(update.Written)+len(update.Unchanged) == 0:
		t.row("Doppler", "not updated (no Doppler token)")
	}
	addDopplerRows(t, update)
	t.row("Deleted", code(strings.Join(pruned, ", ")))
	t.row("Start a sandbox", code("daytona create --snapshot "+snapshot.Name))
	t.row("Time", elapsed(job))
	text := t.String()
	if !isSingle {
		text += variantTable(created)
	}
	if upload.Summary != "" {
		text += "\n" + upload.Summary
	}
	return text
}

// addDopplerRows adds the configs with the name to a summary.
func addDopplerRows(t *table, update dopplerUpdate) {
	if len(update.Written) > 0 {
		t.row("Doppler", fmt.Sprintf("%s set in %s", code(update.Secret), code(strings.Join(update.Written, ", "))))
	}
	if len(update.Unchanged) > 0 {
		t.row("Doppler", "unchanged in "+code(strings.Join(update.Unchanged, ", ")))
	}
}

// sandboxSize describes the resources of a snapshot's sandboxes.
func sandboxSize(s daytona.Snapshot) string {
	text := fmt.Sprintf("%d cores, %d GB memory, %d GB disk", s.Resources.CPU, s.Resources.Memory, s.Resources.Disk)
	if s.GPU > 0 {
		text += fmt.Sprintf(", %d GPU", s.GPU)
	}
	return text
}

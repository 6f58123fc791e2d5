package actions

import (
	"fmt"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// snapshotOutputs returns the outputs of a snapshot.
func snapshotOutputs(
	upload imageUpload, snapshot daytona.Snapshot, verified verification, update dopplerUpdate,
) SnapshotOutputs {
	return SnapshotOutputs{
		BuildOutputs: upload.Build, SnapshotName: snapshot.Name, SnapshotID: snapshot.ID,
		SnapshotState: string(snapshot.State), SnapshotSizeGB: snapshot.SizeGB, Reused: upload.isReused(),
		DopplerUpdated: len(update.Written) > 0, Verified: verified.output(),
	}
}

// snapshotSummary returns the Markdown summary of a snapshot.
func snapshotSummary(
	job job, spec inputs.SnapshotSpec, upload imageUpload, snapshot daytona.Snapshot, verified verification,
	update dopplerUpdate, pruned []string,
) string {
	t := newTable("Snapshot created")
	if upload.isReused() {
		t = newTable("Snapshot reused")
	}
	t.row("Name", code(snapshot.Name))
	t.row("Digest", code(upload.Wanted.digest.String()))
	t.row("State", code(string(snapshot.State)))
	if verified.How != "" {
		t.row("Verified", fmt.Sprintf("%s, in %s", verified.How, verified.Boot.Round(time.Second/10)))
	} else {
		t.row("Verified", "no: "+verified.Reason)
	}
	t.row("Sandbox", sandboxSize(snapshot))
	t.row("Sandbox class", code(spec.SandboxClass))
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
	if len(update.Written) > 0 {
		t.row("Doppler", fmt.Sprintf("%s set in %s", code(update.Secret), code(strings.Join(update.Written, ", "))))
	}
	if len(update.Unchanged) > 0 {
		t.row("Doppler", "unchanged in "+code(strings.Join(update.Unchanged, ", ")))
	}
	t.row("Deleted", code(strings.Join(pruned, ", ")))
	t.row("Start a sandbox", code("daytona create --snapshot "+snapshot.Name))
	t.row("Time", elapsed(job))
	if upload.Summary != "" {
		return t.String() + "\n" + upload.Summary
	}
	return t.String()
}

// sandboxSize describes the resources of a snapshot's sandboxes.
func sandboxSize(s daytona.Snapshot) string {
	text := fmt.Sprintf("%d cores, %d GB memory, %d GB disk", s.Resources.CPU, s.Resources.Memory, s.Resources.Disk)
	if s.GPU > 0 {
		text += fmt.Sprintf(", %d GPU", s.GPU)
	}
	return text
}

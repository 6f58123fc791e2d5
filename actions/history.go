package actions

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// namingRecord describes when and why a Doppler config named a snapshot. The last records are in another secret of the
// config: they then survive the runner, are written together with the name or not at all, and can be read with every
// token that can read the name. Doppler's own log of a config shows the values of all secrets that changed, needs a
// request for each entry, and Doppler does not document that a service token can read it.
type namingRecord struct {
	Name     string    `json:"name"`
	Digest   string    `json:"digest,omitempty"` // of the image: sha256:…
	Commit   string    `json:"commit,omitempty"` // full SHA, with -dirty if the workspace had changes
	Image    string    `json:"image,omitempty"`  // reference by digest, of the image or of its index
	Time     time.Time `json:"time,omitzero"`    // zero for a name that another program wrote
	By       string    `json:"by,omitempty"`     // user
	Action   string    `json:"action,omitempty"`
	Replaced string    `json:"replaced,omitempty"` // the name that a rollback replaced
	Verified string    `json:"verified,omitempty"` // how the snapshot was verified; empty if it was not
}

// Actions that name a snapshot.
const (
	actionSnapshot = "snapshot"
	actionPromote  = "promote"
	actionRollback = "rollback"
)

// Limits of a history. Some services that Doppler synchronizes secrets to limit all of them together to a few KB.
const (
	maxRecords      = 10
	maxHistoryBytes = 2 << 10
)

var errNotHistory = errors.New("is not a history of snapshot names")

// parseHistory parses the secret with the records, the oldest first.
func parseHistory(text string) ([]namingRecord, error) {
	if text == "" {
		return nil, nil
	}
	var records []namingRecord
	if json.Unmarshal([]byte(text), &records) != nil {
		return nil, errNotHistory
	}
	for _, r := range records {
		if daytona.CheckName(r.Name) != nil {
			return nil, errNotHistory
		}
	}
	return records, nil
}

// addToHistory returns a history with the record. previous is the name that the record replaces; another program may
// have written it. The oldest records are dropped if there are too many.
func addToHistory(text, previous string, record namingRecord) (string, error) {
	records, err := parseHistory(text)
	if err != nil {
		return "", err
	}
	last := len(records) - 1
	switch {
	case previous == record.Name && (last < 0 || records[last].Name != record.Name || record.Verified == ""):
		return text, nil
	case previous == record.Name:
		records[last].Verified = record.Verified
	default:
		if (last < 0 || records[last].Name != previous) && daytona.CheckName(previous) == nil {
			records = append(records, namingRecord{Name: previous})
		}
		records = append(records, record)
	}
	for {
		data, err := json.Marshal(records)
		if err != nil || len(records) == 1 || len(records) <= maxRecords && len(data) <= maxHistoryBytes {
			return string(data), err
		}
		records = records[1:]
	}
}

// rollbackTarget returns the last record of another name than current. It skips names from which the config was rolled
// back since they were named, so that a second rollback goes further back.
func rollbackTarget(records []namingRecord, current string) (target namingRecord, found bool) {
	rejected := map[string]bool{current: true}
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; !rejected[r.Name] {
			return r, true
		} else if r.Action == actionRollback {
			rejected[r.Replaced] = true
		}
	}
	return namingRecord{}, false
}

// recordOf returns the last record of a name.
func recordOf(records []namingRecord, name string) (record namingRecord, found bool) {
	for _, r := range records {
		if r.Name == name {
			record, found = r, true
		}
	}
	return record, found
}

var commitInName = regexp.MustCompile(`-\d{8}-\d{6}-([0-9a-f]{7})(?:-dirty)?-[a-zA-Z0-9_.-]+$`)

// commitOf returns the commit of a snapshot: that of its record, or the abbreviated one in a generated name, in which
// the digest takes the place of an unknown commit.
func commitOf(s daytona.Snapshot, record namingRecord) string {
	if record.Commit != "" {
		return record.Commit
	}
	match := commitInName.FindStringSubmatch(s.Name)
	if match == nil || len(s.Digest) > len("sha256:") && s.Digest[len("sha256:"):][:7] == match[1] {
		return ""
	}
	return match[1]
}

// recordOfSnapshot returns the record of a snapshot that this run has created or reused.
func recordOfSnapshot(ctx context.Context, job job, created createdSnapshot) namingRecord {
	upload := created.Upload
	record := newRecord(ctx, job, actionSnapshot, created.Snapshot)
	record.Verified = string(created.Verified.How)
	record.Digest, record.Commit = upload.Wanted.digest.String(), upload.Build.GitSHA
	if upload.Built.Source.Tree.Dirty {
		record.Commit += "-dirty"
	}
	if strings.Contains(upload.Build.ImageRef, "@sha256:") {
		record.Image = upload.Build.ImageRef
	}
	return record
}

// newRecord returns a record without what is known only of a build.
func newRecord(ctx context.Context, job job, action string, snapshot daytona.Snapshot) namingRecord {
	by := notInName.ReplaceAllString(personOf(ctx, job), "-")
	return namingRecord{
		Name: snapshot.Name, Digest: snapshot.Digest, Time: time.Now().UTC().Truncate(time.Second),
		By: by[:min(len(by), maxPersonLength)], Action: action,
	}
}

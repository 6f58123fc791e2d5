package actions

import (
	"cmp"
	"context"
	"os/user"
	"regexp"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/source"
)

// Maximum lengths in a generated name, in bytes.
const (
	maxNameLength   = 128 // short enough for tools to show in full
	maxPersonLength = 39  // the maximum of a GitHub login
)

// generateName returns a snapshot name for a run without the input name. It contains the time of the run, so that
// another image of the same commit gets another name. A snapshot of the same image is found by its digest instead. Each
// attempt gets another name, because another run may have taken the name.
func generateName(ctx context.Context, job job, spec inputs.SnapshotSpec, upload imageUpload, retries int) string {
	sha := cmp.Or(upload.Build.GitSHA, upload.Built.Source.Tree.SHA, upload.Wanted.digest.Hex)
	dirty := upload.Built.Source.Tree.Dirty
	at := job.Started.Add(time.Duration(retries) * time.Second)
	return snapshotName(spec.NamePrefix, at, sha, dirty, personOf(ctx, job))
}

// personOf returns the name of the user who creates the snapshot.
func personOf(ctx context.Context, job job) string {
	name := cmp.Or(job.Getenv("ITERATE_USER"), job.Getenv("GITHUB_ACTOR"), source.UserName(ctx, job.Dir))
	if name != "" {
		return name
	}
	if login, err := user.Current(); err == nil {
		return login.Username
	}
	return cmp.Or(job.Getenv("USER"), "unknown")
}

var notInName = regexp.MustCompile(`[^a-zA-Z0-9_.-]+`)

// snapshotName returns PREFIX-YYYYMMDD-HHMMSS-SHA[-dirty]-PERSON. The time is in UTC, and characters that Daytona
// rejects are replaced.
func snapshotName(prefix string, at time.Time, sha string, dirty bool, person string) string {
	short := sha[:min(7, len(sha))]
	if dirty {
		short += "-dirty"
	}
	middle := at.UTC().Format("-20060102-150405-") + short + "-"
	person = cmp.Or(strings.Trim(notInName.ReplaceAllString(person, "-"), "-."), "unknown")
	person = person[:min(len(person), maxPersonLength)]
	prefix = prefix[:min(len(prefix), maxNameLength-len(middle)-len(person))]
	return prefix + middle + person
}

// isGeneratedName reports whether snapshotName produced a name for this prefix.
func isGeneratedName(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && nameSuffix.MatchString(rest)
}

// prefixOf returns the prefix of a generated name. It returns other names unchanged.
func prefixOf(name string) string {
	for i := range name {
		if nameSuffix.MatchString(name[i:]) {
			return name[:i]
		}
	}
	return name
}

// nameSuffix matches what snapshotName adds to the prefix. The prefix of a long name is cut.
var nameSuffix = regexp.MustCompile(`^-\d{8}-\d{6}-[0-9a-f]{1,7}(-dirty)?-[a-zA-Z0-9_.-]+$`)

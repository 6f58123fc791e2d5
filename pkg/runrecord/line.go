package runrecord

import (
	"fmt"
	"strings"

	"github.com/org/sandbox-actions/pkg/humanize"
)

// Line summarizes the result of a run in one line, for the end of a log:
//
//	Built sandbox:ci sha256:ab12cd34ef56…, 467 MB (+1.2 MB), 12 of 14 steps cached, 8.4 s
//	Tested sandbox:ci: 40 passed, 1 skipped, 12 s
//	Snapshot sandbox-1 is active, verified (suite), named in app.dev, 41 s
//
// It is "" for a run that failed, except because of its tests: its error says what it reached.
func (r *Record) Line() string {
	var parts []string
	switch {
	case r.Tests != nil && len(r.Snapshots) == 0:
		parts = r.testsLine()
	case r.ExitCode != 0:
		return ""
	case len(r.Snapshots) > 0:
		parts = append(r.snapshotsLine(), r.Doppler.line()...)
	case r.Image != nil:
		parts = r.imageLine()
	default:
		return ""
	}
	return strings.Join(append(parts, humanize.Seconds(r.Seconds)), ", ")
}

func (r *Record) testsLine() []string {
	t := r.Tests
	if t.Total == 0 { // only a command
		return []string{"Tested " + r.imageName()}
	}
	parts := []string{fmt.Sprintf("%d passed", t.Passed)}
	for _, count := range []struct {
		n    int
		name string
	}{{t.Failed, "failed"}, {t.Flaky, "flaky"}, {t.Skipped, "skipped"}} {
		if count.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count.n, count.name))
		}
	}
	parts[0] = "Tested " + r.imageName() + ": " + parts[0]
	return parts
}

func (r *Record) snapshotsLine() []string {
	first := r.Snapshots[0]
	if len(r.Snapshots) > 1 {
		var names []string
		for _, s := range r.Snapshots {
			names = append(names, s.Name)
		}
		return []string{fmt.Sprintf("%d snapshots are %s: %s", len(names), first.State, strings.Join(names, ", "))}
	}
	parts := []string{fmt.Sprintf("Snapshot %s is %s", first.Name, first.State)}
	if first.Reused {
		parts = append(parts, "reused")
	}
	if first.Verified != "" && first.Verified != "none" {
		parts = append(parts, fmt.Sprintf("verified (%s)", first.Verified))
	}
	return parts
}

// line says where the snapshots are named. d may be nil.
func (d *Doppler) line() []string {
	if d == nil || len(d.Written)+len(d.Unchanged) == 0 {
		return nil
	}
	return []string{"named in " + strings.Join(append(d.Written[:len(d.Written):len(d.Written)], d.Unchanged...), ", ")}
}

func (r *Record) imageLine() []string {
	i := r.Image
	verb := "Built"
	if i.Existing {
		verb = "Opened"
	}
	parts := []string{fmt.Sprintf("%s %s %s", verb, r.imageName(), shortDigest(i.Digest))}
	for _, p := range i.Platforms {
		size := humanize.Size(p.Size) + r.sizeChange(p.Platform)
		if len(i.Platforms) > 1 {
			size = p.Platform + " " + size
		}
		parts = append(parts, size)
	}
	if i.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d steps cached", i.Cached, i.Total))
	}
	return parts
}

// imageName returns the name of the image for people: in the engine, else in a registry.
func (r *Record) imageName() string {
	if r.Image == nil {
		return "the image"
	}
	for _, names := range [][]string{r.Image.Names, r.Image.Pushed, {r.Image.Ref}} {
		if len(names) > 0 && names[0] != "" {
			return names[0]
		}
	}
	return "an image"
}

// sizeChange returns the difference to the size in the previous record, such as " (+1.2 MB)".
func (r *Record) sizeChange(platform string) string {
	if r.Changes != nil {
		for _, p := range r.Changes.Platforms {
			if p.Platform == platform {
				return " (" + humanize.SizeChange(p.Size) + ")"
			}
		}
	}
	return ""
}

// shortDigest returns a shortened digest with an ellipsis.
func shortDigest(digest string) string {
	if short := humanize.Digest(digest); short != digest {
		return short + "…"
	}
	return digest
}

// Package humanize formats sizes, durations, transfers and digests for logs, summaries and terminals. All of them use
// it, so that a value looks the same everywhere.
package humanize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size formats a number of bytes in decimal units with two or three digits: 1.2 MB, 467 MB.
func Size(bytes int64) string {
	value := float64(bytes)
	for _, unit := range []string{"B", "kB", "MB", "GB", "TB", "PB"} {
		if math.Abs(value) < 999.5 {
			return digits(value, unit != "B") + " " + unit
		}
		value /= 1000
	}
	return digits(value, false) + " EB"
}

// SizeChange formats a difference between two sizes with its sign: +1.2 MB, -467 MB, or ±0 B.
func SizeChange(bytes int64) string {
	switch {
	case bytes == 0:
		return "±0 B"
	case bytes > 0:
		return "+" + Size(bytes)
	}
	return Size(bytes)
}

// Duration formats a duration: 0.4 s, 41 s, 2 min 5 s, 1 h 12 min.
func Duration(d time.Duration) string {
	seconds := int64(d.Round(time.Second).Seconds())
	switch {
	case d < 59500*time.Millisecond:
		return digits(d.Seconds(), true) + " s"
	case seconds < 60*60:
		return joinUnits(seconds/60, "min", seconds%60, "s")
	}
	minutes := int64(d.Round(time.Minute).Minutes())
	return joinUnits(minutes/60, "h", minutes%60, "min")
}

// Seconds is [Duration] for a number of seconds, as in a record.
func Seconds(seconds float64) string { return Duration(time.Duration(seconds * float64(time.Second))) }

// Digest shortens a digest to as many digits as Docker shows: sha256:3f1c9a0be21d.
func Digest(digest string) string {
	algorithm, hash, ok := strings.Cut(digest, ":")
	if !ok {
		return digest
	}
	return algorithm + ":" + hash[:min(len(hash), 12)]
}

// Commit shortens the SHA of a commit to as many digits as GitHub shows.
func Commit(sha string) string { return sha[:min(len(sha), 7)] }

// digits formats a value with one decimal if it is below 10, and without decimals otherwise.
func digits(value float64, decimals bool) string {
	if decimals && math.Abs(value) < 9.95 {
		return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0")
	}
	return strconv.FormatFloat(value, 'f', 0, 64)
}

func joinUnits(large int64, largeUnit string, small int64, smallUnit string) string {
	if small == 0 {
		return fmt.Sprintf("%d %s", large, largeUnit)
	}
	return fmt.Sprintf("%d %s %d %s", large, largeUnit, small, smallUnit)
}

// Transfer is the progress of a transfer, such as a load or a push.
type Transfer struct {
	Layer   string        // digest of a layer that is being sent; "" if unknown
	Number  int           // of the layer that will be complete next, from 1; 0 if unknown
	Layers  int           // number of the layers to send; 0 if unknown
	Done    int64         // bytes of all layers that were sent so far
	Total   int64         // bytes of all layers to send; 0 if unknown
	Elapsed time.Duration // since the start of the transfer
}

// minRateTime is how long a transfer must have run before its rate means something.
const minRateTime = 100 * time.Millisecond

// String describes the progress on one line: 3 of 5 layers: 120 MB of 467 MB, 58 MB/s, 6 s left. It omits what is
// unknown.
func (t Transfer) String() string {
	var text string
	switch {
	case t.Number > 0 && t.Layers > 0:
		text = fmt.Sprintf("%d of %d layers: ", t.Number, t.Layers)
	case t.Layers == 1:
		text = "1 layer: "
	case t.Layers > 1:
		text = fmt.Sprintf("%d layers: ", t.Layers)
	}
	text += Size(t.Done)
	if t.Done < t.Total {
		text += " of " + Size(t.Total)
	}
	rate := t.rate()
	if rate == 0 {
		return text
	}
	text += ", " + Size(int64(rate)) + "/s"
	if t.Done < t.Total {
		text += ", " + Duration(time.Duration(float64(t.Total-t.Done)/rate*float64(time.Second))) + " left"
	}
	return text
}

// rate returns the bytes per second, or 0 if they are unknown.
func (t Transfer) rate() float64 {
	if t.Done == 0 || t.Elapsed < minRateTime {
		return 0
	}
	return float64(t.Done) / t.Elapsed.Seconds()
}

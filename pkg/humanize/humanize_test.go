package humanize

import (
	"math"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 1000: "1 kB", 1234: "1.2 kB", 9_949: "9.9 kB", 9_950: "10 kB",
		58_400_000: "58 MB", 467_123_456: "467 MB", 999_499: "999 kB", 999_500: "1 MB", 1_500_000_000: "1.5 GB",
		-1_200_000: "-1.2 MB", math.MaxInt64: "9 EB",
	} {
		if got := Size(bytes); got != want {
			t.Errorf("%d: got %q, want %q", bytes, got, want)
		}
	}
	for bytes, want := range map[int64]string{0: "±0 B", 1_200_000: "+1.2 MB", -300: "-300 B"} {
		if got := SizeChange(bytes); got != want {
			t.Errorf("change of %d: got %q, want %q", bytes, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for duration, want := range map[time.Duration]string{
		0: "0 s", 40 * time.Millisecond: "0 s", 50 * time.Millisecond: "0.1 s", 8400 * time.Millisecond: "8.4 s",
		9949 * time.Millisecond: "9.9 s", 9950 * time.Millisecond: "10 s", 41 * time.Second: "41 s",
		59499 * time.Millisecond: "59 s", 59500 * time.Millisecond: "1 min", 125 * time.Second: "2 min 5 s",
		3599400 * time.Millisecond: "59 min 59 s", time.Hour: "1 h", 72*time.Minute + 20*time.Second: "1 h 12 min",
		3599500 * time.Millisecond: "1 h",
	} {
		if got := Duration(duration); got != want {
			t.Errorf("%s: got %q, want %q", duration, got, want)
		}
	}
	if got := Seconds(8.4); got != "8.4 s" {
		t.Errorf("got %q", got)
	}
}

func TestTransfer(t *testing.T) {
	for _, test := range []struct {
		name     string
		transfer Transfer
		want     string
	}{
		{"nothing yet", Transfer{}, "0 B"},
		{
			"running",
			Transfer{Number: 3, Layers: 5, Done: 120e6, Total: 467e6, Elapsed: 2 * time.Second},
			"3 of 5 layers: 120 MB of 467 MB, 60 MB/s, 5.8 s left",
		},
		{"unknown layers", Transfer{Done: 10e6, Total: 20e6, Elapsed: time.Second}, "10 MB of 20 MB, 10 MB/s, 1 s left"},
		{"unknown total", Transfer{Done: 10e6, Elapsed: time.Second}, "10 MB, 10 MB/s"},
		{"done", Transfer{Layers: 5, Done: 467e6, Total: 467e6, Elapsed: 8 * time.Second}, "5 layers: 467 MB, 58 MB/s"},
		{"too short for a rate", Transfer{Layers: 1, Done: 10, Total: 10, Elapsed: time.Millisecond}, "1 layer: 10 B"},
		{"stalled", Transfer{Number: 1, Layers: 1, Total: 10, Elapsed: time.Minute}, "1 of 1 layers: 0 B of 10 B"},
	} {
		if got := test.transfer.String(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestDigest(t *testing.T) {
	for digest, want := range map[string]string{
		"": "", "sha256:": "sha256:", "sha256:3f1c9a0be21d": "sha256:3f1c9a0be21d", "no digest": "no digest",
		"sha256:3f1c9a0be21d5c6b7a8f": "sha256:3f1c9a0be21d",
	} {
		if got := Digest(digest); got != want {
			t.Errorf("%q: got %q, want %q", digest, got, want)
		}
	}
	for sha, want := range map[string]string{"": "", "1a2b": "1a2b", "1a2b3c4d5e6f": "1a2b3c4"} {
		if got := Commit(sha); got != want {
			t.Errorf("%q: got %q, want %q", sha, got, want)
		}
	}
}

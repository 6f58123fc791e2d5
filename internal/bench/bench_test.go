package bench

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	full  = flag.Bool("full", false, "run all cases and write the results, instead of one small case")
	pairs = flag.Int("pairs", 0, "number of measurements of each side; default: 5, and one of a cold build")
	large = flag.Bool("large", false, "also measure the growth up to a context of 4 GB and an image of 5 GB")
)

// Run alternates the sides, and a row has the medians, the ratio of the medians, and the range of the pairs' ratios.
func TestRun(t *testing.T) {
	var order string
	ours, peer := []float64{1, 5, 2}, []float64{10, 10, 4}
	next := func(side string, values *[]float64) func(*testing.T) []Usage {
		return func(*testing.T) []Usage {
			order += side
			v := (*values)[0]
			*values = (*values)[1:]
			return []Usage{{Value: v, Memory: int64(v), Moved: int64(v)}}
		}
	}
	rows := Case{
		Goals: []Goal{{"a", 0.1}}, Pairs: 3, Prepare: func(*testing.T) { order += "-" },
		Ours: next("A", &ours), Peer: next("B", &peer),
	}.Run(t)
	want := Row{Name: "a", Ours: 2, Peer: 10, Ratio: 0.2, Goal: 0.1, Min: 0.1, Max: 0.5, Memory: 5, Moved: 2}
	if len(rows) != 1 || rows[0] != want || order != "-ABABAB" || rows[0].Met() {
		t.Errorf("got %+v in order %s, want %+v", rows, order, want)
	}
}

// results.json has the documented fields, also when it is read and written again.
func TestResultsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	old, fresh := []Row{{Name: "removed"}, {Name: "b"}, {Name: "a"}}, []Row{{Name: "c"}, {Name: "a", Ours: 2}}
	rows := Merge([]string{"a", "b", "c", "not run"}, func(r Row) string { return r.Name }, fresh, old)
	if err := Write(path, Results{Rows: rows, Machine: "m"}); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows    []map[string]any
		Machine string
	}
	if err := Read(path, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 3 || got.Machine != "m" {
		t.Fatalf("got %+v", got)
	}
	want := []string{"goal", "max", "memory", "min", "moved", "name", "ours", "peer", "ratio"}
	if keys := slices.Sorted(maps.Keys(got.Rows[0])); !slices.Equal(keys, want) || got.Rows[0]["ours"] != 2.0 {
		t.Errorf("got %v with the keys %q, want %q", got.Rows[0], keys, want)
	}
}

func TestShape(t *testing.T) {
	for _, test := range []struct {
		values [3]float64 // of the sizes 1, 10 and 100
		want   string
	}{
		{[3]float64{5, 5, 6}, "flat"},
		{[3]float64{5, 14, 104}, "linear"},
		{[3]float64{1, 10, 140}, "linear"},
		{[3]float64{1, 100, 10000}, "**steeper"},
	} {
		points := []Point{
			{Size: 1, Time: test.values[0]},
			{Size: 10, Time: test.values[1]},
			{Size: 100, Time: test.values[2]},
		}
		if got := Shape(points, Measures()[0].Of); !strings.HasPrefix(got, test.want) {
			t.Errorf("%v: %s, want %s", test.values, got, test.want)
		}
	}
}

// Paths of the results and their page.
const (
	resultsFile = "../../bench/results.json"
	growthFile  = "../../bench/growth.json"
	callsFile   = "../../bench/calls.json"
	pageFile    = "../../docs/benchmarks.md"
)

// docs/benchmarks.md is generated from the results. With -full, the test generates it.
func TestPage(t *testing.T) {
	if *full {
		writePage(t)
	}
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != readPage(t) {
		t.Error("docs/benchmarks.md differs from bench/*.json: run `make bench ARGS='-run Page'`")
	}
	missed, err := Page(Results{Rows: []Row{{Name: "slow", Ratio: 2, Goal: 1}, {Name: "fast", Goal: 1}}}, Growth{}, nil)
	if err != nil || !strings.Contains(missed, "\n| slow | not known yet |\n\n") || strings.Contains(missed, "\n| fast") {
		t.Errorf("the page does not list the row that misses its goal: %v\n%s", err, missed)
	}
}

// readPage returns the page for the results in the checkout.
func readPage(t *testing.T) string {
	t.Helper()
	var results Results
	var growth Growth
	if err := Read(resultsFile, &results); err != nil {
		t.Fatal(err)
	}
	if err := Read(growthFile, &growth); err != nil {
		t.Fatal(err)
	}
	var calls []Calls
	if err := Read(callsFile, &calls); err != nil {
		t.Fatal(err)
	}
	page, err := Page(results, growth, calls)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// writePage writes the page for the results in the checkout.
func writePage(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(pageFile, []byte(readPage(t)), 0o644); err != nil {
		t.Fatal(err)
	}
}

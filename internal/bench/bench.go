// Package bench compares the programs with other programs that do the same work on the same machine, and measures how
// time, memory and calls grow with the input.
//
//	make bench                              # all comparisons: bench/results.json and docs/benchmarks.md
//	make bench ARGS='-run Peers/cached'     # some of them; the other rows remain
//	make growth                             # bench/growth.json and docs/benchmarks.md
//	make bench ARGS='-run Small/calls'      # bench/calls.json and docs/benchmarks.md
//
// Cases and curves are tests, because only tests may import the local cloud. `make test` runs two small cases, without
// a limit for their time, and checks the number of requests.
package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"slices"
	"testing"
)

// Usage is what one side used to do the work of a row.
type Usage struct {
	Value  float64 // seconds, unless the row's name has another unit
	Memory int64   // largest resident set of a process, in bytes
	Moved  int64   // bytes that the processes read and wrote: files, pipes and sockets
}

// Plus returns the usage of two commands that run one after the other.
func (u Usage) Plus(other Usage) Usage {
	return Usage{u.Value + other.Value, max(u.Memory, other.Memory), u.Moved + other.Moved}
}

// Goal is a row that a case measures. Ratio is the largest ratio that meets the goal; 0 means no goal.
type Goal struct {
	Name  string
	Ratio float64
}

// Case compares our programs with a peer.
type Case struct {
	Goals []Goal
	Pairs int // default: 5
	// Prepare runs once before the first pair.
	Prepare func(*testing.T)
	// Ours and Peer do the work once. They return a usage for each goal.
	Ours, Peer func(*testing.T) []Usage
}

// defaultPairs is the number of measurements of each side.
const defaultPairs = 5

// Run measures both sides alternately, so that a change of the machine's speed affects both.
func (c Case) Run(t *testing.T) []Row {
	if c.Prepare != nil {
		c.Prepare(t)
	}
	ours, peer := make([][]Usage, len(c.Goals)), make([][]Usage, len(c.Goals))
	for range cmp.Or(c.Pairs, defaultPairs) {
		for row, usage := range c.Ours(t) {
			ours[row] = append(ours[row], usage)
		}
		for row, usage := range c.Peer(t) {
			peer[row] = append(peer[row], usage)
		}
	}
	rows := make([]Row, 0, len(c.Goals))
	for i, goal := range c.Goals {
		rows = append(rows, newRow(goal, ours[i], peer[i]))
	}
	return rows
}

// Row is the result of a comparison.
type Row struct {
	Name string `json:"name"`
	// Ours and Peer are medians, in seconds unless the name has another unit.
	Ours float64 `json:"ours"`
	Peer float64 `json:"peer"`
	// Ratio is Ours / Peer. Goal is its largest accepted value, or 0. Min and Max are the smallest and the
	// largest ratio of a pair.
	Ratio float64 `json:"ratio"`
	Goal  float64 `json:"goal"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	// Memory is the largest resident set of our programs and Moved the median of the bytes that they read and wrote.
	Memory int64 `json:"memory"`
	Moved  int64 `json:"moved"`
}

// Met reports whether the row meets its goal.
func (r Row) Met() bool { return r.Goal == 0 || r.Ratio <= r.Goal }

// newRow summarizes the pairs of measurements.
func newRow(goal Goal, ours, peer []Usage) Row {
	row := Row{Name: goal.Name, Goal: goal.Ratio}
	var ourValues, peerValues, moved, ratios []float64
	for i, usage := range ours {
		ourValues, peerValues = append(ourValues, usage.Value), append(peerValues, peer[i].Value)
		moved = append(moved, float64(usage.Moved))
		ratios = append(ratios, usage.Value/peer[i].Value)
		row.Memory = max(row.Memory, usage.Memory)
	}
	row.Ours, row.Peer = round(median(ourValues)), round(median(peerValues))
	row.Ratio, row.Min, row.Max = round(row.Ours/row.Peer), round(slices.Min(ratios)), round(slices.Max(ratios))
	row.Moved = int64(median(moved))
	return row
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// round keeps four decimals.
func round(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// Results is the content of bench/results.json.
type Results struct {
	Rows    []Row  `json:"rows"`
	Machine string `json:"machine"`
}

// Growth is the content of bench/growth.json.
type Growth struct {
	Curves  []Curve `json:"curves"`
	Machine string  `json:"machine"`
}

// Calls is an element of bench/calls.json: the number of requests to each service in a run. Repeated requests for a
// machine or for a snapshot count once.
type Calls struct {
	Flow    string `json:"flow"`
	Depot   int    `json:"depot"`
	GitHub  int    `json:"github"`
	Daytona int    `json:"daytona"`
	Doppler int    `json:"doppler"`
}

// Merge returns the elements with these names, in this order: from fresh or else from old. It leaves out names that
// neither has.
func Merge[T any](names []string, name func(T) string, fresh, old []T) (merged []T) {
	all := slices.Concat(fresh, old)
	for _, wanted := range names {
		if i := slices.IndexFunc(all, func(element T) bool { return name(element) == wanted }); i >= 0 {
			merged = append(merged, all[i])
		}
	}
	return merged
}

// Read reads a JSON file into value. It leaves value unchanged if the file does not exist.
func Read(path string, value any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, value)
}

// Write writes a value as indented JSON.
func Write(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

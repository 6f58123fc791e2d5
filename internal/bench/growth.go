package bench

import "fmt"

// Curve is how a run grows with the size of its input.
type Curve struct {
	Name   string  `json:"name"`
	Size   string  `json:"size"` // what the sizes count
	Points []Point `json:"points"`
	// Reasons says why the run grows like that, by measure: "time", "memory" and "calls".
	Reasons map[string]string `json:"reasons"`
}

// Point is the measurement of one size.
type Point struct {
	Size   float64 `json:"size"`
	Time   float64 `json:"time"`   // seconds
	Memory int64   `json:"memory"` // largest resident set of a process, in bytes
	Calls  int64   `json:"calls"`  // requests to Depot, except health reports, and to BuildKit, except in sessions
}

// Measure is a value of a point.
type Measure struct {
	Name string
	Of   func(Point) float64
}

// Measures returns the measures of a point, in the order of the page.
func Measures() []Measure {
	return []Measure{
		{"time", func(p Point) float64 { return p.Time }},
		{"memory", func(p Point) float64 { return float64(p.Memory) }},
		{"calls", func(p Point) float64 { return float64(p.Calls) }},
	}
}

// maxFactor is the factor up to which two values count as equal.
const maxFactor = 1.5

// Shape judges a curve by two ratios. It is flat if the value of the largest size is at most maxFactor times that of
// the smallest one. It is linear if the value per unit of the largest size is at most maxFactor times that of the size
// before; a constant part makes this ratio smaller than 1. Otherwise it is steeper.
func Shape(points []Point, of func(Point) float64) string {
	first, before, last := points[0], points[len(points)-2], points[len(points)-1]
	total := of(last) / of(first)
	perUnit := (of(last) / last.Size) / (of(before) / before.Size)
	switch {
	case total <= maxFactor:
		return fmt.Sprintf("flat: %.2f times the value of the smallest", total)
	case perUnit <= maxFactor:
		return fmt.Sprintf("linear: %.2f times the value per unit of the size before", perUnit)
	}
	return fmt.Sprintf("**steeper than linear**: %.2f times the value per unit of the size before", perUnit)
}

package bench

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/docker/go-units"
)

// cause explains why a row misses its goal, and what was tried.
func cause(row string) string {
	return cmp.Or(map[string]string{}[row], "not known yet")
}

//go:embed page.md.tmpl
var pageTemplate string

// Page returns docs/benchmarks.md.
func Page(results Results, growth Growth, calls []Calls) (string, error) {
	data := struct {
		Results             Results
		Growth              Growth
		Calls               []Calls
		Rows, Ratios, Goals []string // of the chart: the rows with a goal
		Missed              []Row
		MaxFactor           float64
	}{Results: results, Growth: growth, Calls: calls, MaxFactor: maxFactor}
	for i, row := range results.Rows {
		if row.Goal > 0 {
			data.Rows = append(data.Rows, fmt.Sprint(i+1))
			data.Ratios, data.Goals = append(data.Ratios, number(row.Ratio)), append(data.Goals, number(row.Goal))
		}
	}
	data.Missed = slices.DeleteFunc(slices.Clone(results.Rows), Row.Met)
	page, err := template.New("page").Funcs(template.FuncMap{
		"add1": func(i int) int { return i + 1 }, "cause": cause, "number": number, "size": size, "shape": Shape,
		"join":     func(values []string) string { return strings.Join(values, ", ") },
		"measures": Measures,
		"title":    func(s string) string { return strings.ToUpper(s[:1]) + s[1:] },
	}).Parse(pageTemplate)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = page.Execute(&b, data)
	return b.String(), err
}

// number formats a number with about three significant digits.
func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// size formats a number of bytes; 0 means that it was not measured.
func size(bytes int64) string {
	if bytes == 0 {
		return "–"
	}
	return units.HumanSizeWithPrecision(float64(bytes), 3)
}

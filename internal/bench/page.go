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
	const (
		preparation = "Before the solve, action-build creates the .git context (about 120 ms of CPU time) and hashes the " +
			"files of the context; the CLI receives a finished .git directory."
		containers = "Docker needs most of the time to create containers and processes in them."
	)
	return cmp.Or(map[string]string{
		"cold build, digest wanted (one pair)": "The steps of the Dockerfile take nearly all of the time on both sides. " +
			"Tried: zstd instead of gzip for new layers, which shortened the export to a fifth.",
		"cached, nothing loaded": preparation + " Tried: fewer git processes, fewer and faster packs, and reading the " +
			"checkout while the engine and Doppler answer, which halved the CPU time.",
		"cached build to Daytona's registry": preparation + " Tried: one solve instead of two, which saved about 0.4 s.",
		"cached build to an active snapshot, without Daytona's time": preparation + " The rest are the requests for " +
			"permissions, quota and existing snapshots, and the interval at which the state is read. Tried: one solve instead " +
			"of two, which saved about 0.4 s. Not tried: more overlap.",
		"first load, Docker 29": "The engine unpacks the layers. Tried: zstd, which needs half of the time of gzip there.",
		"first load, Docker 20.10": "The engine unpacks one layer after another. Tried: layers in zstd that the program " +
			"decompresses, which takes the engine as long. Not tried: a pull of uncompressed layers.",
		"one file changed, loaded, Docker 20.10": preparation + " The build without the load takes three quarters of the " +
			"time. Tried: sending only the layers that the engine lacks.",
		"unchanged, loaded, Docker 20.10": preparation + " The load itself takes 10 ms.",
		"unchanged, loaded, Docker 29": preparation + " The load itself takes 50 to 80 ms. Tried: one inspection instead " +
			"of two.",
		"suite of 40 tests, a container for each": containers + " Tried: as many containers at a time as there are cores.",
		"suite of 40 tests in one session": containers +
			" Each test is a process of its own. Tried: one container for all.",
		"boot test of 10 steps": containers +
			" Each step is a process of its own. Tried: one container for all.",
		"launcher, program in the tool cache": "The launcher copies the program, so that no other job can replace it, and " +
			"computes its SHA-256: 16 and 34 ms for 30 MB. Tried: install instead of cat, and tee into openssl.",
		"download of a program, MB": "The programs contain the clients of BuildKit, Docker, Depot and Daytona. Tried: xz, " +
			"which makes the largest 9.6 MB instead of 13.3 MB, but which some runners do not have.",
	}[row], "not known yet")
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

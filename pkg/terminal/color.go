// Package terminal shows a run to the person who started it on a command line.
package terminal

// UseColor reports whether output is colored: on a terminal, unless NO_COLOR is set or the terminal has no colors, and
// anywhere if CLICOLOR_FORCE is set. See https://no-color.org and https://bixense.com/clicolors.
func UseColor(getenv func(string) string, isTerminal bool) bool {
	force := getenv("CLICOLOR_FORCE")
	switch {
	case getenv("NO_COLOR") != "":
		return false
	case force != "" && force != "0":
		return true
	}
	return isTerminal && getenv("TERM") != "dumb" && getenv("CLICOLOR") != "0"
}

// Style is the look of a part of a text.
type Style string

// Styles, as SGR parameters (ECMA-48).
const (
	Bold   Style = "1"
	Faint  Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
)

// Apply returns text in a style, or unchanged without color.
func (s Style) Apply(text string, color bool) string {
	if !color || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// Label returns the label of a message: "error:" in red, "warning:" in yellow, others without a color.
func Label(level string, color bool) string {
	styles := map[string]Style{"error": Red, "warning": Yellow}
	style, found := styles[level]
	return style.Apply(level+":", color && found)
}

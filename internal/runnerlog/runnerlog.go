// Package runnerlog models how the Actions runner and the log page of GitHub read the output of a step, for tests.
//
// Sources: github.com/actions/runner, src/Runner.Worker/ActionCommandManager.cs, src/Runner.Worker/Handlers/
// OutputManager.cs and src/Runner.Common/ActionCommand.cs; github.com/robherley/actions-log-parser, src/parser.ts and
// src/line.ts, by an author of the log page.
package runnerlog

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Commands returns the lines that the runner processes as workflow commands: while commands are not stopped, those that
// start with :: after optional white space or contain ##[. The commands that stop and resume others are not included.
func Commands(output string) (commands []string) {
	for line, stopped := range read(output) {
		text := strings.TrimSpace(line)
		isStop := strings.HasPrefix(text, "::stop-commands::")
		if !stopped && !isStop && (strings.HasPrefix(text, "::") || strings.Contains(text, "##[")) {
			commands = append(commands, text)
		}
	}
	return commands
}

// Log returns the lines that the runner writes to the log: the groups and messages of commands, and other lines
// unchanged.
func Log(output string) (lines []string) {
	for line, stopped := range read(output) {
		if command := logCommand.FindStringSubmatch(line); command != nil && !stopped {
			line = "##[" + command[1] + "]" + unescape.Replace(command[2])
		}
		lines = append(lines, strings.Split(line, "\n")...)
	}
	return lines
}

// logCommand matches the commands that the runner writes to the log.
var logCommand = regexp.MustCompile(`^::(group|endgroup|notice|warning|error)(?: .*?)?::(.*)$`)

var unescape = strings.NewReplacer("%0A", "\n", "%0D", "\r", "%25", "%")

// Groups returns the titles of the groups that the log page shows. The error reports a group that does not end before
// the next one, an end without a group, or that commands are still stopped at the end.
func Groups(output string) (titles []string, err error) {
	open := false
	for _, line := range Log(output) {
		switch title, starts := strings.CutPrefix(strings.TrimPrefix(line, "##"), "[group]"); {
		case starts && open:
			return titles, fmt.Errorf("group %q starts in group %q", title, titles[len(titles)-1])
		case starts:
			titles, open = append(titles, title), true
		case strings.HasPrefix(strings.TrimPrefix(line, "##"), "[endgroup]"):
			if !open {
				return titles, fmt.Errorf("a group ends after %q, but none is open", titles)
			}
			open = false
		}
	}
	const probe = "::debug::probe"
	switch {
	case open:
		return titles, fmt.Errorf("group %q does not end", titles[len(titles)-1])
	case !slices.Contains(Commands(output+"\n"+probe), probe):
		return titles, errors.New("workflow commands are still stopped at the end")
	}
	return titles, nil
}

// read yields the lines of an output, and whether commands are stopped when the runner reads them. A carriage return
// also ends a line. The line that resumes commands counts as stopped.
func read(output string) func(yield func(line string, stopped bool) bool) {
	return func(yield func(string, bool) bool) {
		token := ""
		for line := range strings.FieldsFuncSeq(output, func(c rune) bool { return c == '\n' || c == '\r' }) {
			stopped := token != ""
			if stopped && strings.TrimSpace(line) == "::"+token+"::" {
				token = ""
			} else if after, stops := strings.CutPrefix(strings.TrimSpace(line), "::stop-commands::"); stops && !stopped {
				token = after
			}
			if !yield(line, stopped) {
				return
			}
		}
	}
}

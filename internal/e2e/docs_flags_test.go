package e2e

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/shlex"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// Command lines in the text and tables of the docs are valid: their subcommands, flags and values exist.
func TestDocsCommandLines(t *testing.T) {
	commandLine := regexp.MustCompile(
		"`((?:[A-Z_]+=[^` ]+ )*(?:doppler run [^`]*?-- )?action-(?:build|test|snapshot)(?: [^`]*)?)`")
	checked := 0
	for _, document := range documents(t) {
		for _, m := range commandLine.FindAllStringSubmatch(read(t, "../../"+document), -1) {
			checked++
			if err := parseCommandLine(strings.ReplaceAll(m[1], "…", "")); err != nil {
				t.Errorf("%s: %s: %v", document, m[1], err)
			}
		}
	}
	if checked < 20 {
		t.Errorf("found only %d command lines", checked)
	}
}

// parseCommandLine parses the arguments of one of the programs. Variables and a command before the program are ignored.
func parseCommandLine(line string) error {
	words, err := shlex.Split(line)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, "action-") })
	program, args := words[i], words[i+1:]
	targets := map[string]any{
		"action-build": &inputs.Build{}, "action-test": &inputs.Test{}, "action-snapshot": &inputs.Snapshot{},
		"action-test shell": &inputs.Shell{}, "action-test convert": &inputs.Convert{},
		"action-snapshot list": &inputs.ListSnapshots{}, "action-snapshot delete": &inputs.DeleteSnapshot{},
		"action-snapshot promote": &inputs.Promote{}, "action-snapshot rollback": &inputs.Rollback{},
		"action-snapshot history": &inputs.History{}, "action-build doctor": &inputs.Build{},
		"action-test doctor": &inputs.Test{}, "action-snapshot doctor": &inputs.Snapshot{},
	}
	for _, name := range []string{"action-build", "action-test", "action-snapshot"} {
		targets[name+" completion"], targets[name+" version"] = &inputs.Completion{}, &struct{}{}
	}
	target := targets[program]
	if len(args) > 0 && targets[program+" "+args[0]] != nil {
		target, args = targets[program+" "+args[0]], args[1:]
	}
	if strings.HasSuffix(line, " delete") { // a mention without the name
		args = []string{"NAME"}
	}
	_, err = inputs.Source{Program: program, Args: args, Stdout: &bytes.Buffer{}}.Parse(target)
	if errors.Is(err, inputs.ErrHelp) {
		return nil
	}
	return err
}

package inputs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func printedHelp(t *testing.T, target any, source Source) string {
	t.Helper()
	var out bytes.Buffer
	source.Stdout = &out
	if _, err := source.Parse(target); !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	return out.String()
}

// --help fits on a screen of 40 lines and 80 columns, and says how to see the rest.
func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	var commands []Subcommand
	for i := range 8 {
		commands = append(commands, Subcommand{fmt.Sprintf("command%d", i), "Does something."})
	}
	for _, target := range []any{
		&Build{}, &Test{}, &Snapshot{}, &Promote{}, &Rollback{}, &History{}, &ListSnapshots{}, &DeleteSnapshot{}, &Shell{},
		&Convert{}, &Completion{},
	} {
		t.Run(fmt.Sprintf("%T", target), func(t *testing.T) {
			source := Source{
				Program: "program", Description: "Does one thing.", Examples: "program --one\nprogram --two\nprogram --three",
				Args: []string{"--help"},
			}
			switch target.(type) {
			case *Build, *Test: // which have fewer commands
				source.Commands = commands[:5]
			case *Snapshot:
				source.Commands = commands
			}
			text := printedHelp(t, target, source)
			lines := strings.Split(strings.TrimSpace(text), "\n")
			if len(lines) > 40 {
				t.Errorf("%d lines:\n%s", len(lines), text)
			}
			for _, line := range lines {
				if utf8.RuneCountInString(line) > 80 {
					t.Errorf("%d columns: %s", utf8.RuneCountInString(line), line)
				}
			}
			wanted := []string{"Usage: program", "Does one thing.", "program --three"}
			for _, command := range source.Commands {
				wanted = append(wanted, "  "+command.Name+" ")
			}
			for _, want := range wanted {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
		})
	}
}

// --help-all lists every flag, in a group, with a description.
func TestHelpAll(t *testing.T) {
	for _, target := range []any{&Build{}, &Snapshot{}, &Test{}, &Promote{}, &Shell{}} {
		text := printedHelp(t, target, Source{Program: "program", Args: []string{"--help-all"}})
		fields, err := Fields(target)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range append(fields, Field{Flag: "help-all", Help: "-"}, Field{Flag: "version", Help: "-"}) {
			if !strings.Contains(text, "--"+field.Flag) && !strings.Contains(text, "--[no-]"+field.Flag) {
				t.Errorf("%T: --help-all lacks %s", target, field.Flag)
			}
			if field.Help == "" {
				t.Errorf("%T: %s has no help text", target, field.Name)
			}
		}
	}
}

// Every input is in one group of the help text, so that none is between unrelated ones.
func TestHelpGroups(t *testing.T) {
	groups := map[string]string{}
	for _, group := range helpGroups {
		for _, name := range group.inputs {
			if groups[name] != "" {
				t.Errorf("%s is in %s and %s", name, groups[name], group.title)
			}
			groups[name] = group.title
		}
	}
	for _, target := range []any{
		&Build{}, &Snapshot{}, &Test{}, &Promote{}, &Rollback{}, &History{}, &ListSnapshots{}, &DeleteSnapshot{}, &Shell{},
	} {
		fields, err := Fields(target)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, field := range fields {
			names[field.Name] = true
			if groups[field.Name] == "" {
				t.Errorf("%T: %s is in no group of helpGroups", target, field.Name)
			}
		}
		for _, name := range commonInputs(target) {
			if !names[name] {
				t.Errorf("%T: commonInputs has %s, which is not an input", target, name)
			}
		}
	}
}

// The defaults in help texts are those that apply in the environment of the command. Values of secrets are not shown.
func TestHelpShowsDefaultsThatApply(t *testing.T) {
	for _, test := range []struct {
		environ []string
		flag    string
		want    string
	}{
		{[]string{"SANDBOX_BUILD_PLATFORM=linux/riscv64"}, "platform", "Default: linux/riscv64, from SANDBOX_BUILD_PLATFORM."},
		{[]string{"LOCAL_DOCKER_IMAGE_NAME=mine:dev"}, "image-name", "Default: mine:dev, from LOCAL_DOCKER_IMAGE_NAME."},
		{[]string{"INPUT_IMAGE_NAME=other:1"}, "image-name", "Default: other:1, from INPUT_IMAGE_NAME."},
		{[]string{"GITHUB_ACTIONS=true"}, "git-context", "no additional context. The default on the command line is auto."},
		{nil, "git-context", "The default on the command line is auto. Default: auto."},
		{nil, "context", `Default: ".".`},
		{nil, "load", "Default: true."},
		{[]string{"INPUT_LABELS=a=1\nb=2"}, "labels", "Default: a=1 …, from INPUT_LABELS."},
		{[]string{"INPUT_DEPOT_TOKEN=hunter2"}, "depot-token", "Set by INPUT_DEPOT_TOKEN."},
	} {
		text := printedHelp(t, &Build{}, Source{Args: []string{"--help-all"}, Environ: test.environ})
		_, after, _ := strings.Cut(text, test.flag+"=")
		if test.flag == "load" {
			_, after, _ = strings.Cut(text, "]load")
		}
		entry, _, _ := strings.Cut(after, "\n  --")
		if entry = strings.Join(strings.Fields(entry), " "); !strings.HasSuffix(entry, test.want) {
			t.Errorf("%q: %s: %q does not end with %q", test.environ, test.flag, entry, test.want)
		}
		if strings.Contains(text, "hunter2") {
			t.Error("the help text contains a secret")
		}
	}
}

func TestVersionFlag(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"-v"}, {"--no-load", "--version"}} {
		if text := printedHelp(t, &Build{}, Source{Version: "program v1.2.3", Args: args}); text != "program v1.2.3\n" {
			t.Errorf("%q: %q", args, text)
		}
	}
}

// A flag that is not an input has no INPUT_* variable.
func TestNoInputVariablesOfGlobalFlags(t *testing.T) {
	environ := []string{"INPUT_VERSION=true", "INPUT_HELP_ALL=true", "INPUT_HELP=true"}
	_, warnings, err := parseBuild(t, nil, environ)
	if err != nil || len(warnings) != len(environ) {
		t.Errorf("warnings %q, error %v", warnings, err)
	}
}

package actions

import (
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// program is a main command with its subcommands.
type program struct {
	main        Command
	subcommands []Command
}

// newProgram adds the commands that every program has.
func newProgram(main Command, subcommands []Command) program {
	p := program{main, slices.Clone(subcommands)}
	p.subcommands = append(p.subcommands, completionCommand(main.Name), versionCommand(main.Name))
	return p
}

// choose returns the command that args[0] names, or the main command, and the command's arguments.
func (p program) choose(args []string) (Command, []string) {
	if len(args) > 0 && args[0] == "help" {
		command, rest := p.choose(args[1:])
		return command, append([]string{"--help"}, rest...)
	}
	for _, sub := range p.subcommands {
		if len(args) > 0 && p.nameOf(sub) == args[0] {
			return sub, args[1:]
		}
	}
	return p.main, args
}

// nameOf returns the name of a subcommand without that of the program.
func (p program) nameOf(sub Command) string { return strings.TrimPrefix(sub.Name, p.main.Name+" ") }

// source returns what help texts and errors of a command say about it.
func (p program) source(c Command) inputs.Source {
	source := inputs.Source{
		Program: c.Name, Description: c.Description, Examples: c.Examples, Version: versionLine(p.main.Name),
	}
	if c.Name == p.main.Name {
		for _, sub := range p.subcommands {
			source.Commands = append(source.Commands, inputs.Subcommand{Name: p.nameOf(sub), Help: sub.Description})
		}
	}
	return source
}

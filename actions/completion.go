package actions

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// completeCommand is the command with which the scripts of completion ask for completions. Its arguments are the shell
// and the words of the command line up to the cursor, without the program. The last word may be empty.
const completeCommand = "__complete"

// completionScripts are the scripts that connect a program to a shell. PROGRAM stands for its name, FUNCTION for a name
// that is valid for a function. If the program prints no completions, the shell completes file names.
var completionScripts = map[string]string{
	"bash": `# bash completion of PROGRAM. To enable it: eval "$(PROGRAM completion bash)"
FUNCTION() {
	local IFS=$'\n'
	COMPREPLY=($("$1" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F FUNCTION PROGRAM
`,
	"zsh": `#compdef PROGRAM
# zsh completion of PROGRAM. To enable it: eval "$(PROGRAM completion zsh)", after compinit
FUNCTION() {
	local -a candidates
	candidates=("${(@f)$("$words[1]" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ -n "${candidates[*]}" ]]; then
		_describe PROGRAM candidates
	else
		_files
	fi
}
compdef FUNCTION PROGRAM
`,
	"fish": `# fish completion of PROGRAM. To enable it: PROGRAM completion fish | source
function FUNCTION
	set -l words (commandline -opc) (commandline -ct)
	$words[1] __complete fish $words[2..-1] 2>/dev/null
end
complete -c PROGRAM -a '(FUNCTION)'
`,
}

func completionCommand(program string) Command {
	var in inputs.Completion
	return Command{
		Name:        program + " completion",
		Description: "Prints a script that completes commands in bash, zsh or fish.",
		Examples: fmt.Sprintf("eval \"$(%[1]s completion bash)\"    # in ~/.bashrc; zsh likewise\n"+
			"%[1]s completion fish | source      # in ~/.config/fish/config.fish", program),
		Inputs: &in,
		Run: func(_ context.Context, env Env) error {
			script, found := completionScripts[in.Shell]
			if !found {
				reason := fmt.Sprintf("unknown shell %q; write bash, zsh or fish", in.Shell)
				return &usageError{&inputs.UsageError{Reason: reason}}
			}
			function := "_" + strings.ReplaceAll(program, "-", "_")
			_, err := io.WriteString(env.Stdout, strings.NewReplacer("PROGRAM", program, "FUNCTION", function).Replace(script))
			return err
		},
	}
}

// complete prints the completions of args, see [completeCommand], in the form that the shell's script expects.
func (p program) complete(w io.Writer, args, environ []string) int {
	if len(args) == 0 {
		return 1
	}
	shell, words := args[0], args[1:]
	if shell == "bash" {
		words = joinAssignments(words)
	}
	command := p.main
	if len(words) > 1 { // the first word is complete
		command, words = p.choose(words)
	}
	source := p.source(command)
	source.Args, source.Environ, source.Stdout = words, environ, io.Discard
	candidates, err := source.Complete(command.Inputs)
	if err != nil {
		return 1
	}
	for _, c := range candidates {
		fmt.Fprintln(w, candidateLine(shell, c))
	}
	return 0
}

func candidateLine(shell string, c inputs.Candidate) string {
	switch shell {
	case "zsh": // for _describe
		return strings.ReplaceAll(c.Text, ":", `\:`) + ":" + c.Help
	case "fish":
		return c.Text + "\t" + c.Help
	}
	if _, value, found := strings.Cut(c.Text, "="); found { // bash replaces only the part after "="
		return value
	}
	return c.Text
}

// joinAssignments joins --flag=value, which bash splits into three words because COMP_WORDBREAKS contains "=".
func joinAssignments(words []string) []string {
	var joined []string
	for i, word := range words {
		last := len(joined) - 1
		isAssigned := i > 0 && words[i-1] == "=" && last >= 0 && strings.HasSuffix(joined[last], "=")
		if last >= 0 && (word == "=" && strings.HasPrefix(joined[last], "--") || isAssigned) {
			joined[last] += word
		} else {
			joined = append(joined, word)
		}
	}
	return joined
}

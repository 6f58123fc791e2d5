package inputs

import (
	"cmp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Candidate is a completion of a word of a command line.
type Candidate struct {
	Text string // the whole word
	Help string // in a few words; may be empty
}

// knownValues are values of inputs that a shell completes. An input can have others.
var knownValues = map[string][]string{
	"allow":         {"network.host", "security.insecure"},
	"builder":       {"depot"},
	"git_context":   {"auto", "none"},
	"if_exists":     {string(Reuse), string(Replace), string(Fail)},
	"network":       {"default", "none", "host"},
	"output":        {"text", "json", "env"},
	"parallel":      {"cores"},
	"platform":      {"linux/amd64", "linux/arm64", "local"},
	"provenance":    {"true", "false", "mode=min", "mode=max"},
	"sandbox_class": {"container", "linux-vm", AndroidClass},
	"sbom":          {"true", "false"},
	"submodules":    {"true", "recursive"},
	"verify":        {string(VerifyBoot), string(VerifySuite), string(VerifyOff)},
}

// Complete returns the completions of the last of s.Args, which is empty at the start of a word. Without any, a shell
// completes file names.
func (s Source) Complete(target any) ([]Candidate, error) {
	s.target, s.env = target, environment(s.Environ)
	parser, err := s.newParser()
	if err != nil || len(s.Args) == 0 {
		return nil, err
	}
	words, current := s.Args[:len(s.Args)-1], s.Args[len(s.Args)-1]
	if slices.Contains(words, "--") { // the rest are arguments of another command
		return nil, nil
	}
	if name, _, found := strings.Cut(current, "="); found && strings.HasPrefix(name, "--") {
		return withPrefix(candidatesOf(findFlag(parser.Model.Flags, name), name+"=", true), current), nil
	}
	if len(words) > 0 {
		if flag := findFlag(parser.Model.Flags, words[len(words)-1]); flag != nil && !flag.IsBool() {
			return withPrefix(candidatesOf(flag, "", false), current), nil
		}
	}
	var candidates []Candidate
	switch {
	case strings.HasPrefix(current, "-"):
		for _, flag := range parser.Model.Flags {
			short := cmp.Or(shortHelp[inputName(Variable(flag.Name))], flag.Help)
			short, _, _ = strings.Cut(short, ". ")
			candidates = append(candidates, Candidate{"--" + flag.Name, strings.TrimSuffix(short, ".")})
			if isNegatable(flag) {
				candidates = append(candidates, Candidate{"--no-" + flag.Name, ""})
			}
		}
	case len(words) == 0:
		for _, command := range s.Commands {
			candidates = append(candidates, Candidate{command.Name, strings.TrimSuffix(command.Help, ".")})
		}
	}
	return withPrefix(candidates, current), nil
}

// candidatesOf returns the known values of a flag, each after prefix. A boolean flag has values only after "=".
func candidatesOf(flag *kong.Flag, prefix string, isAssigned bool) (candidates []Candidate) {
	if flag == nil {
		return nil
	}
	values := knownValues[inputName(Variable(flag.Name))]
	if flag.IsBool() && isAssigned {
		values = []string{"true", "false"}
	}
	for _, value := range values {
		candidates = append(candidates, Candidate{Text: prefix + value})
	}
	return candidates
}

func withPrefix(candidates []Candidate, prefix string) []Candidate {
	return slices.DeleteFunc(candidates, func(c Candidate) bool { return !strings.HasPrefix(c.Text, prefix) })
}

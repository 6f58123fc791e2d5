package inputs

import (
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// mention matches a quoted text, and what may be the name of an input with the words before it and its value.
var mention = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`([^`]*)`|" +
	`\b((?:(?:set|with|needs|without|write|use|add) )?(?:(?:the )?input )?)` + setting)

const setting = `\b([a-z]+(?:_[a-z]+)*)\b(?:: ([a-z0-9](?:[\w./:=-]*\w)?))?`

var onlySetting = regexp.MustCompile("^" + setting + "$")

// FlagForm returns a message about the inputs of target as a user of the command line writes them: --no-load instead of
// load: false, and --timeout instead of the input timeout. It does not change quoted texts, except a quoted input.
func FlagForm(target any, message string) string {
	parser, err := newParser(target, nil, Names{})
	if err != nil {
		return message
	}
	flags := map[string]*kong.Flag{}
	for _, flag := range parser.Model.Flags {
		flags[inputName(Variable(flag.Name))] = flag
	}
	return mention.ReplaceAllStringFunc(message, func(text string) string {
		m := mention.FindStringSubmatch(text)
		quoted, words, name, value := m[1], m[2], m[3], m[4]
		if inner := onlySetting.FindStringSubmatch(quoted); inner != nil && flags[inner[1]] != nil {
			return "`" + argument(flags[inner[1]], inner[2]) + "`"
		}
		flag := flags[name]
		switch isWord := !strings.Contains(name, "_"); {
		case flag == nil:
			return text
		case strings.HasSuffix(words, "input "):
			verb := strings.TrimSuffix(strings.TrimSuffix(words, "input "), "the ")
			return verb + "--" + flag.Name + text[len(words+name):]
		case isWord && (words == "" || value == ""):
			return text
		case words == "set " && value != "":
			words = "pass "
		}
		return words + argument(flag, value)
	})
}

// argument returns the arguments that set a flag to a value, or the flag if the value is "".
func argument(flag *kong.Flag, value string) string {
	switch name := "--" + flag.Name; {
	case value == "" || flag.IsBool() && value == "true":
		return name
	case flag.Tag.Negatable != "" && value == "false":
		return "--no-" + flag.Name
	case flag.IsBool():
		return name + "=" + value
	default:
		return name + " " + value
	}
}

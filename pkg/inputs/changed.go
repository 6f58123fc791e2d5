package inputs

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// Value is an input with its value.
type Value struct {
	Name   string // in a workflow, for example depot_project
	Text   string // the elements of a list on one line each
	Secret bool
}

// Changed returns the inputs of target, a pointer to a struct of this package, that differ from their defaults, in the
// order of the reference. names are those of the source that was parsed. It leaves out github_token: in GitHub Actions,
// its default is the token of the job.
func Changed(target any, names Names, inActions bool) (changed []Value) {
	env := map[string]string{}
	if inActions {
		env["GITHUB_ACTIONS"] = "true"
	}
	names = cmp.Or(names, NamesOf(""))
	unset := reflect.New(reflect.TypeOf(target).Elem()).Interface()
	defaults, err := newParser(unset, env, names, kong.Resolvers(kong.ResolverFunc((&Source{env: env}).resolve)))
	if err != nil {
		return nil
	}
	if _, err := defaults.Parse(nil); err != nil {
		return nil
	}
	current, err := newParser(target, env, names)
	if err != nil {
		return nil
	}
	before := valuesOf(defaults)
	for i, value := range valuesOf(current) {
		if value.Name != "github_token" && value.Text != before[i].Text {
			changed = append(changed, value)
		}
	}
	return changed
}

// valuesOf returns the values of all inputs in the struct that a parser fills.
func valuesOf(parser *kong.Kong) (values []Value) {
	all := parser.Model.Positional
	for _, flag := range parser.Model.Flags {
		if isInput(flag) {
			all = append(all, flag.Value)
		}
	}
	for _, v := range all {
		values = append(values, Value{
			Name: strings.ReplaceAll(v.Name, "-", "_"), Text: textOf(v.Target.Interface()), Secret: v.Tag.Has("secret"),
		})
	}
	return values
}

func textOf(value any) string {
	switch value := value.(type) {
	case List:
		return strings.Join(Texts(value), "\n")
	case Lines:
		return strings.Join(Texts(value), "\n")
	case *bool:
		if value == nil {
			return ""
		}
		return fmt.Sprint(*value)
	}
	return fmt.Sprint(value)
}

package inputs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/alecthomas/kong"

	"github.com/org/sandbox-actions/pkg/safetext"
)

// ErrHelp reports that --help was set and the help text was printed.
var ErrHelp = errors.New("help requested")

// Source holds the arguments and variables from which inputs are read.
type Source struct {
	Program     string // name of the command, for --help
	Description string
	Examples    string       // command lines, one per line
	Commands    []Subcommand // of the program; nil for one of them
	Version     string       // printed by --version
	Args        []string
	Environ     []string  // NAME=VALUE, as in os.Environ
	Names       Names     // defaults of image_name and name_prefix; the zero value is NamesOf("")
	Stdout      io.Writer // receives the help text

	target any
	env    map[string]string // Environ by name
	flags  []string          // names of the flags in Args
}

// Parse fills target, a pointer to one of this package's structs. The value of an input is the first of these that is
// set: the flag, the INPUT_* variable, the variable of its tag, the default. An empty variable counts as not set,
// because a composite action passes every input of its step.
//
// Parse returns a warning for each INPUT_* variable that names no input. For an invalid value it returns an [*Error],
// and for invalid arguments a [*UsageError].
func (s Source) Parse(target any) (warnings []string, err error) {
	s.target, s.env = target, environment(s.Environ)
	parser, err := s.newParser()
	if err != nil {
		return nil, err
	}
	if err := s.parse(parser); err != nil {
		return nil, err
	}
	switch in := target.(type) {
	case *Test:
		in.DefaultImage = in.Image != "" && s.isDefault("image")
	case *Snapshot:
		in.DefaultImage = in.Image != "" && s.isDefault("image")
	}
	return unknownVariables(parser, s.env), nil
}

// newParser returns a parser with the flags of all commands, such as --version.
func (s *Source) newParser() (*kong.Kong, error) {
	parser, err := newParser(s.target, s.env, cmp.Or(s.Names, NamesOf("")),
		kong.Name(s.Program), kong.Description(s.Description),
		kong.Embed(&globalFlags{}), kong.Bind(s), kong.Resolvers(kong.ResolverFunc(s.resolve)),
		kong.Writers(s.Stdout, s.Stdout), kong.Exit(func(int) { panic(ErrHelp) }),
		kong.Help(func(_ kong.HelpOptions, ctx *kong.Context) error { return s.printHelp(ctx, false) }))
	if err == nil {
		arrangeFlags(parser.Model.Flags)
	}
	return parser, err
}

// parse runs the parser. Kong ends the program after printing --help; here that becomes [ErrHelp].
func (s *Source) parse(parser *kong.Kong) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(ErrHelp) {
				panic(r)
			}
			err = ErrHelp
		}
	}()
	trace, err := kong.Trace(parser, s.Args)
	if err != nil {
		return err
	}
	if trace.Error != nil {
		return s.explain(trace)
	}
	for _, p := range trace.Path {
		if p.Flag != nil {
			s.flags = append(s.flags, p.Flag.Name)
		}
	}
	_, err = parser.Parse(s.Args)
	if invalid := (*Error)(nil); errors.As(err, &invalid) {
		return invalid
	}
	if missing := missingArgument(trace); err != nil && missing != nil {
		return s.missing(missing)
	}
	return err
}

func newParser(target any, env map[string]string, names Names, options ...kong.Option) (*kong.Kong, error) {
	parser, err := kong.New(target, append(options,
		defaultsOf(target, env, names),
		kong.KindMapper(reflect.Bool, boolMapper{}),
		kong.KindMapper(reflect.Int, kong.MapperFunc(decodeInt)),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
	)...)
	if err != nil {
		return nil, err
	}
	for _, flag := range parser.Model.Flags {
		flag.Help = cmp.Or(flag.Help, help[inputName(Variable(flag.Name))])
	}
	return parser, nil
}

// defaultsOf returns the defaults that depend on the command or the machine.
func defaultsOf(target any, env map[string]string, names Names) kong.Vars {
	vars := kong.Vars{
		"load":              "true",
		"terminal_platform": "linux/" + runtime.GOARCH,
		"image_name":        cmp.Or(strings.TrimSpace(env["LOCAL_DOCKER_IMAGE_NAME"]), names.Image),
		"name_prefix":       names.Prefix,
		"promoted_image":    promotedImageHelp, "promoted_region": promotedRegionHelp,
	}
	switch target.(type) {
	case *Snapshot: // Daytona runs only linux/amd64, and the image is not loaded on this machine
		vars["load"], vars["terminal_platform"] = "false", "linux/amd64"
	}
	return vars
}

// isDefault reports whether neither a flag nor a variable INPUT_* sets an input.
func (s *Source) isDefault(flag string) bool {
	return !slices.Contains(s.flags, flag) && strings.TrimSpace(s.env[Variable(flag)]) == ""
}

// resolve is a [kong.ResolverFunc].
func (s *Source) resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if value, _ := s.lookup(flag, ctx.Model.Vars()); value != "" {
		return value, nil
	}
	return nil, nil
}

// lookup returns the value of an input whose flag is not set, with the environment variable that sets it. Without one,
// it is the default outside GitHub Actions, if that differs from the tag default.
func (s *Source) lookup(flag *kong.Flag, vars kong.Vars) (value, variable string) {
	if !isInput(flag) {
		return "", ""
	}
	for _, name := range []string{Variable(flag.Name), flag.Tag.Get("variable")} {
		if value := s.env[name]; strings.TrimSpace(value) != "" {
			return value, name
		}
	}
	if s.env["GITHUB_ACTIONS"] == "true" {
		return "", ""
	}
	return expand(flag.Tag.Get("terminal"), vars), ""
}

// expand replaces a value of the form ${name}.
func expand(value string, vars kong.Vars) string {
	if name, ok := strings.CutPrefix(value, "${"); ok {
		return vars[strings.TrimSuffix(name, "}")]
	}
	return value
}

// unknownVariables returns a warning for each INPUT_* variable that names no input, with the most similar input.
func unknownVariables(parser *kong.Kong, env map[string]string) (warnings []string) {
	var known []string
	for _, flag := range parser.Model.Flags {
		if isInput(flag) {
			known = append(known, Variable(flag.Name))
		}
	}
	for name := range env {
		if !strings.HasPrefix(name, "INPUT_") || slices.Contains(known, name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int {
			return levenshtein.Distance(name, a, nil) - levenshtein.Distance(name, b, nil)
		})
		warnings = append(warnings, fmt.Sprintf("unknown input %s; did you mean %s?", inputName(name), inputName(nearest)))
	}
	slices.Sort(warnings)
	return warnings
}

// Variable returns the environment variable of a flag: INPUT_DEPOT_PROJECT for depot-project.
func Variable(flag string) string {
	return "INPUT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func inputName(variable string) string {
	return strings.ToLower(strings.TrimPrefix(variable, "INPUT_"))
}

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	return env
}

// Field describes one input to the generators of documents and workflows.
type Field struct {
	Name    string // in a workflow, for example depot_project
	Flag    string // on the command line, without leading dashes, for example depot-project
	Help    string
	Default string // in GitHub Actions
	Bool    bool
	Secret  bool
	CLIOnly bool // whether it is a flag but not an input of the action
}

// Fields returns the inputs that a struct of this package declares, in order.
func Fields(target any) ([]Field, error) {
	parser, err := newParser(target, nil, Names{})
	if err != nil {
		return nil, err
	}
	var fields []Field
	for _, flag := range parser.Model.Flags {
		if !isInput(flag) {
			continue
		}
		field := Field{
			Name: strings.ReplaceAll(flag.Name, "-", "_"), Flag: flag.Name, Help: flag.Help, Default: flag.Default,
			Bool: flag.IsBool(), Secret: flag.Tag.Has("secret"), CLIOnly: flag.Tag.Has("cli"),
		}
		switch {
		case field.Name == "github_token":
			field.Default = "${{ github.token }}"
		case field.Default == "" && field.Bool && flag.Target.Kind() == reflect.Bool:
			field.Default = "false"
		}
		fields = append(fields, field)
	}
	return fields, nil
}

var wordBoundary = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// SecretValues returns the secret values in a struct of inputs by their descriptions, such as "the input depot_token".
// In a list of NAME=VALUE, only VALUE is secret. Passwords in URLs are secret in every input.
func SecretValues(inputs any) map[string]string {
	values := map[string]string{}
	addURLSecrets := func(description, text string) {
		for _, secret := range safetext.URLSecrets(text) {
			values[fmt.Sprintf("password %d in %s", len(values)+1, description)] = secret
		}
	}
	v := reflect.Indirect(reflect.ValueOf(inputs))
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.Anonymous {
			maps.Copy(values, SecretValues(v.Field(i).Interface()))
		}
		_, isSecret := field.Tag.Lookup("secret")
		switch value := v.Field(i).Interface().(type) {
		case string:
			flag := cmp.Or(field.Tag.Get("name"), wordBoundary.ReplaceAllString(field.Name, "$1-$2"))
			description := "the input " + inputName(Variable(flag))
			if isSecret {
				values[description] = value
			}
			addURLSecrets(description, value)
		case Lines:
			for _, item := range value {
				name, secret, _ := strings.Cut(item.Text, "=")
				if isSecret {
					values["the build secret "+name] = secret
				}
				addURLSecrets("the input "+inputName(Variable(field.Name)), item.Text)
			}
		}
	}
	return values
}

package inputs

import (
	"bytes"
	"errors"
	"testing"
)

// Every kind of invalid command line gives one message that names the argument and what to write instead.
func TestInvalidCommandLines(t *testing.T) {
	commands := []Subcommand{{Name: "list"}, {Name: "delete"}}
	for _, test := range []struct {
		name   string
		target any
		args   []string
		want   string
	}{
		{"unknown command", &Snapshot{}, []string{"lst"}, `unknown command "lst"; did you mean "list"? Commands: list, delete`},
		{"beginning of a command", &Snapshot{}, []string{"del"},
			`unknown command "del"; did you mean "delete"? Commands: list, delete`},
		{"other command", &Snapshot{}, []string{"push"}, `unknown command "push"; commands: list, delete`},
		{"empty command", &Snapshot{}, []string{""}, `unknown command ""; commands: list, delete`},
		{"command after a flag", &Snapshot{}, []string{"--cpu", "4", "list"},
			`unexpected argument "list"; write the command first: program list`},
		{"value of a boolean flag", &Build{}, []string{"--load", "false"}, `unexpected argument "false"; write --load=false`},

		{"typing error", &Build{}, []string{"--platfrom", "x"}, "unknown flag --platfrom; did you mean --platform?"},
		{"typing error with a value", &Build{}, []string{"--platfrom=x"}, "unknown flag --platfrom; did you mean --platform?"},
		{"name of an input", &Build{}, []string{"--depot_project", "x"},
			"unknown flag --depot_project; did you mean --depot-project?"},
		{"beginning of a flag", &Build{}, []string{"--no-cache-f", "x"},
			"unknown flag --no-cache-f; did you mean --no-cache?"},
		{"one dash", &Build{}, []string{"-platform", "x"}, "unknown flag -platform; did you mean --platform?"},
		{"negation of another flag", &Build{}, []string{"--no-timeout"}, "unknown flag --no-timeout; did you mean --timeout?"},
		{"flag of docker build", &Build{}, []string{"-f", "x"}, "unknown flag -f; did you mean --dockerfile?"},
		{"flag of docker build, not of this command", &ListSnapshots{}, []string{"-f", "x"},
			"unknown flag -f; run program --help-all for the list"},
		{"unknown flag", &Build{}, []string{"--xyzzy"}, "unknown flag --xyzzy; run program --help-all for the list"},
		{"unknown short flag", &Build{}, []string{"-x"}, "unknown flag -x; run program --help-all for the list"},
		{"no flag", &Build{}, []string{"--="}, "unknown flag --; run program --help-all for the list"},

		{"no value at the end", &Snapshot{}, []string{"--platform"}, "--platform needs a value, for example linux/amd64"},
		{"no value before a flag", &Snapshot{}, []string{"--platform", "--no-load"},
			"--platform needs a value, for example linux/amd64"},
		{"no value, and no example", &Build{}, []string{"--ulimit"}, "--ulimit needs a value"},
		{"no value of a secret", &Build{}, []string{"--depot-token"}, "--depot-token needs a value"},
		{"no value of a number", &Snapshot{}, []string{"--keep"}, "--keep needs a value, for example 0"},
		{"no value of a duration", &Build{}, []string{"--timeout"}, "--timeout needs a value, for example 30m"},
		{"no value of a short flag", &Snapshot{}, []string{"-n"}, "-n needs a value"},
		{"value that begins with a dash", &Build{}, []string{"--target", "-x"},
			"--target needs a value; write --target=-x if -x is the value"},

		{"duration without a unit", &Build{}, []string{"--timeout", "30"},
			`--timeout: "30" has no unit; write 30m or 30s`},
		{"invalid duration", &Build{}, []string{"--timeout=soon"},
			`--timeout: "soon" must be a duration with a unit, for example 30m or 90s`},
		{"invalid number", &Snapshot{}, []string{"--keep", "few"}, `--keep: "few" must be a whole number, for example 5`},
		{"invalid boolean", &Build{}, []string{"--load=maybe"}, `--load: "maybe" must be true or false`},
		{"invalid negated boolean", &Build{}, []string{"--no-load=maybe"}, `--no-load: "maybe" must be true or false`},
		{"invalid optional boolean", &Snapshot{}, []string{"--update-doppler=maybe"},
			`--update-doppler: "maybe" must be true or false`},
		{"invalid list", &Build{}, []string{"--labels", `"x`},
			`--labels, line 1: extraneous or missing " in quoted-field; close every quote, and double a quote inside quotes`},

		{"missing argument", &DeleteSnapshot{}, nil, "missing argument <name>; usage: program <name> [flags]"},
		{"missing argument after a flag", &DeleteSnapshot{}, []string{"--force"},
			"missing argument <name>; usage: program <name> [flags]"},
		{"second argument", &DeleteSnapshot{}, []string{"a", "b"}, `unexpected argument "b"; usage: program <name> [flags]`},
		{"argument of a command without", &ListSnapshots{}, []string{"a"}, `unexpected argument "a"; usage: program [flags]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := Source{Program: "program", Args: test.args, Stdout: &bytes.Buffer{}}
			switch test.target.(type) {
			case *Build, *Test, *Snapshot:
				source.Commands = commands
			}
			_, err := source.Parse(test.target)
			if err == nil || err.Error() != test.want {
				t.Fatalf("%v, want %s", err, test.want)
			}
			if !errors.As(err, new(*UsageError)) && !errors.As(err, new(*Error)) {
				t.Errorf("%T is neither a UsageError nor an Error", err)
			}
		})
	}
}

// An error about a value names what set it: the flag or the input.
func TestErrorNamesTheOrigin(t *testing.T) {
	_, _, err := parseBuild(t, nil, []string{"INPUT_TIMEOUT=30"})
	if want := `input timeout: "30" has no unit; write 30m or 30s`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Only an image that nothing selects may be replaced by a new one.
func TestDefaultImage(t *testing.T) {
	for _, test := range []struct {
		name          string
		args, environ []string
		image         string
		isDefault     bool
	}{
		{"terminal", nil, nil, "mine:dev", true},
		{"flag", []string{"--image", "x:1"}, nil, "x:1", false},
		{"short flag", []string{"-i", "mine:dev"}, nil, "mine:dev", false},
		{"empty flag", []string{"--image="}, nil, "", false},
		{"input", nil, []string{"INPUT_IMAGE=x:1"}, "x:1", false},
		{"GitHub Actions", nil, []string{"GITHUB_ACTIONS=true"}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var in Test
			var snapshot Snapshot
			source := Source{
				Args: test.args, Environ: append(test.environ, "LOCAL_DOCKER_IMAGE_NAME=mine:dev"), Stdout: &bytes.Buffer{},
			}
			for _, target := range []any{&in, &snapshot} {
				if _, err := source.Parse(target); err != nil {
					t.Fatal(err)
				}
			}
			if in.Image != test.image || in.DefaultImage != test.isDefault {
				t.Errorf("test: image %q, default %t", in.Image, in.DefaultImage)
			}
			if snapshot.Image != test.image || snapshot.DefaultImage != test.isDefault {
				t.Errorf("snapshot: image %q, default %t", snapshot.Image, snapshot.DefaultImage)
			}
		})
	}
}

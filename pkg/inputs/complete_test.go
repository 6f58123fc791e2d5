package inputs

import (
	"slices"
	"testing"
)

func TestComplete(t *testing.T) {
	commands := []Subcommand{{Name: "list"}, {Name: "delete"}, {Name: "doctor"}}
	for _, test := range []struct {
		name   string
		target any
		args   []string
		want   []string
	}{
		{"commands", &Snapshot{}, []string{""}, []string{"list", "delete", "doctor"}},
		{"beginning of a command", &Snapshot{}, []string{"d"}, []string{"delete", "doctor"}},
		{"no command after a flag", &Snapshot{}, []string{"--dry-run", ""}, nil},
		{"flags", &Snapshot{}, []string{"--daytona-"},
			[]string{"--daytona-api-key", "--daytona-organization-id", "--daytona-api-url"}},
		{"flags after others", &Snapshot{}, []string{"--cpu", "4", "--dis"}, []string{"--disk"}},
		{"negated flags", &Build{}, []string{"--no-l"}, []string{"--no-lfs", "--no-load"}},
		{"flags of every command", &DeleteSnapshot{}, []string{"--help"}, []string{"--help", "--help-all"}},
		{"values", &Snapshot{}, []string{"--if-exists", ""}, []string{"reuse", "replace", "fail"}},
		{"beginning of a value", &Snapshot{}, []string{"--if-exists", "rep"}, []string{"replace"}},
		{"values after =", &Snapshot{}, []string{"--verify="}, []string{"--verify=boot", "--verify=suite", "--verify=off"}},
		{"beginning of a value after =", &Snapshot{}, []string{"--verify=b"}, []string{"--verify=boot"}},
		{"values of a boolean flag", &Build{}, []string{"--load="}, []string{"--load=true", "--load=false"}},
		{"after a boolean flag", &Build{}, []string{"--load", "--platf"}, []string{"--platform"}},
		{"files", &Build{}, []string{"--dockerfile", ""}, nil},
		{"value of an unknown flag", &Build{}, []string{"--unknown="}, nil},
		{"arguments of another command", &Shell{}, []string{"--", "--m"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			candidates, err := Source{Program: "program", Commands: commands, Args: test.args}.Complete(test.target)
			var got []string
			for _, c := range candidates {
				got = append(got, c.Text)
			}
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// Completed values are valid ones.
func TestKnownValues(t *testing.T) {
	used := map[string]bool{}
	for _, target := range []any{&Build{}, &Snapshot{}, &Test{}} {
		fields, err := Fields(target)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range fields {
			used[field.Name] = true
		}
	}
	for name, values := range knownValues {
		if !used[name] {
			t.Errorf("%s is not an input", name)
		}
		for _, value := range values {
			if err := validateValue(name, value); err != nil && name != "output" {
				t.Errorf("%s: %s: %v", name, value, err)
			}
		}
	}
}

func validateValue(name, value string) error {
	environ := []string{"GITHUB_ACTIONS=true", Variable(name) + "=" + value}
	env := Env{Getenv: func(string) string { return "" }, Dir: "/"}
	var test Test
	if _, err := (Source{Environ: environ}).Parse(&test); err != nil {
		return err
	}
	if _, err := test.Spec(env); err != nil {
		return err
	}
	if name == "platform" { // Daytona runs only one
		return nil
	}
	var snapshot Snapshot
	if _, err := (Source{Environ: environ}).Parse(&snapshot); err != nil {
		return err
	}
	_, err := snapshot.Spec(env)
	return err
}

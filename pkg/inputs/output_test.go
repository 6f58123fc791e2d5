package inputs

import (
	"errors"
	"reflect"
	"testing"
)

// The format is known before the other arguments are parsed, because their errors are written in it.
func TestOutputFormat(t *testing.T) {
	for _, test := range []struct {
		args    []string
		environ []string
		target  any
		want    Output
		invalid bool
	}{
		{},
		{args: []string{"--output", "json", "--absent"}, want: JSONOutput},
		{args: []string{"--absent", "--output=env"}, want: EnvOutput},
		{args: []string{"--output=env", "--output=text"}, want: TextOutput},
		{args: []string{"--outputs", "type=local,dest=x", "--output"}},
		{args: []string{"--", "--output=json"}},
		{environ: []string{"INPUT_OUTPUT= json "}, want: JSONOutput},
		{args: []string{"--output=env"}, environ: []string{"INPUT_OUTPUT=json"}, want: EnvOutput},
		{args: []string{"--output", "type=local,dest=x"}, invalid: true},
		{args: []string{"--output=json"}, target: &Shell{}}, // of the command in the container
	} {
		if test.target == nil {
			test.target = &Build{}
		}
		got, err := Source{Args: test.args, Environ: test.environ}.OutputFormat(test.target)
		invalid, isInvalid := errors.AsType[*Error](err)
		if got != test.want || isInvalid != test.invalid || isInvalid && invalid.Input != "output" {
			t.Errorf("%q, %q: got %q, %v", test.args, test.environ, got, err)
		}
	}
}

func TestChanged(t *testing.T) {
	for _, test := range []struct {
		target  any
		environ []string
		args    []string
		want    []Value
	}{
		{target: &Build{}},
		{target: &Snapshot{}},
		{target: &Test{}, environ: []string{"GITHUB_ACTIONS=true", "INPUT_GITHUB_TOKEN=ghs_job", "INPUT_LOAD=true"}},
		{target: &Build{}, environ: []string{"SANDBOX_BUILD_PLATFORM=linux/s390x", "INPUT_SECRETS=A=1"},
			args: []string{"--no-load", "--build-args", "A=1\nB=2", "--timeout=60m"}, want: []Value{
				{"platform", "linux/s390x", false}, {"build_args", "A=1\nB=2", false}, {"secrets", "A=1", true},
				{"load", "false", false}, {"timeout", "1h0m0s", false},
			}},
		{target: &Snapshot{}, environ: []string{"GITHUB_ACTIONS=true"}, args: []string{"--update-doppler", "--cpu=4"},
			want: []Value{{"cpu", "4", false}, {"update_doppler", "true", false}}},
		{target: &Promote{}, args: []string{"agent-1", "--to=prd"},
			want: []Value{{"snapshot", "agent-1", false}, {"to", "prd", false}}},
	} {
		if _, err := (Source{Args: test.args, Environ: test.environ}).Parse(test.target); err != nil {
			t.Fatal(err)
		}
		inActions := len(test.environ) > 0 && test.environ[0] == "GITHUB_ACTIONS=true"
		if got := Changed(test.target, Names{}, inActions); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%T with %q, %q: got %+v, want %+v", test.target, test.args, test.environ, got, test.want)
		}
	}
}

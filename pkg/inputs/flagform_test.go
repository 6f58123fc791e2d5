package inputs

import "testing"

func TestFlagForm(t *testing.T) {
	for _, test := range []struct {
		target        any
		message, want string
	}{
		{&Build{}, `input timeout: "30" must have a unit`, `--timeout: "30" must have a unit`},
		{&Build{}, `input push, line 1: "true" is not a reference`, `--push, line 1: "true" is not a reference`},
		{&Build{}, `input load: no engine: start Docker; or set load: false`,
			`--load: no engine: start Docker; or pass --no-load`},
		{&Snapshot{}, `delete one, or set make_room: true`, `delete one, or pass --make-room`},
		{&Snapshot{}, `set daytona_api_key and update_doppler: false`, `set --daytona-api-key and --no-update-doppler`},
		{&Snapshot{}, `build it with platform: linux/amd64`, `build it with --platform linux/amd64`},
		{&Snapshot{}, `set if_exists: reuse or replace`, `pass --if-exists reuse or replace`},
		{&Snapshot{}, `set the input cpu to at most 4`, `set --cpu to at most 4`},
		{&Snapshot{}, `the input entrypoint: "x" is empty`, `--entrypoint: "x" is empty`},
		{&Build{}, `save_tags needs save: true`, `--save-tags needs --save`},
		{&Build{}, "timed out after 4s; raise `timeout`", "timed out after 4s; raise `--timeout`"},
		{&Build{}, "pull it: set `save: true`", "pull it: set `--save`"},
		{&Build{}, "last output: `cannot set load: false`", "last output: `cannot set load: false`"},
		{&Build{}, `context: deadline exceeded`, `context: deadline exceeded`},
		{&Build{}, `set allow_privileged: true`, `set allow_privileged: true`}, // an input of another program
		{&Build{}, `the path "build_args" is missing`, `the path "build_args" is missing`},
	} {
		if got := FlagForm(test.target, test.message); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

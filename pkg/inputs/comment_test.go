package inputs

import "testing"

func TestComment(t *testing.T) {
	dir := repository(t)
	for value, want := range map[string]Comment{
		"": {}, "false": {}, "False": {}, "true": {On: true}, "TRUE": {On: true}, "node-22": {true, "node-22"},
		"linux/arm64, not": {},
	} {
		spec, err := buildSpec(t, Env{Getenv: noEnv, Dir: dir}, "INPUT_COMMENT="+value, "INPUT_GITHUB_TOKEN=token")
		if isValid := value != "linux/arm64, not"; (err == nil) != isValid || spec.Report.Comment != want {
			t.Errorf("%q: got %+v, %v", value, spec.Report.Comment, err)
		}
		if err == nil && spec.Report.GitHubToken != "token" {
			t.Errorf("%q: the token is %q", value, spec.Report.GitHubToken)
		}
	}
}

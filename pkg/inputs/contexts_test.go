package inputs

import (
	"maps"
	"testing"
)

// Like BuildKit, the action takes the Dockerfile relative to the directory of {{defaultContext}}:DIRECTORY.
func TestDefaultContext(t *testing.T) {
	env := Env{Dir: t.TempDir(), Getenv: func(name string) string {
		return map[string]string{"GITHUB_SHA": "1"}[name]
	}}
	for _, test := range []struct {
		context, dockerfile       string
		wantContext, wantDockfile string
		ofEvent                   bool
	}{
		{"{{defaultContext}}", "", ".", "", true},
		{"{{ defaultContext }}:docker", "", "docker", "", true},
		{"{{defaultContext}}:docker", "Dockerfile", "docker", "docker/Dockerfile", true},
		{"{{{defaultContext}}}:docker/app/", "dev.Dockerfile", "docker/app", "docker/app/dev.Dockerfile", true},
		{"{{defaultContext}}:../..", "dev.Dockerfile", ".", "dev.Dockerfile", true},
		{"{{defaultContext}}:docker", "-", "docker", "/dev/stdin", true},
		{"docker", "dev.Dockerfile", "docker", "dev.Dockerfile", false},
	} {
		spec, err := buildSpec(t, env, "INPUT_CONTEXT="+test.context, "INPUT_DOCKERFILE="+test.dockerfile)
		if err != nil || spec.Context != test.wantContext || spec.Dockerfile != test.wantDockfile ||
			spec.EventCommit != test.ofEvent {
			t.Errorf("%+v: context %s, Dockerfile %s, event %t, %v",
				test, spec.Context, spec.Dockerfile, spec.EventCommit, err)
		}
	}
	spec, err := buildSpec(t, env, "INPUT_BUILD_CONTEXTS=a=lib\nc={{defaultContext}}\n"+
		"a={{defaultContext}}\nb={{defaultContext}}:lib\nc=lib")
	if err != nil || !maps.Equal(spec.EventContexts, map[string]string{"a": ".", "b": "lib"}) ||
		!maps.Equal(spec.Request.Contexts, map[string]string{"c": "lib"}) {
		t.Errorf("event %v, others %v, %v", spec.EventContexts, spec.Request.Contexts, err)
	}
	_, err = buildSpec(t, env, "INPUT_GIT_CONTEXT=Git")
	assertInvalid(t, err, "git_context", 0, "Git", "for example git")
	_, err = buildSpec(t, env, "INPUT_BUILD_CONTEXTS=git={{defaultContext}}", "INPUT_GIT_CONTEXT=git")
	assertInvalid(t, err, "git_context", 0, "git", "a name that build_contexts does not use")
}

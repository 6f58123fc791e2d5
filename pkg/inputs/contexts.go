package inputs

import (
	"cmp"
	"path"
	"regexp"
	"strings"
)

// eventContext matches {{defaultContext}} and {{defaultContext}}:DIRECTORY, which docker/build-push-action (v7.3.0,
// src/context.ts) and depot/build-push-action replace with the git URL of the event's commit.
var eventContext = regexp.MustCompile(`^\{\{\{? *defaultContext *\}?\}\}(?::(.*))?$`)

// parseEventContext returns the directory of the event's commit that a context names, relative to the root.
func parseEventContext(text string) (directory string, ok bool) {
	m := eventContext.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return "", false
	}
	return cmp.Or(strings.TrimPrefix(path.Clean("/"+m[1]), "/"), "."), true
}

// validateContexts validates the inputs context, build_contexts and git_context. Like BuildKit, it takes a Dockerfile
// relative to the directory of {{defaultContext}}:DIRECTORY.
func validateContexts(spec *BuildSpec, in Build, env Env) error {
	if directory, ok := parseEventContext(in.Context); ok {
		if in.Ref == "" && env.Getenv("GITHUB_SHA") == "" {
			return Errorf("context", in.Context, "needs an event of GitHub Actions; write a directory, or set ref")
		}
		if in.Dockerfile != defaultDockerfile && !path.IsAbs(in.Dockerfile) {
			spec.Dockerfile = path.Join(directory, in.Dockerfile)
		}
		spec.Context, spec.EventCommit = directory, true
	}
	spec.Request.Contexts, spec.EventContexts = map[string]string{}, map[string]string{}
	for _, item := range in.BuildContexts {
		name, from, ok := strings.Cut(item.Text, "=")
		if name = strings.TrimSpace(name); !ok || name == "" || from == "" {
			return itemErrorf("build_contexts", item, "is not a named context; write NAME=DIRECTORY, "+
				"NAME=docker-image://IMAGE, NAME=oci-layout://DIRECTORY or NAME=URL")
		}
		directory, ofEvent := parseEventContext(from)
		switch {
		case !ofEvent:
			spec.Request.Contexts[name] = from
		case in.Ref == "" && env.Getenv("GITHUB_SHA") == "":
			return itemErrorf("build_contexts", item, "needs an event of GitHub Actions; write a directory, or set ref")
		default:
			spec.EventContexts[name] = directory
		}
	}
	return validateGitContext(spec, in)
}

func validateGitContext(spec *BuildSpec, in Build) error {
	const auto, none, name = "auto", "none", "git"
	isTaken := func(name string) bool {
		return spec.Request.Contexts[name] != "" || spec.EventContexts[name] != ""
	}
	switch {
	case in.GitContext == "", in.GitContext == none, in.GitContext == auto && isTaken(name):
		spec.GitContext = ""
	case in.GitContext == auto:
		spec.GitContext, spec.GitContextOptional = name, true
	case isTaken(in.GitContext) || !stagePattern.MatchString(in.GitContext):
		return Errorf("git_context", in.GitContext, "must be a name that build_contexts does not use, for example git")
	}
	return nil
}

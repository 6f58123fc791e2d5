package inputs

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"github.com/org/sandbox-actions/pkg/image"
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
	switch {
	case in.Dockerfile == "-":
		spec.Dockerfile = stdin
	case strings.Contains(in.Dockerfile, "://"):
		return Errorf("dockerfile", in.Dockerfile, "is a URL; write the path of a file, or - for the standard input")
	}
	if directory, ok := parseEventContext(in.Context); ok {
		if in.Ref == "" && env.Getenv("GITHUB_SHA") == "" {
			return Errorf("context", in.Context, "needs an event of GitHub Actions; write a directory, or set ref")
		}
		if spec.Dockerfile != "" && !path.IsAbs(spec.Dockerfile) {
			spec.Dockerfile = path.Join(directory, spec.Dockerfile)
		}
		spec.Context, spec.EventCommit = directory, true
	} else if err := checkFetched(in.Context); IsRemote(in.Context) && err != nil {
		return Errorf("context", in.Context, "%v", err)
	}
	spec.Request.Contexts, spec.EventContexts = map[string]string{}, map[string]string{}
	for _, item := range in.BuildContexts {
		name, from, ok := strings.Cut(item.Text, "=")
		if name = strings.TrimSpace(name); !ok || name == "" || from == "" {
			return itemErrorf("build_contexts", item, "is not a named context; write NAME=DIRECTORY, "+
				"NAME=docker-image://IMAGE, NAME=oci-layout://DIRECTORY or NAME=URL")
		}
		name, err := image.ContextName(name)
		if err != nil {
			return itemErrorf("build_contexts", item, "has an invalid name: %v", err)
		}
		directory, ofEvent := parseEventContext(from)
		switch {
		case !ofEvent:
			if err := checkNamedContext(from); err != nil {
				return itemErrorf("build_contexts", item, "%v", err)
			}
			delete(spec.EventContexts, name) // the last line of a name counts
			spec.Request.Contexts[name] = from
		case in.Ref == "" && env.Getenv("GITHUB_SHA") == "":
			return itemErrorf("build_contexts", item, "needs an event of GitHub Actions; write a directory, or set ref")
		default:
			delete(spec.Request.Contexts, name)
			spec.EventContexts[name] = directory
		}
	}
	return validateGitContext(spec, in)
}

// checkFetched returns an error for a URL that BuildKit does not fetch.
func checkFetched(url string) error {
	_, isGit, err := dfgitutil.ParseGitRef(url)
	switch {
	case isGit:
		return err // of the query
	case strings.HasPrefix(url, "https://"), strings.HasPrefix(url, "http://"):
		return nil
	}
	return errors.New("is a URL that BuildKit does not fetch; write https://, git:// or ssh://, git@HOST:PATH, or a " +
		"directory")
}

// checkNamedContext returns an error for a source that BuildKit does not support for named contexts (moby/buildkit
// v0.34.2, load in frontend/dockerui/namedcontext.go). Directories are checked when they are resolved.
func checkNamedContext(from string) error {
	if reference, ok := strings.CutPrefix(from, "docker-image://"); ok {
		_, err := image.ContextName(reference)
		return err
	}
	if !IsRemote(from) || strings.HasPrefix(from, "oci-layout://") {
		return nil
	}
	if err := checkFetched(from); err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(from, "github.com/"); ok {
		return fmt.Errorf("is not supported as a named context; write https://github.com/%s, with the suffix .git", rest)
	}
	if strings.HasPrefix(from, "git@") || strings.HasPrefix(from, "git://") || strings.HasPrefix(from, "http") {
		return nil
	}
	return errors.New("is not supported as a named context; write git@HOST:PATH")
}

func validateGitContext(spec *BuildSpec, in Build) error {
	const auto, none, name = "auto", "none", "git"
	isTaken := func(name string) bool {
		return spec.Request.Contexts[name] != "" || spec.EventContexts[name] != ""
	}
	lookedUp, err := image.ContextName(in.GitContext)
	switch {
	case in.GitContext == "", in.GitContext == none, in.GitContext == auto && isTaken(name):
		spec.GitContext = ""
	case in.GitContext == auto:
		spec.GitContext, spec.GitContextOptional = name, true
	case isTaken(in.GitContext), err != nil, lookedUp != in.GitContext:
		return Errorf("git_context", in.GitContext, "must be a name that build_contexts does not use, for example git")
	}
	return nil
}

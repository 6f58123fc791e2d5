package actions

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/safetext"
	"github.com/org/sandbox-actions/pkg/source"
)

// warnUnfetched warns about submodules and Git LFS files of the build contexts whose content is missing, unless the
// input lfs leaves it out. Without paths, all files of the tree count.
func warnUnfetched(job job, spec inputs.BuildSpec, tree source.Tree, paths inputs.Paths) {
	what, modules, pointers := "The checkout",
		"set submodules: true in the actions/checkout step, or run `git submodule update --init`",
		"set lfs: true in the actions/checkout step, or run `git lfs pull`"
	missing := tree.Unfetched
	if tree.Dir != job.Dir {
		what, modules = "Commit "+tree.SHA, "set submodules: true"
		if spec.Fetch.Submodules == source.DirectSubmodules {
			modules = "set submodules: recursive"
		}
		missing.Pointers = nil // as lfs: false requests
	}
	isNeeded := contextFilter(tree, paths)
	warn := func(names []string, problem, hint string) {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !isNeeded(name) })
		if len(names) == 0 {
			return
		}
		const shown = 3
		list := safetext.Line(strings.Join(names[:min(shown, len(names))], ", "), 0)
		if more := len(names) - shown; more > 0 {
			list += fmt.Sprintf(" and %d more", more)
		}
		job.Runner.Warning(runner.Annotation{
			Title:   "Files are missing in the build context",
			Message: fmt.Sprintf("%s has %s: %s; %s", what, problem, list, hint),
		})
	}
	warn(missing.Submodules, "submodules that are not fetched", modules)
	warn(missing.Pointers, "Git LFS files that contain only pointers", pointers)
}

// contextFilter returns a function that reports whether a file or directory of a tree may be part of a local build
// context, or contains one.
func contextFilter(tree source.Tree, paths inputs.Paths) func(name string) bool {
	if paths.Context == "" {
		return func(string) bool { return true }
	}
	type buildContext struct {
		dir     string
		ignored *patternmatcher.PatternMatcher // may be nil
	}
	var own []byte
	if paths.Definition != nil {
		own = paths.Definition.Ignore()
	}
	contexts := []buildContext{{paths.Context, ignoredFiles(own, paths.Context)}}
	for _, dir := range paths.Contexts {
		contexts = append(contexts, buildContext{dir, ignoredFiles(nil, dir)})
	}
	contexts = slices.DeleteFunc(contexts, func(c buildContext) bool { return !filepath.IsAbs(c.dir) })
	return func(name string) bool {
		full := filepath.Join(tree.Dir, name)
		return slices.ContainsFunc(contexts, func(c buildContext) bool {
			if around, err := filepath.Rel(full, c.dir); err == nil && filepath.IsLocal(around) {
				return true
			}
			relative, err := filepath.Rel(c.dir, full)
			if err != nil || !filepath.IsLocal(relative) {
				return false
			}
			if c.ignored == nil {
				return true
			}
			isIgnored, err := c.ignored.MatchesOrParentMatches(filepath.ToSlash(relative))
			return err != nil || !isIgnored
		})
	}
}

// ignoredFiles returns the patterns of an ignore file or, if it is nil, of the .dockerignore in the context. It returns
// nil if no such file exists or the file is invalid.
func ignoredFiles(own []byte, context string) *patternmatcher.PatternMatcher {
	content := own
	if content == nil {
		content, _ = image.ReadIgnoreFile(context) // BuildKit reports the error
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(content))
	if err != nil {
		return nil
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil
	}
	return matcher
}

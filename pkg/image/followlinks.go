package image

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/fsutil"
)

const (
	maxLinks     = 255     // of one path, which may be endless; the builder has the same limit
	maxLinkSteps = 100_000 // directories and links that followLinks inspects
)

// followLinks returns the patterns of the files that the builder needs for the given paths of a context: those of the
// paths, of the symbolic links on the way and of their targets. Paths can have wildcards. Links do not leave the
// directory: .. of its root is the root, as in the builder. It returns nil, for all files, if a path is the root or
// there are too many links.
//
// fsutil's own resolution follows each link only once (tonistiigi/fsutil a72de9d, followlinks.go:58), so that the
// second of two paths through a linked directory is not sent.
func followLinks(directory string, paths []string) []string {
	l := linkFollower{directory: directory, patterns: map[string]bool{}, seen: map[linkStep]bool{}}
	for _, p := range paths {
		p = strings.TrimPrefix(path.Clean("/"+p), "/")
		l.add(p) // also a path that does not exist: without patterns, all files are sent
		l.follow(linkStep{rest: p}, 0)
	}
	if l.all || len(l.seen) > maxLinkSteps {
		return nil
	}
	return slices.Sorted(maps.Keys(l.patterns))
}

// linkFollower collects patterns for followLinks.
type linkFollower struct {
	directory string
	patterns  map[string]bool
	seen      map[linkStep]bool
	all       bool // whether a path is the root
}

// linkStep is a path that is resolved up to a directory.
type linkStep struct {
	directory string // without links; relative to the root; "" for the root
	pattern   string // a pattern of directory
	rest      string // path below directory; a pattern
}

// follow adds the patterns of a path that is resolved up to a step, through a number of links.
func (l *linkFollower) follow(step linkStep, links int) {
	if l.seen[step] || links > maxLinks || len(l.seen) > maxLinkSteps {
		return
	}
	l.seen[step] = true
	name, rest, _ := strings.Cut(step.rest, "/")
	switch name {
	case "", ".":
		if step.rest != name { // a doubled slash, or ./
			l.follow(linkStep{step.directory, step.pattern, rest}, links)
		} else if step.directory == "" {
			l.all = true
		} else {
			l.add(step.pattern)
		}
		return
	case "..":
		parent := strings.TrimPrefix(path.Dir("/"+step.directory), "/")
		l.follow(linkStep{parent, quotePattern(parent), rest}, links)
		return
	}
	pattern := path.Join(step.pattern, name)
	if rest == "" || name == "**" {
		l.add(pattern)
	}
	for _, entry := range l.find(step.directory, name) {
		full := path.Join(step.directory, entry)
		info, err := os.Lstat(filepath.Join(l.directory, full))
		switch {
		case err != nil: // the walk reports it
		case info.Mode().Type() == os.ModeSymlink:
			l.add(quotePattern(full))
			target, _ := os.Readlink(filepath.Join(l.directory, full))
			start := linkStep{rest: quotePattern(target) + "/" + rest}
			if !path.IsAbs(target) {
				start.directory, start.pattern = step.directory, quotePattern(step.directory)
			}
			start.rest = strings.Trim(start.rest, "/")
			l.follow(start, links+1)
		case rest != "" && info.IsDir():
			l.follow(linkStep{full, pattern, rest}, links)
		}
	}
}

// find returns the names in a directory that match a pattern. A name without special characters need not exist.
func (l *linkFollower) find(directory, pattern string) (names []string) {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}
	}
	entries, _ := os.ReadDir(filepath.Join(l.directory, directory)) // the walk reports an error
	for _, entry := range entries {
		if ok, _ := path.Match(pattern, entry.Name()); ok {
			names = append(names, entry.Name())
		}
	}
	return names
}

// add adds a pattern, in which a leading ! is part of a name.
func (l *linkFollower) add(pattern string) {
	if strings.HasPrefix(pattern, "!") {
		pattern = `\` + pattern
	}
	l.patterns[pattern] = true
}

// quotePattern returns a pattern that matches a path. Special characters become ?, which may match other files, too.
func quotePattern(path string) string {
	return strings.Map(func(c rune) rune {
		if strings.ContainsRune("*?[]^\\! \t", c) {
			return '?'
		}
		return c
	}, path)
}

// sendPatterns decides whether the files below a directory are sent.
type sendPatterns struct {
	include, exclude *patternmatcher.PatternMatcher // nil without patterns
}

// newSendPatterns ignores invalid patterns, which fsutil reports.
func newSendPatterns(opt *fsutil.FilterOpt) (p sendPatterns) {
	if len(opt.IncludePatterns) > 0 {
		p.include, _ = patternmatcher.New(opt.IncludePatterns)
	}
	if len(opt.ExcludePatterns) > 0 {
		p.exclude, _ = patternmatcher.New(opt.ExcludePatterns)
	}
	return p
}

// excludeBelow reports whether no file below a directory can be sent, whatever its name.
func (p sendPatterns) excludeBelow(directory string) bool {
	const anyName = "\x01" // in practice matched by wildcards only
	below := path.Join(directory, anyName)
	if p.include != nil {
		included, err := p.include.MatchesOrParentMatches(below)
		if err == nil && !included && !canMatchBelow(p.include, false, directory) {
			return true
		}
	}
	if p.exclude == nil {
		return false
	}
	excluded, err := p.exclude.MatchesOrParentMatches(below)
	return err == nil && excluded && !canMatchBelow(p.exclude, true, directory)
}

// canMatchBelow reports whether a pattern can match a path below a directory that it does not match itself. With
// exceptions set, it considers only the patterns that begin with !.
func canMatchBelow(matcher *patternmatcher.PatternMatcher, exceptions bool, directory string) bool {
	return slices.ContainsFunc(matcher.Patterns(), func(pattern *patternmatcher.Pattern) bool {
		if pattern.Exclusion() != exceptions {
			return false
		}
		rest := strings.Split(pattern.String(), "/")
		for name := range strings.SplitSeq(directory, "/") {
			if len(rest) == 0 {
				return false
			}
			if strings.Contains(rest[0], "**") {
				return true
			}
			if ok, err := path.Match(rest[0], name); err == nil && !ok {
				return false
			}
			rest = rest[1:]
		}
		return len(rest) > 0
	})
}

package suite

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Glob returns the files that a pattern names, sorted by path: * matches within a name, ** across directories. It
// follows symbolic links in the directories that the pattern names, but not those that ** matches. It returns each file
// once, even if the pattern reaches it through several links, and a link at the end of the pattern as the link itself.
func (t *Tree) Glob(pattern string) []File {
	g := globber{tree: t, found: map[*entry]bool{}, seen: map[globState]bool{}}
	expandBraces(pattern, func(pattern string) {
		names := pathNames(pattern)
		if strings.HasSuffix(pattern, "/") {
			names = append(names, ".") // matches directories only, as in a shell
		}
		g.match(place{t.root, "/", "/"}, names)
		clear(g.seen)
	})
	byPath := func(a, b File) int { return strings.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(g.files, byPath) {
		slices.SortFunc(g.files, byPath)
	}
	return g.files
}

// globber collects the files that a pattern names.
type globber struct {
	tree  *Tree
	files []File
	found map[*entry]bool    // entries of files
	seen  map[globState]bool // of the current alternative; bounds loops of links and repeated **
}

type globState struct {
	at   *entry
	rest int // number of names that are left of the pattern
}

// place is an entry with its path without links, and the path by which the pattern reached it.
type place struct {
	*entry
	clean, written string
}

// match adds the files that the names of a pattern select below at.
func (g *globber) match(at place, names []string) {
	if len(names) == 0 {
		g.add(at)
		return
	}
	state := globState{at.entry, len(names)}
	if at.children == nil || g.seen[state] {
		return
	}
	g.seen[state] = true
	if at.unreadable {
		g.tree.hidden = at.clean
	}
	switch name, rest := names[0], names[1:]; {
	case name == ".":
		g.match(at, rest)
	case name == "..":
		clean := path.Dir(at.clean)
		parent, _ := g.tree.find(clean, true)
		g.match(place{parent, clean, clean}, rest)
	case name == "**":
		g.match(at, rest)
		for _, child := range slices.Sorted(maps.Keys(at.children)) {
			if next := at.child(child); next.children != nil {
				g.match(next, names)
			} else if len(rest) == 0 {
				g.add(next)
			}
		}
	case !isPattern(name):
		if child := unescape(name); at.children[child] != nil {
			g.enter(at.child(child), rest)
		}
	default:
		for _, child := range slices.Sorted(maps.Keys(at.children)) {
			if doublestar.MatchUnvalidated(name, child) {
				g.enter(at.child(child), rest)
			}
		}
	}
}

// enter continues with an entry that a name of the pattern matches. It follows a link unless the pattern ends there.
func (g *globber) enter(at place, rest []string) {
	if len(rest) > 0 && at.children == nil {
		at.entry, at.clean = g.tree.find(at.clean, true)
		if at.entry == nil {
			return
		}
	}
	g.match(at, rest)
}

func (g *globber) add(at place) {
	if !g.found[at.entry] {
		g.found[at.entry] = true
		g.files = append(g.files, at.file(at.written))
	}
}

func (p place) child(name string) place {
	return place{p.children[name], path.Join(p.clean, name), path.Join(p.written, name)}
}

// expandBraces calls yield for each combination of the alternatives in the braces of a valid pattern.
func expandBraces(pattern string, yield func(string)) {
	var options []string
	for i, depth, start, from, inClass := 0, 0, 0, 0, false; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case inClass:
			inClass = c != ']'
		case c == '[':
			inClass = true
		case c == '{':
			if depth++; depth == 1 {
				start, from = i, i+1
			}
		case c == ',' && depth == 1:
			options, from = append(options, pattern[from:i]), i+1
		case c == '}' && depth > 0:
			if depth--; depth > 0 {
				continue
			}
			for _, option := range append(options, pattern[from:i]) {
				expandBraces(pattern[:start]+option+pattern[i+1:], yield)
			}
			return
		}
	}
	yield(pattern)
}

package suite

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// shownFiles bounds how many files one message names.
const shownFiles = 10

var fileTypes = []string{"file", "directory", "symlink", "fifo", "char", "block"}

// traits are what files can be chosen by.
var traits = map[string]func(File) bool{
	"setuid":             func(f File) bool { return f.Mode&fs.ModeSetuid != 0 },
	"setgid":             func(f File) bool { return f.Mode&fs.ModeSetgid != 0 },
	"sticky":             func(f File) bool { return f.Mode&fs.ModeSticky != 0 },
	"executable":         func(f File) bool { return f.Type == "file" && f.Mode&0o111 != 0 },
	"writable_by_others": func(f File) bool { return f.Type != "symlink" && f.Mode&0o002 != 0 },
	"empty":              func(f File) bool { return f.Type == "file" && f.Size == 0 },
	"file":               func(f File) bool { return f.Type == "file" },
	"directory":          func(f File) bool { return f.Type == "directory" },
	"symlink":            func(f File) bool { return f.Type == "symlink" },
}

func traitNames() []string { return slices.Sorted(maps.Keys(traits)) }

// look is what one check of files found in the tree, before contents are read.
type look struct {
	check   *fileCheck
	found   []File // in the order of their paths
	content []File // those of found that are read
	wrong   []string
}

// lookFor finds the files of a check and holds against it all that headers tell.
func lookFor(t *Tree, c *fileCheck) *look {
	l := &look{check: c}
	for _, f := range t.matching(c) {
		if c.chooses(f) {
			l.found = append(l.found, f)
		}
	}
	bounded := c.Count != nil
	switch {
	case c.Absent && len(l.found) > 0:
		l.fail("must be absent: %s", list(l.found))
		return l
	case c.Absent:
		return l
	case len(l.found) == 0 && !bounded:
		if link, ok := t.Lstat(c.Path); ok && link.Type == "symlink" {
			l.fail("%s is a symbolic link to %q, where there is nothing", c.Path, link.Target)
		} else {
			l.fail("there is no %s", c.Path)
		}
		return l
	case bounded && !c.Count.holds(int64(len(l.found))):
		l.fail("%s matches %d files, want %s: %s", c.Path, len(l.found), c.Count, list(l.found))
	}
	for _, f := range l.found {
		l.header(t, f)
		if c.Content == nil {
			continue
		}
		if f.Type != "file" || f.Size > maxContent {
			l.fail("%s is a %s of %d bytes, and has no content that can be compared", f.Path, f.Type, f.Size)
			continue
		}
		l.content = append(l.content, f)
	}
	return l
}

// fail notes what is wrong; a pattern that matches everything does not fill memory with it.
func (l *look) fail(format string, args ...any) {
	switch len(l.wrong) {
	case shownFiles:
		l.wrong = append(l.wrong, "and more of them")
	case shownFiles + 1:
	default:
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

// matching are the files that the path names.
func (t *Tree) matching(c *fileCheck) (found []File) {
	if !isPattern(c.Path) {
		name := unescape(c.Path)
		stat := t.Stat
		if c.Absent || c.Type == "symlink" || c.Target != nil {
			stat = t.Lstat
		}
		if f, ok := stat(name); ok {
			f.Path = path.Clean(name)
			return []File{f}
		}
		return nil
	}
	t.Glob(c.Path, func(f File) { found = append(found, f) })
	return found
}

func isPattern(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '*', '?', '[', '{':
			return true
		}
	}
	return false
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (c *fileCheck) chooses(f File) bool {
	for _, pattern := range c.Except {
		if doublestar.MatchUnvalidated(pattern, f.Path) {
			return false
		}
	}
	for _, trait := range c.Having {
		if !traits[trait](f) {
			return false
		}
	}
	return true
}

// header holds a file against what its header tells.
func (l *look) header(t *Tree, f File) {
	c := l.check
	if c.Type != "" && f.Type != c.Type {
		l.fail("%s is a %s, want a %s", f.Path, f.Type, c.Type)
	}
	if c.Mode != "" {
		if want, _ := strconv.ParseUint(c.Mode, 8, 32); uint64(unixMode(f.Mode)) != want {
			l.fail("%s has mode %04o, want %04o", f.Path, unixMode(f.Mode), want)
		}
	}
	if c.Owner != "" {
		if wrong := t.owned(f, string(c.Owner)); wrong != "" {
			l.fail("%s %s", f.Path, wrong)
		}
	}
	if c.ExecutableBy != "" {
		bits := map[string]fs.FileMode{"owner": 0o100, "group": 0o010, "others": 0o001, "any": 0o111}[c.ExecutableBy]
		if f.Mode&bits == 0 {
			l.fail("%s has mode %04o, and is not executable by %s", f.Path, unixMode(f.Mode), c.ExecutableBy)
		}
	}
	if c.Target != nil {
		if f.Type != "symlink" {
			l.fail("%s is a %s, want a symbolic link", f.Path, f.Type)
		} else if wrong := c.Target.compare(f.Target, true); wrong != "" {
			l.fail("the target of %s %s", f.Path, wrong)
		}
	}
	if c.Size != nil && !c.Size.holds(f.Size) {
		l.fail("%s has %d bytes, want %s", f.Path, f.Size, c.Size)
	}
}

// unixMode is a mode as chmod takes it.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unix := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unix
		}
	}
	return mode
}

// owned says in what a file's owner is another than want, user or user:group, by name or number.
func (t *Tree) owned(f File, want string) string {
	user, group, both := strings.Cut(want, ":")
	for _, part := range []struct {
		what, want, file string
		have             int
		asked            bool
	}{{"user", user, "/etc/passwd", f.UID, user != ""}, {"group", group, "/etc/group", f.GID, both && group != ""}} {
		if !part.asked {
			continue
		}
		id, err := strconv.Atoi(part.want)
		if err != nil {
			var known bool
			if id, known = t.id(part.file, part.want); !known {
				return fmt.Sprintf("can not be owned by %s %q, of whom the image's %s knows nothing", part.what, part.want, part.file)
			}
		}
		if id != part.have {
			return fmt.Sprintf("is owned by %s %d, want %s", part.what, part.have, part.want)
		}
	}
	return ""
}

// id is the number that a name has in the image's /etc/passwd or /etc/group, see passwd(5).
func (t *Tree) id(file, name string) (int, bool) {
	ids, read := t.ids[file]
	if !read {
		ids = map[string]int{}
		t.ids[file] = ids
		f, ok := t.Stat(file)
		if !ok {
			return 0, false
		}
		content, err := t.Contents([]File{f})
		if err != nil {
			return 0, false
		}
		for lines := bufio.NewScanner(bytes.NewReader(content[0])); lines.Scan(); {
			fields := strings.Split(lines.Text(), ":")
			if len(fields) < 3 {
				continue
			}
			if id, err := strconv.Atoi(fields[2]); err == nil {
				ids[fields[0]] = id
			}
		}
	}
	id, ok := ids[name]
	return id, ok
}

func list(files []File) string {
	var names []string
	for _, f := range files[:min(len(files), shownFiles)] {
		names = append(names, f.Path)
	}
	if more := len(files) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func (b *between) holds(n int64) bool {
	return (b.Min == nil || n >= int64(*b.Min)) && (b.Max == nil || n <= int64(*b.Max))
}

func (b *between) String() string {
	switch {
	case b.Max == nil:
		return fmt.Sprintf("at least %d", *b.Min)
	case b.Min == nil:
		return fmt.Sprintf("at most %d", *b.Max)
	case *b.Min == *b.Max:
		return fmt.Sprint(*b.Min)
	}
	return fmt.Sprintf("%d to %d", *b.Min, *b.Max)
}

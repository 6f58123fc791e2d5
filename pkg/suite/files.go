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

// maxListed is the maximum number of files in a message, and of messages of a check.
const maxListed = 10

// traits maps each property by which files can be selected to its predicate.
var traits = map[Trait]func(File) bool{
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

func traitNames() []Trait { return slices.Sorted(maps.Keys(traits)) }

// fileResult is the result of a file check before the contents of files are checked.
type fileResult struct {
	check        *FileCheck
	contentFiles []File // files with contents to check, sorted by path
	messages     []string
}

// checkFiles selects the files of a check and checks their headers.
func checkFiles(t *Tree, c *FileCheck) *fileResult {
	r := &fileResult{check: c}
	files := t.selectFiles(c)
	switch {
	case c.Absent && len(files) > 0:
		r.addf("must be absent: %s", listPaths(files))
		return r
	case c.Absent:
		return r
	case len(files) == 0 && c.Count == nil:
		r.addf("%s not found", c.Path)
		return r
	case c.Count != nil && !c.Count.contains(int64(len(files))):
		r.addf("%s matches %d files, want %s: %s", c.Path, len(files), c.Count, listPaths(files))
	}
	for _, f := range files {
		target := f
		if f.Type == "symlink" && c.followsLinks() {
			followed, ok := t.Stat(f.Path)
			if !ok {
				r.addf("%s is a symbolic link to %q, which does not exist", f.Path, f.Target)
				continue
			}
			target, target.Path = followed, f.Path
			if c.Follow != nil {
				f = target // for all checks
			}
		}
		r.checkHeader(t, f, target)
		switch {
		case c.Content == nil:
		case target.Type != "file":
			r.addf("%s is a %s and has no content", f.Path, target.Type)
		case target.Size > maxContent:
			r.addf("%s has %d bytes; only files of at most %d bytes can be compared", f.Path, target.Size, maxContent)
		default:
			r.contentFiles = append(r.contentFiles, target)
		}
	}
	return r
}

// followsLinks reports whether the check is about the file to which a selected link points. That is always so for a
// plain path. The mode and the size of a link are meaningless.
func (c *FileCheck) followsLinks() bool {
	if c.Follow != nil {
		return *c.Follow
	}
	if c.Type == "symlink" || c.Target != nil || slices.Contains(c.Having, "symlink") {
		return false
	}
	return !isPattern(string(c.Path)) || c.Mode != "" || c.ExecutableBy != "" || c.Size != nil || c.Content != nil
}

// addf adds a message. It formats no messages beyond the limit, so a pattern that matches every file is cheap.
func (r *fileResult) addf(format string, args ...any) {
	switch len(r.messages) {
	case maxListed:
		r.messages = append(r.messages, "more files fail the same check")
	case maxListed + 1:
	default:
		r.messages = append(r.messages, fmt.Sprintf(format, args...))
	}
}

// failures returns all failures of the check. Unless err is set, contents begins with the contents of r.contentFiles.
func (r *fileResult) failures(contents [][]byte, err error, dir string) (failures []Failure) {
	for _, message := range r.messages {
		failures = append(failures, Failure{Line: r.check.Line, Message: message})
	}
	if err != nil && len(r.contentFiles) > 0 {
		return append(failures, Failure{Line: r.check.Line, Message: err.Error()})
	}
	for i, f := range r.contentFiles {
		failures = append(failures, r.check.Content.check(f.Path, string(contents[i]), dir)...)
	}
	return failures
}

// hiddenFrom returns a directory that a check searched or a file whose content it needs, but that could not be read.
func (t *Tree) hiddenFrom(checks []*fileResult) string {
	for _, checked := range checks {
		for _, f := range checked.contentFiles {
			if f.entry.unreadable {
				return f.Path
			}
		}
	}
	return t.hidden
}

// selectFiles returns the files to which a check applies, sorted by path.
func (t *Tree) selectFiles(c *FileCheck) []File {
	files := t.filesAt(c)
	ignored := map[*entry]bool{}
	if len(files) > 0 {
		for _, pattern := range c.Except {
			for _, f := range t.Glob(string(pattern)) {
				ignored[f.entry] = true
			}
		}
	}
	return slices.DeleteFunc(files, func(f File) bool { return ignored[f.entry] || !c.selects(f) })
}

// filesAt returns the files that the path of a check names.
func (t *Tree) filesAt(c *FileCheck) []File {
	pattern := string(c.Path)
	if isPattern(pattern) {
		return t.Glob(pattern)
	}
	name := unescape(pattern)
	f, ok := t.Lstat(name)
	if !ok {
		return nil
	}
	if target, ok := t.Stat(name); ok && c.followsLinks() && (!c.Absent || len(c.Having) > 0) {
		f = target
	}
	f.Path = path.Clean(name)
	return []File{f}
}

// selects reports whether the file has the traits of the check and no exception names its path.
func (c *FileCheck) selects(f File) bool {
	for _, pattern := range c.Except {
		if doublestar.MatchUnvalidated(string(pattern), f.Path) {
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

// isPattern reports whether a path contains unescaped special characters of a pattern.
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

// unescape removes the backslashes before escaped characters.
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

// checkHeader checks everything except the content of a file. target is the file itself or, for a link that the check
// follows, the file to which it points.
func (r *fileResult) checkHeader(t *Tree, f, target File) {
	c := r.check
	if c.Type != "" && f.Type != c.Type {
		r.addf("%s is a %s, want a %s", f.Path, f.Type, c.Type)
	}
	if c.Mode != "" {
		if want, _ := strconv.ParseUint(c.Mode, 8, 32); uint64(unixMode(target.Mode)) != want {
			r.addf("%s has mode %04o, want %04o", f.Path, unixMode(target.Mode), want)
		}
	}
	if c.Owner != "" {
		if difference := t.compareOwner(f, string(c.Owner)); difference != "" {
			r.addf("%s %s", f.Path, difference)
		}
	}
	if c.ExecutableBy != "" {
		bits := map[string]fs.FileMode{"owner": 0o100, "group": 0o010, "others": 0o001, "any": 0o111}[c.ExecutableBy]
		if target.Mode&bits == 0 {
			r.addf("%s has mode %04o, which is not executable by %s", f.Path, unixMode(target.Mode), c.ExecutableBy)
		}
	}
	if c.Target != nil {
		if f.Type != "symlink" {
			r.addf("%s is a %s, want a symbolic link", f.Path, f.Type)
		} else if difference := c.Target.compare(f.Target, true); difference != "" {
			r.addf("target of %s %s", f.Path, difference)
		}
	}
	if c.Size != nil && !c.Size.contains(target.Size) {
		r.addf("%s has %d bytes, want %s", f.Path, target.Size, c.Size)
	}
}

// unixMode returns the permission bits in chmod's numeric form.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unix := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unix
		}
	}
	return mode
}

// compareOwner describes how a file's owner differs from want, which is user or user:group by name or number. It
// returns "" if it does not.
func (t *Tree) compareOwner(f File, want string) string {
	user, group, _ := strings.Cut(want, ":")
	if difference := t.compareID("user", user, "/etc/passwd", f.UID); difference != "" {
		return difference
	}
	return t.compareID("group", group, "/etc/group", f.GID)
}

// compareID compares an ID with a name or number; "" matches any ID. file maps names to IDs.
func (t *Tree) compareID(kind, want, file string, have int) string {
	if want == "" {
		return ""
	}
	id, err := strconv.Atoi(want)
	if err != nil {
		var known bool
		if id, known = t.idOf(file, want); !known {
			return fmt.Sprintf("must be owned by %s %q, which is not in the image's %s", kind, want, file)
		}
	}
	if id != have {
		return fmt.Sprintf("is owned by %s %d, want %s", kind, have, want)
	}
	return ""
}

// idOf returns the ID of a name in the image's /etc/passwd or /etc/group, see passwd(5).
func (t *Tree) idOf(file, name string) (int, bool) {
	ids, cached := t.ids[file]
	if !cached {
		ids = t.readIDs(file)
		t.ids[file] = ids
	}
	id, ok := ids[name]
	return id, ok
}

func (t *Tree) readIDs(file string) map[string]int {
	ids := map[string]int{}
	f, ok := t.Stat(file)
	if !ok {
		return ids
	}
	content, err := t.Contents([]File{f})
	if err != nil {
		return ids
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
	return ids
}

// listPaths joins the paths of files, up to maxListed.
func listPaths(files []File) string {
	var names []string
	for _, f := range files[:min(len(files), maxListed)] {
		names = append(names, f.Path)
	}
	if more := len(files) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

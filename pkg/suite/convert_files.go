package suite

import (
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
)

func (c *converter) existenceTest(l location, t *existenceTest, source *structureTest) *Test {
	line, problems := c.line(l), len(c.problems)
	name := c.testName(line, t.Name, "file existence test")
	if c.skip(source, line, problems) {
		return nil
	}
	if t.Path == "" || strings.Contains(t.Path, reference) {
		c.addf(line, "file test has no path, or one with a NUL character")
		return nil
	}
	text := t.Path
	if source.SchemaVersion != version1 {
		text = replaceWith(c.global)(text)
	}
	clean := cleanPath(text)
	c.warnAboutMounts(line, name, clean)
	check := FileCheck{Path: literalPath(clean)}
	_, isEngineFile := engineFiles[clean]
	switch {
	case !t.ShouldExist && isEngineFile:
		c.addf(line, "%s always exists, because the engine creates it", clean)
	case !t.ShouldExist:
		check.Absent = true
	default:
		mode, hasMode := c.permissions(l.child("permissions"), t.Permissions)
		if isEngineFile && t.matchesEngineFile(clean) {
			check.Count = atMostOne()
		}
		check.Owner, check.ExecutableBy = c.owner(l, t), c.executableBy(l, t)
		if hasMode {
			check.Type, check.Mode = typeOf(mode), fmt.Sprintf("%04o", unixMode(mode))
		}
		if check.Type == "symlink" {
			check.Mode = "" // all links have the same mode
		} else {
			check.Follow = new(bool) // the engine does not follow a link at the end of a path
		}
	}
	return &Test{Name: name, Files: []FileCheck{check}}
}

func (c *converter) contentTest(l location, t *contentTest, source *structureTest) *Test {
	line, problems := c.line(l), len(c.problems)
	name := c.testName(line, t.Name, "file content test")
	if t.Path == "" || strings.Contains(t.Path, reference) {
		c.addf(line, "file test has no path, or one with a NUL character")
	}
	if c.skip(source, line, problems) {
		return nil
	}
	clean := cleanPath(t.Path)
	if strings.HasSuffix(clean, "/") {
		c.addf(line, "path %q is a directory, which has no content", t.Path)
	}
	c.warnAboutMounts(line, name, clean)
	check := FileCheck{Path: literalPath(clean), Type: "file"}
	check.Content = c.textCheck(l, "expectedContents", t.ExpectedContents, "excludedContents", t.ExcludedContents)
	if mode, ok := engineFiles[clean]; ok && mode.IsRegular() &&
		(check.Content == nil || len(check.Content.check("", "", "")) == 0) {
		check.Count = atMostOne() // the engine's file is empty
	}
	return &Test{Name: name, Files: []FileCheck{check}}
}

func (c *converter) warnAboutMounts(line int, name, file string) {
	for _, target := range c.mounts {
		if file == target || strings.HasPrefix(file, target+"/") {
			c.warnf(line, "test %q checks the image's files instead of those mounted at %s", name, target)
		}
	}
}

// cleanPath returns an absolute path. A path with references is cleaned when they are replaced.
func cleanPath(name string) string {
	if strings.Contains(name, reference) {
		return "/" + name
	}
	return cleanKeepingSlash("/" + name)
}

// literalPath escapes the special characters of patterns.
func literalPath(name string) PathPattern {
	escape := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`, "{", `\{`, "}", `\}`)
	return PathPattern(escape.Replace(name))
}

// engineFiles are the files that the engine creates in every container, if the image has none, with their modes. See
// https://github.com/moby/moby/blob/v28.0.0/daemon/initlayer/setup_unix.go.
var engineFiles = map[string]fs.FileMode{
	"/.dockerenv": 0o755, "/dev": fs.ModeDir | 0o755, "/dev/console": 0o755, "/dev/pts": fs.ModeDir | 0o755,
	"/dev/shm": fs.ModeDir | 0o755, "/etc": fs.ModeDir | 0o755, "/etc/hostname": 0o755, "/etc/hosts": 0o755,
	"/etc/mtab": fs.ModeSymlink | fs.ModePerm, "/etc/resolv.conf": 0o755, "/proc": fs.ModeDir | 0o755,
	"/sys": fs.ModeDir | 0o755,
}

// matchesEngineFile reports whether the file that the engine creates at a path passes the test.
func (t *existenceTest) matchesEngineFile(name string) bool {
	mode := engineFiles[name].String()
	return (t.Permissions == "" || t.Permissions == mode) && t.Uid <= 0 && t.Gid <= 0
}

func atMostOne() *Range {
	most := Size(1)
	return &Range{Max: &most}
}

var permissionForm = regexp.MustCompile(`^([a-zA-Z]*|-)([r-][w-][x-][r-][w-][x-][r-][w-][x-])$`)

// permissions parses a mode in the format of Go's fs.FileMode, for example "drwxr-xr-x" or, with setuid, "urwxr-xr-x".
// ok is false if text is empty or no file can have this mode.
func (c *converter) permissions(l location, text string) (mode fs.FileMode, ok bool) {
	if text == "" {
		return 0, false
	}
	if m := permissionForm.FindStringSubmatch(text); m != nil {
		for i, r := range m[2] {
			if r != '-' {
				mode |= 1 << (8 - i)
			}
		}
		letters := map[rune]fs.FileMode{
			'd': fs.ModeDir, 'L': fs.ModeSymlink, 'u': fs.ModeSetuid, 'g': fs.ModeSetgid, 't': fs.ModeSticky,
		}
		for _, r := range m[1] {
			mode |= letters[r]
		}
	}
	isLink := mode&fs.ModeSymlink != 0
	if mode.String() != text || isLink && mode != fs.ModeSymlink|fs.ModePerm {
		c.addf(c.line(l), "no file has the permissions %q (for example -rw-r--r--, drwxr-xr-x, urwxr-xr-x or Lrwxrwxrwx)",
			text)
		return 0, false
	}
	return mode, true
}

func typeOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symlink"
	}
	return "file"
}

func (c *converter) executableBy(l location, t *existenceTest) string {
	switch t.IsExecutableBy {
	case "", "owner", "group", "any":
		return t.IsExecutableBy
	case "other":
		return "others"
	}
	line := c.line(l.child("isExecutableBy"))
	c.addf(line, "isExecutableBy must be owner, group, other or any, not %q", t.IsExecutableBy)
	return ""
}

// owner returns the expected owner, or "" for any.
func (c *converter) owner(l location, t *existenceTest) Text {
	text := func(key string, id int) string {
		if id < anyOwner {
			c.addf(c.line(l.child(key)), "%s must not be negative; -1 stands for any", key)
		}
		if id <= anyOwner {
			return ""
		}
		return strconv.Itoa(id)
	}
	user, group := text("uid", t.Uid), text("gid", t.Gid)
	if group != "" {
		group = ":" + group
	}
	return Text(user + group)
}

// licenseScript prints the packages without a copyright file, and the copyright files with a forbidden license.
const licenseScript = `cd /usr/share/doc || exit
failed=0
for package in *; do
  [ -d "$package" ] && [ ! -L "$package" ] && [ "$package" != libgnutls30 ] || continue
  if [ ! -r "$package/copyright" ] || grep -i -e AGPL -e WTFPL "$package/copyright"; then
    echo "$package"
    failed=1
  fi
done
exit $failed
`

// licenseTests converts the check for licenses that container-structure-test forbids.
func (c *converter) licenseTests(l location, t *licenseTest) (tests []*Test) {
	line := c.line(l)
	if !t.Debian && len(t.Files) == 0 {
		c.warnf(line, "license test is left out, because it checks nothing")
	}
	if t.Debian {
		c.warnf(line, "license test of Debian packages needs /bin/sh and grep in the image")
		name := c.testName(line, "licenses of packages", "licenses of packages")
		check := CommandCheck{Run: &Command{Args: []string{"/bin/sh", "-c", licenseScript}}}
		tests = append(tests, &Test{Name: name, CommandCheck: check})
	}
	var checks []FileCheck
	for i, file := range t.Files {
		if strings.HasSuffix(cleanPath(file), "/") {
			c.addf(c.line(l.child("files", strconv.Itoa(i))), "license test: %q is not a file", file)
			continue
		}
		forbidden := &TextCheck{Exclude: []Pattern{{Regexp: regexp.MustCompile(`(?i)AGPL|WTFPL`)}}}
		checks = append(checks, FileCheck{Path: literalPath(cleanPath(file)), Type: "file", Content: forbidden})
	}
	if checks != nil {
		tests = append(tests, &Test{Name: c.testName(line, "licenses", "licenses"), Files: checks})
	}
	return tests
}

package source

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Commit is the commit that a ref resolves to.
type Commit struct {
	SHA string // full, lower case
	Ref string // refs/heads/…, refs/tags/…, refs/pull/…; "" if the commit was named by its SHA
}

var (
	shaPattern   = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	shortPattern = regexp.MustCompile(`^[0-9a-fA-F]{4,63}$`)
	pullPattern  = regexp.MustCompile(`^(?:#([1-9][0-9]{0,9})|refs/pull/([1-9][0-9]{0,9})/(merge|head))$`)
)

// ValidateRef returns an error for a name that git does not accept as a ref (git-check-ref-format), or could parse as
// an option or an expression: a leading "-", control characters, white space, "..", "@{", and any of ~^:?*[\. It sends
// no requests.
func ValidateRef(ref string) error {
	const maxLength, shown = 1024, 40
	if len(ref) > maxLength {
		return fmt.Errorf("invalid ref %q…: longer than %d bytes", strings.ToValidUTF8(ref[:shown], ""), maxLength)
	}
	if reason := invalidReason(ref); reason != "" {
		return fmt.Errorf(
			"invalid ref %q: %s (use a branch, a tag, a commit SHA, refs/pull/N/merge, refs/pull/N/head or #N)",
			ref,
			reason,
		)
	}
	return nil
}

// invalidReason returns why a ref is invalid, or "" if it is valid.
func invalidReason(ref string) string {
	switch {
	case ref == "":
		return "empty"
	case strings.HasPrefix(ref, "-"):
		return `begins with "-"`
	case strings.Contains(ref, ".."):
		return `contains ".."`
	case strings.Contains(ref, "@{"):
		return `contains "@{"`
	case strings.Contains(ref, "//"), strings.HasPrefix(ref, "/"), strings.HasSuffix(ref, "/"):
		return "empty path component"
	case strings.HasPrefix(ref, "."), strings.Contains(ref, "/."):
		return `a path component begins with "."`
	case strings.HasSuffix(ref, "."):
		return `ends with "."`
	case strings.HasSuffix(ref, ".lock"), strings.Contains(ref, ".lock/"):
		return `a path component ends with ".lock"`
	case strings.ToValidUTF8(ref, "") != ref:
		return "not UTF-8"
	case strings.HasPrefix(ref, "#") && !pullPattern.MatchString(ref):
		return "not a pull request number"
	}
	for _, c := range ref {
		switch {
		case unicode.IsSpace(c):
			return "contains white space"
		case unicode.IsControl(c), unicode.Is(unicode.Cf, c):
			return "contains a control character"
		case strings.ContainsRune(`~^:?*[\`, c):
			return fmt.Sprintf("contains %q", c)
		}
	}
	return ""
}

// RefError reports a ref that does not resolve to a commit of the repository.
type RefError struct {
	Repository string   // owner/name
	Ref        string   // as passed to [Repository.Resolve]
	Reason     string   // for example "not found"
	Tried      []string // full names of the refs that were tried
	Hint       string   // may be ""
}

func (e *RefError) Error() string {
	text := fmt.Sprintf("resolve %s in %s: %s", e.Ref, e.Repository, e.Reason)
	if len(e.Tried) > 0 {
		text += "; tried " + strings.Join(e.Tried, ", ")
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

package source

import (
	"os/exec"
	"strings"
	"testing"
	"unicode"
)

// refs maps names to the reason why they are invalid refs, or to "" if they are valid.
var refs = map[string]string{
	"main": "", "feature/x": "", "v1.0-rc.1+build": "", "a.b/c": "", "ünïcode": "", "refs/heads/main": "", "@": "",
	"a@b": "", "#12": "", "a#1": "", "$(id)": "", "`id`": "", "a&b|c;d": "", `"quoted"`: "", "%2e%2e": "", "a-b": "",
	strings.Repeat("a", 1024): "",

	"": "empty", strings.Repeat("a", 1025): "longer than 1024 bytes", strings.Repeat("ä", 1025): "longer than 1024 bytes",
	"-": `begins with "-"`, "--upload-pack=touch": `begins with "-"`, "-b": `begins with "-"`,
	"'; rm -rf x": "white space", "a\nb": "white space", "a\r\nb": "white space", "main\n::error::x": "white space",
	"a b": "white space", "a\u2028b": "white space", "a\tb": "white space",
	"a\x00b": "control character", "a\x7fb": "control character", "a\x1b[31mb": "control character",
	"a\u202eb": "control character",
	"a..b":     `contains ".."`, "..": `contains ".."`, "../../etc": `contains ".."`,
	"main^": `contains '^'`, "main~1": `contains '~'`, "a:b": `contains ':'`, "HEAD@{1}": `contains "@{"`,
	"*": `contains '*'`, "a?": `contains '?'`, "[a]": `contains '['`, `a\b`: `contains '\\'`,
	"/a": "empty path component", "a/": "empty path component", "a//b": "empty path component",
	".a": `begins with "."`, "a/.b": `begins with "."`, "a.": `ends with "."`,
	"a.lock": `ends with ".lock"`, "a.lock/b": `ends with ".lock"`,
	"#": "not a pull request number", "#0": "not a pull request number", "#-1": "not a pull request number",
	"#1x": "not a pull request number", "#99999999999": "not a pull request number",
	"a\xff": "not UTF-8",
}

func TestValidateRef(t *testing.T) {
	for ref, reason := range refs {
		err := ValidateRef(ref)
		if reason == "" && err != nil {
			t.Errorf("%q: %v, want no error", ref, err)
		} else if reason != "" {
			checkError(t, err, "invalid ref", reason)
		}
	}
}

// FuzzValidateRef checks that git accepts every valid ref, and that no valid ref is an option or has several lines.
func FuzzValidateRef(f *testing.F) {
	for ref := range refs {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		if err := ValidateRef(ref); err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("%q: error %q has a control character", ref, err)
			}
			return
		}
		unsafe := func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }
		if strings.HasPrefix(ref, "-") || strings.Contains(ref, "..") || strings.ContainsFunc(ref, unsafe) {
			t.Errorf("%q is accepted", ref)
		}
		if err := exec.CommandContext(t.Context(), "git", "check-ref-format", "refs/heads/"+ref).Run(); err != nil {
			t.Errorf("git does not accept %q: %v", ref, err)
		}
	})
}

package runner

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
)

// maxLine bounds what is kept of a line that does not end; a longer one is cut into several.
const maxLine = 64 << 10

// lineWriter hands on whole lines, so that a secret or a command that was written in pieces is seen whole. A carriage
// return ends a line too: the Actions runner reads it so.
type lineWriter struct {
	mu   sync.Mutex
	rest []byte
	emit func(line string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexAny(w.rest, "\r\n")
		switch {
		case end >= 0:
			if line := w.rest[:end]; len(line) > 0 || w.rest[end] == '\n' {
				w.emit(string(line))
			}
			w.rest = w.rest[end+1:]
		case len(w.rest) > maxLine:
			w.emit(string(w.rest[:maxLine]))
			w.rest = w.rest[maxLine:]
		default:
			return len(p), nil
		}
	}
}

func (w *lineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = nil
	}
	return nil
}

// visible replaces control characters by their pictures (U+2400 and on), so that a terminal or a log viewer shows them
// instead of obeying them.
func visible(line string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t':
			return c
		case c < ' ':
			return 0x2400 + c
		case c == 0x7f:
			return 0x2421
		case c >= 0x80 && c < 0xa0:
			return 0xfffd
		}
		return c
	}, line)
}

// inert is a line that the Actions runner takes for no command. It would obey one that begins with :: after any space, and one that has ##[
// anywhere. https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
func inert(line string) string {
	line = strings.ReplaceAll(line, "##[", `##\[`)
	if strings.HasPrefix(strings.TrimSpace(line), "::") {
		return `\` + line
	}
	return line
}

// secrets is the set of strings that nobody may read. The zero value is empty.
type secrets struct {
	mu       sync.RWMutex
	values   []string
	replacer *strings.Replacer
}

// add takes the lines of secret into the set and returns those that are new.
func (s *secrets) add(secret string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var added []string
	for line := range strings.FieldsFuncSeq(secret, func(c rune) bool { return c == '\n' || c == '\r' }) {
		line = strings.TrimSpace(line)
		if len(line) < 4 || slices.Contains(s.values, line) {
			continue
		}
		s.values = append(s.values, line)
		added = append(added, line)
	}
	if added == nil {
		return nil
	}
	// The longest first: a secret that begins another one must not leave the other's end readable.
	slices.SortFunc(s.values, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	pairs := make([]string, 0, 2*len(s.values))
	for _, value := range s.values {
		pairs = append(pairs, value, "***")
	}
	s.replacer = strings.NewReplacer(pairs...)
	return added
}

func (s *secrets) redact(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

package runner

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
)

const (
	maxLine   = 64 << 10 // bytes of an unfinished line that are buffered; a longer line is split
	minSecret = 4        // bytes of a line that is masked
)

// lineWriter passes on whole lines, so that a secret or a command written in pieces is seen whole. A carriage
// return ends a line, as it does for the Actions runner.
type lineWriter struct {
	mu     sync.Mutex
	buffer []byte // the unfinished line
	emit   func(line string)
}

// Write implements [io.Writer].
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buffer = append(w.buffer, p...)
	for {
		end := bytes.IndexAny(w.buffer, "\r\n")
		switch {
		case end >= 0:
			if line := w.buffer[:end]; len(line) > 0 || w.buffer[end] == '\n' {
				w.emit(string(line))
			}
			w.buffer = w.buffer[end+1:]
		case len(w.buffer) > maxLine:
			w.emit(string(w.buffer[:maxLine]))
			w.buffer = w.buffer[maxLine:]
		default:
			return len(p), nil
		}
	}
}

// Close implements [io.Closer]. It writes the unfinished line.
func (w *lineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buffer) > 0 {
		w.emit(string(w.buffer))
		w.buffer = nil
	}
	return nil
}

// escapeCommand changes a line so that the Actions runner does not process it as a command: the runner processes a
// line that starts with :: after white space, and one that contains ##[ anywhere.
// https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
func escapeCommand(line string) string {
	line = strings.ReplaceAll(line, "##[", `##\[`)
	if strings.HasPrefix(strings.TrimSpace(line), "::") {
		return `\` + line
	}
	return line
}

// secrets is a set of strings to redact. The zero value is empty.
type secrets struct {
	mu       sync.RWMutex
	values   []string // longest first
	replacer *strings.Replacer
}

// add adds the lines of secret and returns those that are new.
func (s *secrets) add(secret string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var added []string
	for line := range strings.FieldsFuncSeq(secret, func(c rune) bool { return c == '\n' || c == '\r' }) {
		line = strings.TrimSpace(line)
		if len(line) < minSecret || slices.Contains(s.values, line) {
			continue
		}
		s.values = append(s.values, line)
		added = append(added, line)
	}
	if added == nil {
		return nil
	}
	// The replacer tries its pairs in order: a secret that another one starts with must come after it, or the rest of
	// the longer one stays readable.
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

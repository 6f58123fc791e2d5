package runner

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"
)

const (
	maxLine   = 64 << 10 // maximum bytes of a line; a longer line is split
	minSecret = 4        // minimum bytes of a line to mask
)

// lineWriter buffers its input and emits complete lines, so that a secret or a command split over several writes is
// recognized. A carriage return ends a line, as it does for the Actions runner.
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

// Close emits the unfinished line.
func (w *lineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.buffer) > 0 {
		w.emit(string(w.buffer))
		w.buffer = nil
	}
	return nil
}

// escapeCommand escapes a line so that the Actions runner does not process it as a command: the runner processes lines
// that start with :: after optional white space, and lines that contain ##[.
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

// add adds each line of secret and returns the new ones.
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
	// The replacer tries its pairs in order. A secret must come before its prefixes, or the rest of it would remain
	// readable.
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

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

// fixedText is text in the outputs of every run. A secret that is part of it, such as the value "json" of a setting, is
// not masked: GitHub would withhold these outputs from other jobs.
const fixedText = "linux/amd64,linux/arm64 refs/heads/ refs/tags/ refs/pull/ sha256: https://depot.dev/ active " +
	"false true application/vnd.oci.image.manifest.v1+json application/vnd.oci.image.index.v1+json " +
	"application/vnd.docker.distribution.manifest.v2+json containerimage.config.digest containerimage.descriptor " +
	"containerimage.digest image.name mediaType digest size annotations org.opencontainers.image.created platform"

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

// escapeCommand escapes a line so that the Actions runner does not process it as a command, and the log page does not
// interpret it: the runner processes lines that start with :: after optional white space, and lines that contain ##[.
// https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs
func escapeCommand(line string) string {
	line = escapeMarkers(line)
	if strings.HasPrefix(strings.TrimSpace(line), "::") {
		return `\` + line
	}
	return line
}

// escapeMarkers escapes a line so that the log page does not start or end a group at it, or color it as an error, also
// while commands are stopped. The page accepts [group] like ##[group] (robherley/actions-log-parser, src/line.ts).
func escapeMarkers(line string) string {
	line = strings.ReplaceAll(line, "##[", `##\[`)
	for _, marker := range []string{"[group]", "[endgroup]"} {
		if len(line) >= len(marker) && strings.EqualFold(line[:len(marker)], marker) {
			return `\` + line
		}
	}
	return line
}

// secrets is a set of strings to redact. The zero value is empty.
type secrets struct {
	mu       sync.RWMutex
	values   []string          // longest first
	names    map[string]string // by value
	replacer *strings.Replacer
}

// add adds each line of secret and returns the new ones. name describes the secret in errors.
func (s *secrets) add(name, secret string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var added []string
	for line := range strings.FieldsFuncSeq(secret, func(c rune) bool { return c == '\n' || c == '\r' }) {
		line = strings.TrimSpace(line)
		if len(line) < minSecret || strings.Contains(fixedText, line) || slices.Contains(s.values, line) {
			continue
		}
		if s.names == nil {
			s.names = map[string]string{}
		}
		s.values, s.names[line] = append(s.values, line), name
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

// find returns the name of a secret that text contains.
func (s *secrets) find(text string) (name string, found bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, value := range s.values {
		if strings.Contains(text, value) {
			return s.names[value], true
		}
	}
	return "", false
}

func (s *secrets) redact(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.replacer == nil {
		return text
	}
	return s.replacer.Replace(text)
}

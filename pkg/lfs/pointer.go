// Package lfs parses the pointer files of Git LFS and downloads their objects with the Batch API and the transfer
// "basic". https://github.com/git-lfs/git-lfs/tree/v3.8.1/docs
package lfs

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MaxPointer is the maximum number of bytes of a pointer file.
const MaxPointer = 1023

// Pointer names an object of Git LFS.
type Pointer struct {
	OID        string   // SHA-256 of the object, in lower-case hexadecimal digits
	Size       int64    // bytes
	Extensions []string // names of the programs that convert the object to the file
}

// String returns the pointer file that git-lfs writes for an object without extensions.
func (p Pointer) String() string {
	return fmt.Sprintf("version %s\noid sha256:%s\nsize %d\n", pointerVersions[0], p.OID, p.Size)
}

var (
	pointerVersions = []string{
		"https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2",
	}
	extensionPattern = regexp.MustCompile(`^ext-[0-9]-(\w+)`)
	oidPattern       = regexp.MustCompile(`^sha256:([0-9a-f]{64})$`)
)

// ParsePointer parses the content of a pointer file. It accepts what git-lfs accepts (v3.8.1, lfs/pointer.go), and
// returns false for any other content.
func ParsePointer(data []byte) (Pointer, bool) {
	if len(data) > MaxPointer {
		return Pointer{}, false
	}
	var p Pointer
	keys := []string{"version", "oid", "size"}
	for line := range strings.Lines(string(bytes.TrimSpace(data))) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, " ")
		if !ok || len(keys) == 0 {
			return Pointer{}, false
		}
		if extension := extensionPattern.FindStringSubmatch(key); extension != nil && key != keys[0] {
			p.Extensions = append(p.Extensions, extension[1])
			continue
		}
		if key != keys[0] || !p.set(key, value) {
			return Pointer{}, false
		}
		keys = keys[1:]
	}
	return p, len(keys) == 0
}

// set sets the field of a key, and reports whether the value is valid.
func (p *Pointer) set(key, value string) bool {
	switch key {
	case "version":
		return slices.Contains(pointerVersions, value)
	case "oid":
		oid := oidPattern.FindStringSubmatch(value)
		if oid != nil {
			p.OID = oid[1]
		}
		return oid != nil
	}
	size, err := strconv.ParseInt(value, 10, 64)
	p.Size = size
	return err == nil && size >= 0
}

package daytona

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// validName matches the names that Daytona accepts for snapshots (validateSnapshotName in
// apps/api/src/sandbox/services/snapshot.service.ts).
var validName = regexp.MustCompile(`^[a-zA-Z0-9_.\-:]+(/[a-zA-Z0-9_.\-:]+)*(@sha256:[a-f0-9]{64})?$`)

// unsafeName matches what Daytona takes for a URL in a valid name (URL_PATTERN in
// apps/api/src/common/validators/is-safe-string.validator.ts).
var unsafeName = regexp.MustCompile(`(?i)javascript:|data:|mailto:|tel:|www\.`)

// maxNameLength is the maximum length of a name in characters.
const maxNameLength = 255

// CheckName validates the name of a snapshot.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the snapshot name is empty (for example, use sandbox-v1)")
	case len(name) > maxNameLength:
		return fmt.Errorf("the snapshot name has %d characters (use at most %d)", len(name), maxNameLength)
	case name == "latest" || strings.HasSuffix(name, ":latest"):
		return fmt.Errorf("invalid snapshot name %q: the tag latest is ambiguous (use a unique name)", name)
	case !validName.MatchString(name):
		return fmt.Errorf("invalid snapshot name %q (use letters, digits, dots, dashes, underscores and colons, "+
			"separated by single slashes)", name)
	}
	if part := unsafeName.FindString(name); part != "" {
		return fmt.Errorf("invalid snapshot name %q: Daytona takes %q for a URL (for example, use %s)",
			name, part, SafeName(name))
	}
	return nil
}

// SafeName replaces the last character of what Daytona takes for a URL by a dash.
func SafeName(name string) string {
	return unsafeName.ReplaceAllStringFunc(name, func(part string) string { return part[:len(part)-1] + "-" })
}

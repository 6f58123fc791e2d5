package inputs

import (
	"regexp"
	"strings"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// Names are the names of a repository's images and snapshots, if no input sets them.
type Names struct {
	Image  string // in the local engine, at a prompt
	Prefix string // of generated snapshot names
}

const (
	defaultName    = "sandbox"
	maxDefaultName = 60 // characters, so that generated names and those of variants are short enough
)

var notInDefaultName = regexp.MustCompile(`[^a-z0-9_.-]+`)

// NamesOf returns the names for a repository, owner/name or "" if it is unknown. The prefix is the repository's name
// with -sandbox, unless it contains that word already. It is in lower case, because the URL of a clone may be.
func NamesOf(repository string) Names {
	name := strings.ToLower(repository[strings.LastIndex(repository, "/")+1:])
	name = daytona.SafeName(notInDefaultName.ReplaceAllString(name, "-"))
	name = strings.Trim(name[:min(len(name), maxDefaultName)], "-.")
	switch {
	case name == "":
		name = defaultName
	case !strings.Contains(name, defaultName):
		name += "-" + defaultName
	}
	return Names{Image: defaultName + ":local", Prefix: name}
}

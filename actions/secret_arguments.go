package actions

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
)

// secretName matches names of build arguments whose values are usually secret.
var secretName = regexp.MustCompile(
	`(?i)(^|_)(\w*(token|secret|password|passwd|passphrase|credentials?|apikey)|pwd|key|auth)(_|$)`)

// publicName matches names that secretName matches although their values are public.
var publicName = regexp.MustCompile(`(?i)(^|_)(pub|public|cache)_`)

// warnSecretArguments warns about build arguments that look like secrets, by their names or because their values are
// masked. An image shows them to everyone who can pull it.
func warnSecretArguments(job job, spec inputs.BuildSpec) {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(spec.Request.BuildArgs)) {
		value := spec.Request.BuildArgs[name]
		isNamed := secretName.MatchString(name) && !publicName.MatchString(name)
		if value != "" && (isNamed || job.Runner.Redact(value) != value) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return
	}
	job.Runner.Warning(runner.Annotation{Title: "Build arguments look like secrets", Message: fmt.Sprintf(
		"input build_args: %s: build arguments are not secret: the image's history and provenance: mode=max record them "+
			"(use secrets or secret_envs, and RUN --mount=type=secret)", strings.Join(found, ", "))})
}

package inputs

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/org/sandbox-actions/pkg/image"
)

// secret is a build secret: a value, or a file that contains the value.
type secret struct {
	id    string
	value string
	path  string // absolute; empty for a value
	item  Item   // of the input secret_files
}

// validateSecrets collects the secrets of the inputs secrets, secret_envs, secret_files and ssh. A secret without a
// value is left out with a warning, as by docker/build-push-action (v7.3.0, src/context.ts): runs for forks and
// Dependabot get no secrets. Errors and warnings never quote what may be a secret value.
func validateSecrets(spec *BuildSpec, in Build, env Env) error {
	add := func(input, example string, item Item, s secret) error {
		if !isWord(s.id) {
			return &Error{Input: input, Line: item.Line, Reason: "the secret has an invalid ID; write " + example}
		}
		for _, other := range spec.secrets {
			if other.id == s.id {
				return &Error{Input: input, Line: item.Line, Reason: "duplicate " + nameSecret(s.id)}
			}
		}
		spec.secrets = append(spec.secrets, s)
		return nil
	}
	leaveOut := func(input string, item Item, id, cause string) {
		err := &Error{Input: input, Line: item.Line, Reason: "the " + nameSecret(id) + " is left out: " + cause}
		spec.Warnings = append(spec.Warnings, err.Error()+withheldSecrets(env))
	}
	for _, item := range in.Secrets {
		id, value, ok := strings.Cut(item.Text, "=")
		switch {
		case !ok || !isWord(id):
			return &Error{Input: "secrets", Line: item.Line, Reason: "the secret has no ID; write ID=VALUE, and quote an " +
				`element that has several lines: "ID=VALUE"`}
		case value == "":
			leaveOut("secrets", item, id, "its value is empty")
			continue
		}
		if err := add("secrets", "ID=VALUE", item, secret{id: id, value: value}); err != nil {
			return err
		}
	}
	for _, item := range in.SecretEnvs {
		id, variable, ok := strings.Cut(item.Text, "=")
		if !ok {
			variable = id
		}
		value := env.Getenv(variable)
		if value == "" {
			leaveOut("secret_envs", item, id, "the environment variable "+variable+" is not set")
			continue
		}
		if err := add("secret_envs", "ID=VARIABLE", item, secret{id: id, value: value}); err != nil {
			return err
		}
	}
	for _, item := range in.SecretFiles {
		id, path, ok := strings.Cut(item.Text, "=")
		if !ok || path == "" {
			return itemErrorf("secret_files", item, "has no path; write ID=PATH")
		}
		file, err := SecureJoin(env.Dir, path)
		if err != nil {
			return wrapItem("secret_files", item, err)
		}
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			leaveOut("secret_files", item, id, "the file "+path+" does not exist")
			continue
		}
		if err := add("secret_files", "ID=PATH", item, secret{id: id, path: file, item: item}); err != nil {
			return err
		}
	}
	return validateSSH(spec, in, env)
}

// isWord reports whether a Dockerfile can use the text as the ID of a secret or the name of a build argument. BuildKit
// has no other rules.
func isWord(text string) bool {
	isBlank := func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }
	return text != "" && !strings.ContainsFunc(text, isBlank)
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_./-]{0,63}$`)

// nameSecret returns "secret ID", or "secret" for an ID that looks like a part of a secret value.
func nameSecret(id string) string {
	if namePattern.MatchString(id) {
		return "secret " + id
	}
	return "secret"
}

// withheldSecrets returns why GitHub may have withheld secrets from the run, as the end of a message.
func withheldSecrets(env Env) string {
	switch {
	case env.Fork:
		return " (GitHub gives no secrets to a pull request from a fork)"
	case env.Getenv("GITHUB_ACTOR") == "dependabot[bot]":
		return " (GitHub gives a run of Dependabot only the secrets of Dependabot)"
	}
	return ""
}

func validateSSH(spec *BuildSpec, in Build, env Env) error {
	for _, item := range in.SSH {
		for _, agent := range parseSSH(item.Text) {
			if len(agent.Paths) == 0 && env.Getenv("SSH_AUTH_SOCK") == "" {
				return itemErrorf("ssh", item, "needs an SSH agent; start one (SSH_AUTH_SOCK), or write ID=SOCKET or ID=KEY")
			}
			for _, path := range agent.Paths {
				if _, err := os.Stat(path); err != nil {
					return itemErrorf("ssh", item, "names a file that cannot be read: %v", err)
				}
			}
			spec.addSSH(agent)
		}
	}
	return nil
}

// addSSH adds an agent, or its keys if the ID already has keys. BuildKit refuses several agents with one ID.
func (s *BuildSpec) addSSH(agent image.SSH) {
	i := slices.IndexFunc(s.Request.SSH, func(other image.SSH) bool { return other.ID == agent.ID })
	switch {
	case i < 0:
		s.Request.SSH = append(s.Request.SSH, agent)
	case len(agent.Paths) > 0:
		s.Request.SSH[i].Paths = append(s.Request.SSH[i].Paths, agent.Paths...)
	}
}

// parseSSH parses ID, ID=SOCKET and ID=KEY,KEY, and several of them separated by commas. A part without "=" after an
// ID with a path is another key of that ID.
func parseSSH(text string) (agents []image.SSH) {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		id, path, hasPath := strings.Cut(part, "=")
		last := len(agents) - 1
		switch {
		case part == "":
		case hasPath && !strings.Contains(id, "/"):
			agents = append(agents, image.SSH{ID: cmp.Or(id, "default"), Paths: []string{path}})
		case last >= 0 && len(agents[last].Paths) > 0:
			agents[last].Paths = append(agents[last].Paths, part)
		default:
			agents = append(agents, image.SSH{ID: part})
		}
	}
	return agents
}

// ReadSecrets returns the build secrets by ID. It reads the files of the input secret_files.
func (s BuildSpec) ReadSecrets() (map[string]string, error) {
	values := map[string]string{}
	for _, secret := range s.secrets {
		values[secret.id] = secret.value
		if secret.path != "" {
			data, err := os.ReadFile(secret.path)
			if err != nil {
				return nil, itemErrorf("secret_files", secret.item, "cannot be read: %v", err)
			}
			values[secret.id] = string(data)
		}
	}
	return values, nil
}

package inputs

import (
	"os"
	"regexp"
	"strings"

	"github.com/org/sandbox-actions/pkg/image"
)

var secretPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]*$`)

// secret is a build secret: a value, or a file that contains the value.
type secret struct {
	id    string
	value string
	path  string // absolute; empty for a value
	item  Item   // of the input secret_files
}

// validateSecrets collects the secrets of the inputs secrets, secret_envs, secret_files and ssh. Errors never quote
// what may be a secret value.
func validateSecrets(spec *BuildSpec, in Build, env Env) error {
	add := func(input, example string, item Item, s secret) error {
		if !secretPattern.MatchString(s.id) {
			return &Error{Input: input, Line: item.Line, Reason: "the secret has an invalid ID; write " + example}
		}
		for _, other := range spec.secrets {
			if other.id == s.id {
				return &Error{Input: input, Line: item.Line, Reason: "duplicate secret " + s.id}
			}
		}
		spec.secrets = append(spec.secrets, s)
		return nil
	}
	for _, item := range in.Secrets {
		id, value, ok := strings.Cut(item.Text, "=")
		if !ok || value == "" {
			return &Error{Input: "secrets", Line: item.Line, Reason: emptySecret(id, ok, env.Fork)}
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
			return itemErrorf("secret_envs", item, "names the environment variable %s, which is not set", variable)
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
		path, err := SecureJoin(env.Dir, path)
		if err != nil {
			return wrapItem("secret_files", item, err)
		}
		if err := add("secret_files", "ID=PATH", item, secret{id: id, path: path, item: item}); err != nil {
			return err
		}
	}
	return validateSSH(spec, in, env)
}

// emptySecret returns the reason of an error about a secret without a value. If the item has no "=", id may be the
// secret value and is not shown.
func emptySecret(id string, hasID, fork bool) string {
	reason := "the secret has no value"
	if hasID && secretPattern.MatchString(id) {
		reason = "the secret " + id + " has no value"
	}
	if fork {
		return reason + "; GitHub gives no secrets to a pull request from a fork"
	}
	return reason + "; write ID=VALUE, with a value that is not empty"
}

func validateSSH(spec *BuildSpec, in Build, env Env) error {
	for _, item := range in.SSH {
		id, paths, ok := strings.Cut(item.Text, "=")
		agent := image.SSH{ID: id}
		if ok {
			agent.Paths = strings.Split(paths, ",")
		} else if env.Getenv("SSH_AUTH_SOCK") == "" {
			return itemErrorf("ssh", item, "needs an SSH agent; start one (SSH_AUTH_SOCK), or write ID=SOCKET or ID=KEY")
		}
		for _, path := range agent.Paths {
			if _, err := os.Stat(path); err != nil {
				return itemErrorf("ssh", item, "names a file that cannot be read: %v", err)
			}
		}
		spec.Request.SSH = append(spec.Request.SSH, agent)
	}
	return nil
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

package credentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/pkg/safetext"
)

const (
	dopplerCLITimeout = 5 * time.Second
	maxCLIError       = 500 // characters of the CLI's error output in a message
)

// keyringPrefix begins the ID that the CLI stores instead of a token in the keyring.
const keyringPrefix = "secret-" // DopplerHQ/cli d441d94, pkg/configuration/keyring.go

// dopplerCLISettings are what `doppler login` and `doppler setup` have stored for a directory.
type dopplerCLISettings struct {
	Token   string `yaml:"token"` // an ID with keyringPrefix if the token is in the keyring
	Host    string `yaml:"api-host"`
	Project string `yaml:"enclave.project"`
	Config  string `yaml:"enclave.config"`
}

// readDopplerCLI reads the settings of the Doppler CLI for a directory. Like the CLI, it takes each setting from the
// longest scope that contains the directory and has the setting (DopplerHQ/cli d441d94, pkg/configuration/config.go,
// Get). Without the CLI's file, it returns no settings.
func readDopplerCLI(dir string, getenv func(string) string) (dopplerCLISettings, error) {
	home, folder := getenv("HOME"), getenv("DOPPLER_CONFIG_DIR")
	switch {
	case folder == "" && home == "":
		return dopplerCLISettings{}, nil
	case folder == "":
		folder = filepath.Join(home, ".doppler")
	}
	path := filepath.Join(folder, ".doppler.yaml")
	var file struct {
		Scoped map[string]dopplerCLISettings `yaml:"scoped"`
	}
	data, err := readSettingsFile(path)
	if err == nil {
		err = yaml.Unmarshal(data, &file)
	}
	if err != nil {
		return dopplerCLISettings{}, fmt.Errorf("read the settings of the Doppler CLI: %s: %w (run doppler configure)",
			path, err)
	}
	var found dopplerCLISettings
	var depth struct{ Token, Host, Project, Config int } // lengths of the scopes that found comes from
	for _, name := range slices.Sorted(maps.Keys(file.Scoped)) {
		s, scope := file.Scoped[name], dopplerScope(name, home)
		if !strings.HasPrefix(dopplerScope(dir, ""), scope) {
			continue
		}
		for _, setting := range []struct {
			value  string
			target *string
			depth  *int
		}{
			{s.Token, &found.Token, &depth.Token}, {s.Host, &found.Host, &depth.Host},
			{s.Project, &found.Project, &depth.Project}, {s.Config, &found.Config, &depth.Config},
		} {
			if setting.value != "" && len(scope) >= *setting.depth {
				*setting.target, *setting.depth = setting.value, len(scope)
			}
		}
	}
	return found, nil
}

// dopplerScope normalizes a directory of the CLI's settings. The result ends with a slash, so that /test does not
// contain /test123. The CLI's former name for all directories is *.
func dopplerScope(dir, home string) string {
	if dir == "*" {
		return "/"
	}
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || rest[0] == '/') {
		dir = home + rest
	}
	return strings.TrimSuffix(filepath.Clean(dir), "/") + "/"
}

// dopplerKeyring returns the CLI's token for a directory from the keyring of the operating system.
func dopplerKeyring(ctx context.Context, dir string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dopplerCLITimeout, fmt.Errorf("timed out after %s", dopplerCLITimeout))
	defer cancel()
	command := exec.CommandContext(ctx, "doppler", "configure", "get", "token", "--plain", "--no-check-version")
	command.Dir = dir
	command.WaitDelay = time.Second // for a child that keeps the output open
	out, err := command.Output()
	token := strings.TrimSpace(string(out))
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil && token == "":
		err = errors.New("it has no token")
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &exit) && len(exit.Stderr) > 0:
		err = fmt.Errorf("%w: %s", err, safetext.Line(string(exit.Stderr), maxCLIError))
	}
	if err != nil {
		return "", fmt.Errorf("read the token of `doppler login` from the keyring: %w (run doppler configure get token, or "+
			"set DOPPLER_TOKEN)", err)
	}
	return token, nil
}

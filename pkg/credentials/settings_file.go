package credentials

import (
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"

	"github.com/org/sandbox-actions/pkg/safefile"
)

// maxSettingsFile is the maximum size of the settings file of another program, in bytes.
const maxSettingsFile = 1 << 20

// readSettingsFile reads the settings file of another program. It returns nil if path is empty or the file does not
// exist.
func readSettingsFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := safefile.Read(path, maxSettingsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// userConfigDir is like [os.UserConfigDir], but reads the environment with getenv. It returns "" if the directory is
// unknown.
func userConfigDir(getenv func(string) string) string {
	home, dir := getenv("HOME"), getenv("XDG_CONFIG_HOME")
	switch {
	case runtime.GOOS != "darwin" && filepath.IsAbs(dir):
		return dir
	case home == "":
		return ""
	case runtime.GOOS == "darwin":
		return filepath.Join(home, "Library", "Application Support")
	}
	return filepath.Join(home, ".config")
}

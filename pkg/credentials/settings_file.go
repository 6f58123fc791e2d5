package credentials

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// maxSettingsFile is the maximum size of the settings file of another program, in bytes.
const maxSettingsFile = 1 << 20

// readSettingsFile reads the settings file of another program. It returns nil if path is empty or the file does not
// exist.
func readSettingsFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxSettingsFile:
		return nil, fmt.Errorf("%q is not a regular file of at most %d KiB", path, maxSettingsFile>>10)
	}
	return os.ReadFile(path)
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

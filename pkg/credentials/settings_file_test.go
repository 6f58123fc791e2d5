package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestUserConfigDir(t *testing.T) {
	for _, xdg := range []string{"", "/xdg"} {
		t.Setenv("HOME", "/home/user")
		t.Setenv("XDG_CONFIG_HOME", xdg)
		want, err := os.UserConfigDir()
		if err != nil {
			t.Fatal(err)
		}
		if got := userConfigDir(os.Getenv); got != want {
			t.Errorf("XDG_CONFIG_HOME=%q: got %s, want %s", xdg, got, want)
		}
	}
}

// Without a home directory, the settings are unknown. They are not read from the working directory, which may contain
// the files of a pull request.
func TestNoHomeDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	for file, content := range map[string]string{
		".config/daytona/config.json": `{"activeProfile": "a", "profiles": [{"id": "a", "api": {"key": "foreign"}}]}`,
		".config/depot/depot.yaml":    "api_token: foreign",
		".doppler/.doppler.yaml":      "scoped: {/: {token: foreign}}",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, getenv := range []func(string) string{environ(), environ("XDG_CONFIG_HOME=.config")} {
		if profile, err := activeDaytonaProfile(getenv); err != nil || profile != (daytonaProfile{}) {
			t.Errorf("Daytona: %+v, %v", profile, err)
		}
		if token, err := (Depot{Getenv: getenv}).loginToken(); err != nil || token.value != "" {
			t.Errorf("Depot: %+v, %v", token, err)
		}
		if settings, err := readDopplerCLI("/", getenv); err != nil || settings != (dopplerCLISettings{}) {
			t.Errorf("Doppler: %+v, %v", settings, err)
		}
	}
}

// A FIFO would block the run, and a huge file would exhaust its memory.
func TestReadSettingsFile(t *testing.T) {
	dir := t.TempDir()
	fifo, large := filepath.Join(dir, "fifo"), filepath.Join(dir, "large")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, make([]byte, maxSettingsFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, large, dir} {
		if _, err := readSettingsFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if data, err := readSettingsFile(filepath.Join(dir, "absent")); data != nil || err != nil {
		t.Errorf("absent file: %q, %v", data, err)
	}
}

package credentials

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The settings are those that the real Doppler CLI stores and finds for a directory.
func TestDopplerCLIFindsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the Doppler CLI; run without -short")
	}
	program, err := filepath.Abs("../../.cache/bin/doppler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("the Doppler CLI is missing: %v (run scripts/setup.sh test)", err)
	}
	home := t.TempDir()
	doppler := func(arguments ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), program, append(arguments, "--no-check-version")...)
		command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")} // without a keyring
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("doppler %q: %v: %s", arguments, err, out)
		}
		return strings.TrimRight(string(out), "\n")
	}
	// The CLI sends analytics to Doppler.
	file := filepath.Join(home, ".doppler", ".doppler.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("analytics:\n  disable: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, set := range [][]string{
		{"--scope", "*", "token=dp.ct.all", "project=all", "config=dev"},
		{"--scope", filepath.Join(home, "w"), "project=w"},
		{"--scope", filepath.Join(home, "w", "app"), "project=app", "config=stg", "token=dp.st.stg.x"},
		{"--scope", filepath.Join(home, "w", "app123"), "config=other"},
	} {
		doppler(append([]string{"configure", "set", "--silent"}, set...)...)
	}
	for _, dir := range []string{"/", home, home + "/w", home + "/w/app", home + "/w/app/src", home + "/w/app1234"} {
		got, err := readDopplerCLI(dir, environ("HOME="+home))
		if err != nil {
			t.Fatal(err)
		}
		want := doppler("configure", "get", "token", "project", "config", "--plain", "--scope", dir)
		if found := strings.Join([]string{got.Token, got.Project, got.Config}, "\n"); found != want {
			t.Errorf("%s: got\n%s\nwant\n%s", dir, found, want)
		}
	}
}

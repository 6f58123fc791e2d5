package sandbox_test

import (
	"archive/tar"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// canary is a secret that tests put in places from which it must not get into the image.
const canary = "canary-6Zk1vP0wq9"

// secretPattern is a Perl regular expression that matches keys and tokens. It includes characters after the prefix,
// because programs that detect secrets contain only the prefix.
const secretPattern = canary + `|-----BEGIN ([A-Z]+ )?PRIVATE KEY-----\r?\n[A-Za-z0-9+/]{40}|` +
	`\bgithub_pat_\w{40}|\bgh[oprsu]_[A-Za-z0-9]{36}\b|\bnpm_[A-Za-z0-9]{36}\b|` +
	`\bdp\.(ct|pt|st)\.[\w.-]{30}|\bAKIA[0-9A-Z]{16}\b|_authToken=[\w-]{10}|Authorization: Basic [A-Za-z0-9+/=]{10}`

// findSecrets returns the secrets in a file. It runs grep, which is much faster than Go with -race for large files.
func findSecrets(t *testing.T, file string) string {
	t.Helper()
	grep := exec.CommandContext(t.Context(), "grep", "-aPzo", "-e", secretPattern, file)
	grep.Env, grep.Stderr = []string{"LC_ALL=C"}, t.Output()
	found, err := grep.Output()
	if code := grep.ProcessState.ExitCode(); code != 0 && code != 1 { // 1: no match
		t.Fatal(err)
	}
	return string(found)
}

func TestFindSecrets(t *testing.T) {
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + strings.Repeat("b3BlbnNzaC1rZXktdjEA", 3)
	for _, test := range []struct{ text, want string }{
		{"\x00\xff" + canary + "\n", canary},
		{"a\n" + key + "\n", key[:36+40]},
		{"t = 'ghp_" + strings.Repeat("a1", 18) + "'", "ghp_" + strings.Repeat("a1", 18)},
		{"//registry.example.com/:_authToken=0123456789abc", "_authToken=0123456789"},
		{`if (text.startsWith("ghp_") || text === "-----BEGIN PRIVATE KEY-----")`, ""},
	} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimRight(findSecrets(t, file), "\x00"); got != test.want {
			t.Errorf("in %q: %q, want %q", test.text, got, test.want)
		}
	}
}

func TestFiles(t *testing.T) {
	o := built(t)
	files := map[string]*tar.Header{} // by path, as a container sees them
	var size int64
	inspect := func(h *tar.Header) {
		size += h.Size
		name := path.Clean("/" + h.Name)
		if base := path.Base(name); strings.HasPrefix(base, ".wh.") {
			removed := path.Join(path.Dir(name), strings.TrimPrefix(base, ".wh."))
			maps.DeleteFunc(files, func(file string, _ *tar.Header) bool {
				return file == removed || strings.HasPrefix(file, removed+"/")
			})
			return
		}
		files[name] = h
	}
	for i, layer := range unpackLayers(t, o.image) {
		forEachFile(t, layer, func(h *tar.Header, _ io.Reader) { inspect(h) })
		if i > 0 { // layer 0 is the base image
			if found := findSecrets(t, layer); found != "" {
				t.Errorf("secrets in layer %d: %q", i, found)
			}
		}
	}
	var compressed int64
	layers, err := o.image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		n, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		compressed += n
	}
	t.Logf("%d layers, %d MB of files, %d MB compressed", len(layers), size/1e6, compressed/1e6)
	if size > 1e9 {
		t.Errorf("the layers contain %d MB of files, more than the limit of 1 GB", size/1e6)
	}

	var privileged, writable, unneeded []string
	unneededPattern := regexp.MustCompile(`^/(tmp|var/tmp)/.|^/var/lib/apt/lists/.|` +
		`^/var/cache/(apt|debconf)/.*(\.deb|\.bin|-old)$|^/usr/bin/(gcc|cc|g\+\+|make|ld|as)$|` +
		`\.env$|/\.npmrc$|/\.netrc$|/id_(rsa|ed25519)$|/sandbox/node/node_modules/fsevents`)
	for name, h := range files {
		if h.Mode&0o6000 != 0 && h.Typeflag == tar.TypeReg {
			privileged = append(privileged, name)
		}
		if h.Mode&0o1002 == 0o002 && h.Typeflag != tar.TypeSymlink {
			writable = append(writable, name)
		}
		if unneededPattern.MatchString(name) {
			unneeded = append(unneeded, name)
		}
	}
	slices.Sort(privileged)
	slices.Sort(unneeded)
	if want := []string{
		"/usr/bin/chage", "/usr/bin/chfn", "/usr/bin/chsh", "/usr/bin/expiry", "/usr/bin/gpasswd", "/usr/bin/mount",
		"/usr/bin/newgrp", "/usr/bin/passwd", "/usr/bin/su", "/usr/bin/sudo", "/usr/bin/umount",
		"/usr/lib/x86_64-linux-gnu/utempter/utempter", "/usr/sbin/unix_chkpwd",
	}; !slices.Equal(privileged, want) {
		t.Errorf("setuid and setgid programs:\n%q, want\n%q", privileged, want)
	}
	if len(writable) > 0 {
		t.Errorf("world-writable files: %q", writable)
	}
	if len(unneeded) > 0 {
		t.Errorf("unneeded files: %q", unneeded)
	}
}

func TestConfig(t *testing.T) {
	o := built(t)
	raw, err := o.image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := findSecrets(t, copied); found != "" {
		t.Errorf("secrets: %q", found)
	}
	var file struct{ Config json.RawMessage }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	want := `{"User":"iterate","ExposedPorts":{"8080/tcp":{}},` +
		`"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",` +
		`"NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt","LANG=C.UTF-8"],` +
		`"Entrypoint":["sandbox-entrypoint"],"WorkingDir":"/home/iterate/src/github.com/team/app",` +
		`"Healthcheck":{"Test":["CMD","curl","-fsS","-o","/dev/null","http://127.0.0.1:8080/health"],` +
		`"Interval":5000000000,"Timeout":3000000000,"StartPeriod":10000000000,"StartInterval":1000000000,"Retries":3}}`
	if string(file.Config) != want {
		t.Errorf("the config is\n%s\nwant\n%s", file.Config, want)
	}
}

package actions

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// In a container job the runner's folders have other paths, and Debian's image has neither curl nor OpenSSL nor Go.
func TestRunInContainerJob(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Docker; run without -short")
	}
	w := cloud(t)
	w.succeed(t, invocation{docker: base, inputs: map[string]string{"image_name": "container-job:1"}})
	const program = "#!/bin/sh\necho \"ran with $*\"\n"
	const asset = "action-build-linux-" + runtime.GOARCH
	root, toolCache := t.TempDir(), t.TempDir()
	for _, dir := range []string{"actions", "build"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, root, "actions/run.sh", read(t, "run.sh"))
	writeFile(t, root, "actions/checksums.txt", "# http://127.0.0.1:1/org/sandbox-actions v1.2.3 go1.26.10\n"+
		fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(program)), asset))
	run := func() string {
		command := exec.CommandContext(t.Context(), "docker", "--host", w.Engine.Host, "run", "--rm",
			"--volume", root+":/__w/_actions/org/sandbox-actions/v1:ro", "--volume", toolCache+":/__t",
			"--env", "RUNNER_TOOL_CACHE=/__t", "--env", "RUNNER_TEMP=/tmp",
			"container-job:1", "/bin/sh", "/__w/_actions/org/sandbox-actions/v1/build/../actions/run.sh", "build")
		out, _ := command.CombinedOutput() // the caller examines the output
		return string(out)
	}
	missing := regexp.MustCompile(`(?m)^::error::cannot download ` + asset + `: http\S+: .*curl: not found; no Go toolchain`)
	if out := run(); !missing.MatchString(out) {
		t.Error(out)
	}
	dir := filepath.Join(toolCache, "sandbox-actions/v1.2.3", runtime.GOARCH)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "action-build"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	out := run()
	if !strings.Contains(out, "action-build v1.2.3 from /__t/sandbox-actions/v1.2.3/") || !strings.Contains(out, "ran with ") {
		t.Error(out)
	}
}

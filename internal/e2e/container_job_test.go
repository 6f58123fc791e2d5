//go:build linux

package e2e

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

// A container job mounts the runner's directories at other paths. The Debian image has neither curl, openssl nor Go.
func TestContainerJob(t *testing.T) {
	e := setup(t)
	e.mustRun(t, invocation{dockerfile: fromDebian, inputs: values{"image_name": "container-job:1"}})
	const program = "#!/bin/sh\necho \"ran with $*\"\n"
	platform := runtime.GOOS + "-" + runtime.GOARCH
	steps := readAction(t, "build").Runs.Steps
	root, toolCache := writeFiles(t, values{
		"actions/run.sh":   read(t, "../../actions/run.sh"),
		"build/action.yml": read(t, "../../build/action.yml"),
		"step.sh":          steps[len(steps)-1].Run,
		"actions/checksums.txt": fmt.Sprintf(
			"# http://127.0.0.1:1/org/sandbox-actions v1.2.3 go1.26.8\n%x  action-build-%s\n",
			sha256.Sum256([]byte(program)),
			platform,
		),
	}), t.TempDir()
	run := func() string {
		const mounted = "/__w/_actions/org/sandbox-actions/v1"
		command := exec.CommandContext(t.Context(), "docker", "--host", e.Engine.Host, "run", "--rm",
			"--volume", root+":"+mounted+":ro", "--volume", toolCache+":/__t",
			"--env", "RUNNER_TOOL_CACHE=/__t", "--env", "RUNNER_TEMP=/tmp", "--env", "GITHUB_ACTION_PATH="+mounted+"/build",
			"container-job:1", "/bin/sh", "-e", mounted+"/step.sh")
		out, _ := command.CombinedOutput() // callers check the output, because the first run must fail
		return string(out)
	}
	if out := run(); !regexp.MustCompile(`(?m)^::error::.*curl: not found.*Go`).MatchString(out) {
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
	if !strings.Contains(out, "action-build v1.2.3 from /__t/sandbox-actions/v1.2.3/") ||
		!strings.Contains(out, "ran with ") {
		t.Error(out)
	}
}

//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/org/sandbox-actions/internal/localcloud/programs"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
)

// kubernetesObject is an object in docs/buildkitd.yaml, with the fields that refer to other objects.
type kubernetesObject struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		ServiceName string `yaml:"serviceName"`
		Selector    map[string]any
		PodSelector map[string]any `yaml:"podSelector"`
		Ports       []struct{ Port int }
		Ingress     []struct{ Ports []struct{ Port int } }
		Template    struct {
			Metadata struct{ Labels map[string]any }
			Spec     struct {
				Containers []podContainer
				Volumes    []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
					Secret    struct {
						Name string `yaml:"secretName"`
					}
				}
			}
		}
		Claims []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
	}
}

type podContainer struct {
	Image string
	Args  []string
	Ports []struct {
		ContainerPort int `yaml:"containerPort"`
	}
	ReadinessProbe struct{ Exec struct{ Command []string } } `yaml:"readinessProbe"`
	Mounts         []struct {
		Name string
		Path string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

// kubernetesObjects returns the objects in docs/buildkitd.yaml by kind.
func kubernetesObjects(t *testing.T) map[string]kubernetesObject {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "../../docs/buildkitd.yaml")))
	found := map[string]kubernetesObject{}
	for {
		var m kubernetesObject
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[m.Kind] = m
	}
}

// docs/buildkitd.yaml is a valid manifest, and references between its objects are correct.
func TestBuildKitManifest(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles Kubernetes' types; run without -short")
	}
	strict := exec.Command("go", "run", ".")
	strict.Dir = "../../internal/tools/kubernetes"
	strict.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	strict.Stdin = strings.NewReader(read(t, "../../docs/buildkitd.yaml"))
	if out, err := strict.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parts := kubernetesObjects(t)
	want := []string{"ConfigMap", "NetworkPolicy", "Service", "StatefulSet"}
	if got := slices.Sorted(maps.Keys(parts)); !slices.Equal(got, want) {
		t.Fatalf("kinds %q, want %q", got, want)
	}
	set, service, policy := parts["StatefulSet"], parts["Service"], parts["NetworkPolicy"]
	for kind, part := range parts {
		if part.Metadata.Namespace != "buildkit" {
			t.Errorf("%s is in namespace %q, want buildkit", kind, part.Metadata.Namespace)
		}
	}
	labels := fmt.Sprint(set.Spec.Template.Metadata.Labels)
	for what, selects := range map[string]any{
		"StatefulSet":   set.Spec.Selector["matchLabels"],
		"Service":       service.Spec.Selector,
		"NetworkPolicy": policy.Spec.PodSelector["matchLabels"],
	} {
		if fmt.Sprint(selects) != labels {
			t.Errorf("%s selects %v, but the labels of the pods are %s", what, selects, labels)
		}
	}
	if set.Spec.ServiceName != service.Metadata.Name {
		t.Errorf("serviceName of the StatefulSet is %q, want %q", set.Spec.ServiceName, service.Metadata.Name)
	}
	daemon := set.Spec.Template.Spec.Containers[0]
	ports := []int{daemon.Ports[0].ContainerPort, service.Spec.Ports[0].Port, policy.Spec.Ingress[0].Ports[0].Port}
	if !slices.Equal(ports, []int{1234, 1234, 1234}) {
		t.Errorf("ports of the pod, the Service and the NetworkPolicy are %v, want 1234", ports)
	}
	volumes := map[string]bool{}
	for _, v := range set.Spec.Template.Spec.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap.Name != "" && v.ConfigMap.Name != parts["ConfigMap"].Metadata.Name {
			t.Errorf("unknown ConfigMap %s", v.ConfigMap.Name)
		}
	}
	for _, claim := range set.Spec.Claims {
		volumes[claim.Metadata.Name] = true
	}
	for _, mount := range daemon.Mounts {
		if !volumes[mount.Name] {
			t.Errorf("%s mounts the unknown volume %s", mount.Path, mount.Name)
		}
		delete(volumes, mount.Name)
	}
	if len(volumes) > 0 {
		t.Errorf("unused volumes: %v", volumes)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/moby/buildkit").Output()
	if want := "docker.io/moby/buildkit:" + strings.TrimSpace(string(out)) + "-rootless"; err != nil ||
		daemon.Image != want {
		t.Errorf("image is %s, want the tested version %s (%v)", daemon.Image, want, err)
	}
}

// The commands in docs/own-buildkit.md create the certificates, a rootless daemon runs with the manifest's
// configuration, and the workflow builds on it. A stand-in for kubectl records its arguments.
func TestOwnBuildKit(t *testing.T) {
	e := setup(t)
	root, err := os.MkdirTemp("", "own-buildkit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	commands := strings.Join(codeBlocks(t, "docs/own-buildkit.md", "sh"), "\n")
	// certificates runs the commands in a new directory. It returns the directory and the arguments of each kubectl call.
	certificates := func(name string) (dir string, calls []string) {
		dir = filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o755))
		docs, err := filepath.Abs("../../docs")
		must(t, err)
		must(t, os.Symlink(docs, filepath.Join(dir, "docs")))
		kubectl := "#!/bin/sh\nprintf '%s\\n' \"$*\" >>kubectl.log\n"
		must(t, os.WriteFile(filepath.Join(dir, "bin/kubectl"), []byte(kubectl), 0o755))
		command := exec.Command("bash", "-euo", "pipefail", "-c", commands)
		command.Dir = dir
		command.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return dir, strings.Split(strings.TrimSpace(read(t, filepath.Join(dir, "kubectl.log"))), "\n")
	}
	ours, calls := certificates("ours")
	if want := []string{
		"create namespace buildkit",
		"-n buildkit create secret generic buildkitd-certs --from-file=certs/server",
		"apply -f docs/buildkitd.yaml",
	}; !slices.Equal(calls, want) {
		t.Fatalf("kubectl calls: %q, want %q", calls, want)
	}
	address := startBuildKit(t, root, filepath.Join(ours, "certs/server"))

	client := filepath.Join(ours, "certs/client")
	repository := t.TempDir()
	git(t, repository, "clone", "--quiet", e.caller, ".")
	git(t, repository, "remote", "set-url", "origin", "https://github.com/acme/caller")
	writeFile(t, repository, ".github/workflows/own.yml", codeBlocks(t, "docs/own-buildkit.md", "yaml")[0])
	e.release(t) // the workflow uses @v1
	log, ok := e.act(t, actRun{
		dir:      repository,
		workflow: "own.yml",
		event:    "push",
		noOIDC:   true,
		vars:     values{"BUILDKIT_ADDRESS": address, "BUILDKIT_CERT_PATH": client},
	})
	if !ok || !strings.Contains(log, "built sha256:") {
		t.Error(log)
	}

	// The daemon rejects a client certificate of another authority.
	others, _ := certificates("others")
	other := filepath.Join(others, "certs/client")
	must(t, os.WriteFile(filepath.Join(other, "ca.pem"), []byte(read(t, filepath.Join(client, "ca.pem"))), 0o600))
	got := e.run(t, invocation{
		dockerfile: "FROM scratch\nCOPY Dockerfile /\n",
		inputs:     values{"builder": address, "load": "false"},
		env:        values{"BUILDKIT_CERT_PATH": other},
	})
	assertFailed(t, got, "^error: connect to builder "+regexp.QuoteMeta(address)+": ")
}

// startBuildKit runs the manifest's daemon as its pod does: as root in an unprivileged user namespace, with the same
// secret and configuration. Only paths and the port differ. It returns the daemon's address.
func startBuildKit(t *testing.T, dir, secret string) string {
	t.Helper()
	const user, others = 1000, 100000 // the IDs that the image maps
	parts := kubernetesObjects(t)
	daemon := parts["StatefulSet"].Spec.Template.Spec.Containers[0]
	port := freePort(t)
	localPaths := strings.NewReplacer(
		"/run/user/1000",
		dir+"/run",
		"/certs/",
		dir+"/certs/",
		"/etc/buildkit/",
		dir+"/etc/",
		"0.0.0.0:1234",
		"127.0.0.1:"+port,
	)
	for _, folder := range []string{"bin", "etc", "run", "home"} {
		must(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
	}
	must(t, os.Chmod(dir, 0o755))
	must(t, os.CopyFS(filepath.Join(dir, "certs"), os.DirFS(secret)))
	for _, program := range []string{"buildkitd", "buildctl"} {
		data, err := os.ReadFile("../../.cache/bin/" + program)
		if err != nil {
			t.Fatalf("BuildKit is missing: %v (run scripts/setup.sh test)", err)
		}
		must(t, os.WriteFile(filepath.Join(dir, "bin", program), data, 0o755))
	}
	mirror, err := registry.StartMirror(t.Context(), "../../.cache/base/bookworm-slim.tar")
	must(t, err)
	t.Cleanup(func() { must(t, mirror.Stop()) })
	config := localPaths.Replace(
		parts["ConfigMap"].Data["buildkitd.toml"],
	) + fmt.Sprintf("[registry.\"docker.io\"]\n  mirrors = [%q]\n[registry.%q]\n  http = true\n", mirror.Addr, mirror.Addr)
	must(t, os.WriteFile(filepath.Join(dir, "etc/buildkitd.toml"), []byte(config), 0o644))
	for _, folder := range []string{"run", "home", "certs"} {
		must(t, filepath.WalkDir(filepath.Join(dir, folder), func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, user, user))
		}))
	}

	var args []string
	for _, arg := range daemon.Args {
		args = append(args, localPaths.Replace(arg))
	}
	var log programs.Buffer
	command := exec.Command(filepath.Join(dir, "bin/buildkitd"), args...)
	command.Stdout, command.Stderr = &log, &log
	command.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(dir, "home"),
		"USER=user",
		"XDG_RUNTIME_DIR=" + filepath.Join(dir, "run"),
		"TMPDIR=" + filepath.Join(dir, "home"),
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: user, Size: 1}, {ContainerID: 1, HostID: others, Size: 65535}}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0}, Setpgid: true,
	}
	must(t, command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})

	var probe []string
	for _, word := range daemon.ReadinessProbe.Exec.Command {
		probe = append(probe, localPaths.Replace(word))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		ready := exec.CommandContext(ctx, filepath.Join(dir, "bin", probe[0]), probe[1:]...)
		out, err := ready.CombinedOutput()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%v: %s\n%s", err, out, &log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return "tcp://127.0.0.1:" + port
}

// freePort returns a free TCP port.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	must(t, err)
	return port
}

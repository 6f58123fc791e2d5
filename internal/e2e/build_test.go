//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"golang.org/x/crypto/ssh"
)

// docker runs Docker's command line against an engine.
func docker(t *testing.T, host string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "docker", args...)
	command.Env = append(os.Environ(), "DOCKER_HOST="+host, "DOCKER_CONFIG="+t.TempDir())
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// login is a home folder whose Docker configuration opens the cloud's registry.
func (e *environment) login(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte("robot:" + e.RegistryPassword))
	if err := os.MkdirAll(filepath.Join(home, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, e.Registry.Addr, auth)
	if err := os.WriteFile(filepath.Join(home, ".docker/config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

// pull reads what a registry has, as somebody with a password, and validates all of it.
func pull(t *testing.T, reference, user, password string) *remote.Descriptor {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Get(ref, remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	if err != nil {
		t.Fatal(err)
	}
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		if err == nil {
			err = validate.Index(index)
		}
		if err != nil {
			t.Error(err)
		}
		return d
	}
	image, err := d.Image()
	if err == nil {
		err = validate.Image(image)
	}
	if err != nil {
		t.Error(err)
	}
	return d
}

const fromDebian = "FROM debian:bookworm-slim\n"

// Each input does what the table of the README says. What a step can see is asserted by the step.
func TestEveryInput(t *testing.T) {
	e := setup(t)
	home := e.login(t)
	keyFile := filepath.Join(t.TempDir(), "key")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	config := func(t *testing.T, imageName string) v1.Config {
		var list []struct{ Config v1.Config }
		if err := json.Unmarshal([]byte(docker(t, e.Engine.Host, "image", "inspect", imageName)), &list); err != nil {
			t.Fatal(err)
		}
		return list[0].Config
	}
	manifest := func(t *testing.T, reference string) []byte {
		return pull(t, reference, "robot", e.RegistryPassword).Manifest
	}
	registry := e.Registry.Addr
	for _, test := range []struct {
		name       string // the input
		dockerfile string
		dir        string
		inputs     map[string]string
		env        map[string]string
		check      func(t *testing.T, o result)
	}{
		{name: "platform", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"platform": "linux/arm64"}, check: func(t *testing.T, o result) {
			if got := docker(t, e.Engine.Host, "image", "inspect", "-f", "{{.Architecture}}", "iterate-sandbox:ci"); got != "arm64" || o.outputs["platforms"] != "linux/arm64" {
				t.Errorf("architecture %s, platforms %s", got, o.outputs["platforms"])
			}
		}},
		{name: "context", dir: writeFiles(t, values{"sub/Dockerfile": "FROM scratch\nCOPY file /\n", "sub/file": ""}),
			inputs: values{"context": "sub"}},
		{name: "dockerfile", dir: writeFiles(t, values{"other/Containerfile": "FROM scratch\nCOPY file /\n", "file": ""}),
			inputs: values{"dockerfile": "other/Containerfile"}},
		{name: "sandbox/Dockerfile where there is no other",
			dir: writeFiles(t, values{"sandbox/Dockerfile": "FROM scratch\nCOPY file /\n", "file": ""})},
		{name: "target", dockerfile: "FROM scratch AS one\nLABEL stage=one\nFROM scratch\nCOPY absent /\n", inputs: values{"target": "one"}, check: func(t *testing.T, _ result) {
			if got := config(t, "iterate-sandbox:ci").Labels["stage"]; got != "one" {
				t.Errorf("stage %q", got)
			}
		}},
		{name: "image_name", dockerfile: "FROM scratch\nLABEL a=b\n", inputs: values{"image_name": "example.com/team/name:tag"}, check: func(t *testing.T, o result) {
			config(t, "example.com/team/name:tag")
			if o.outputs["image_name"] != "example.com/team/name:tag" || o.outputs["image_ref"] != o.outputs["image_name"] {
				t.Errorf("outputs %v", o.outputs)
			}
		}},
		{name: "build_args", dockerfile: fromDebian + "ARG A\nARG B\nRUN test \"$A\" = 1,2 && test \"$B\" = there\n",
			inputs: values{"build_args": "A=1,2\nB"}, env: values{"B": "there"}},
		{name: "build_contexts", dockerfile: "FROM scratch\nCOPY --from=more file /\nCOPY --from=image /etc/debian_version /\n", inputs: values{
			"build_contexts": "more=" + writeFiles(t, values{"file": ""}) + "\nimage=docker-image://debian:bookworm-slim"}},
		{name: "labels", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"labels": "one=1\n\"two=a,b\""}, check: func(t *testing.T, _ result) {
			if got := config(t, "iterate-sandbox:ci").Labels; got["one"] != "1" || got["two"] != "a,b" {
				t.Errorf("labels %v", got)
			}
		}},
		{name: "annotations", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"annotations": "a=b\nindex:c=d", "push": registry + "/team/annotated:1", "provenance": "true", "load": "false"}, check: func(t *testing.T, o result) {
			var index v1.IndexManifest
			if err := json.Unmarshal(manifest(t, registry+"/team/annotated:1"), &index); err != nil {
				t.Fatal(err)
			}
			var image v1.Manifest
			if err := json.Unmarshal(manifest(t, registry+"/team/annotated@"+index.Manifests[0].Digest.String()), &image); err != nil {
				t.Fatal(err)
			}
			if index.Annotations["c"] != "d" || image.Annotations["a"] != "b" || image.Annotations["c"] != "" {
				t.Errorf("annotations of the index %v, of the image %v", index.Annotations, image.Annotations)
			}
		}},
		{name: "secrets", dockerfile: fromDebian + "RUN --mount=type=secret,id=one test \"$(cat /run/secrets/one)\" = first-value\n" +
			"RUN --mount=type=secret,id=two,env=TWO test \"$TWO\" = second-value\nRUN --mount=type=secret,id=three test \"$(cat /run/secrets/three)\" = third-value\n",
			dir:    "",
			inputs: values{"secrets": "one=first-value", "secret_envs": "two=SECOND", "secret_files": "three=" + filepath.Join(writeFiles(t, values{"s": "third-value"}), "s")},
			env:    values{"SECOND": "second-value"}},
		{name: "ssh", dockerfile: fromDebian + "RUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\"\n",
			inputs: values{"ssh": "default=" + keyFile}},
		{name: "allow and network", dockerfile: fromDebian + "RUN true # host\n",
			inputs: values{"allow": "network.host", "network": "host"}},
		{name: "allow security.insecure", dockerfile: fromDebian + "RUN --security=insecure mount -t tmpfs none /mnt\n",
			inputs: values{"allow": "security.insecure"}},
		{name: "network none", dockerfile: fromDebian + "RUN test \"$(ls /sys/class/net)\" = lo\n",
			inputs: values{"network": "none"}},
		{name: "add_hosts", dockerfile: fromDebian + "RUN grep -q '10.1.2.3.*build.example' /etc/hosts\n",
			inputs: values{"add_hosts": "build.example:10.1.2.3"}},
		{name: "shm_size", dockerfile: fromDebian + "RUN df -m /dev/shm | grep -q ' 123 '\n",
			inputs: values{"shm_size": "123m"}},
		{name: "ulimit", dockerfile: fromDebian + "RUN test \"$(ulimit -n)\" = 1234\n",
			inputs: values{"ulimit": "nofile=1234:1234"}},
		{name: "cgroup_parent",
			dockerfile: fromDebian + "RUN grep -q parent-of-builds /proc/self/cgroup || test -z \"$(cat /proc/self/cgroup)\" || grep -q '^0::/$' /proc/self/cgroup\n",
			inputs:     values{"cgroup_parent": "parent-of-builds"}},
		{name: "outputs", dockerfile: "FROM scratch\nCOPY Dockerfile /file\n", inputs: values{"load": "false",
			"outputs": "type=local,dest=" + out + "/local\n# and\ntype=oci,dest=" + out + "/image.tar\ntype=oci,tar=false,dest=" + out + "/layout"}, check: func(t *testing.T, o result) {
			for _, file := range []string{"local/file", "image.tar"} {
				if _, err := os.Stat(filepath.Join(out, file)); err != nil {
					t.Error(err)
				}
			}
			index, err := layout.ImageIndexFromPath(out + "/layout")
			if err == nil {
				err = validate.Index(index)
			}
			if err != nil {
				t.Error(err)
			}
		}},
		{name: "attests", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"attests": "type=provenance,mode=max", "push": registry + "/team/attested:1"}, check: func(t *testing.T, o result) {
			if index := manifest(t, registry+"/team/attested:1"); !bytes.Contains(index, []byte("attestation-manifest")) {
				t.Errorf("no attestation in %s", index)
			}
			config(t, "iterate-sandbox:ci") // loaded all the same
		}},
		{name: "provenance of a pushed image", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"push": registry + "/team/proven:1", "load": "false"}, check: func(t *testing.T, o result) {
			if !strings.HasPrefix(o.outputs["image_ref"], registry+"/team/proven:1@sha256:") {
				t.Errorf("image_ref %s", o.outputs["image_ref"])
			}
		}},
		{name: "no provenance", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"provenance": "false", "push": registry + "/team/unproven:1", "load": "false"}, check: func(t *testing.T, o result) {
			if d := pull(t, registry+"/team/unproven:1", "robot", e.RegistryPassword); d.MediaType.IsIndex() || d.Digest.String() != o.outputs["digest"] {
				t.Errorf("%s %s, want the image %s", d.MediaType, d.Digest, o.outputs["digest"])
			}
		}},
		{name: "push of two platforms", dockerfile: "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n", inputs: values{
			"platform": "linux/amd64,linux/arm64", "push": registry + "/team/both:1\n" + registry + "/team/both:2", "provenance": "false"}, check: func(t *testing.T, o result) {
			for _, tag := range []string{"1", "2"} {
				if d := pull(t, registry+"/team/both:"+tag, "robot", e.RegistryPassword); !d.MediaType.IsIndex() || d.Digest.String() != o.outputs["digest"] {
					t.Errorf("%s %s, want the index %s", d.MediaType, d.Digest, o.outputs["digest"])
				}
			}
			config(t, "iterate-sandbox:ci")
		}},
		{name: "save", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"save": "true", "save_tags": "v1", "load": "false", "provenance": "false"}, check: func(t *testing.T, o result) {
			// Another job, without Docker: Depot gives it a password for image_ref.
			password := e.pullToken(t, o.outputs["build_id"])
			if d := pull(t, o.outputs["image_ref"], "x-token", password); d.Digest.String() != o.outputs["digest"] {
				t.Errorf("pulled %s, want %s", d.Digest, o.outputs["digest"])
			}
			pull(t, registry+"/sandbox:v1", "x-token", password)
		}},
		{name: "save of two platforms", dockerfile: "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n", inputs: values{"save": "true", "load": "false", "platform": "linux/amd64,linux/arm64"}, check: func(t *testing.T, o result) {
			if d := pull(t, o.outputs["image_ref"], "x-token", e.pullToken(t, o.outputs["build_id"])); !d.MediaType.IsIndex() {
				t.Errorf("image_ref is %s", d.MediaType)
			}
		}},
		{name: "depot_project and depot_token", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"depot_project": "other", "depot_token": e.OrganizationToken}, check: func(t *testing.T, o result) {
			if o.outputs["project_id"] != "other" || o.outputs["build_url"] == "" {
				t.Errorf("outputs %v", o.outputs)
			}
		}},
		{name: "builder", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"builder": e.Builders.Address("linux/amd64")}, check: func(t *testing.T, o result) {
			if o.outputs["build_id"] != "" || o.outputs["digest"] == "" {
				t.Errorf("outputs %v", o.outputs)
			}
		}},
		{name: "pull", dockerfile: fromDebian + "RUN true\n", inputs: values{"pull": "true"}},
		{name: "timeout", dockerfile: "FROM scratch\nCOPY Dockerfile /\n", inputs: values{"timeout": "1m30s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			env := values{"HOME": home}
			for name, value := range test.env {
				env[name] = value
			}
			o := e.mustRun(t, invocation{dockerfile: test.dockerfile, dir: test.dir, inputs: test.inputs, env: env})
			if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(o.outputs["digest"]) ||
				!strings.Contains(o.summary, o.outputs["digest"]) {
				t.Errorf("digest %q; summary %s", o.outputs["digest"], o.summary)
			}
			if len(o.outputs) != len(outputsOf(t, "build")) {
				t.Errorf("%d outputs: %v", len(o.outputs), o.outputs)
			}
			if test.check != nil {
				test.check(t, o)
			}
		})
	}
}

// pullToken is what Depot gives to who may pull what a build saved.
func (e *environment) pullToken(t *testing.T, build string) string {
	t.Helper()
	request,
		err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.Depot.URL()+"/depot.cli.v1.BuildService/GetPullToken",
		strings.NewReader(fmt.Sprintf(`{"projectId": "sandbox", "buildId": %q}`, build)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+e.DepotToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" {
		t.Fatalf("GetPullToken: %v: %s", err, body)
	}
	return answer.Token
}

func TestNoCacheInputs(t *testing.T) {
	e := setup(t)
	docker := fromDebian + "RUN echo one > /one\nFROM debian:bookworm-slim AS second\nRUN echo two > /two\nCOPY --from=0 /one /\n"
	for _, test := range []struct {
		name   string
		inputs map[string]string
		cached int
	}{
		{"all cached", nil, 3},
		{"no_cache", values{"no_cache": "true"}, 0},
		{"no_cache_filters", values{"no_cache_filters": "second"}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "all cached" {
				e.mustRun(t, invocation{dockerfile: docker})
			}
			o := e.mustRun(t, invocation{dockerfile: docker, inputs: test.inputs})
			if o.outputs["total_steps"] != "3" || o.outputs["cached_steps"] != strconv.Itoa(test.cached) {
				t.Errorf("%s of %s steps cached, want %d of 3", o.outputs["cached_steps"], o.outputs["total_steps"], test.cached)
			}
		})
	}
}

// Asked twice for the same commit, it is the same image, whoever asks; nothing is built again.
func TestRefs(t *testing.T) {
	e := setup(t)
	dir := e.caller
	sha := git(t, dir, "rev-parse", "HEAD")
	for _, command := range [][]string{{"update-ref", "refs/pull/7/head", sha}, {"update-ref", "refs/pull/7/merge", sha}, {"tag", "-f", "light"}, {"tag", "-f", "-a", "-m", "x", "heavy"}} {
		git(t, dir, command...)
	}
	var digest string
	for _, test := range []struct{ ref, full string }{
		{"", ""}, {"main", "refs/heads/main"}, {"light", "refs/tags/light"}, {"heavy", "refs/tags/heavy"}, {sha,
			""}, {sha[:9], ""},
		{"refs/pull/7/merge", "refs/pull/7/merge"}, {"refs/pull/7/head", "refs/pull/7/head"}, {"#7", "refs/pull/7/merge"},
	} {
		t.Run("ref "+test.ref, func(t *testing.T) {
			// The workspace is empty: without a ref it is the event's commit.
			o := e.mustRun(
				t,
				invocation{
					dir:    t.TempDir(),
					inputs: values{"ref": test.ref, "load": "false", "git_context": "git"},
					env:    values{"GITHUB_SHA": sha},
				},
			)
			if digest == "" {
				digest = o.outputs["digest"]
			}
			if o.outputs["git_sha"] != sha || o.outputs["git_ref"] != test.full || o.outputs["digest"] != digest {
				t.Errorf("sha %s, ref %s, digest %s", o.outputs["git_sha"], o.outputs["git_ref"], o.outputs["digest"])
			}
			if test.ref != "" && o.outputs["cached_steps"] != o.outputs["total_steps"] {
				t.Errorf("%s of %s steps cached", o.outputs["cached_steps"], o.outputs["total_steps"])
			}
		})
	}
	t.Run("a checkout with a changed file", func(t *testing.T) {
		clone := t.TempDir()
		git(t, clone, "clone", "--quiet", dir, ".")
		if err := os.WriteFile(filepath.Join(clone, "greeting"), []byte("changed\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		o := e.mustRun(t, invocation{dir: clone, inputs: values{"image_name": "caller:dirty"}})
		if !strings.Contains(o.stdout, sha+"-dirty") || o.outputs["git_sha"] != sha {
			t.Errorf("the log does not say %s-dirty:\n%s", sha, o.stdout)
		}
		if got := docker(t, e.Engine.Host, "run", "--rm", "caller:dirty", "cat", "/greeting"); got != "changed" {
			t.Errorf("the image holds %q", got)
		}
	})
}

// The engine that is old, and the one of today: both take the image, and run it.
func TestLoadsIntoTheOldestEngine(t *testing.T) {
	e := setup(t)
	oldest, err := engine.Start(t.Context(), engine.Oldest, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := oldest.Stop(); err != nil {
			t.Error(err)
		}
	})
	for host, ids := range map[string][]string{oldest.Host: {"image_id"}, e.Engine.Host: {"image_id", "digest"}} {
		o := e.mustRun(
			t,
			invocation{
				dockerfile: fromDebian + "RUN echo there > /there\n",
				inputs:     values{"image_name": "both:1"},
				env:        values{"DOCKER_HOST": host},
			},
		)
		if got := docker(t, host, "run", "--rm", "both:1", "cat", "/there"); got != "there" {
			t.Errorf("%s: %q", host, got)
		}
		id, known := docker(t, host, "image", "inspect", "-f", "{{.Id}}", "both:1"), false
		for _, output := range ids {
			known = known || o.outputs[output] == id
		}
		if !known {
			t.Errorf("%s: the engine's id %s is none of %v", host, id, ids)
		}
	}
}

// With several platforms and no engine for any of them nothing is built.
func TestPlatformsWithoutTheEngines(t *testing.T) {
	e := setup(t)
	before := len(e.Depot.Calls())
	o := e.run(
		t,
		invocation{
			dockerfile: "FROM scratch\n",
			inputs:     values{"platform": "linux/arm64,linux/riscv64", "builder": e.Builders.Address("linux/arm64")},
		},
	)
	if o.exitCode != 1 || !strings.Contains(o.stderr, "load: false") {
		t.Errorf("exit %d: %s", o.exitCode, o.stderr)
	}
	if len(e.Depot.Calls()) != before {
		t.Error("Depot was asked")
	}
}

// sentences are what a failed program says on standard error, and its ::error commands.
func errorLines(t *testing.T, o result) (stderr, annotations []string) {
	t.Helper()
	for _, stream := range []string{o.stdout, o.stderr} {
		stopped := ""
		for lines := bufio.NewScanner(strings.NewReader(stream)); lines.Scan(); {
			line := lines.Text()
			switch {
			case stopped != "":
				if line == "::"+stopped+"::" {
					stopped = ""
				}
			case strings.HasPrefix(line, "::stop-commands::"):
				stopped = strings.TrimPrefix(line, "::stop-commands::")
			case strings.HasPrefix(line, "::error"):
				annotations = append(annotations, line)
			}
		}
	}
	for line := range strings.Lines(o.stderr) {
		stderr = append(stderr, strings.TrimRight(line, "\n"))
	}
	return stderr, annotations
}

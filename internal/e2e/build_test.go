//go:build linux

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
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
	"github.com/org/sandbox-actions/internal/runnerlog"
)

// docker runs the docker command with an engine and returns its output.
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

// login returns a home directory with a Docker configuration that is logged in to the cloud's registry.
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

// pull pulls an image or an index and validates its blobs.
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

// fromFile is the Dockerfile of an image that contains only the Dockerfile.
const fromFile = "FROM scratch\nCOPY Dockerfile /\n"

// Each input has its documented effect, which the build steps or check assert.
func TestEveryInput(t *testing.T) {
	e := setup(t)
	home := e.login(t)
	out := t.TempDir()
	config := func(t *testing.T, imageName string) v1.Config {
		var list []struct{ Config v1.Config }
		must(t, json.Unmarshal([]byte(docker(t, e.Engine.Host, "image", "inspect", imageName)), &list))
		return list[0].Config
	}
	fromRegistry := func(t *testing.T, reference string) *remote.Descriptor {
		return pull(t, e.Registry.Addr+"/team/"+reference, "robot", e.RegistryPassword)
	}
	team := e.Registry.Addr + "/team/"
	const secretSteps = "RUN --mount=type=secret,id=one test \"$(cat /run/secrets/one)\" = first-value\n" +
		"RUN --mount=type=secret,id=two,env=TWO test \"$TWO\" = second-value\n" +
		"RUN --mount=type=secret,id=three test \"$(cat /run/secrets/three)\" = third-value\n"
	// Depending on its cgroup namespace, a step may not see the parent cgroup.
	const cgroupStep = "RUN grep -q parent-of-builds /proc/self/cgroup || test -z \"$(cat /proc/self/cgroup)\" || " +
		"grep -q '^0::/$' /proc/self/cgroup\n"
	for _, test := range []struct {
		name       string // the input
		dockerfile string
		dir        string
		inputs     values
		env        values
		check      func(t *testing.T, r result)
	}{
		{
			name: "platform", dockerfile: fromFile, inputs: values{"platform": "linux/arm64"},
			check: func(t *testing.T, r result) {
				architecture := docker(t, e.Engine.Host, "image", "inspect", "-f", "{{.Architecture}}", "sandbox:ci")
				if architecture != "arm64" || r.outputs["platforms"] != "linux/arm64" {
					t.Errorf("architecture %s, platforms %s", architecture, r.outputs["platforms"])
				}
			},
		},
		{
			name: "context", inputs: values{"context": "sub"},
			dir: writeFiles(t, values{"sub/Dockerfile": "FROM scratch\nCOPY file /\n", "sub/file": ""}),
		},
		{
			name: "dockerfile", inputs: values{"dockerfile": "other/Containerfile"},
			dir: writeFiles(t, values{"other/Containerfile": "FROM scratch\nCOPY file /\n", "file": ""}),
		},
		{
			name: "dockerfile of the root", inputs: values{"context": "sub", "dockerfile": "Dockerfile"},
			dir: writeFiles(t, values{
				"Dockerfile": "FROM scratch\nCOPY file /\n", "sub/Dockerfile": "FROM scratch\nCOPY absent /\n", "sub/file": "",
			}),
		},
		{
			name: "default Dockerfile in sandbox",
			dir:  writeFiles(t, values{"sandbox/Dockerfile": "FROM scratch\nCOPY file /\n", "file": ""}),
		},
		{
			name: "target", inputs: values{"target": "one"},
			dockerfile: "FROM scratch AS one\nLABEL stage=one\nFROM scratch\nCOPY absent /\n",
			check: func(t *testing.T, _ result) {
				if got := config(t, "sandbox:ci").Labels["stage"]; got != "one" {
					t.Errorf("stage %q", got)
				}
			},
		},
		{
			name: "image_name", dockerfile: "FROM scratch\nLABEL a=b\n",
			inputs: values{"image_name": "example.com/team/name:tag"},
			check: func(t *testing.T, r result) {
				config(t, "example.com/team/name:tag")
				if r.outputs["image_name"] != "example.com/team/name:tag" || r.outputs["image_ref"] != r.outputs["image_name"] {
					t.Errorf("outputs %v", r.outputs)
				}
			},
		},
		{
			name: "build_args", inputs: values{"build_args": "A=1,2\nB"}, env: values{"B": "there"},
			dockerfile: fromDebian + "ARG A\nARG B\nRUN test \"$A\" = 1,2 && test \"$B\" = there\n",
		},
		{
			name:       "build_contexts",
			dockerfile: "FROM scratch\nCOPY --from=more file /\nCOPY --from=image /etc/debian_version /\n",
			inputs: values{
				"build_contexts": "more=" + writeFiles(t, values{"file": ""}) + "\nimage=docker-image://debian:bookworm-slim",
			},
		},
		{
			name: "labels", dockerfile: fromFile, inputs: values{"labels": "one=1\n\"two=a,b\""},
			check: func(t *testing.T, _ result) {
				if got := config(t, "sandbox:ci").Labels; got["one"] != "1" || got["two"] != "a,b" {
					t.Errorf("labels %v", got)
				}
			},
		},
		{
			name: "annotations", dockerfile: fromFile,
			inputs: values{
				"annotations": "a=b\nindex,manifest-descriptor:c=d", "push": team + "annotated:1", "provenance": "true",
				"load": "false",
			},
			check: func(t *testing.T, _ result) {
				var index v1.IndexManifest
				must(t, json.Unmarshal(fromRegistry(t, "annotated:1").Manifest, &index))
				var image v1.Manifest
				must(t, json.Unmarshal(fromRegistry(t, "annotated@"+index.Manifests[0].Digest.String()).Manifest, &image))
				descriptor := index.Manifests[0]
				if index.Annotations["c"] != "d" || descriptor.Annotations["c"] != "d" || image.Annotations["a"] != "b" ||
					image.Annotations["c"] != "" {
					t.Errorf("annotations of the index %v, of the image %v", index.Annotations, image.Annotations)
				}
			},
		},
		{
			name: "secrets, secret_envs, secret_files", dockerfile: fromDebian + secretSteps,
			inputs: values{
				"secrets": "one=first-value", "secret_envs": "two=SECOND",
				"secret_files": "three=" + filepath.Join(writeFiles(t, values{"s": "third-value"}), "s"),
			},
			env: values{"SECOND": "second-value"},
		},
		{
			name: "ssh", inputs: values{"ssh": "default=" + writeKey(t)},
			dockerfile: fromDebian + "RUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\"\n",
		},
		{
			name: "allow and network", dockerfile: fromDebian + "RUN true # host\n",
			inputs: values{"allow": "network.host", "network": "host"},
		},
		{
			name: "allow security.insecure", inputs: values{"allow": "security.insecure"},
			dockerfile: fromDebian + "RUN --security=insecure mount -t tmpfs none /mnt\n",
		},
		{
			name: "network none", inputs: values{"network": "none"},
			dockerfile: fromDebian + "RUN test \"$(ls /sys/class/net)\" = lo\n",
		},
		{
			name: "add_hosts", inputs: values{"add_hosts": "build.example:10.1.2.3"},
			dockerfile: fromDebian + "RUN grep -q '10.1.2.3.*build.example' /etc/hosts\n",
		},
		{
			name: "shm_size", inputs: values{"shm_size": "123m"},
			dockerfile: fromDebian + "RUN df -m /dev/shm | grep -q ' 123 '\n",
		},
		{
			name: "ulimit", inputs: values{"ulimit": "nofile=1234:1234"},
			dockerfile: fromDebian + "RUN test \"$(ulimit -n)\" = 1234\n",
		},
		{
			name: "cgroup_parent", inputs: values{"cgroup_parent": "parent-of-builds"}, dockerfile: fromDebian + cgroupStep,
		},
		{
			name: "outputs", dockerfile: "FROM scratch\nCOPY Dockerfile /file\n",
			inputs: values{
				"load": "false",
				"outputs": "type=local,dest=" + out + "/local\n# and\ntype=oci,dest=" + out + "/image.tar\n" +
					"type=oci,tar=false,dest=" + out + "/layout",
			},
			check: func(t *testing.T, _ result) {
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
			},
		},
		{
			name: "attests", dockerfile: fromFile,
			inputs: values{"attests": "type=provenance,mode=max", "push": team + "attested:1"},
			check: func(t *testing.T, _ result) {
				if index := fromRegistry(t, "attested:1").Manifest; !bytes.Contains(index, []byte("attestation-manifest")) {
					t.Errorf("no attestation in %s", index)
				}
				config(t, "sandbox:ci") // attestations do not prevent loading
			},
		},
		{
			name: "provenance of a pushed image", dockerfile: fromFile,
			inputs: values{"push": team + "proven:1", "load": "false"},
			check: func(t *testing.T, r result) {
				if !strings.HasPrefix(r.outputs["image_ref"], team+"proven:1@sha256:") {
					t.Errorf("image_ref %s", r.outputs["image_ref"])
				}
			},
		},
		{
			name: "no provenance", dockerfile: fromFile,
			inputs: values{"provenance": "false", "push": team + "unproven:1", "load": "false"},
			check: func(t *testing.T, r result) {
				if d := fromRegistry(t, "unproven:1"); d.MediaType.IsIndex() || d.Digest.String() != r.outputs["digest"] {
					t.Errorf("%s %s, want the image %s", d.MediaType, d.Digest, r.outputs["digest"])
				}
			},
		},
		{
			name: "push of two platforms", dockerfile: "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n",
			inputs: values{
				"platform": "linux/amd64,linux/arm64", "push": team + "both:1\n" + team + "both:2", "provenance": "false",
			},
			check: func(t *testing.T, r result) {
				for _, tag := range []string{"1", "2"} {
					if d := fromRegistry(t, "both:"+tag); !d.MediaType.IsIndex() || d.Digest.String() != r.outputs["digest"] {
						t.Errorf("%s %s, want the index %s", d.MediaType, d.Digest, r.outputs["digest"])
					}
				}
				config(t, "sandbox:ci")
			},
		},
		{
			name: "save", dockerfile: fromFile,
			inputs: values{"save": "true", "save_tags": "v1", "load": "false", "provenance": "false"},
			check: func(t *testing.T, r result) {
				// Like another job without Docker, pull image_ref with a password from Depot.
				password := e.pullToken(t, r.outputs["build_id"])
				if d := pull(t, r.outputs["image_ref"], "x-token", password); d.Digest.String() != r.outputs["digest"] {
					t.Errorf("pulled %s, want %s", d.Digest, r.outputs["digest"])
				}
				pull(t, e.Registry.Addr+"/sandbox:v1", "x-token", password)
			},
		},
		{
			name: "save of two platforms", dockerfile: "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n",
			inputs: values{"save": "true", "load": "false", "platform": "linux/amd64,linux/arm64"},
			check: func(t *testing.T, r result) {
				password := e.pullToken(t, r.outputs["build_id"])
				if d := pull(t, r.outputs["image_ref"], "x-token", password); !d.MediaType.IsIndex() {
					t.Errorf("image_ref is %s", d.MediaType)
				}
			},
		},
		{
			name: "depot_project and depot_token", dockerfile: fromFile,
			inputs: values{"depot_project": "other", "depot_token": e.OrganizationToken},
			check: func(t *testing.T, r result) {
				if r.outputs["project_id"] != "other" || r.outputs["build_url"] == "" {
					t.Errorf("outputs %v", r.outputs)
				}
			},
		},
		{
			name: "builder", dockerfile: fromFile, inputs: values{"builder": e.Builders.Address("linux/amd64")},
			check: func(t *testing.T, r result) {
				if r.outputs["build_id"] != "" || r.outputs["digest"] == "" {
					t.Errorf("outputs %v", r.outputs)
				}
			},
		},
		{name: "pull", dockerfile: fromDebian + "RUN true\n", inputs: values{"pull": "true"}},
		{name: "timeout", dockerfile: fromFile, inputs: values{"timeout": "1m30s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			env := merge(values{"HOME": home}, test.env)
			r := e.mustRun(t, invocation{dockerfile: test.dockerfile, dir: test.dir, inputs: test.inputs, env: env})
			if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(r.outputs["digest"]) ||
				!strings.Contains(r.summary, r.outputs["digest"]) {
				t.Errorf("digest %q; summary %s", r.outputs["digest"], r.summary)
			}
			if len(r.outputs) != len(outputsOf(t, "build")) {
				t.Errorf("%d outputs: %v", len(r.outputs), r.outputs)
			}
			if test.check != nil {
				test.check(t, r)
			}
		})
	}
}

// pullToken returns a password that can pull the saved image of a build.
func (e *environment) pullToken(t *testing.T, build string) string {
	t.Helper()
	address := e.Depot.URL() + "/depot.cli.v1.BuildService/GetPullToken"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address,
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
	dockerfile := fromDebian + "RUN echo one > /one\n" +
		"FROM debian:bookworm-slim AS second\nRUN echo two > /two\nCOPY --from=0 /one /\n"
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
				e.mustRun(t, invocation{dockerfile: dockerfile})
			}
			r := e.mustRun(t, invocation{dockerfile: dockerfile, inputs: test.inputs})
			if r.outputs["total_steps"] != "3" || r.outputs["cached_steps"] != strconv.Itoa(test.cached) {
				t.Errorf("%s of %s steps cached, want %d of 3", r.outputs["cached_steps"], r.outputs["total_steps"], test.cached)
			}
		})
	}
}

// Each form of a ref resolves to the same commit and digest. All builds after the first one are cached.
func TestRefs(t *testing.T) {
	e := setup(t)
	dir := e.caller
	sha := git(t, dir, "rev-parse", "HEAD")
	for _, command := range [][]string{
		{"update-ref", "refs/pull/7/head", sha}, {"update-ref", "refs/pull/7/merge", sha},
		{"tag", "-f", "light"}, {"tag", "-f", "-a", "-m", "x", "heavy"},
	} {
		git(t, dir, command...)
	}
	var digest string
	for _, test := range []struct{ ref, full string }{
		{"", ""}, {sha, ""}, {sha[:9], ""},
		{"main", "refs/heads/main"}, {"light", "refs/tags/light"}, {"heavy", "refs/tags/heavy"},
		{"refs/pull/7/merge", "refs/pull/7/merge"}, {"refs/pull/7/head", "refs/pull/7/head"}, {"#7", "refs/pull/7/merge"},
	} {
		t.Run("ref "+test.ref, func(t *testing.T) {
			// The workspace is empty, so the default ref is the event's commit.
			r := e.mustRun(t, invocation{
				dir:    t.TempDir(),
				inputs: values{"ref": test.ref, "load": "false", "git_context": "git", "default_labels": "false"},
				env:    values{"GITHUB_SHA": sha},
			})
			if digest == "" {
				digest = r.outputs["digest"]
			}
			if r.outputs["git_sha"] != sha || r.outputs["git_ref"] != test.full || r.outputs["digest"] != digest {
				t.Errorf("sha %s, ref %s, digest %s", r.outputs["git_sha"], r.outputs["git_ref"], r.outputs["digest"])
			}
			if test.ref != "" && r.outputs["cached_steps"] != r.outputs["total_steps"] {
				t.Errorf("%s of %s steps cached", r.outputs["cached_steps"], r.outputs["total_steps"])
			}
		})
	}
	t.Run("checkout with a changed file", func(t *testing.T) {
		clone := t.TempDir()
		git(t, clone, "clone", "--quiet", dir, ".")
		if err := os.WriteFile(filepath.Join(clone, "greeting"), []byte("changed\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		r := e.mustRun(t, invocation{dir: clone, inputs: values{"image_name": "caller:dirty"}})
		if !strings.Contains(r.stdout, sha+"-dirty") || r.outputs["git_sha"] != sha {
			t.Errorf("the log does not contain %s-dirty:\n%s", sha, r.stdout)
		}
		if got := docker(t, e.Engine.Host, "run", "--rm", "caller:dirty", "cat", "/greeting"); got != "changed" {
			t.Errorf("the image contains %q", got)
		}
	})
}

// Building an image, testing it and making a snapshot of it give the same digest, also after the image was pushed with
// another compression.
func TestSameDigest(t *testing.T) {
	e := setup(t)
	dir := t.TempDir()
	writeFile(t, dir, "Dockerfile", fromDebian+"RUN head -c 100000 /dev/urandom >/random\nCMD [\"sleep\", \"60\"]\n")
	writeFile(t, dir, "tests.yaml", "tests:\n  - name: random\n    run: [test, -s, /random]\n")
	env := values{"DAYTONA_API_KEY": "", "HOME": e.login(t)}
	run := func(program string, inputs values) result {
		return e.mustRun(t, invocation{program: program, dir: dir, inputs: inputs, env: env})
	}
	first := run("action-build", values{"load": "false"})
	pushed := run("action-build", values{"load": "false", "push": e.Registry.Addr + "/team/same:1", "provenance": "false"})
	for _, r := range []result{
		run("action-build", nil), run("action-test", values{"suite": "tests.yaml"}), run("action-snapshot", nil),
	} {
		if r.outputs["digest"] != first.outputs["digest"] {
			t.Errorf("digest %s, want %s", r.outputs["digest"], first.outputs["digest"])
		}
	}
	if pushed.outputs["image_id"] != first.outputs["image_id"] {
		t.Errorf("the pushed image is %s, want %s", pushed.outputs["image_id"], first.outputs["image_id"])
	}
}

// The oldest supported and the current Docker Engine load and run the image, with the same digest.
func TestLoadOldestEngine(t *testing.T) {
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
	digests := map[string]bool{}
	for host, ids := range map[string][]string{oldest.Host: {"image_id"}, e.Engine.Host: {"image_id", "digest"}} {
		r := e.mustRun(t, invocation{
			dockerfile: fromDebian + "RUN echo there > /there\n",
			inputs:     values{"image_name": "both:1"},
			env:        values{"DOCKER_HOST": host},
		})
		if got := docker(t, host, "run", "--rm", "both:1", "cat", "/there"); got != "there" {
			t.Errorf("%s: %q", host, got)
		}
		id, known := docker(t, host, "image", "inspect", "-f", "{{.Id}}", "both:1"), false
		for _, output := range ids {
			known = known || r.outputs[output] == id
		}
		if !known {
			t.Errorf("%s: outputs %v do not contain the engine's image ID %s", host, ids, id)
		}
		digests[r.outputs["digest"]] = true
	}
	if len(digests) != 1 {
		t.Errorf("digests %v, want the same for both engines", digests)
	}
}

// The build fails before it starts if none of the platforms matches the Docker Engine, which could not load the image.
func TestEnginePlatformMissing(t *testing.T) {
	e := setup(t)
	before := len(e.Depot.Calls())
	r := e.run(t, invocation{
		dockerfile: "FROM scratch\n",
		inputs:     values{"platform": "linux/arm64,linux/riscv64", "builder": e.Builders.Address("linux/arm64")},
	})
	assertFailed(t, r, "load: false")
	if len(e.Depot.Calls()) != before {
		t.Error("a build was created at Depot")
	}
}

// errorMessages returns the messages of the ::error commands that the runner executes.
func errorMessages(r result) (messages []string) {
	unescape := strings.NewReplacer("%0A", "\n", "%0D", "\r", "%25", "%")
	for _, command := range runnerlog.Commands(r.stdout + "\n" + r.stderr) {
		if text, isError := strings.CutPrefix(command, "::error"); isError {
			_, message, _ := strings.Cut(text, "::")
			messages = append(messages, unescape.Replace(message))
		}
	}
	return messages
}

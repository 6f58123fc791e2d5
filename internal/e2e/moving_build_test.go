//go:build linux

package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"

	"github.com/org/sandbox-actions/internal/localcloud"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
)

const ociPrefix = "org.opencontainers.image."

// inspected is the part of docker image inspect that tests need.
type inspected struct {
	Architecture string
	Config       struct{ Labels values }
	RootFS       struct{ Layers []string }
}

func inspect(t *testing.T, host, image string) inspected {
	t.Helper()
	var list []inspected
	must(t, json.Unmarshal([]byte(docker(t, host, "image", "inspect", image)), &list))
	return list[0]
}

// clone clones the caller's repository as actions/checkout does for a ref: with a branch, or with a detached HEAD.
func clone(t *testing.T, e *environment, ref string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	git(t, dir, "clone", "--quiet", e.caller, ".")
	git(t, dir, "remote", "set-url", "origin", "https://github.com/acme/caller")
	git(t, dir, "checkout", "--quiet", ref)
	return dir
}

// In GitHub Actions, labels name the image's commit. They do not change the layers, and those of the user take
// precedence.
func TestDefaultLabels(t *testing.T) {
	e := setup(t)
	sha := git(t, e.caller, "rev-parse", "HEAD")
	git(t, e.caller, "tag", "-f", "v9/x")
	event := func(ref string) values { return values{"GITHUB_SHA": sha, "GITHUB_REF": ref} }
	source := e.GitHub.ServerURL() + "/acme/caller"
	labels := func(version string) values {
		return values{
			ociPrefix + "revision": sha, ociPrefix + "source": source, ociPrefix + "created": "2026-01-01T00:00:00Z",
			ociPrefix + "version": version,
		}
	}
	own := clone(t, e, "main")
	writeFile(t, own, "Dockerfile", "FROM scratch\nCOPY greeting /\n"+
		"LABEL \"org.opencontainers.image.version\"=1.2.3 "+ociPrefix+"title=t\nlabel "+ociPrefix+"source here\n")
	ownLabels := labels("1.2.3")
	ownLabels[ociPrefix+"title"], ownLabels[ociPrefix+"source"] = "t", "here"
	given := labels("main")
	given[ociPrefix+"revision"], given[ociPrefix+"created"] = "mine", ""
	for _, test := range []struct {
		name   string
		dir    string // default: an empty workspace, so that the event's commit is built
		inputs values
		env    values
		want   values
	}{
		{name: "branch", env: event("refs/heads/main"), want: labels("main")},
		{name: "tag", env: event("refs/tags/v9/x"), want: labels("v9-x")},
		{name: "pull request", env: event("refs/pull/7/merge"), want: labels("pr-7")},
		{name: "input ref", inputs: values{"ref": "v9/x"}, env: event("refs/heads/main"), want: labels("v9-x")},
		{name: "checkout", dir: clone(t, e, "main"), want: labels("main")},
		{name: "checkout of a tag", dir: clone(t, e, "v9/x"), env: event("refs/tags/v9/x"), want: labels("v9-x")},
		{name: "labels of the Dockerfile", dir: own, want: ownLabels},
		{
			name: "input labels", env: event("refs/heads/main"), want: given,
			inputs: values{"labels": ociPrefix + "revision=mine\n" + ociPrefix + "created="},
		},
		{name: "default_labels: false", inputs: values{"default_labels": "false"}, env: event("refs/heads/main")},
		{name: "outside Actions", dir: clone(t, e, "main"), env: values{"GITHUB_ACTIONS": ""}},
		{name: "no repository", dir: writeFiles(t, values{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.dir == "" {
				test.dir = t.TempDir()
			}
			in := merge(values{"image_name": "labels:1", "platform": "linux/amd64"}, test.inputs)
			first := e.mustRun(t, invocation{dir: test.dir, inputs: in, env: test.env})
			got := inspect(t, e.Engine.Host, "labels:1").Config.Labels
			if !maps.Equal(got, test.want) {
				t.Errorf("labels %v, want %v", got, test.want)
			}
			again := e.mustRun(t, invocation{dir: test.dir, inputs: in, env: test.env})
			if first.outputs["image_id"] != again.outputs["image_id"] {
				t.Errorf("image %s, then %s", first.outputs["image_id"], again.outputs["image_id"])
			}
			if again.outputs["cached_steps"] != again.outputs["total_steps"] {
				t.Errorf("%s of %s steps cached", again.outputs["cached_steps"], again.outputs["total_steps"])
			}
		})
	}
}

// The outputs of docker/metadata-action fit without a change: tags as push, labels and annotations as they are.
func TestMetadataAction(t *testing.T) {
	e := setup(t)
	var meta struct{ Tags, Labels, Annotations string }
	must(t, yaml.Unmarshal([]byte(read(t, "testdata/metadata-action.yaml")), &meta))
	tags := strings.NewReplacer("ghcr.io/acme", e.Registry.Addr+"/team/meta",
		"registry.example.com:5000/team", e.Registry.Addr+"/team").Replace(meta.Tags)
	want := func(lines, level string) values {
		list := values{}
		for line := range strings.SplitSeq(lines, "\n") {
			if line, ok := strings.CutPrefix(line, level); ok {
				name, value, _ := strings.Cut(line, "=")
				list[name] = value
			}
		}
		return list
	}
	env := values{"HOME": e.login(t), "GITHUB_SHA": git(t, e.caller, "rev-parse", "HEAD"), "GITHUB_REF": "refs/heads/main"}
	for _, test := range []struct{ name, platforms string }{
		{"one platform", "linux/amd64"}, {"two platforms", "linux/amd64,linux/arm64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := e.mustRun(t, invocation{
				dir: t.TempDir(), env: env,
				inputs: values{
					"platform": test.platforms, "push": tags, "labels": meta.Labels, "annotations": meta.Annotations,
				},
			})
			var index *remote.Descriptor
			for tag := range strings.SplitSeq(tags, "\n") {
				index = pull(t, tag, "robot", e.RegistryPassword)
				if index.Digest.String() != r.outputs["digest"] {
					t.Errorf("%s is %s, want %s", tag, index.Digest, r.outputs["digest"])
				}
			}
			var manifest v1.IndexManifest
			must(t, json.Unmarshal(index.Manifest, &manifest))
			if want := want(meta.Annotations, "index:"); !maps.Equal(manifest.Annotations, want) {
				t.Errorf("annotations of the index %v, want %v", manifest.Annotations, want)
			}
			image, err := index.Image()
			must(t, err)
			ofImage, err := image.Manifest()
			must(t, err)
			if want := want(meta.Annotations, "manifest:"); !maps.Equal(ofImage.Annotations, want) {
				t.Errorf("annotations of the image %v, want %v", ofImage.Annotations, want)
			}
			config, err := image.ConfigFile()
			must(t, err)
			if want := want(meta.Labels, ""); !maps.Equal(config.Config.Labels, want) {
				t.Errorf("labels %v, want %v", config.Config.Labels, want)
			}
			if want := strings.ReplaceAll(tags, "\n", ","); metadata(t, r)["image.name"] != want {
				t.Errorf("metadata %s, want the names %s", r.outputs["metadata"], want)
			}
		})
	}
	t.Run("pull request, which pushes nothing", func(t *testing.T) {
		r := e.mustRun(t, invocation{
			dir: t.TempDir(), env: env,
			inputs: values{"push": "", "labels": meta.Labels, "annotations": meta.Annotations, "image_name": tags},
		})
		names := strings.Split(tags, "\n")
		for _, name := range names {
			inspect(t, e.Engine.Host, name)
		}
		if r.outputs["image_ref"] != names[0] || !strings.Contains(r.stdout, "::warning::input annotations, line 9") {
			t.Errorf("image_ref %s\n%s", r.outputs["image_ref"], r.stdout)
		}
	})
}

// metadata returns the output metadata.
func metadata(t *testing.T, r result) (fields map[string]any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(r.outputs["metadata"]), &fields))
	return fields
}

// predicate returns the provenance of a pushed image.
func (e *environment) predicate(t *testing.T, reference string) string {
	t.Helper()
	index, err := pull(t, reference, "robot", e.RegistryPassword).ImageIndex()
	must(t, err)
	manifest, err := index.IndexManifest()
	must(t, err)
	for _, m := range manifest.Manifests {
		if m.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			continue
		}
		image, err := index.Image(m.Digest)
		must(t, err)
		layers, err := image.Layers()
		must(t, err)
		blob, err := layers[0].Compressed()
		must(t, err)
		defer blob.Close()
		var statement struct{ Predicate json.RawMessage }
		must(t, json.NewDecoder(blob).Decode(&statement))
		return string(statement.Predicate)
	}
	t.Fatalf("%s has no attestation", reference)
	return ""
}

// Provenance names the run and the commit, as that of docker/build-push-action does.
func TestProvenance(t *testing.T) {
	e := setup(t)
	sha := git(t, e.caller, "rev-parse", "HEAD")
	env := values{
		"HOME": e.login(t), "GITHUB_SHA": sha, "GITHUB_REF": "refs/heads/main", "GITHUB_RUN_ID": "12",
		"GITHUB_RUN_ATTEMPT": "3",
	}
	reference := e.Registry.Addr + "/team/provenance:1"
	e.mustRun(t, invocation{dir: t.TempDir(), env: env, inputs: values{"push": reference, "load": "false"}})
	predicate := e.predicate(t, reference)
	for _, want := range []string{
		e.GitHub.ServerURL() + "/acme/caller/actions/runs/12/attempts/3", sha, e.GitHub.ServerURL() + `/acme/caller"`,
		`"localdir:context":"."`,
	} {
		if !strings.Contains(strings.ReplaceAll(predicate, `": "`, `":"`), want) {
			t.Errorf("the provenance lacks %s: %s", want, predicate)
		}
	}
	e.mustRun(t, invocation{
		dir: t.TempDir(), env: merge(env, values{"BUILDX_NO_DEFAULT_ATTESTATIONS": "true"}),
		inputs: values{"push": reference, "load": "false"},
	})
	if d := pull(t, reference, "robot", e.RegistryPassword); d.MediaType.IsIndex() {
		t.Errorf("without default attestations, the image is an index: %s", d.Manifest)
	}
}

// {{defaultContext}} is the event's commit, even if the workspace has other files.
func TestDefaultContext(t *testing.T) {
	e := setup(t)
	source := clone(t, e, "main")
	files := values{
		"docker/app.Dockerfile": fromDebian + "COPY --from=root greeting /a\nCOPY --from=lib file /b\nCOPY here /\n" +
			"RUN test \"$(cat /a /b)\" = \"$(printf 'hello\\nlib')\"\n",
		"docker/here": "x", "lib/file": "lib",
	}
	for name, content := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(source, name)), 0o755))
		writeFile(t, source, name, content)
	}
	git(t, source, "add", "--all")
	git(t, source, "commit", "--quiet", "--message=contexts")
	git(t, source, "push", "--quiet", "--force", e.caller, "HEAD:refs/heads/contexts")
	sha := git(t, source, "rev-parse", "HEAD")
	env := values{"GITHUB_SHA": sha, "GITHUB_REF": "refs/heads/contexts"}
	contexts := "root={{defaultContext}}\nlib={{ defaultContext }}:lib"
	dirty := clone(t, e, "main")
	writeFile(t, dirty, "greeting", "dirty\n")
	for _, test := range []struct {
		name, dir string
		inputs    values
	}{
		{"without a checkout", t.TempDir(), values{
			"context": "{{defaultContext}}:docker", "dockerfile": "app.Dockerfile", "build_contexts": contexts,
		}},
		{"with a checkout", dirty, values{
			"context": "{{defaultContext}}:docker", "dockerfile": "app.Dockerfile", "build_contexts": contexts,
		}},
		{"named contexts only", dirty, values{
			"context": filepath.Join(source, "docker"), "dockerfile": filepath.Join(source, "docker/app.Dockerfile"),
			"build_contexts": contexts,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := e.mustRun(t, invocation{dir: test.dir, inputs: test.inputs, env: env})
			if want := sha; test.inputs["context"] == "{{defaultContext}}:docker" && r.outputs["git_sha"] != want {
				t.Errorf("built %s, want %s", r.outputs["git_sha"], want)
			}
		})
	}
	r := e.run(t, invocation{dir: t.TempDir(), env: env, inputs: values{"build_contexts": "a={{defaultContext}}:missing"}})
	assertFailed(t, r, `^error: input build_contexts: "a=missing" is not a directory in the repository`)
}

// BuildKit fetches a private git context with the input github_token, unless the Dockerfile is another repository's.
func TestGitContextToken(t *testing.T) {
	e := setup(t)
	context := e.GitHub.ServerURL() + "/acme/caller.git#main"
	const secretStep = "RUN --mount=type=secret,id=GIT_AUTH_TOKEN.%s,env=TOKEN test -z \"$TOKEN\"\n"
	inputs := values{"github_token": e.GitHubToken, "context": context}
	r := e.mustRun(t, invocation{dir: t.TempDir(), inputs: inputs, env: values{"GITHUB_TOKEN": ""}})
	if r.outputs["total_steps"] != "2" {
		t.Errorf("%s steps, want 2", r.outputs["total_steps"])
	}
	e.mustRun(t, invocation{
		dockerfile: "FROM scratch\nCOPY --from=private greeting /\n",
		inputs:     values{"github_token": e.GitHubToken, "build_contexts": "private=" + context},
	})
	for _, test := range []struct {
		name   string
		inputs values
	}{
		{"no token", values{"context": context}},
		{"Dockerfile of another repository", merge(inputs, values{"context": e.GitHub.ServerURL() + "/org/other.git"})},
	} {
		r := e.run(t, invocation{dir: t.TempDir(), inputs: test.inputs, env: values{"GITHUB_TOKEN": ""}})
		if r.exitCode == 0 {
			t.Errorf("%s: the build succeeded", test.name)
		}
	}
	_, host, _ := strings.Cut(e.GitHub.ServerURL(), "://")
	e.mustRun(t, invocation{ // a context on this machine needs no token
		dockerfile: fromDebian + fmt.Sprintf(secretStep, host), inputs: values{"github_token": e.GitHubToken},
	})
}

// proxyConfig is a Docker configuration with proxies.
const proxyConfig = `{"proxies": {"default": {
	"httpProxy": "http://user:proxy-password@proxy.example:3128", "noProxy": "localhost"}}}`

// countKeys is a step that requests the identities of the SSH agent (SSH_AGENTC_REQUEST_IDENTITIES) and fails
// unless there are two. Unlike sysread, read waits for all bytes of the answer.
const countKeys = `RUN --mount=type=ssh perl -MIO::Socket::UNIX -e ' \
	my $agent = IO::Socket::UNIX->new($ENV{SSH_AUTH_SOCK}) or die "connect: $!"; \
	syswrite($agent, pack("NC", 1, 11)); \
	read($agent, my $answer, 9); \
	my ($length, $type, $keys) = unpack("NCN", $answer); \
	die "$keys keys" unless $keys == 2'
`

// writeKey writes a private SSH key to a file and returns its path.
func writeKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	must(t, err)
	path := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	return path
}

// Settings of workflows for docker/build-push-action have the same effect, or the effect that docs/moving.md states.
func TestMovingBuilds(t *testing.T) {
	e := setup(t)
	proxies := writeFiles(t, values{"config.json": proxyConfig})
	team := e.Registry.Addr + "/team/"
	for _, test := range []struct {
		name, dockerfile string
		inputs, env      values
		check            func(t *testing.T, dir string, r result)
	}{
		{
			name: "several names", dockerfile: fromFile, inputs: values{"image_name": "several:1,several:2"},
			check: func(t *testing.T, _ string, r result) {
				one, two := inspect(t, e.Engine.Host, "several:1"), inspect(t, e.Engine.Host, "several:2")
				if !slices.Equal(one.RootFS.Layers, two.RootFS.Layers) || r.outputs["image_name"] != "several:1" {
					t.Errorf("%v and %v; outputs %v", one, two, r.outputs)
				}
			},
		},
		{
			name: "outputs that load", dockerfile: fromFile,
			inputs: values{"load": "false", "outputs": "type=docker,name=as-output:1\ntype=cacheonly"},
			check: func(t *testing.T, _ string, r result) {
				inspect(t, e.Engine.Host, "as-output:1")
				if r.outputs["image_name"] != "as-output:1" {
					t.Errorf("image_name %s", r.outputs["image_name"])
				}
			},
		},
		{
			name: "archive without a name", dockerfile: fromFile,
			inputs: values{"image_name": "archived:1,archived:2", "load": "false", "outputs": "type=docker,dest=image.tar"},
			check: func(t *testing.T, dir string, _ result) {
				out := docker(t, e.Engine.Host, "load", "--input", filepath.Join(dir, "image.tar"))
				if !strings.Contains(out, "archived:1") || !strings.Contains(out, "archived:2") {
					t.Errorf("docker load: %s", out)
				}
			},
		},
		{
			name: "platform of an emulated or compatible machine", dockerfile: fromFile,
			inputs: values{"platform": "linux/386", "image_name": "i386:1"},
			check: func(t *testing.T, _ string, r result) {
				if got := inspect(t, e.Engine.Host, "i386:1").Architecture; got != "386" || r.outputs["build_id"] == "" {
					t.Errorf("architecture %s, outputs %v", got, r.outputs)
				}
			},
		},
		{
			name: "several platforms of one machine", dockerfile: fromFile,
			inputs: values{"platform": "linux/arm64/v8,linux/arm/v7", "load": "false", "push": team + "arm:1"},
			env:    values{"HOME": e.login(t)},
			check: func(t *testing.T, _ string, r result) {
				fields := metadata(t, r)
				descriptor, _ := fields["containerimage.descriptor"].(map[string]any)
				if fields["containerimage.digest"] != r.outputs["digest"] || descriptor["digest"] != r.outputs["digest"] ||
					fields["image.name"] != team+"arm:1" || fields["linux/arm64"] == nil || fields["linux/arm/v7"] == nil {
					t.Errorf("metadata %s, digest %s", r.outputs["metadata"], r.outputs["digest"])
				}
			},
		},
		{
			name: "proxy of the inputs", env: values{"DOCKER_CONFIG": proxies},
			inputs:     values{"build_args": "http_proxy=http://mine.example:1\nNO_PROXY="},
			dockerfile: fromDebian + "RUN test \"$HTTP_PROXY$http_proxy\" = http://mine.example:1http://mine.example:1\n",
		},
		{
			name:       "secrets without a value",
			dockerfile: fromDebian + "RUN --mount=type=secret,id=TOKEN,env=TOKEN test -z \"$TOKEN\"\n",
			inputs:     values{"secrets": "TOKEN=", "secret_envs": "ENV=NOT_SET", "secret_files": "FILE=missing"},
			check: func(t *testing.T, _ string, r result) {
				for _, name := range []string{"TOKEN", "ENV", "FILE"} {
					if !strings.Contains(r.stdout, "the secret "+name+" is left out") {
						t.Errorf("no warning about %s", name)
					}
				}
			},
		},
		{
			name: "bytes of a secret", inputs: values{"secrets": "\"S=aaaa\r\nbbbb\"\n.npmrc=x"},
			dockerfile: fromDebian + "RUN --mount=type=secret,id=S --mount=type=secret,id=.npmrc " +
				"test \"$(od -An -c /run/secrets/S | tr -d ' \\n')\" = 'aaaa\\r\\nbbbb' && cat /run/secrets/.npmrc\n",
		},
		{
			name: "two SSH keys", dockerfile: fromDebian + countKeys,
			inputs: values{"ssh": "default=" + writeKey(t) + "," + writeKey(t)},
		},
		{
			name: "host network", dockerfile: fromDebian + "RUN true # network\n", inputs: values{"network": "host"},
		},
		{
			name: "host gateway", dockerfile: fromDebian + "RUN grep -q '127.0.0.1.*gateway.example' /etc/hosts\n",
			inputs: values{
				"add_hosts": "gateway.example:host-gateway", "builder": e.Builders.Address("linux/amd64"), "network": "host",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeFiles(t, values{"Dockerfile": test.dockerfile})
			r := e.mustRun(t, invocation{dir: dir, inputs: test.inputs, env: test.env})
			if test.check != nil {
				test.check(t, dir, r)
			}
		})
	}
}

// Each output has a counterpart with the content that its row in docs/moving.md states.
func TestMovingOutputs(t *testing.T) {
	e := setup(t)
	reference := e.Registry.Addr + "/team/outputs:1"
	one := e.mustRun(t, invocation{
		dockerfile: fromFile, env: values{"HOME": e.login(t)}, inputs: values{"push": reference, "provenance": "false"},
	})
	two := e.mustRun(t, invocation{
		dockerfile: fromFile, env: values{"HOME": e.login(t)},
		inputs: values{"push": reference, "platform": "linux/amd64,linux/arm64", "load": "false"},
	})
	cases := map[string]func(t *testing.T){
		"build-id": func(t *testing.T) {
			if one.outputs["build_id"] == "" || !strings.HasSuffix(one.outputs["build_url"], one.outputs["build_id"]) {
				t.Errorf("outputs %v", one.outputs)
			}
		},
		"digest": func(t *testing.T) {
			if d := pull(t, reference, "robot", e.RegistryPassword); d.Digest.String() != two.outputs["digest"] {
				t.Errorf("%s, want %s", two.outputs["digest"], d.Digest)
			}
		},
		"imageid": func(t *testing.T) {
			image, err := pull(t, withDigest(reference, one), "robot", e.RegistryPassword).Image()
			must(t, err)
			if id, err := image.ConfigName(); err != nil || id.String() != one.outputs["image_id"] {
				t.Errorf("%s, want %s, %v", one.outputs["image_id"], id, err)
			}
		},
		"metadata": func(t *testing.T) {
			for _, r := range []result{one, two} {
				fields := metadata(t, r)
				descriptor, _ := fields["containerimage.descriptor"].(map[string]any)
				if fields["containerimage.digest"] != r.outputs["digest"] || descriptor["digest"] != r.outputs["digest"] ||
					fields["image.name"] != reference || fields["buildx.build.ref"] != nil {
					t.Errorf("digest %s, metadata %s", r.outputs["digest"], r.outputs["metadata"])
				}
			}
			fields := metadata(t, two)
			if fields["linux/amd64"] == nil || fields["linux/arm64"] == nil {
				t.Errorf("metadata %v", fields)
			}
		},
		"project-id": func(t *testing.T) {
			if one.outputs["project_id"] != localcloud.Project {
				t.Errorf("project %s, want %s", one.outputs["project_id"], localcloud.Project)
			}
		},
	}
	testRows(t, "output", cases)
}

// testRows runs a case for each row of a table in docs/moving.md.
func testRows(t *testing.T, column string, cases map[string]func(t *testing.T)) {
	t.Helper()
	rows := movingRows(t, column)
	if len(rows) != len(cases) {
		t.Errorf("%d rows, %d cases", len(rows), len(cases))
	}
	for _, row := range rows {
		if test, ok := cases[row.name]; ok {
			t.Run(row.name, test)
		} else {
			t.Errorf("the row %s has no case", row.name)
		}
	}
}

// withDigest returns the reference of the image that a run pushed, without its tag.
func withDigest(reference string, r result) string {
	return reference[:strings.LastIndex(reference, ":")] + "@" + r.outputs["digest"]
}

// Each variable has the effect that its row in docs/moving.md states.
func TestMovingVariables(t *testing.T) {
	e := setup(t)
	const checked = "from scratch\nCOPY Dockerfile /\n" // violates a check: the keyword is not in upper case
	const annotation = "title=Dockerfile check::"
	const proxyStep = "RUN test \"$HTTP_PROXY $http_proxy\" = \"" +
		"http://user:proxy-password@proxy.example:3128 http://user:proxy-password@proxy.example:3128\"\n" +
		"ARG no_proxy\nRUN test \"$no_proxy\" = localhost\n"
	run := func(t *testing.T, name, value, dockerfile string, inputs values) result {
		t.Helper()
		return e.mustRun(t, invocation{
			dockerfile: dockerfile, inputs: merge(values{"load": "false"}, inputs), env: values{name: value},
		})
	}
	withoutEffect := func(name, value string) func(t *testing.T) {
		return func(t *testing.T) {
			without := run(t, name, "", checked, nil)
			with := run(t, name, value, checked, nil)
			if with.outputs["digest"] != without.outputs["digest"] || !strings.Contains(with.summary, "✅ Built ") ||
				!strings.Contains(with.stdout, annotation) {
				t.Errorf("digest %s with it, %s without; summary %q\n%s",
					with.outputs["digest"], without.outputs["digest"], with.summary, with.stdout)
			}
		}
	}
	testRows(t, "variable", map[string]func(t *testing.T){
		"BUILDX_BUILDER": withoutEffect("BUILDX_BUILDER", "missing"),
		"BUILDX_NO_DEFAULT_ATTESTATIONS": func(t *testing.T) {
			reference := e.Registry.Addr + "/team/unattested:1"
			e.mustRun(t, invocation{
				dockerfile: fromFile, inputs: values{"push": reference, "load": "false"},
				env: values{"HOME": e.login(t), "BUILDX_NO_DEFAULT_ATTESTATIONS": "true"},
			})
			if d := pull(t, reference, "robot", e.RegistryPassword); d.MediaType.IsIndex() {
				t.Errorf("the image is an index: %s", d.Manifest)
			}
		},
		"BUILDX_SEND_GIT_QUERY_AS_INPUT": withoutEffect("BUILDX_SEND_GIT_QUERY_AS_INPUT", "true"),
		"DEPOT_PROJECT_ID": func(t *testing.T) {
			r := run(t, "DEPOT_PROJECT_ID", "other", fromFile, values{"depot_token": e.OrganizationToken})
			if r.outputs["project_id"] != "other" {
				t.Errorf("project %s", r.outputs["project_id"])
			}
		},
		"DEPOT_TOKEN": func(t *testing.T) {
			before := len(e.Depot.Calls())
			run(t, "DEPOT_TOKEN", e.DepotToken, fromFile, nil)
			if calls := e.Depot.Calls()[before:]; calls[0].Token != depotapi.ProjectToken {
				t.Errorf("the first call is %+v", calls[0])
			}
		},
		"DOCKER_BUILD_CHECKS_ANNOTATIONS": func(t *testing.T) {
			r := run(t, "DOCKER_BUILD_CHECKS_ANNOTATIONS", "false", checked, nil)
			if strings.Contains(r.stdout, annotation) || !strings.Contains(r.stdout, "ConsistentInstructionCasing") {
				t.Error(r.stdout)
			}
		},
		"DOCKER_BUILD_RECORD_RETENTION_DAYS": withoutEffect("DOCKER_BUILD_RECORD_RETENTION_DAYS", "7"),
		"DOCKER_BUILD_RECORD_UPLOAD":         withoutEffect("DOCKER_BUILD_RECORD_UPLOAD", "false"),
		"DOCKER_BUILD_SUMMARY": func(t *testing.T) {
			if r := run(t, "DOCKER_BUILD_SUMMARY", "false", checked, nil); r.summary != "" {
				t.Errorf("summary %q", r.summary)
			}
		},
		"DOCKER_CONFIG": func(t *testing.T) {
			config := writeFiles(t, values{"config.json": proxyConfig})
			r := run(t, "DOCKER_CONFIG", config, fromDebian+proxyStep, values{"no_cache": "true"})
			if !strings.Contains(r.stdout, "::add-mask::proxy-password") {
				t.Error("the password of the proxy is not masked")
			}
			r = e.run(t, invocation{ // the attestation would contain the password
				dockerfile: fromFile, env: values{"DOCKER_CONFIG": config},
				inputs: values{"load": "false", "provenance": "mode=max"},
			})
			assertFailed(t, r, `^error: input provenance: "mode=max" would publish the password of a proxy`)
		},
		"DOCKER_DEFAULT_GIT_CONTEXT_PR_HEAD_REF": withoutEffect("DOCKER_DEFAULT_GIT_CONTEXT_PR_HEAD_REF", "true"),
		"SOURCE_DATE_EPOCH": func(t *testing.T) {
			one := run(t, "SOURCE_DATE_EPOCH", "0", fromFile, nil)
			two := run(t, "SOURCE_DATE_EPOCH", "0", fromFile, values{"no_cache": "true"})
			if one.outputs["digest"] != two.outputs["digest"] {
				t.Errorf("%s, then %s", one.outputs["digest"], two.outputs["digest"])
			}
		},
	})
}

package image

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/client"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"golang.org/x/crypto/ssh/agent"
)

// failingBuild is a build that fails, and the whole text of its error.
type failingBuild struct {
	name       string
	dockerfile string
	files      map[string]string // in addition to the Dockerfile and the file f
	change     func(*Request)    // of the request; the context is r.Context
	want       string            // with the placeholders of the Dockerfile
	older      bool              // also on v0.11, with the same text
}

// failingBuilds are what goes wrong in builds: in the Dockerfile, the inputs, the context, registries, other servers.
// ${BAD} is a registry whose repositories are named after the status of their answers, ${PRIVATE} one that requires a
// login, ${FILES} and ${GIT} are servers of files and git repositories, and ${SOCKET} and ${NO_KEYS} are SSH agents.
var failingBuilds = []failingBuild{
	// A step fails.
	{
		name: "standard error", older: true,
		dockerfile: "FROM debian:bookworm-slim\nRUN echo wrong >&2; exit 3\n",
		want:       "Dockerfile:2 (step 2/2) failed with exit code 3; last output: `wrong`",
	},
	{
		name:       "last lines only",
		dockerfile: "FROM debian:bookworm-slim AS builder\nRUN seq 100; exit 1\nFROM builder\n",
		want:       "Dockerfile:2 (step builder 2/2) failed with exit code 1; last output: `98`, `99`, `100`",
	},
	{
		name: "progress bar, colors and an unfinished line",
		dockerfile: "FROM debian:bookworm-slim\n" +
			"RUN printf ' 1%%\\r50%%\\r99%%\\n\\033[31mred\\033[0m\\n\\n::error::forged'; exit 1\n",
		want: "Dockerfile:2 (step 2/2) failed with exit code 1; last output: `99%`, `red`, `::error::forged`",
	},
	{
		name:       "secret in the output",
		dockerfile: "FROM debian:bookworm-slim\nRUN printf 'it is hunter2-hunter2'; exit 1\n",
		want:       "Dockerfile:2 (step 2/2) failed with exit code 1; last output: `it is ***`",
	},
	{
		name:       "no output",
		dockerfile: "FROM debian:bookworm-slim\nRUN \\\n  false\n",
		want:       `Dockerfile:2 (step 2/2) failed with exit code 1 and no output: RUN \ false`,
	},
	{
		name:       "no such command",
		dockerfile: "FROM debian:bookworm-slim\nRUN nosuchcommand\n",
		want:       "Dockerfile:2 (step 2/2) failed with exit code 127; last output: `/bin/sh: 1: nosuchcommand: not found`",
	},
	{
		name:       "no shell",
		dockerfile: "FROM scratch\nRUN true\n",
		want: "Dockerfile:2 (step 1/1) failed with exit code 1; last output: `runc run failed: unable to start container " +
			"process: exec: \"/bin/sh\": stat /bin/sh: no such file or directory`",
	},
	{
		name:       "killed",
		dockerfile: "FROM debian:bookworm-slim\nRUN echo busy; exec sh -c 'kill -9 $$; exit 137'\n",
		want: "Dockerfile:2 (step 2/2) failed with exit code 137; last output: `busy` (the process was killed, usually " +
			"because memory ran out: use a larger builder, or fewer parallel jobs)",
	},
	{
		name:       "program of another platform",
		dockerfile: "FROM debian:bookworm-slim\nCOPY --chmod=755 f /f\nRUN echo '/bin/sh: exec format error'; exit 255\n",
		want: "Dockerfile:3 (step 3/3) failed with exit code 255; last output: `/bin/sh: exec format error` (the program " +
			"is for another platform than linux/amd64: check the base image and the input platform, or install an emulator " +
			"(QEMU) on the builder)",
	},
	{
		name:       "unknown user",
		dockerfile: "FROM debian:bookworm-slim\nUSER nosuch\nRUN true\n",
		want:       "Dockerfile:3 (step 2/2): unable to find user nosuch: no matching entries in passwd file",
	},
	{
		name:       "folder below a file",
		dockerfile: "FROM small:1\nCOPY f /small.txt/x\n",
		want:       "Dockerfile:2 (step 2/2): mkdir /small.txt: not a directory",
	},
	{
		name:       "Dockerfile in another folder",
		dockerfile: "FROM scratch\n", files: map[string]string{"app/Dockerfile": "FROM debian:bookworm-slim\nRUN exit 4\n"},
		change: func(r *Request) {
			r.Dockerfile, r.DockerfileName = filepath.Join(r.Context, "app", "Dockerfile"), "app/Dockerfile"
		},
		want: "app/Dockerfile:2 (step 2/2) failed with exit code 4 and no output: RUN exit 4",
	},

	// The Dockerfile is invalid.
	{
		name: "unknown instruction", older: true, dockerfile: "FROM scratch\nCOPPY f /\n",
		want: "Dockerfile:2: unknown instruction: COPPY (did you mean COPY?)",
	},
	{name: "empty", older: true, dockerfile: "\n", want: "Dockerfile:1: file with no instructions"},
	{name: "no FROM", older: true, dockerfile: "RUN true\n", want: "Dockerfile:1: no build stage in current context"},
	{
		name: "missing arguments", dockerfile: "FROM scratch\nCOPY f\n",
		want: "Dockerfile:2: COPY requires at least two arguments, but only one was provided. Destination could not be " +
			"determined",
	},
	{
		name: "unknown mount", dockerfile: "FROM small:1\nRUN --mount=type=nosuch true\n",
		want: `Dockerfile:2: unsupported mount type "nosuch"`,
	},
	{
		name: "base image without a name", dockerfile: "ARG VERSION\nFROM debian:${VERSION}\n",
		want: `Dockerfile:2: failed to parse stage name "debian:": invalid reference format`,
	},
	{
		name: "invalid pattern of COPY", older: true, dockerfile: "FROM scratch\nCOPY [a- /\n",
		want: `Dockerfile:2: invalid pattern "[a-": syntax error in pattern`,
	},
	{
		name: "check is an error", dockerfile: "# check=error=true\nFROM scratch as x\nCOPY f /\n",
		want: "build: lint violation found for rules: FromAsCasing (fix the warnings of the checks, or remove error=true " +
			"from the line # check= of the Dockerfile)",
	},

	// An input, or the context.
	{
		name: "pattern of .dockerignore", older: true, dockerfile: "FROM scratch\nCOPY f /\n",
		files: map[string]string{".dockerignore": "# comment\nok\n[a-\n"},
		want: `.dockerignore:3: invalid pattern "[a-": syntax error in pattern (close the bracket or escape it as \[; ` +
			`a pattern cannot end with \)`,
	},
	{
		name: "pattern of the Dockerfile's own .dockerignore", older: true, dockerfile: "FROM scratch\nCOPY . /\n",
		files: map[string]string{".dockerignore": "x\n", "Dockerfile.dockerignore": "!a[\n"},
		want: `Dockerfile.dockerignore:1: invalid pattern "!a[": syntax error in pattern (close the bracket or escape it ` +
			`as \[; a pattern cannot end with \)`,
	},
	{
		name: "unknown target", older: true,
		dockerfile: "FROM scratch AS one\nCOPY f /f\nFROM one as Two\nCOPY f /\nFROM two\n",
		change:     func(r *Request) { r.Target = "nosuch" },
		want:       `stage "nosuch" not found in Dockerfile (set the input target to one of: one, Two)`,
	},
	{
		name: "target without stages", dockerfile: "FROM scratch\nCOPY f /f\n",
		change: func(r *Request) { r.Target = "nosuch" },
		want: `stage "nosuch" not found in Dockerfile (remove the input target, or add AS nosuch to the stage in the ` +
			`Dockerfile)`,
	},
	{
		name: "missing secret", older: true,
		dockerfile: "FROM debian:bookworm-slim\nRUN --mount=type=secret,id=NPM_TOKEN,required=true true\n",
		want: "Dockerfile:2 needs the secret NPM_TOKEN: add it to the input secrets, secret_envs or secret_files, " +
			"or to the Doppler config",
	},
	{
		name:       "secret that is too large",
		dockerfile: "FROM debian:bookworm-slim\nRUN --mount=type=secret,id=BIG true\n",
		change: func(r *Request) {
			r.Secrets = map[string]func() ([]byte, error){"BIG": func() ([]byte, error) { return make([]byte, 600<<10), nil }}
		},
		want: "Dockerfile:2 (step 2/2): invalid secret size 614400 (BuildKit limits a secret to 500 KiB)",
	},
	{
		name: "no SSH agent", older: true,
		dockerfile: "FROM debian:bookworm-slim\nRUN --mount=type=ssh,required=true true\n",
		want:       "Dockerfile:2 needs the SSH agent default: add default to the input ssh",
	},
	{
		name: "another SSH agent", older: true,
		dockerfile: "FROM debian:bookworm-slim\nRUN --mount=type=ssh,id=github,required=true true\n",
		change:     func(r *Request) { r.SSH = []SSH{{ID: "default", Paths: []string{"${SOCKET}"}}} },
		want:       "Dockerfile:2 needs the SSH agent github: add github to the input ssh",
	},
	{
		name:       "SSH agent without keys",
		dockerfile: "FROM debian:bookworm-slim\nRUN --mount=type=ssh echo 'Permission denied (publickey).'; exit 128\n",
		change:     func(r *Request) { r.SSH = []SSH{{ID: "default", Paths: []string{"${NO_KEYS}"}}} },
		want: "Dockerfile:2 (step 2/2) failed with exit code 128; last output: `Permission denied (publickey).` (the SSH " +
			"agent default has no keys: add one with ssh-add)",
	},
	{
		name: "host network in the Dockerfile", older: true,
		dockerfile: "FROM debian:bookworm-slim\nRUN --network=host true\n",
		want:       "Dockerfile:2 needs the entitlement network.host (add it to the input allow)",
	},
	{
		name: "insecure step", dockerfile: "FROM debian:bookworm-slim\n\nRUN --security=insecure true\n",
		want: "Dockerfile:3 needs the entitlement security.insecure (add it to the input allow)",
	},
	{
		name: "missing file", older: true, dockerfile: "FROM scratch\nCOPY f missing.txt sub/ /x/\n",
		files: map[string]string{"sub/x": ""},
		want: "Dockerfile:2: COPY missing.txt: not in the build context (`.`), or excluded by .dockerignore (paths are " +
			"relative to the input context)",
	},
	{
		name: "missing file of another context", dockerfile: "FROM scratch\nCOPY f missing.txt /x/\n",
		files: map[string]string{"app/Dockerfile": "FROM scratch\nADD dir/missing /\n"},
		change: func(r *Request) {
			r.Dockerfile, r.DockerfileName = filepath.Join(r.Context, "app", "Dockerfile"), "app/Dockerfile"
			r.Context = filepath.Join(r.Context, "app")
		},
		want: "app/Dockerfile:2: ADD dir/missing: not in the build context (`app`), or excluded by .dockerignore (paths " +
			"are relative to the input context)",
	},
	{
		name: "excluded file", older: true, dockerfile: "FROM scratch\nCOPY f /\n",
		files: map[string]string{".dockerignore": "*\n"},
		want:  "Dockerfile:2: COPY f: excluded by .dockerignore (add the line !f to it)",
	},
	{
		name: "missing file of a stage", older: true,
		dockerfile: "FROM small:1 AS base\nFROM scratch\nCOPY --from=base /nosuch /\n",
		want:       "Dockerfile:3: COPY nosuch: not in base (correct the path, or create the file in base)",
	},
	{
		name: "missing file of a named context", dockerfile: "FROM scratch\nCOPY --from=extra nosuch /\n",
		change: func(r *Request) { r.Contexts = map[string]string{"extra": r.Context} },
		want:   "Dockerfile:2: COPY nosuch: not in extra (correct the path, or create the file in extra)",
	},
	{
		name: "missing Dockerfile", older: true, dockerfile: "FROM scratch\n",
		change: func(r *Request) { r.Dockerfile, r.DockerfileName = filepath.Join(r.Context, "nosuch"), "nosuch" },
		want:   "read the Dockerfile nosuch: not found (set the input dockerfile to its path)",
	},
	{
		name: "Dockerfile is a folder", dockerfile: "FROM scratch\n", files: map[string]string{"app/Dockerfile": ""},
		change: func(r *Request) { r.Dockerfile, r.DockerfileName = filepath.Join(r.Context, "app"), "app" },
		want:   "read the Dockerfile app: is a directory (set the input dockerfile to its path)",
	},
	{
		name: "missing Dockerfile of a repository", older: true,
		change: func(r *Request) { r.Context, r.Dockerfile = "${GIT}/repo.git#main", "nosuch" },
		want: "read the Dockerfile nosuch: not found in ${GIT}/repo.git#main (set the input dockerfile to its " +
			"path)",
	},
	{
		name: "destination of an output", dockerfile: "FROM scratch\nCOPY f /\n",
		change: func(r *Request) {
			r.Outputs = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: filepath.Join(r.Context, "f", "x")}}
		},
		want: "write the outputs: failed to create synctarget dest dir ${DIR}/f/x: mkdir ${DIR}/f: not a directory (check " +
			"the destination of the input outputs)",
	},

	// A registry.
	{
		name: "base image needs a login", older: true, dockerfile: "FROM ${PRIVATE}/team/x:1\n",
		want: "Dockerfile:1: pull ${PRIVATE}/team/x:1: ${PRIVATE} returned 401 Unauthorized (log in to ${PRIVATE} (docker " +
			"login) with valid credentials that may pull from the repository)",
	},
	{
		name: "401 of COPY --from", older: true, dockerfile: "FROM scratch\nCOPY --from=${BAD}/401/x:1 /a /b\n",
		want: "Dockerfile:2: pull ${BAD}/401/x:1: ${BAD} returned 401 Unauthorized (log in to ${BAD} (docker login) with " +
			"valid credentials that may pull from the repository)",
	},
	{
		name: "403", older: true, dockerfile: "FROM ${BAD}/403/x:1\n",
		want: "Dockerfile:1: pull ${BAD}/403/x:1: ${BAD} returned 403 Forbidden (grant this account permission to pull " +
			"from the repository, or log in to ${BAD} with another account)",
	},
	{
		name: "unknown tag", dockerfile: "FROM scratch\nFROM debian:absent\n",
		want: "Dockerfile:2: pull debian:absent: not found (check the name and the tag, and log in to docker.io (docker " +
			"login) if the image is private)",
	},
	{
		name: "unknown stage", dockerfile: "FROM small:1\nCOPY --from=nosuch /a /b\n",
		want: "Dockerfile:2: pull nosuch:latest: not found (no stage is named nosuch before this line; otherwise check the " +
			"name and the tag, and log in to docker.io (docker login) if the image is private)",
	},
	{
		name: "link out of the context", dockerfile: "FROM scratch\nCOPY link /\n",
		change: func(r *Request) { _ = os.Symlink("/etc/passwd", filepath.Join(r.Context, "link")) },
		want: "Dockerfile:2: COPY link: not in the build context (`.`), or excluded by .dockerignore (paths are relative " +
			"to the input context)",
	},
	{
		name: "unknown tag of a mount", dockerfile: "FROM small:1\nRUN --mount=from=debian:absent,target=/x true\n",
		want: "Dockerfile:2: pull debian:absent: not found (check the name and the tag, and log in to docker.io (docker " +
			"login) if the image is private)",
	},
	{
		name: "rate limit", older: true, dockerfile: "FROM ${BAD}/429/x:1\n",
		want: "Dockerfile:1: pull ${BAD}/429/x:1: ${BAD} returned 429 Too Many Requests (try again in a few minutes, or " +
			"log in for a higher limit)",
	},
	{
		name: "503", older: true, dockerfile: "FROM ${BAD}/503/x:1\n",
		want: "Dockerfile:1: pull ${BAD}/503/x:1: ${BAD} returned 503 Service Unavailable (try again later; check the " +
			"registry's status page or log)",
	},
	{
		name: "a page instead of a registry", older: true, dockerfile: "FROM ${BAD}/200/x:1\n",
		want: "Dockerfile:1: pull ${BAD}/200/x:1: encountered unknown type text/html; children may not be fetched (check " +
			"the reference, and that ${BAD} is a registry)",
	},
	{
		name: "connection refused", older: true, dockerfile: "FROM 127.0.0.1:1/x:1\n",
		want: "Dockerfile:1: pull 127.0.0.1:1/x:1: dial tcp 127.0.0.1:1: connect: connection refused (check that " +
			"127.0.0.1:1 answers and that the reference is correct)",
	},
	{
		name: "other platform", dockerfile: "FROM ${HUB}/library/arm:1\nCOPY f /\n",
		want: "Dockerfile:1: pull ${HUB}/library/arm:1: the image has no variant for linux/amd64 (choose another image, or " +
			"set the input platform to one that the image has)",
	},
	{
		name: "unknown frontend", dockerfile: "# syntax=docker/nosuch:1\nFROM scratch\n",
		want: "Dockerfile:1: pull docker/nosuch:1: not found (check the name and the tag, and log in to docker.io (docker " +
			"login) if the image is private)",
	},
	{
		name: "image that is not a frontend", dockerfile: "# syntax=small:1\nFROM scratch\n",
		want: "Dockerfile:1: the image is not a Dockerfile frontend: exit code: 1 (write for example # " +
			"syntax=docker/dockerfile:1)",
	},
	{
		name: "named context", dockerfile: "FROM x\n",
		change: func(r *Request) { r.Contexts = map[string]string{"x": "docker-image://debian:absent"} },
		want: "build context x: pull debian:absent: not found (check the name and the tag, and log in to docker.io (docker " +
			"login) if the image is private)",
	},
	{
		name: "SBOM generator", dockerfile: "FROM scratch\nCOPY f /\n",
		change: func(r *Request) { r.Attestations = map[string]string{"sbom": "generator=docker.io/library/nosuch:1"} },
		want: "pull nosuch:1: not found (check the name and the tag, and log in to docker.io (docker login) if the image " +
			"is private)",
	},

	// Another server.
	{
		name: "missing file of a server", older: true, dockerfile: "FROM scratch\nADD ${FILES}/nosuch.txt /\n",
		want: "Dockerfile:2: fetch ${FILES}/nosuch.txt: the server returned 404 Not Found (check the URL, and that the " +
			"builder can reach it)",
	},
	{
		name: "checksum", dockerfile: "FROM scratch\nADD --checksum=sha256:" + noDigest + " ${FILES}/hello.txt /\n",
		want: "Dockerfile:2: fetch ${FILES}/hello.txt: digest mismatch sha256:" + helloDigest + ": sha256:" + noDigest +
			" (the file has changed: check it, and correct the checksum)",
	},
	{
		name: "missing repository", dockerfile: "FROM scratch\nADD ${GIT}/nosuch.git /\n",
		want: "Dockerfile:2: fetch ${GIT}/nosuch.git: fatal: repository '${GIT}/nosuch.git/' not found (check the URL, and " +
			"that the builder can reach it)",
	},
	{
		name: "missing branch", older: true,
		change: func(r *Request) { r.Context, r.Dockerfile = "${GIT}/repo.git#nosuch", "Dockerfile" },
		want: "fetch ${GIT}/repo.git#nosuch: the repository does not have this ref (correct the part after " +
			"#)",
	},
	{
		name: "missing archive of a context", older: true,
		change: func(r *Request) { r.Context, r.Dockerfile = "${FILES}/nosuch.tar.gz", "Dockerfile" },
		want: "fetch ${FILES}/nosuch.tar.gz: the server returned 404 Not Found (check the URL, and that the builder can " +
			"reach it)",
	},
}

const (
	noDigest    = "0000000000000000000000000000000000000000000000000000000000000000"
	helloDigest = "0d57df2af9de39fe74e98d600c5c0435d0ebd89328e50032abc3009633cf629f" // of the server's hello.txt
)

// The error of a failed build names the cause and what to change.
func TestFailingBuilds(t *testing.T) {
	w := sharedServices(t)
	bad := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var status int
		if _, err := fmt.Sscanf(r.URL.Path, "/v2/%d/", &status); err == nil {
			rw.Header().Set("Content-Type", "text/html")
			rw.WriteHeader(status)
			fmt.Fprint(rw, "<html>")
		}
	}))
	t.Cleanup(bad.Close)
	w.pushIndexOf(t, "library/arm:1", arm64)
	noKeys := filepath.Join(t.TempDir(), "agent")
	serveAgent(t, noKeys)
	for _, test := range failingBuilds {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fill := strings.NewReplacer("${BAD}", host(bad), "${PRIVATE}", w.registry.Addr, "${HUB}", host(w.hub),
				"${FILES}", w.files.URL, "${GIT}", w.git.URL, "${SOCKET}", w.agent,
				"${NO_KEYS}", noKeys, "${DIR}", dir)
			test.files = mergeFiles(test.files, map[string]string{"f": "x\n", "Dockerfile": fill.Replace(test.dockerfile)})
			for file, content := range test.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r := request(dir)
			r.Clean = func(line string) string { return strings.ReplaceAll(line, "hunter2-hunter2", "***") }
			if test.change != nil {
				test.change(&r)
			}
			r.Context = fill.Replace(r.Context)
			for i := range r.SSH {
				r.SSH[i].Paths[0] = fill.Replace(r.SSH[i].Paths[0])
			}
			check := func(c *client.Client) {
				t.Helper()
				_, _, err := solve(t.Context(), c, r)
				if err == nil || err.Error() != fill.Replace(test.want) {
					t.Errorf("got  %v\nwant %s", err, fill.Replace(test.want))
				}
			}
			check(w.machine(t, amd64))
			if test.older {
				check(w.oldMachine(t))
			}
		})
	}
}

func mergeFiles(more, files map[string]string) map[string]string {
	for file, content := range more {
		files[file] = content
	}
	return files
}

// serveAgent serves an SSH agent without keys until the test ends.
func serveAgent(t *testing.T, socket string) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(agent.NewKeyring(), conn) // returns when the client disconnects
			}()
		}
	}()
}

// pushIndexOf pushes an index with an image of one platform to the stand-in of Docker Hub.
func (w *services) pushIndexOf(t *testing.T, reference, platform string) {
	t.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: empty.Image, Descriptor: v1.Descriptor{Platform: p},
	})
	ref, err := name.ParseReference(host(w.hub) + "/" + reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
}

// A credential helper that is missing or fails is named, not the Dockerfile.
func TestFailingCredentialHelper(t *testing.T) {
	w := sharedServices(t)
	helpers := t.TempDir()
	script := "#!/bin/sh\necho the keychain is locked\nexit 1\n"
	if err := os.WriteFile(filepath.Join(helpers, "docker-credential-broken"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
	for _, test := range []struct{ config, want string }{
		{`{"credsStore":"nosuch"}`, "docker-credential-nosuch is not installed (install docker-credential-nosuch"},
		{fmt.Sprintf(`{"credHelpers":{%q:"broken"}}`, w.registry.Addr), "the keychain is locked"},
	} {
		writeDockerConfig(t, test.config)
		dir := writeFiles(t, map[string]string{"Dockerfile": "FROM " + w.registry.Addr + "/team/x:1\n"})
		for _, c := range []*client.Client{w.machine(t, amd64), w.oldMachine(t)} {
			_, _, err := solve(t.Context(), c, request(dir))
			if err == nil || !strings.HasPrefix(err.Error(), "Dockerfile:1: get the credentials for "+w.registry.Addr) ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %s", test.config, err, test.want)
			}
		}
	}
}

func TestInvalidSSHKey(t *testing.T) {
	dir := writeFiles(t, map[string]string{"key": "no key\n"})
	for path, want := range map[string]string{
		"key":    "failed to parse " + dir + "/key: ssh: no key found",
		"absent": "stat " + dir + "/absent: no such file or directory",
	} {
		_, err := sshAgents([]SSH{{ID: "default", Paths: []string{filepath.Join(dir, path)}}})
		if err == nil || !strings.HasPrefix(err.Error(), "open the SSH agent default: "+want+" (") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// The builder may report a failed output only as the end of the stream.
func TestOutputWithoutCause(t *testing.T) {
	disk := testdaemons.SmallDisk(t, "1m")
	r := request(t.TempDir())
	r.Outputs = []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: disk}}
	export := step("exporting to client directory", 0, 1, fails("EOF"))
	steps := &stepRecorder{}
	steps.record(&export)
	explain := func() string {
		return classifyError(t.Context(), r, steps, errors.New("failed to solve: EOF")).Error()
	}
	const unknown = "write the outputs: EOF (check the destination of the input outputs)"
	if got := explain(); got != unknown {
		t.Errorf("got %s, want %s", got, unknown)
	}
	if err := os.WriteFile(filepath.Join(disk, "large"), make([]byte, 900<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "write the outputs: write " + disk + ": no space left on device (free disk space there)"
	if got := explain(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if files, err := os.ReadDir(disk); err != nil || len(files) != 1 {
		t.Errorf("%v, %v, want only the large file", files, err)
	}
}

// A full disk of this machine is not that of the builder.
func TestOutputOnFullDisk(t *testing.T) {
	c := sharedServices(t).machine(t, amd64)
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise) // does not fail
	dir := writeFiles(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY big /\n", "big": string(noise)})
	for _, output := range []string{
		"type=local,dest=out", "type=tar,dest=out.tar", "type=oci,dest=out.tar", "type=docker,dest=out.tar",
		"type=oci,tar=false,dest=out",
	} {
		disk := testdaemons.SmallDisk(t, "1m")
		entry, err := ParseOutput(output, disk, false)
		if err != nil {
			t.Fatal(err)
		}
		r := request(dir)
		r.Outputs = []client.ExportEntry{entry}
		_, _, err = solve(t.Context(), c, r)
		if failed, ok := errors.AsType[*OutputError](err); !ok || failed.Hint != "free disk space there" ||
			!strings.HasPrefix(failed.Message, "write "+disk+"/out") {
			t.Errorf("%s: %v, want an OutputError about the disk", output, err)
		}
	}
}

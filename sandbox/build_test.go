package sandbox_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/image"
)

// origin is the team's repository, at the commit that all tests start from, and its image.
var origin = sync.OnceValues(func() (o struct {
	team
	commit string
	image  v1.Image
}, err error,
) {
	dir, err := os.MkdirTemp("", "sandbox-team-")
	if err != nil {
		return o, err
	}
	shared.add(func() error { return os.RemoveAll(dir) })
	if o.team, err = newTeam(filepath.Join(dir, "app")); err != nil {
		return o, err
	}
	if o.commit, err = o.sh("git rev-parse HEAD"); err != nil {
		return o, err
	}
	result, _, err := o.build(context.Background(), machines[0], nil)
	if err == nil {
		o.image = result.Image
	}
	return o, err
})

// The machines share nothing, and have different checkouts of the commit: a clone of now, and a shallow one whose files only their owner
// may read, and are of another time.
func TestTwoMachinesBuildTheSameImage(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	other := team{t.TempDir()}
	if _, err := other.sh(`umask 077; git clone -q --depth 1 "file://$1" .; find . -exec touch -hd 2001-02-03 {} +`, o.dir); err != nil {
		t.Fatal(err)
	}
	build := func(change func(i int, r *image.Request)) (digests [len(machines)]v1.Hash) {
		t.Helper()
		var group errgroup.Group
		for i, from := range []team{o.team, other} {
			group.Go(func() error {
				result, _, err := from.build(t.Context(), machines[i], func(r *image.Request) {
					r.BuildArgs["SOURCE_DATE_EPOCH"] = "0" // before the time of any file: no other is left in the image
					change(i, r)
				})
				if err == nil {
					digests[i] = result.Digest
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		return digests
	}
	digests := build(func(int, *image.Request) {})
	if digests[0] == digests[1] {
		return
	}
	t.Logf("built anew, because the caches may be of different days, and Debian has newer packages on one of them: %s, %s", digests[0], digests[1])
	layouts := [len(machines)]string{t.TempDir(), t.TempDir()}
	digests = build(func(i int, r *image.Request) {
		r.NoCache = true
		r.Outputs = []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{"tar": "false"}, OutputDir: layouts[i]}}
	})
	if digests[0] != digests[1] {
		t.Errorf("the same commit built from nothing is %s and %s: %s", digests[0], digests[1],
			difference(t, imageIn(t, layouts[0]), imageIn(t, layouts[1])))
	}
}

// imageIn is the only image of an OCI layout.
func imageIn(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	images, err := partial.FindImages(index, func(v1.Descriptor) bool { return true })
	if err != nil || len(images) != 1 {
		t.Fatalf("%d images in the layout: %v", len(images), err)
	}
	return images[0]
}

// An image depends neither on where its commit comes from, nor on what lies beside it, nor on who builds it. So no secret of theirs is in it.
func TestSameCommitSameImage(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, script string
		change       func(*image.Request)
	}{
		{name: "clone", script: `git clone -q "$1" .`},
		{name: "shallow clone", script: `git clone -q --depth 1 "file://$1" .`},
		{name: "partial clone", script: `git -C "$1" config uploadpack.allowFilter true; git clone -q --filter=blob:none "file://$1" .`},
		{name: "worktree", script: `git -C "$1" worktree add -q --detach "$PWD"`},
		{
			name: "secrets beside it",
			script: `git clone -q "$1" .; echo "TOKEN=` + canary + `" | tee .env docs/.env > /dev/null
				git config http.extraheader 'Authorization: Basic ` + canary + `'; git config remote.origin.url 'https://u:` + canary + `@example.com/x'
				mkdir -p node_modules/.cache; echo ` + canary + ` > node_modules/.cache/token`,
		},
		{
			name: "secrets of the build", script: `git clone -q "$1" .`,
			change: func(r *image.Request) {
				r.Secrets = map[string]func() ([]byte, error){"token": func() ([]byte, error) { return []byte(canary), nil }}
			},
		},
		{
			name: "behind a proxy", script: `git clone -q "$1" .`,
			change: func(r *image.Request) {
				for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
					r.BuildArgs[name] = "http://u:" + canary + "@127.0.0.1:9"
				}
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			copied := team{t.TempDir()}
			if _, err := copied.sh(test.script, o.dir); err != nil {
				t.Fatal(err)
			}
			got, stats, err := copied.build(t.Context(), machines[0], test.change)
			if err != nil {
				t.Fatal(err)
			}
			want, err := o.image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != want || stats.Cached != stats.Total || stats.Total == 0 {
				t.Errorf("%s, %d of %d steps cached; want %s, all cached: %s", got.Digest, stats.Cached, stats.Total, want,
					difference(t, o.image, got.Image))
			}
		})
	}
}

// canary stands for a secret.
const canary = "canary-6Zk1vP0wq9"

// secrets are what no image may hold, as Perl has it: keys and tokens, by the marks that their makers give them, with what follows these. A
// mark alone may be in a program that looks for them.
const secrets = canary + `|-----BEGIN ([A-Z]+ )?PRIVATE KEY-----\r?\n[A-Za-z0-9+/]{40}|\bgithub_pat_\w{40}|\bgh[oprsu]_[A-Za-z0-9]{36}\b|\bnpm_[A-Za-z0-9]{36}\b|` +
	`\bdp\.(ct|pt|st)\.[\w.-]{30}|\bAKIA[0-9A-Z]{16}\b|_authToken=[\w-]{10}|Authorization: Basic [A-Za-z0-9+/=]{10}`

// secretsIn returns the secrets in a file. The file may be large: grep is many times faster than a test under the race detector.
func secretsIn(t *testing.T, file string) string {
	t.Helper()
	grep := exec.CommandContext(t.Context(), "grep", "-aPzo", "-e", secrets, file)
	grep.Env, grep.Stderr = []string{"LC_ALL=C"}, t.Output()
	found, err := grep.Output()
	if code := grep.ProcessState.ExitCode(); code != 0 && code != 1 { // 1: nothing
		t.Fatal(err)
	}
	return string(found)
}

func TestSecretsAreSeen(t *testing.T) {
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + strings.Repeat("b3BlbnNzaC1rZXktdjEA", 3)
	for _, test := range []struct{ text, want string }{
		{"\x00\xff" + canary + "\n", canary},
		{"a\n" + key + "\n", key[:36+40]},
		{"t = 'ghp_" + strings.Repeat("a1", 18) + "'", "ghp_" + strings.Repeat("a1", 18)},
		{"//registry.npmjs.org/:_authToken=0123456789abc", "_authToken=0123456789"},
		{`if (text.startsWith("ghp_") || text === "-----BEGIN PRIVATE KEY-----")`, ""},
	} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimRight(secretsIn(t, file), "\x00"); got != test.want {
			t.Errorf("in %q: %q, want %q", test.text, got, test.want)
		}
	}
}

// What an image must have, and must not have, is looked up in its layers.
func TestFiles(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*tar.Header{} // what a container sees, by path
	var size int64
	inspect := func(h *tar.Header) {
		size += h.Size
		name := path.Clean("/" + h.Name)
		if base := path.Base(name); strings.HasPrefix(base, ".wh.") {
			gone := path.Join(path.Dir(name), strings.TrimPrefix(base, ".wh."))
			maps.DeleteFunc(files, func(file string, _ *tar.Header) bool { return file == gone || strings.HasPrefix(file, gone+"/") })
			return
		}
		files[name] = h
	}
	for i, layer := range unpack(t, o.image) {
		headers(t, layer, func(h *tar.Header, _ io.Reader) { inspect(h) })
		if i > 0 { // the first one is Debian's
			if found := secretsIn(t, layer); found != "" {
				t.Errorf("layer %d holds a secret: %q", i, found)
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
		t.Errorf("the files of all layers are %d MB: 1 GB is the limit", size/1e6)
	}

	var privileged, loose, left []string
	unwanted := regexp.MustCompile(`^/(tmp|var/tmp)/.|^/var/lib/apt/lists/.|^/var/cache/(apt|debconf)/.*(\.deb|\.bin|-old)$|^/usr/bin/(gcc|cc|g\+\+|make|ld|as)$|` +
		`\.env$|/\.npmrc$|/\.netrc$|/id_(rsa|ed25519)$|/sandbox/node/node_modules/fsevents`)
	for name, h := range files {
		if h.Mode&0o6000 != 0 && h.Typeflag == tar.TypeReg {
			privileged = append(privileged, name)
		}
		if h.Mode&0o1002 == 0o002 && h.Typeflag != tar.TypeSymlink {
			loose = append(loose, name)
		}
		if unwanted.MatchString(name) {
			left = append(left, name)
		}
	}
	slices.Sort(privileged)
	slices.Sort(left)
	if want := []string{
		"/usr/bin/chage", "/usr/bin/chfn", "/usr/bin/chsh", "/usr/bin/expiry", "/usr/bin/gpasswd", "/usr/bin/mount", "/usr/bin/newgrp",
		"/usr/bin/passwd", "/usr/bin/su", "/usr/bin/sudo", "/usr/bin/umount", "/usr/lib/x86_64-linux-gnu/utempter/utempter", "/usr/sbin/unix_chkpwd",
	}; !slices.Equal(privileged, want) {
		t.Errorf("setuid and setgid programs:\n%q, want\n%q", privileged, want)
	}
	if len(loose) > 0 {
		t.Errorf("anybody may write to %q", loose)
	}
	if len(left) > 0 {
		t.Errorf("not needed: %q", left)
	}
}

func TestConfig(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := o.image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	description := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(description, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := secretsIn(t, description); found != "" {
		t.Errorf("a secret: %q", found)
	}
	var file struct{ Config json.RawMessage }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	want := `{"User":"iterate","ExposedPorts":{"8080/tcp":{}},` +
		`"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt","LANG=C.UTF-8"],` +
		`"Entrypoint":["sandbox-entrypoint"],"WorkingDir":"/home/iterate/src/github.com/team/app",` +
		`"Healthcheck":{"Test":["CMD","curl","-fsS","-o","/dev/null","http://127.0.0.1:8080/health"],` +
		`"Interval":5000000000,"Timeout":3000000000,"StartPeriod":10000000000,"StartInterval":1000000000,"Retries":3}}`
	if string(file.Config) != want {
		t.Errorf("%s, want\n%s", file.Config, want)
	}
}

// A commit changes the layers that hold the repository, and no other.
func TestACommitChangesTheLastLayers(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	next := team{t.TempDir()}
	if _, err := next.sh(`git clone -q "$1" .; echo more >> README.md; git commit -qam third`, o.dir); err != nil {
		t.Fatal(err)
	}
	after, stats, err := next.build(t.Context(), machines[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	old, err := o.image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := after.Image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var changed []int
	var size int64
	for i, layer := range layers {
		was, err := old[i].Digest()
		if err != nil {
			t.Fatal(err)
		}
		is, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if was == is {
			continue
		}
		changed = append(changed, i-len(layers))
		n, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		size += n
	}
	t.Logf("%d of %d layers changed: %d bytes; %d of %d steps cached", len(changed), len(layers), size, stats.Cached, stats.Total)
	if !slices.Equal(changed, []int{-3, -2, -1}) {
		t.Errorf("layers %v changed, counted from the end; want the last three: files, .git, and what /health says", changed)
	}
}

// What a team may do otherwise, and what RUN then sees of the image as its user would.
func TestOtherWays(t *testing.T) {
	o, err := origin()
	if err != nil {
		t.Fatal(err)
	}
	const status = `{ pwd; git rev-parse HEAD; git status --porcelain; jq -c . /opt/sandbox/services/health/build.json; }`
	for _, test := range []struct {
		name, script string
		change       func(r *image.Request)
		want         string
	}{
		{
			name: "files that are not committed",
			script: `echo more >> README.md; rm bin/tool; echo new > new; mkdir node_modules .cache test-results
				touch node_modules/ignored .cache/ignored test-results/ignored .env`,
			want: "/home/iterate/src/github.com/team/app\n" + o.commit + "\n M README.md\n D bin/tool\n?? new\n" +
				`{"repository":"team/app","commit":"` + o.commit + `"}`,
		},
		{
			name:   "no git_context",
			change: func(r *image.Request) { r.Contexts = nil },
			want:   "/home/iterate/src/github.com/team/app\n" + `{"repository":"team/app","commit":""}`,
		},
		{
			name:   "another repository",
			change: func(r *image.Request) { r.BuildArgs["GITHUB_REPOSITORY"] = "other/Thing.js" },
			want:   "/home/iterate/src/github.com/other/Thing.js\n" + o.commit + "\n" + `{"repository":"other/Thing.js","commit":"` + o.commit + `"}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			copied := team{t.TempDir()}
			if _, err := copied.sh(`git clone -q "$1" .; `+test.script, o.dir); err != nil {
				t.Fatal(err)
			}
			// A Dockerfile of the team's own, elsewhere, with its own list of what to leave out.
			dir := t.TempDir()
			if _, err := copied.sh(`{ cat sandbox/Dockerfile; printf '\nRUN %s > /tmp/status\nFROM scratch\nCOPY --from=1 /tmp/status /\n' "$2"; } > "$1/own.Dockerfile"
				cp sandbox/Dockerfile.dockerignore "$1/own.Dockerfile.dockerignore"`, dir, status); err != nil {
				t.Fatal(err)
			}
			got, _, err := copied.build(t.Context(), machines[0], func(r *image.Request) {
				r.Dockerfile = filepath.Join(dir, "own.Dockerfile")
				if test.change != nil {
					test.change(r)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			headers(t, unpack(t, got.Image)[0], func(_ *tar.Header, content io.Reader) {
				data, err := io.ReadAll(content)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.TrimSpace(string(data)); got != test.want {
					t.Errorf("%s\nwant\n%s", got, test.want)
				}
			})
		})
	}
}

// With DEBIAN_SNAPSHOT all packages are of that moment. The service is not asked here: what is asked of it goes through a proxy of ours, as a
// team's traffic may go through theirs, and Debian's own servers answer.
func TestDebianSnapshot(t *testing.T) {
	archive := regexp.MustCompile(`^http://snapshot\.debian\.org/archive/(debian|debian-security)/20261101T000000Z/(.*)$`)
	var mutex sync.Mutex
	asked := map[string]bool{}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		was := r.In.URL.String()
		is := archive.ReplaceAllString(was, "http://deb.debian.org/$1/$2")
		mutex.Lock()
		asked[regexp.MustCompile(`/(dists/[^/]+|pool)/.*`).ReplaceAllString(was, "/$1")] = true
		mutex.Unlock()
		to, err := url.Parse(is)
		if err != nil || is == was {
			to = &url.URL{Scheme: "http", Host: "127.0.0.1:9", Path: "/not-a-snapshot"}
		}
		r.Out.URL, r.Out.Host = to, to.Host
	}, ErrorLog: log.New(t.Output(), "", 0)})
	defer proxy.Close()

	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	first, _, found := strings.Cut(string(dockerfile), "\n# Node.js and npm")
	packages := regexp.MustCompile(`(?s)--no-install-recommends \\\n.*?; \\`)
	if !found || !packages.MatchString(first) {
		t.Fatal("the Dockerfile has changed: this test cuts it after the Debian packages, and installs only one")
	}
	first = packages.ReplaceAllString(first, "--no-install-recommends jq; \\")
	dir := team{t.TempDir()}
	if _, err := dir.sh(`mkdir sandbox; echo "$1" > sandbox/Dockerfile; git init -q .; git add .; git commit -qm first`, first); err != nil {
		t.Fatal(err)
	}
	_, _, err = dir.build(t.Context(), machines[0], func(r *image.Request) {
		r.NoCache = true
		r.BuildArgs = map[string]string{"DEBIAN_SNAPSHOT": "20261101T000000Z", "http_proxy": proxy.URL, "HTTP_PROXY": proxy.URL}
	})
	if err != nil {
		t.Fatal(err)
	}
	const base = "http://snapshot.debian.org/archive/"
	for _, want := range []string{
		"debian/20261101T000000Z/dists/bookworm", "debian/20261101T000000Z/dists/bookworm-updates", "debian/20261101T000000Z/pool",
		"debian-security/20261101T000000Z/dists/bookworm-security",
	} {
		if !asked[base+want] {
			t.Errorf("nothing was asked of %s%s", base, want)
		}
		delete(asked, base+want)
	}
	delete(asked, base+"debian-security/20261101T000000Z/pool") // whether the latest package is from there changes
	if len(asked) > 0 {
		t.Errorf("besides, it asked for %v", slices.Collect(maps.Keys(asked)))
	}
}

// unpack writes each layer to an archive of its own, the lowest first.
func unpack(t *testing.T, img v1.Image) (archives []string) {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, layer := range layers {
		archives = append(archives, filepath.Join(dir, fmt.Sprintf("%02d.tar", i)))
		file, err := os.Create(archives[i])
		if err != nil {
			t.Fatal(err)
		}
		compressed, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		gunzip := exec.CommandContext(t.Context(), "gzip", "-dc") // as grep, below
		gunzip.Stdin, gunzip.Stdout, gunzip.Stderr = compressed, file, t.Output()
		if err := errors.Join(gunzip.Run(), compressed.Close(), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return archives
}

// headers calls each for every file of an archive.
func headers(t *testing.T, archive string, each func(h *tar.Header, content io.Reader)) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	files := tar.NewReader(file)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		each(h, files)
	}
}

// difference names the files in which two images differ, and how.
func difference(t *testing.T, a, b v1.Image) string {
	t.Helper()
	list := func(img v1.Image) map[string]string {
		files := map[string]string{}
		for i, archive := range unpack(t, img) {
			headers(t, archive, func(h *tar.Header, content io.Reader) {
				sum := sha256.New()
				if _, err := io.Copy(sum, content); err != nil {
					t.Fatal(err)
				}
				files[fmt.Sprintf("layer %d %s", i, h.Name)] = fmt.Sprintf("%c %o %d:%d %s %d bytes %x -> %q %q", h.Typeflag, h.Mode, h.Uid, h.Gid,
					h.ModTime.UTC().Format("2006-01-02T15:04:05.999999999"), h.Size, sum.Sum(nil)[:6], h.Linkname, h.PAXRecords)
			})
		}
		return files
	}
	was, is := list(a), list(b)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if was[name] != is[name] {
			lines = append(lines, fmt.Sprintf("%s: %s | %s", name, was[name], is[name]))
		}
	}
	total := len(lines)
	configs := [2][]byte{}
	for i, img := range []v1.Image{a, b} {
		var err error
		if configs[i], err = img.RawConfigFile(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(configs[0], configs[1]) {
		lines = append(lines, fmt.Sprintf("config: %s | %s", configs[0], configs[1]))
	}
	return fmt.Sprintf("%d files\n%s", total, strings.Join(lines[max(0, len(lines)-40):], "\n"))
}

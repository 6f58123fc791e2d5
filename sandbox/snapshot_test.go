package sandbox_test

import (
	"log"
	"maps"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/image"
)

// With DEBIAN_SNAPSHOT, apt downloads from snapshot.debian.org. A proxy serves these URLs from the mirror in the base
// image's configuration.
func TestDebianSnapshot(t *testing.T) {
	builder := builders(t)[0]
	mirrors := debianMirrors(t)
	const base = "http://snapshot.debian.org/archive/"
	snapshotURL := regexp.MustCompile("^" + base + "(debian|debian-security)/20261101T000000Z/(.*)$")
	distribution := regexp.MustCompile(`/(dists/[^/]+|pool)/.*`)
	var mutex sync.Mutex
	requested := map[string]bool{}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		from := r.In.URL.String()
		mutex.Lock()
		requested[distribution.ReplaceAllString(from, "/$1")] = true
		mutex.Unlock()
		to := &url.URL{Scheme: "http", Host: "127.0.0.1:9", Path: "/not-a-snapshot"}
		if match := snapshotURL.FindStringSubmatch(from); match != nil {
			if parsed, err := url.Parse(mirrors[match[1]] + match[2]); err == nil {
				to = parsed
			}
		}
		r.Out.URL, r.Out.Host = to, to.Host
	}, ErrorLog: log.New(t.Output(), "", 0)})
	defer proxy.Close()

	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	first, _, found := strings.Cut(string(dockerfile), "\nCOPY --from=node")
	packages := regexp.MustCompile(`(?s)--no-install-recommends \\\n.*?; \\`)
	if !found || !packages.MatchString(first) {
		t.Fatal("cannot parse the Dockerfile: update this test, which builds it up to the Debian packages")
	}
	first = packages.ReplaceAllString(first, "--no-install-recommends jq; \\")
	dir := checkout{t.TempDir()}
	script := `mkdir sandbox; echo "$1" > sandbox/Dockerfile; git init -q .; git add .; git commit -qm first`
	if _, err := dir.sh(script, first); err != nil {
		t.Fatal(err)
	}
	_, _, err = dir.build(t.Context(), builder, func(r *image.Request) {
		r.NoCache = true
		r.BuildArgs = map[string]string{
			"DEBIAN_SNAPSHOT": "20261101T000000Z", "http_proxy": proxy.URL, "HTTP_PROXY": proxy.URL,
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"debian/20261101T000000Z/dists/bookworm", "debian/20261101T000000Z/dists/bookworm-updates",
		"debian/20261101T000000Z/pool", "debian-security/20261101T000000Z/dists/bookworm-security",
	} {
		if !requested[base+want] {
			t.Errorf("%s%s was not requested", base, want)
		}
		delete(requested, base+want)
	}
	delete(requested, base+"debian-security/20261101T000000Z/pool") // requested only if the latest version is there
	if len(requested) > 0 {
		t.Errorf("unexpected requests: %v", slices.Collect(maps.Keys(requested)))
	}
}

// debianMirrors returns the URLs of the base image's apt sources: "debian" and "debian-security".
func debianMirrors(t *testing.T) map[string]string {
	t.Helper()
	sources, err := exec.Command("tar", "-xOf", filepath.Join("..", registry.BaseImage), "./etc/apt/sources.list").Output()
	if err != nil {
		t.Fatal(err)
	}
	mirrors := map[string]string{}
	for line := range strings.Lines(string(sources)) {
		fields := strings.Fields(line) // deb URL SUITE main
		if len(fields) < 4 {
			continue
		}
		archive := "debian"
		if fields[2] == "bookworm-security" {
			archive = "debian-security"
		}
		mirrors[archive] = strings.TrimSuffix(fields[1], "/") + "/"
	}
	if len(mirrors) != 2 {
		t.Skipf("needs debian-security in the apt sources of the base image, which are: %s", sources)
	}
	return mirrors
}

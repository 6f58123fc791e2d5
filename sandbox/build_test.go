package sandbox_test

import (
	"archive/tar"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/moby/buildkit/client"
	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/image"
)

// Two builders that share nothing build the same image from different checkouts of a commit: the original one, and a
// shallow clone with other file times and permissions.
func TestTwoBuildersBuildTheSameImage(t *testing.T) {
	o := built(t)
	other := checkout{t.TempDir()}
	script := `umask 077; git clone -q --depth 1 "file://$1" .; find . -exec touch -hd 2001-02-03 {} +`
	if _, err := other.sh(script, o.dir); err != nil {
		t.Fatal(err)
	}
	build := func(change func(i int, r *image.Request)) (digests [2]v1.Hash) {
		t.Helper()
		var group errgroup.Group
		for i, from := range []checkout{o.checkout, other} {
			group.Go(func() error {
				result, _, err := from.build(t.Context(), builders(t)[i], func(r *image.Request) {
					r.BuildArgs["SOURCE_DATE_EPOCH"] = "0" // earlier than any file, so it replaces all times
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
	t.Logf("the caches may contain different package versions, building without cache: %s, %s", digests[0], digests[1])
	layouts := [2]string{t.TempDir(), t.TempDir()}
	digests = build(func(i int, r *image.Request) {
		r.NoCache = true
		r.Outputs = []client.ExportEntry{{
			Type: client.ExporterOCI, Attrs: map[string]string{"tar": "false"}, OutputDir: layouts[i],
		}}
	})
	if digests[0] != digests[1] {
		t.Errorf("the digests of the same commit built without cache differ: %s, %s: %s", digests[0], digests[1],
			difference(t, imageIn(t, layouts[0]), imageIn(t, layouts[1])))
	}
}

// imageIn returns the only image of an OCI layout.
func imageIn(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	images, err := partial.FindImages(index, func(v1.Descriptor) bool { return true })
	if err != nil || len(images) != 1 {
		t.Fatalf("%d images in the layout, want one: %v", len(images), err)
	}
	return images[0]
}

// The image does not depend on the kind of checkout, ignored files, build secrets or proxies, so these cannot leak into
// it.
func TestSameCommitSameImage(t *testing.T) {
	o := built(t)
	for _, test := range []struct {
		name, script string
		change       func(*image.Request)
	}{
		{name: "clone", script: `git clone -q "$1" .`},
		{name: "shallow clone", script: `git clone -q --depth 1 "file://$1" .`},
		{name: "partial clone", script: `git -C "$1" config uploadpack.allowFilter true
			git clone -q --filter=blob:none "file://$1" .`},
		{name: "worktree", script: `git -C "$1" worktree add -q --detach "$PWD"`},
		{
			name: "secrets in ignored files",
			script: `git clone -q "$1" .; echo "TOKEN=` + canary + `" | tee .env docs/.env > /dev/null
				git config http.extraheader 'Authorization: Basic ` + canary + `'
				git config remote.origin.url 'https://u:` + canary + `@example.com/x'
				mkdir -p node_modules/.cache; echo ` + canary + ` > node_modules/.cache/token`,
		},
		{
			name: "build secrets", script: `git clone -q "$1" .`,
			change: func(r *image.Request) {
				r.Secrets["token"] = func() ([]byte, error) { return []byte(canary), nil }
				r.Secrets["npmrc"] = func() ([]byte, error) { return []byte("_authToken=" + canary), nil }
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
			copied := checkout{t.TempDir()}
			if _, err := copied.sh(test.script, o.dir); err != nil {
				t.Fatal(err)
			}
			got, stats, err := copied.build(t.Context(), builders(t)[0], test.change)
			if err != nil {
				t.Fatal(err)
			}
			want, err := o.image.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != want || stats.Cached != stats.Total || stats.Total == 0 {
				t.Errorf("built %s with %d of %d steps cached; want %s with all cached: %s",
					got.Digest, stats.Cached, stats.Total, want, difference(t, o.image, got.Image))
			}
		})
	}
}

// A commit changes only the layers that contain the repository.
func TestCommitChangesLastLayers(t *testing.T) {
	o := built(t)
	next := checkout{t.TempDir()}
	if _, err := next.sh(`git clone -q "$1" .; echo more >> README.md; git commit -qam third`, o.dir); err != nil {
		t.Fatal(err)
	}
	after, stats, err := next.build(t.Context(), builders(t)[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	oldLayers, err := o.image.Layers()
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
		before, err := oldLayers[i].Digest()
		if err != nil {
			t.Fatal(err)
		}
		now, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if before == now {
			continue
		}
		changed = append(changed, i-len(layers))
		n, err := layer.Size()
		if err != nil {
			t.Fatal(err)
		}
		size += n
	}
	t.Logf("%d of %d layers changed, %d bytes; %d of %d steps cached",
		len(changed), len(layers), size, stats.Cached, stats.Total)
	if !slices.Equal(changed, []int{-3, -2, -1}) {
		t.Errorf("layers %v changed, counted from the end; want the last three: files, .git, build.json", changed)
	}
}

// The Dockerfile supports other ways to build. A RUN step reports the state of the repository in the image.
func TestVariants(t *testing.T) {
	o := built(t)
	const status = `{ pwd; git rev-parse HEAD; git status --porcelain; jq -c . /opt/sandbox/services/health/build.json; }`
	for _, test := range []struct {
		name, script string
		change       func(r *image.Request)
		want         string
	}{
		{
			name: "uncommitted files",
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
			want: "/home/iterate/src/github.com/other/Thing.js\n" + o.commit + "\n" +
				`{"repository":"other/Thing.js","commit":"` + o.commit + `"}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			copied := checkout{t.TempDir()}
			if _, err := copied.sh(`git clone -q "$1" .; `+test.script, o.dir); err != nil {
				t.Fatal(err)
			}
			// A custom Dockerfile outside the context, with its own .dockerignore.
			dir := t.TempDir()
			if _, err := copied.sh(`{ sed 's/^FROM debian:bookworm-slim$/& AS sandbox/' sandbox/Dockerfile
				printf '\nRUN %s > /tmp/status\nFROM scratch\nCOPY --from=sandbox /tmp/status /\n' "$2"; } > "$1/own.Dockerfile"
				cp sandbox/Dockerfile.dockerignore "$1/own.Dockerfile.dockerignore"`, dir, status); err != nil {
				t.Fatal(err)
			}
			got, _, err := copied.build(t.Context(), builders(t)[0], func(r *image.Request) {
				r.Dockerfile = filepath.Join(dir, "own.Dockerfile")
				if test.change != nil {
					test.change(r)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			forEachFile(t, unpackLayers(t, got.Image)[0], func(_ *tar.Header, content io.Reader) {
				data, err := io.ReadAll(content)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.TrimSpace(string(data)); got != test.want {
					t.Errorf("got\n%s\nwant\n%s", got, test.want)
				}
			})
		})
	}
}

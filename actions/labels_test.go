package actions

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/source"
)

// The version is that of docker/metadata-action's default tags.
func TestVersion(t *testing.T) {
	for ref, want := range map[string]string{
		"": "", "refs/heads/main": "main", "refs/heads/feature/a@b": "feature-a-b", "refs/tags/v1.2.3": "v1.2.3",
		"refs/tags/v1+x": "v1-x", "refs/pull/7/merge": "pr-7", "refs/pull/7/head": "pr-7-head",
	} {
		if got := version(ref); got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
	}
}

func TestImageLabels(t *testing.T) {
	dir := t.TempDir()
	dockerfile := filepath.Join(dir, "Dockerfile")
	content := "FROM scratch\nLABEL org.opencontainers.image.version=1\n"
	if err := os.WriteFile(dockerfile, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	definition, err := image.ReadDockerfile(dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	job, _, _ := testJob(t, map[string]string{"GITHUB_SERVER_URL": "https://ghe.example", "GITHUB_SHA": "1"})
	commit := buildSource{
		Repository: "a/b", Tree: source.Tree{Dir: dir, SHA: "1", Ref: "refs/heads/x"}, Time: time.Unix(0, 0).UTC(),
		Paths: inputs.Paths{Context: dir, Dockerfile: dockerfile, Definition: definition},
	}
	remote, plain, other := commit, commit, commit
	remote.Paths.Context = "https://github.com/a/b.git"
	plain.Tree.SHA = ""
	other.Tree.Repository = "c/d" // the checkout of another repository than the run's
	const prefix = "org.opencontainers.image."
	labels := map[string]string{
		prefix + "revision": "1", prefix + "created": "1970-01-01T00:00:00Z", prefix + "source": "https://ghe.example/a/b",
	}
	ofOther := maps.Clone(labels)
	ofOther[prefix+"source"] = "https://ghe.example/c/d"
	given := map[string]string{prefix + "source": "mine", "x": "y"}
	withGiven := maps.Clone(labels)
	maps.Copy(withGiven, given)
	for _, test := range []struct {
		name   string
		off    bool
		given  map[string]string
		source buildSource
		want   map[string]string
	}{
		{"commit", false, nil, commit, labels},
		{"checkout of another repository", false, nil, other, ofOther},
		{"with labels", false, given, commit, withGiven},
		{"off", true, given, commit, given},
		{"context that the builder fetches", false, nil, remote, map[string]string{}},
		{"not a repository", false, nil, plain, map[string]string{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := inputs.BuildSpec{DefaultLabels: !test.off}
			spec.Request.Labels = test.given
			if got := imageLabels(job, spec, test.source); !maps.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

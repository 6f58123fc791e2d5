package actions

import (
	"context"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// Every push has a repository of its own, because Daytona deletes all tags of an image from its repository.
func TestRepositoryName(t *testing.T) {
	for prefix, want := range map[string]string{
		"web-sandbox": "web-sandbox-", "Team/Image:v1": "team-image-v1-", "__": "snapshot-", "-a-": "a-",
		strings.Repeat("a", 300): strings.Repeat("a", maxRepositoryPrefix) + "-",
	} {
		first, second := repositoryName(prefix), repositoryName(prefix)
		if !strings.HasPrefix(first, want) || len(first) != len(want)+26 || strings.ToLower(first) != first {
			t.Errorf("%q: %q, want %q and 26 characters", prefix, first, want)
		}
		if first == second {
			t.Errorf("%q: two pushes to %s", prefix, first)
		}
	}
}

// An image for another platform is refused before it is pushed: Daytona accepts it, and fails when a sandbox starts.
func TestDescribeWantedChecksPlatform(t *testing.T) {
	for platform, ok := range map[string]bool{"amd64": true, "arm64": false, "": false} {
		config := &v1.ConfigFile{OS: "linux", Architecture: platform}
		config.Config.Entrypoint, config.Config.Cmd = []string{"/init"}, []string{"-x"}
		img, err := mutate.ConfigFile(empty.Image, config)
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := describeWanted(inputs.SnapshotSpec{}, img)
		if (err == nil) != ok || ok && strings.Join(wanted.entrypoint, " ") != "/init -x" {
			t.Errorf("%q: %v, %q", platform, err, wanted.entrypoint)
		}
	}
}

// If Daytona's registry rejects all credentials that Daytona issues, a login of the user does not help.
func TestRejectedAccess(t *testing.T) {
	target := snapshotTarget{Client: startDaytona(t, nil).client}
	job, _, _ := testJob(t, nil)
	pushes := 0
	_, err := pushToDaytona(t.Context(), job, inputs.SnapshotSpec{}, target, requestAccess(t.Context(), target), v1.Hash{},
		func(context.Context, string, image.Auth) error {
			pushes++
			return image.ErrUnauthorized
		})
	if pushes != maxAccesses || err == nil || !strings.Contains(err.Error(), "https://status.daytona.io") {
		t.Errorf("got %v after %d pushes", err, pushes)
	}
}

//go:build linux

package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/org/sandbox-actions/internal/localcloud"
	daytonaclient "github.com/org/sandbox-actions/pkg/daytona"
)

// flow is what a run of a program does.
type flow struct {
	name       string
	program    string
	timeout    time.Duration     // default: limit
	repository string            // OWNER/NAME; default: the repository that all labs have
	files      map[string]string // of the workspace, by name
	script     string            // of a shell, which creates the rest of the workspace
	inputs     func(l *lab, id string) map[string]string
	// check checks what the services have after a run, whose outputs are empty if it failed, and removes it.
	check func(ctx context.Context, l *lab, t trial) error
}

// The flows: build and push a commit, build and load it, create a snapshot from it, and run a test suite.
var (
	push = flow{
		name: "push", program: "action-build", check: checkPushed,
		inputs: func(l *lab, id string) map[string]string {
			return map[string]string{"ref": l.commit, "push": l.pushed(id), "load": "false"}
		},
	}
	load = flow{
		name: "load", program: "action-build", check: checkLoaded,
		inputs: func(l *lab, id string) map[string]string {
			return map[string]string{"ref": l.commit, "image_name": "soak/loaded:" + id}
		},
	}
	snapshot = flow{
		name: "snapshot", program: "action-snapshot", check: checkSnapshot,
		inputs: func(l *lab, id string) map[string]string {
			return map[string]string{
				"ref": l.commit, "name": id, "doppler_identity": localcloud.DopplerIdentity,
				"doppler_project": localcloud.Project, "update_doppler": "true",
			}
		},
	}
	testFlow = flow{
		name: "test", program: "action-test", check: checkTested, files: map[string]string{"tests.yaml": testSuite},
		inputs: func(*lab, string) map[string]string {
			return map[string]string{"image": testImage, "suite": "tests.yaml"}
		},
	}
)

// testImage is the image that the test flow tests.
const testImage = "soak/base:1"

func (l *lab) pushed(id string) string { return l.registryHost() + "/team/app:" + id }

func checkPushed(ctx context.Context, l *lab, t trial) error {
	if len(t.outputs) == 0 {
		return nil
	}
	ref, err := name.ParseReference(l.Registry.Addr + "/team/app:" + t.id)
	if err != nil {
		return err
	}
	auth := &authn.Basic{Username: localcloud.RegistryUser, Password: l.RegistryPassword}
	found, err := remote.Head(ref, remote.WithAuth(auth), remote.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("the run succeeded without a push: %w", err)
	}
	if found.Digest.String() != t.outputs["digest"] {
		return fmt.Errorf("the output digest is %s, but the registry has %s", t.outputs["digest"], found.Digest)
	}
	return nil
}

func checkLoaded(ctx context.Context, l *lab, t trial) error {
	image := "soak/loaded:" + t.id
	loaded, err := l.docker(ctx, "image", "inspect", "--format", "{{.Id}}", image)
	isLoaded := err == nil
	var problems []error
	if len(t.outputs) > 0 && !isLoaded {
		problems = append(problems, fmt.Errorf("the run succeeded without an image: %w", err))
	}
	if isLoaded {
		_, err := l.docker(ctx, "image", "rm", image)
		problems = append(problems, err)
	}
	if isLoaded && len(t.outputs) > 0 && loaded != t.outputs["image_id"] && loaded != t.outputs["digest"] {
		problems = append(problems, fmt.Errorf("the engine has image %s instead of %s", loaded, t.outputs["image_id"]))
	}
	return errors.Join(problems...)
}

// checkSnapshot also deletes the snapshots, so that the next run finds the same state.
func checkSnapshot(ctx context.Context, l *lab, t trial) error {
	client := &daytonaclient.Client{URL: l.Daytona.URL(), Key: l.DaytonaKey}
	all, err := client.List(ctx, "")
	if err != nil {
		return err
	}
	named := l.Doppler.Secret(localcloud.Project, "dev", "DAYTONA_SNAPSHOT_NAME")
	l.Doppler.SetSecret(localcloud.Project, "dev", "DAYTONA_SNAPSHOT_NAME", "")
	var problems []error
	isActive := false
	for _, s := range all {
		isActive = isActive || s.Name == t.id && s.State == "active"
		if len(t.outputs) == 0 && !t.isKilled && s.State != "removing" && !strings.Contains(t.Stderr+t.Stdout, s.Name) {
			problems = append(problems, fmt.Errorf("the failed run left snapshot %s (%s)", s.Name, s.State))
		}
		if err := l.deleteSnapshot(ctx, s.ID); err != nil {
			problems = append(problems, err)
		}
	}
	switch {
	case len(t.outputs) > 0 && (!isActive || t.outputs["snapshot_name"] != t.id):
		problems = append(problems, fmt.Errorf("the run succeeded, but %s is not active: %v", t.id, all))
	case len(t.outputs) > 0 && named != t.id:
		problems = append(problems, fmt.Errorf("the run succeeded, but Doppler names %q", named))
	case named != "" && !isActive:
		problems = append(problems, fmt.Errorf("Doppler names %q, which is not active", named))
	}
	return errors.Join(problems...)
}

// checkNamedSnapshot checks only the snapshot with the name of the run.
func checkNamedSnapshot(ctx context.Context, l *lab, t trial) error {
	client := &daytonaclient.Client{URL: l.Daytona.URL(), Key: l.DaytonaKey}
	s, found, err := client.Find(ctx, t.id)
	if err != nil {
		return err
	}
	if !found || s.State != "active" {
		return fmt.Errorf("snapshot %s is not active: %v", t.id, s)
	}
	return l.deleteSnapshot(ctx, s.ID)
}

func (l *lab) deleteSnapshot(ctx context.Context, id string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, l.Daytona.URL()+"/snapshots/"+id, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+l.DaytonaKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func checkTested(ctx context.Context, l *lab, t trial) error {
	var problems []error
	if t.ExitCode == 0 && (t.outputs["tests_total"] != "4" || t.outputs["tests_passed"] != "4") {
		problems = append(problems, fmt.Errorf("the run succeeded with outputs %v", t.outputs))
	}
	return errors.Join(problems...)
}

// docker runs the docker command with the engine and returns its output.
func (l *lab) docker(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "docker", args...)
	command.Env = append(os.Environ(), "DOCKER_HOST="+l.Engine.Host)
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

package actions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
	"github.com/org/sandbox-actions/pkg/source"
)

// previousTimeout limits the search for the record of an earlier run, from the start of the run.
const previousTimeout = time.Minute

// previous returns the record with which the run is compared, or nil. It waits for the download.
func (j job) previous() *runrecord.Record {
	if j.Previous == nil {
		return nil
	}
	return j.Previous()
}

// startPrevious starts to download the record with which a run is compared, so that the build does not wait for it, and
// returns a function that waits. Without the input previous_artifact, or if the artifact has no record, the record is
// that of [Env.readPrevious].
func (e Env) startPrevious(ctx context.Context, report inputs.Report) func() *runrecord.Record {
	local := e.readPrevious(report)
	if report.Artifact == "" {
		return func() *runrecord.Record { return local }
	}
	token := credentials.GitHubToken(report.GitHubToken, e.Getenv, e.Runner.Mask) // masked before the log has groups
	limited, cancel := context.WithTimeoutCause(ctx, previousTimeout, &httpclient.TimeoutError{Limit: previousTimeout})
	var record *runrecord.Record
	var err error
	done := make(chan struct{})
	go func() {
		defer cancel()
		defer close(done)
		record, err = e.downloadPrevious(limited, report.Artifact, token)
	}()
	return sync.OnceValue(func() *runrecord.Record {
		<-done
		if err != nil && ctx.Err() == nil {
			e.Runner.Infof("No earlier record from the artifact %s: %v", report.Artifact, err)
		}
		if record == nil {
			return local
		}
		record.Clean(e.Runner.Clean) // it may come from anybody
		return record
	})
}

// downloadPrevious returns the record of the last run of this workflow that has an image: on this branch or, without
// one, on the base or default branch. Artifacts that cannot be read are skipped.
func (e Env) downloadPrevious(ctx context.Context, artifactName, token string) (*runrecord.Record, error) {
	event := runner.ReadEvent(e.Getenv)
	workflow, ok := workflowFile(e.Getenv("GITHUB_WORKFLOW_REF"), event.Repository)
	number, err := strconv.Atoi(e.Getenv("GITHUB_RUN_NUMBER"))
	if !ok || err != nil {
		return nil, errors.New("GITHUB_WORKFLOW_REF and GITHUB_RUN_NUMBER name no run of a workflow of this repository")
	}
	owner, name, _ := strings.Cut(event.Repository, "/")
	repository := credentials.Repository(owner, name, token, e.Getenv)
	branches := previousBranches(event, e.Getenv)
	var skipped error
	for _, branch := range branches {
		query := source.ArtifactQuery{Workflow: workflow, Branch: branch, Before: number, Name: artifactName}
		for artifact, err := range repository.Artifacts(ctx, query) {
			if err != nil {
				return nil, err
			}
			record, err := readArtifact(ctx, repository, artifact)
			switch status := httpclient.Status(err); {
			case err == nil:
				return record, nil
			case ctx.Err() != nil, errors.As(err, new(*httpclient.APIError)) &&
				status != http.StatusNotFound && status != http.StatusGone: // others would fail, too
				return nil, err
			case skipped == nil:
				skipped = err
			}
		}
	}
	if skipped == nil {
		skipped = fmt.Errorf("no earlier run of %s on %s has uploaded it", workflow, strings.Join(branches, " or "))
	}
	return nil, skipped
}

// readArtifact returns the record in an artifact. It returns an error for a record without an image.
func readArtifact(ctx context.Context, r source.Repository, a source.Artifact) (*runrecord.Record, error) {
	archive, err := r.DownloadArtifact(ctx, a)
	if err != nil {
		return nil, err
	}
	record, err := runrecord.ReadArchive(archive, recordFile)
	if err == nil && record.Image == nil {
		err = errors.New("the record has no image")
	}
	if err != nil {
		return nil, fmt.Errorf("read artifact %s of run %d: %w", a.Name, a.Run, err)
	}
	return record, nil
}

// workflowFile returns the name of the file of a workflow: of OWNER/NAME/.github/workflows/FILE@REF. It returns false
// for the workflow of another repository.
func workflowFile(ref, repository string) (string, bool) {
	from, file, _ := strings.Cut(ref, "/.github/workflows/")
	file, _, ok := strings.Cut(file, "@refs/")
	return file, ok && file != "" && strings.EqualFold(from, repository)
}

// previousBranches returns the branches on which to search for an earlier run. The branch of a fork is not one of the
// repository, whatever its name.
func previousBranches(event runner.Event, getenv func(string) string) (branches []string) {
	own := getenv("GITHUB_HEAD_REF")
	if own == "" && getenv("GITHUB_REF_TYPE") == "branch" {
		own = getenv("GITHUB_REF_NAME")
	}
	if event.Pull != 0 && event.IsExternal() {
		own = ""
	}
	for _, branch := range []string{own, cmp.Or(getenv("GITHUB_BASE_REF"), event.Default)} {
		if branch != "" && !slices.Contains(branches, branch) {
			branches = append(branches, branch)
		}
	}
	return branches
}

package actions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/humanize"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/safetext"
	"github.com/org/sandbox-actions/pkg/suite"
)

// sandboxPermissions are the permissions of a key that a verification needs.
var sandboxPermissions = []string{daytona.WriteSandboxes, daytona.DeleteSandboxes}

// verification is how a snapshot was verified before anything names it.
type verification struct {
	How    inputs.Verify // boot or suite; "" if it was not verified
	Reason string        // why it was not verified
	Boot   time.Duration // until the sandbox was started and its entry point observed
	Suite  *suite.Report // nil if no suite ran
}

// notVerified is the value of the output verified for a snapshot that was not verified.
const notVerified = "none"

// output returns the value of the output verified.
func (v verification) output() string {
	if v.How == "" {
		return notVerified
	}
	return string(v.How)
}

// verify starts a sandbox of a snapshot, and checks that it works. If it does not, verify deletes the snapshot, unless
// the inputs or another use of it require that it is kept. A verification that cannot be completed because of Daytona
// is an error, too, but the snapshot is kept: the next run reuses it.
func verify(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload, s daytona.Snapshot,
) (_ verification, err error) {
	if reason := unverifiedReason(job, spec, target, upload, s); reason != "" {
		job.Runner.Infof("Snapshot %s is not verified: %s", s.Name, reason)
		return verification{Reason: reason}, nil
	}
	defer startActivity(ctx, "the verification of snapshot %s", s.Name)()
	defer startPhase(ctx, "Verify snapshot %s", s.Name).inGroup(job.Runner).end(&err)
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		reapSandboxes(ctx, job, target.Client)
	}()
	done := verification{How: inputs.VerifyBoot}
	start := time.Now()
	task := job.Screen.Start("Verifying", "verify snapshot "+s.Name, "")
	task.State("start a sandbox")
	err = bootWithRetries(ctx, job, spec, target, s, func(box daytona.Sandbox) error {
		task.State("run a command, and watch the entry point")
		return checkBooted(ctx, job, target.Client, box)
	})
	task.End(err)
	<-reaped
	if err == nil {
		done.Boot = time.Since(start)
		job.Runner.Infof("A sandbox of snapshot %s starts and works (%s)", s.Name, humanize.Duration(done.Boot))
	}
	if err == nil && spec.Verify == inputs.VerifySuite {
		done.How = inputs.VerifySuite
		done.Suite, err = verifySuite(ctx, job, spec, target, upload, s)
	}
	if err != nil {
		return verification{Suite: done.Suite}, discardUnverified(ctx, job, spec, target, upload, s, err)
	}
	return done, nil
}

// unverifiedReason returns why a snapshot is not verified, or "" if it is. Unless an input requests that, it warns.
func unverifiedReason(
	job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload, s daytona.Snapshot,
) string {
	switch {
	case spec.Verify == inputs.VerifyOff:
		return "verify: off"
	case spec.SandboxClass == inputs.AndroidClass:
		return "sandboxes of the class android do not run Daytona's daemon"
	case spec.Verify != inputs.VerifyDefault:
		return ""
	}
	if missing := target.Key.Missing(sandboxPermissions...); len(missing) > 0 {
		reason := "the Daytona API key lacks the permission " + strings.Join(missing, " and ")
		job.Runner.Warning(runner.Annotation{Title: "The snapshot is not verified", Message: fmt.Sprintf("No sandbox was "+
			"started from snapshot %s to check that it works: %s (create a key with it at %s, or set verify: off)", s.Name,
			reason, keysPage)})
		return reason
	}
	isOther := func(c dopplerConfig) bool { return c.Previous != s.Name }
	if upload.isReused() && len(target.Doppler) > 0 && !slices.ContainsFunc(target.Doppler, isOther) {
		return "Doppler names it already"
	}
	return ""
}

// brokenError reports a snapshot of which a sandbox does not work.
type brokenError struct {
	Snapshot string
	Problem  string
	Log      string // the end of the entry point's log; untrusted
	Hint     string // what the user can do; may be empty
	Err      error  // may be nil
}

func (e *brokenError) Error() string {
	text := fmt.Sprintf("snapshot %s does not work: %s", e.Snapshot, e.Problem)
	if lines := strings.Split(e.Log, "\n"); lines[len(lines)-1] != "" {
		text += fmt.Sprintf("; its last output: %s", safetext.Line(lines[len(lines)-1], 300))
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

func (e *brokenError) Unwrap() error { return e.Err }

// bootAttempts is how often a sandbox is started if it fails because of Daytona.
const bootAttempts = 3

// bootWithRetries is [bootSandbox], and tries again if Daytona fails.
func bootWithRetries(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, s daytona.Snapshot,
	use func(daytona.Sandbox) error,
) error {
	for attempt := 1; ; attempt++ {
		err := bootSandbox(ctx, job, spec, target, s, use)
		failed := (*daytona.SandboxError)(nil)
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case daytona.IsTransient(err) && attempt < bootAttempts:
			job.Runner.Infof("Attempt %d to start a sandbox failed: %s; trying again", attempt, reasonOf(err))
			if err := sleep(ctx, target.Client, retryDelay); err != nil {
				return err
			}
			continue
		case errors.As(err, &failed) && !daytona.IsTransient(err):
			return &brokenError{Snapshot: s.Name, Problem: err.Error(), Err: err}
		}
		return err
	}
}

// startLimit is how long a sandbox may take to start. Daytona waits a minute for the daemon in it, after it has pulled
// the snapshot.
const startLimit = 10 * time.Minute

// idleLimit is after how many minutes without a request Daytona stops and deletes a sandbox that a killed run left.
const idleLimit = 5

// Labels of the sandboxes of verifications.
const (
	toolLabel     = "sandbox-actions"          // verifyTool
	runLabel      = "sandbox-actions.run"      // of the run that created it; for people
	snapshotLabel = "sandbox-actions.snapshot" // name; for people
	timeoutLabel  = "sandbox-actions.timeout"  // of that run, for reapSandboxes
	verifyTool    = "verify"
)

// sandboxRequest describes a sandbox of a verification.
func sandboxRequest(
	job job, spec inputs.SnapshotSpec, target snapshotTarget, s daytona.Snapshot,
) daytona.SandboxRequest {
	return daytona.SandboxRequest{
		Snapshot: s.Name, Region: target.Region, AutoStop: idleLimit, Labels: map[string]string{
			toolLabel: verifyTool, snapshotLabel: s.Name, timeoutLabel: spec.Timeout.String(),
			runLabel: strings.Trim(job.Getenv("GITHUB_REPOSITORY")+"/"+job.Getenv("GITHUB_RUN_ID"), "/"),
		},
	}
}

// bootSandbox starts a sandbox of a snapshot, calls use, and deletes the sandbox, also if ctx ends.
func bootSandbox(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, s daytona.Snapshot,
	use func(daytona.Sandbox) error,
) (err error) {
	client := target.Client
	box, err := client.CreateSandbox(ctx, sandboxRequest(job, spec, target, s))
	if err != nil {
		return err
	}
	defer func() {
		switch left := client.DeleteSandbox(ctx, box.ID); {
		case left != nil && err != nil:
			err = daytona.WithLeftovers(err, left)
		case left != nil:
			job.Runner.Warning(runner.Annotation{Message: left.Error()})
		}
	}()
	limited, cancel := context.WithTimeoutCause(ctx, startLimit,
		fmt.Errorf("sandbox %s has not started within %s (see https://status.daytona.io)", box.ID, startLimit))
	defer cancel()
	if box, err = client.WaitUntilStarted(limited, box.ID); err != nil {
		return err
	}
	return use(box)
}

// observation is how long an entry point must run. An earlier end stays visible.
const observation = 5 * time.Second

// checkBooted checks that a started sandbox runs a command, and that its entry point runs for the observation. Daytona
// reports a sandbox as started although its entry point has failed. An entry point that ends with exit code 0 is valid:
// a sandbox works without one, for example after a script that only prepares it.
func checkBooted(ctx context.Context, job job, client daytona.Client, box daytona.Sandbox) error {
	result, err := client.Execute(ctx, box, daytona.Command{Line: "true", Timeout: time.Minute, Idempotent: true})
	switch {
	case errors.Is(err, daytona.ErrCommandTimeout):
		return &brokenError{Snapshot: box.Snapshot, Problem: "a sandbox does not run the command `true`", Err: err}
	case err != nil:
		return err
	case result.ExitCode != 0:
		return &brokenError{Snapshot: box.Snapshot, Problem: fmt.Sprintf("in a sandbox, the command `true` fails with exit "+
			"code %d: %s", result.ExitCode, safetext.Line(result.Output, 300))}
	}
	for _, wait := range []time.Duration{0, observation} {
		if err := sleep(ctx, client, wait); err != nil {
			return err
		}
		state, found, err := client.Entrypoint(ctx, box)
		switch {
		case err != nil:
			return err
		case !found:
			return nil
		case state.Running:
		case state.Exit == 0:
			job.Runner.Notice(runner.Annotation{Message: fmt.Sprintf("The entry point %s has ended with exit code 0. "+
				"Sandboxes of snapshot %s continue without it.", safetext.Line(state.Command, 200), box.Snapshot)})
			return nil
		default:
			return brokenEntrypoint(ctx, client, box, state)
		}
	}
	return nil
}

// brokenEntrypoint returns the error for an entry point that failed.
func brokenEntrypoint(
	ctx context.Context, client daytona.Client, box daytona.Sandbox, state daytona.Entrypoint,
) error {
	const maxLines, maxLength = 50, 16 << 10
	log, err := client.EntrypointLog(ctx, box)
	if err != nil {
		log = "" // the exit code is reported without it
	}
	log = strings.TrimSpace(log[max(0, len(log)-maxLength):])
	lines := strings.Split(log, "\n")
	return &brokenError{
		Snapshot: box.Snapshot, Log: strings.Join(lines[max(0, len(lines)-maxLines):], "\n"),
		Problem: fmt.Sprintf("in a sandbox, the entry point %s ended with exit code %d", safetext.Line(state.Command, 200),
			state.Exit),
		Hint: "try it with `docker run`; correct ENTRYPOINT or CMD in the Dockerfile, or the input entrypoint",
	}
}

// discardUnverified deletes a snapshot that does not work, and reports why. It returns cause, with a note if the
// snapshot is left.
func discardUnverified(
	ctx context.Context, job job, spec inputs.SnapshotSpec, target snapshotTarget, upload imageUpload, s daytona.Snapshot,
	cause error,
) error {
	broken := (*brokenError)(nil)
	old := upload.Existing.Conflicting
	if errors.As(cause, &broken) {
		reportBroken(job, broken)
	}
	kept := ""
	switch {
	case ctx.Err() != nil:
		kept = "is active, but not verified; run again to reuse it"
	case broken == nil:
		return daytona.WithLeftovers(fmt.Errorf("verify snapshot %s: %w", s.Name, cause), fmt.Errorf("the snapshot is "+
			"active and was not deleted; run again to reuse it, or set verify: off"))
	case spec.KeepFailed:
		kept = fmt.Sprintf("was kept (keep_failed); delete it with `action-snapshot delete %s`", s.Name)
	case upload.isReused():
		kept = "was not deleted, because it existed before this run"
	case old.ID != "" && isUsable(old):
		kept = "was not deleted, because it replaces a deleted one"
	case isNamed(ctx, spec, target, s):
		kept = "was not deleted, because a Doppler config names it or cannot be read"
	default:
		return daytona.WithLeftovers(cause, target.Client.Remove(ctx, s))
	}
	return daytona.WithLeftovers(cause, fmt.Errorf("snapshot %s %s", s.Name, kept))
}

// isNamed reports whether a Doppler config of the run names a snapshot, because another run has reused it, or cannot
// be read.
func isNamed(ctx context.Context, spec inputs.SnapshotSpec, target snapshotTarget, s daytona.Snapshot) bool {
	return slices.ContainsFunc(target.Doppler, func(config dopplerConfig) bool {
		current, err := config.Raw(ctx, spec.Record.Secret)
		return err != nil || current[spec.Record.Secret] == s.Name
	})
}

// reportBroken shows the log of the entry point in the log.
func reportBroken(job job, broken *brokenError) {
	if broken.Log != "" {
		writeUntrusted(job.Runner, "Last output of the entry point:\n"+broken.Log+"\n")
	}
}

// clockSkew is how much the clocks of this machine and of Daytona may differ.
const clockSkew = 10 * time.Minute

// reapSandboxes deletes the sandboxes that killed runs of verifications left: those with this tool's labels that are
// older than the timeout of their run. Daytona deletes them later otherwise, so a failure is only logged.
func reapSandboxes(ctx context.Context, job job, client daytona.Client) {
	list, err := client.ListSandboxes(ctx, map[string]string{toolLabel: verifyTool})
	if err != nil {
		job.Runner.Infof("Looking for sandboxes of earlier runs failed: %s", reasonOf(err))
		return
	}
	for _, box := range list {
		timeout, err := time.ParseDuration(box.Labels[timeoutLabel])
		if err != nil || box.Created.IsZero() || time.Since(box.Created) < timeout+clockSkew {
			continue
		}
		if err := client.DeleteSandbox(ctx, box.ID); err != nil {
			job.Runner.Infof("Deleting a sandbox of an earlier run failed: %s", reasonOf(err))
			continue
		}
		job.Runner.Infof("Deleted sandbox %s of an earlier run", box.ID)
	}
}

package actions

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/doctor"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
	"github.com/org/sandbox-actions/pkg/terminal"
)

// diagnosisTime limits the checks of one diagnosis, which run in parallel.
const diagnosisTime = 18 * time.Second

// DoctorBuild checks what a build with these inputs needs, and prints the results.
func DoctorBuild(ctx context.Context, env Env, in inputs.Build) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return env.reject(err)
	}
	return env.examine(ctx, buildChecks(env, spec))
}

// DoctorTest is like [DoctorBuild] for a test.
func DoctorTest(ctx context.Context, env Env, in inputs.Test) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return env.reject(err)
	}
	if spec.Optional {
		if found, err := engineHas(ctx, env, spec.Image); err == nil && !found {
			spec.Image = ""
		}
	}
	return env.examine(ctx, testChecks(env, spec))
}

// DoctorSnapshot is like [DoctorBuild] for a snapshot.
func DoctorSnapshot(ctx context.Context, env Env, in inputs.Snapshot) error {
	spec, err := in.Spec(env.validation())
	if err != nil {
		return env.reject(err)
	}
	if spec.Optional {
		if found, _ := engineHas(ctx, env, spec.Image); !found {
			spec.Image = ""
		}
	}
	return env.examine(ctx, snapshotChecks(env, spec))
}

// engineHas reports whether the engine has an image, without which the run would build one. See [localImage].
func engineHas(ctx context.Context, env Env, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, diagnosisTime)
	defer cancel()
	engine, err := dockerengine.Open(ctx, env.Getenv)
	if err != nil {
		return false, err
	}
	defer engine.Close()
	id, err := engine.ImageID(ctx, name)
	return id != "", err
}

// examine runs the checks of a command and prints their results. If one has failed, the exit code is 1.
func (e Env) examine(ctx context.Context, checks []doctor.Check) error {
	results := e.redactedResults(ctx, checks)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e.Output == inputs.JSONOutput {
		encoder := json.NewEncoder(e.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(results); err != nil {
			return err
		}
	} else {
		e.printResults(results)
	}
	if doctor.HasFailed(results) {
		return &ExitError{Code: 1}
	}
	return nil
}

// redactedResults runs checks and returns the results without secrets.
func (e Env) redactedResults(ctx context.Context, checks []doctor.Check) []doctor.Result {
	results := doctor.Run(ctx, diagnosisTime, checks)
	for i, r := range results {
		results[i].Name, results[i].Message = e.Runner.Redact(r.Name), e.Runner.Redact(e.flagForm(r.Message))
		results[i].Hint = e.Runner.Redact(e.flagForm(r.Hint))
	}
	return results
}

// printResults prints results to standard output or, in GitHub Actions, to the log, where no line can be a command.
func (e Env) printResults(results []doctor.Result) {
	if e.Runner.InActions() {
		e.logResults(results)
		return
	}
	for _, r := range results {
		fmt.Fprintln(e.Stdout, r.Line(terminal.UseUnicode(e.Getenv), e.Color))
	}
}

func (e Env) logResults(results []doctor.Result) {
	unicode := terminal.UseUnicode(e.Getenv) || e.Runner.InActions() // its log is UTF-8
	for _, r := range results {
		e.Runner.Infof("%s", r.Line(unicode, false))
	}
}

// diagnose runs e.Checks after a failed run and adds their results to the log. It does nothing after a cancellation.
func (e Env) diagnose(ctx context.Context, failure error) {
	if failure == nil || len(e.Checks) == 0 || ctx.Err() != nil {
		return
	}
	e.Runner.Group("Diagnosis")
	defer e.Runner.EndGroup()
	e.logResults(e.redactedResults(ctx, e.Checks))
}

// buildChecks returns the checks of what a build needs.
func buildChecks(env Env, spec inputs.BuildSpec) []doctor.Check {
	e := newExamination(env, spec)
	e.servers = append(e.servers, buildServers(env, spec)...)
	engine := ""
	if !spec.Load {
		engine = "not needed, because load is false"
	}
	return slices.Concat(
		e.machineChecks(buildNeeds(e.job, spec)), e.sourceChecks(""),
		[]doctor.Check{e.engineCheck(engine), e.builderCheck("")},
		e.pushChecks(), []doctor.Check{e.dopplerCheck("")}, e.networkChecks(),
	)
}

// testChecks returns the checks of what a test needs.
func testChecks(env Env, spec inputs.TestSpec) []doctor.Check {
	e := newExamination(env, spec.BuildSpec)
	unneeded := ""
	if spec.Image != "" {
		unneeded = "not needed to test an existing image"
	} else {
		e.servers = append(e.servers, buildServers(env, spec.BuildSpec)...)
	}
	return slices.Concat(
		e.machineChecks(buildNeeds(e.job, spec.BuildSpec)), e.sourceChecks(unneeded),
		[]doctor.Check{e.engineCheck(""), e.builderCheck(unneeded)},
		e.pushChecks(), []doctor.Check{e.dopplerCheck(unneeded)}, e.networkChecks(),
	)
}

// snapshotChecks returns the checks of what a snapshot needs.
func snapshotChecks(env Env, spec inputs.SnapshotSpec) []doctor.Check {
	spec.Doppler = snapshotDoppler(job{Env: env}, spec)
	e := newExamination(env, spec.BuildSpec)
	unneeded, engine := "", "not needed, because a snapshot is not loaded"
	if spec.Image == "" {
		e.servers = append(e.servers, buildServers(env, spec.BuildSpec)...)
	} else {
		unneeded, engine = "not needed for an existing image", ""
	}
	if _, isLayout := layoutDirectory(spec.Image); isLayout {
		engine = "not needed for an OCI layout"
	}
	e.servers = append(e.servers,
		cmp.Or(spec.Daytona.DaytonaAPIURL, env.Getenv("DAYTONA_API_URL"), daytona.DefaultURL))
	engineCheck := e.engineCheck(engine)
	if spec.Image != "" && !isEngineImage(spec.Image) {
		engineCheck = optional(engineCheck, "the image is read from its registry")
	}
	return slices.Concat(
		e.machineChecks(snapshotNeeds(e.job, spec)), e.sourceChecks(unneeded),
		[]doctor.Check{engineCheck, e.builderCheck(unneeded)}, e.pushChecks(),
		[]doctor.Check{e.dopplerCheck(""), e.dopplerWriteCheck(spec)}, e.daytonaChecks(spec), e.networkChecks(),
	)
}

// buildServers returns the URLs of the services that a build calls.
func buildServers(env Env, spec inputs.BuildSpec) (urls []string) {
	if spec.Builder == "depot" {
		urls = append(urls, cmp.Or(env.Getenv("DEPOT_API_URL"), builder.DefaultAPIURL))
	}
	if credentials.HasDopplerToken(spec.Doppler.DopplerToken, env.Getenv) {
		urls = append(urls, cmp.Or(env.Getenv("DOPPLER_API_HOST"), doppler.DefaultHost))
	}
	return urls
}

// examination is what the checks of a command share.
type examination struct {
	job
	spec    inputs.BuildSpec
	http    httpclient.Config
	servers []string // URLs of the services that the command calls

	checkout func(context.Context) (source.Tree, error)         // opens it once
	doppler  func(context.Context) (credentials.Doppler, error) // reads the config once
}

// newExamination returns an examination with short time limits for requests, so that a silent service is named before
// the diagnosis ends.
func newExamination(env Env, spec inputs.BuildSpec) examination {
	e := examination{job: job{Env: env, Event: runner.ReadEvent(env.Getenv), Started: time.Now()}, spec: spec}
	e.http = env.Probe
	policy := &e.http.Policy
	policy.Timeout, policy.Attempts = cmp.Or(policy.Timeout, 4*time.Second), 2
	policy.MinWait, policy.MaxRetryAfter = cmp.Or(policy.MinWait, 500*time.Millisecond), time.Second
	config := dopplerSource(env, spec.Doppler)
	config.HTTP, config.OIDC.HTTP, config.Logf = e.http, e.http, discardf
	e.doppler = once(func(ctx context.Context) (credentials.Doppler, error) {
		return credentials.ReadDoppler(ctx, config)
	})
	e.checkout = once(func(ctx context.Context) (source.Tree, error) { return openCheckout(ctx, e.job, spec) })
	if env.Runner.InActions() {
		e.servers = append(e.servers, cmp.Or(env.Getenv("GITHUB_API_URL"), "https://api.github.com"))
	}
	return e
}

func discardf(string, ...any) {}

// once returns a function that calls read once, with the context of the first call: all checks have the same one.
func once[T any](read func(context.Context) (T, error)) func(context.Context) (T, error) {
	var called sync.Once
	var value T
	var err error
	return func(ctx context.Context) (T, error) {
		called.Do(func() { value, err = read(ctx) })
		return value, err
	}
}

// newCheck returns a check, or one that says why it is not needed.
func newCheck(name, unneeded string, run func(context.Context) doctor.Result) doctor.Check {
	if unneeded != "" {
		run = func(context.Context) doctor.Result { return doctor.Skip("%s", unneeded) }
	}
	return doctor.Check{Name: name, Run: run}
}

// optional returns a check of which a failure has no consequence, for the given reason.
func optional(check doctor.Check, reason string) doctor.Check {
	run := check.Run
	check.Run = func(ctx context.Context) doctor.Result {
		result := run(ctx)
		if result.Status == doctor.Failed {
			result.Status, result.Hint = doctor.Skipped, reason
		}
		return result
	}
	return check
}

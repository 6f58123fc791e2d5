package actions

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
	local "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/internal/localcloud/github"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/trust"
)

const (
	historySecret = nameSecret + "_HISTORY"
	otherKey      = "dtn_other" // of another organization
	deployToken   = "ghs_deploys"
	readToken     = "ghs_reads"
)

// promotion is a set of stand-ins: Daytona with two organizations, Doppler, and GitHub with the repository acme/app.
type promotion struct {
	cloud
	doppler *local.Server
	github  *github.Server
	img     v1.Image
	commit  string // in acme/app
	environ map[string]string
}

// digest returns the digest of the image.
func (p promotion) digest(t *testing.T) string {
	t.Helper()
	digest, err := p.img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// startPromotion starts the stand-ins. The configs dev and prd of the project app belong to the first organization, and
// other to the second one. dev names agent-1, and prd names agent-0.
func startPromotion(t *testing.T) promotion {
	t.Helper()
	p := promotion{cloud: startDaytona(t, func(o *cloudaytona.Options) {
		o.Organizations = append(o.Organizations, cloudaytona.Organization{
			ID: "org-2", Name: "two", Regions: []cloudaytona.Region{{ID: "eu", Name: "EU"}},
			Keys: []cloudaytona.Key{{Name: "other", Value: otherKey, Permissions: []string{cloudaytona.WriteSnapshots}}},
		})
	}), img: testImage(t)}
	dir := t.TempDir()
	git := func(arguments ...string) string {
		command := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b"},
			arguments...)...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", arguments, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet", "--initial-branch=main")
	git("commit", "--quiet", "--allow-empty", "--message=first")
	p.commit = git("rev-parse", "HEAD")
	git("commit", "--quiet", "--allow-empty", "--message=second")
	permissions := map[string]string{"contents": "read"}
	deploy := map[string]string{"contents": "read", "deployments": "write"}
	var err error
	p.github, err = github.Start(t.Context(), github.Options{
		Repositories: []github.Repository{{Owner: "acme", Name: "app", Dir: dir, Private: true}},
		JobTokens:    []github.Token{{Value: readToken, Permissions: permissions}, {Value: deployToken, Permissions: deploy}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.github.Close() })
	keys := func(key string, more map[string]string) map[string]string {
		secrets := map[string]string{"DAYTONA_API_KEY": key, "DAYTONA_API_URL": p.URL()}
		maps.Copy(secrets, more)
		return secrets
	}
	history := `[{"name":"agent-1","digest":"` + p.digest(t) + `","commit":"` + p.commit + `","verified":"suite"}]`
	p.doppler, err = local.Start(t.Context(), local.Options{
		Projects: []local.Project{{Name: "app", Configs: []local.Config{
			{Name: "dev", Secrets: keys(fullKey, map[string]string{nameSecret: "agent-1", historySecret: history})},
			{Name: "prd", Secrets: keys(fullKey, map[string]string{nameSecret: "agent-0", mirrorSecret: "agent-0"})},
			{Name: "eu", Secrets: keys(fullKey, map[string]string{"DAYTONA_TARGET": "eu"})},
			{Name: "other", Secrets: keys(otherKey, nil)},
			{
				Name: "locked", Secrets: keys(fullKey, nil),
				Visibility: map[string]local.Visibility{"DAYTONA_API_KEY": local.Restricted},
			},
			{Name: "plain", Secrets: map[string]string{"A": "1"}},
		}}},
		Tokens: []local.Token{
			{Value: everything, Access: []local.Access{{Project: "app", Write: true}}},
			{Value: "dp.ct.user", Access: []local.Access{{Project: "app", Write: true}}},
			{Value: "dp.st.dev.x", Access: []local.Access{{Project: "app", Config: "dev"}}},
			{Value: "dp.st.prd.x", Access: []local.Access{{Project: "app", Config: "prd", Write: true}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.doppler.Close() })
	p.environ = map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "workflow_dispatch", "GITHUB_REPOSITORY": "acme/app",
		"GITHUB_SHA": git("rev-parse", "HEAD"), "GITHUB_RUN_ID": "7", "GITHUB_SERVER_URL": p.github.ServerURL(),
		"GITHUB_API_URL": p.github.APIURL(), "GITHUB_ACTOR": "me", "DOPPLER_API_HOST": p.doppler.URL(),
		"DOPPLER_TOKEN": everything, "DOPPLER_PROJECT": "app", "GITHUB_OUTPUT": filepath.Join(t.TempDir(), "output"),
	}
	return p
}

// add adds a snapshot of the image to the first organization.
func (p promotion) add(t *testing.T, name, state string) {
	t.Helper()
	p.Put(cloudaytona.Snapshot{
		Organization: organization, Name: name, State: state, Digest: p.digest(t), Region: "us",
		Image: p.RegistryHost() + "/sbox-transient/agent:" + imageTag(
			v1.Hash{Algorithm: "sha256", Hex: p.digest(t)[7:]},
			false,
		),
		Entrypoint: []string{"/init", "-x"}, Updated: time.Now().Add(-time.Hour),
	})
}

// run promotes with the arguments and returns the outputs and the log.
func (p promotion) run(ctx context.Context, t *testing.T, arguments ...string) (map[string]string, string, error) {
	t.Helper()
	var in inputs.Promote
	return p.command(ctx, t, &in, func(ctx context.Context, env Env) error { return Promote(ctx, env, in) }, arguments)
}

func (p promotion) command(
	ctx context.Context, t *testing.T, in any, run func(context.Context, Env) error, arguments []string,
) (map[string]string, string, error) {
	t.Helper()
	if _, err := (inputs.Source{Args: arguments, Stdout: io.Discard}).Parse(in); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.environ["GITHUB_OUTPUT"], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	job, stdout, _ := testJob(t, p.environ)
	err := run(ctx, job.Env)
	return parseOutputFile(contentOf(t, p.environ["GITHUB_OUTPUT"])), stdout.String(), err
}

// lastRecord returns the last record in the history of a config.
func (p promotion) lastRecord(t *testing.T, config string) namingRecord {
	t.Helper()
	records, err := parseHistory(p.doppler.Secret("app", config, historySecret))
	if err != nil || len(records) == 0 {
		t.Fatalf("history of %s: %v, %v", config, records, err)
	}
	return records[len(records)-1]
}

// deployments returns "ENVIRONMENT STATES SHA" of each deployment.
func (p promotion) deployments() (list []string) {
	for _, d := range p.github.Deployments("acme", "app") {
		var states []string
		for _, s := range d.Statuses {
			states = append(states, s.State)
		}
		list = append(list, d.Environment+" "+strings.Join(states, ",")+" "+d.SHA)
	}
	return list
}

// A promotion names the snapshot in another config together with its history, and records a deployment of its commit.
func TestPromote(t *testing.T) {
	p := startPromotion(t)
	p.add(t, "agent-1", "active")
	arguments := []string{"agent-1", "--to=prd", "--environment=production", "--github-token=" + deployToken}
	outputs, out, err := p.run(t.Context(), t, arguments...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"snapshot_name": "agent-1", "digest": p.digest(t), "git_sha": p.commit, "previous_snapshot": "agent-0",
		"doppler_updated": "true",
	} {
		if outputs[name] != want {
			t.Errorf("output %s is %q, want %q", name, outputs[name], want)
		}
	}
	if name, mirror := p.doppler.Secret("app", "prd", nameSecret), p.doppler.Secret("app", "prd", mirrorSecret); name !=
		"agent-1" || mirror != "${"+nameSecret+"}" {
		t.Errorf("name %q, mirror %q", name, mirror)
	}
	record := p.lastRecord(t, "prd")
	if record.Time.IsZero() {
		t.Error("the record has no time")
	}
	record.Time = time.Time{}
	want := namingRecord{
		Name: "agent-1", Digest: p.digest(t), Commit: p.commit, By: "me", Action: actionPromote, Verified: "suite",
	}
	if record != want {
		t.Errorf("record %+v, want %+v", record, want)
	}
	deployed := []string{"production in_progress,success " + p.commit}
	if got := p.deployments(); !slices.Equal(got, deployed) {
		t.Errorf("deployments %q, want %q", got, deployed)
	}
	if run := p.github.Deployments("acme", "app")[0].Statuses[1].LogURL; run != p.github.ServerURL()+"/acme/app/actions/runs/7" {
		t.Errorf("log URL %q", run)
	}
	if len(p.repositories()) > 0 || strings.Contains(out, "::warning") {
		t.Errorf("pushed to %q\n%s", p.repositories(), out)
	}

	// Again: nothing changes.
	writes := len(p.doppler.Writes())
	outputs, _, err = p.run(t.Context(), t, arguments...)
	if err != nil || outputs["doppler_updated"] != "false" || len(p.doppler.Writes()) != writes ||
		!slices.Equal(p.deployments(), deployed) {
		t.Errorf("again: %v, outputs %v, deployments %q", err, outputs, p.deployments())
	}
}

func TestPromoteTo(t *testing.T) {
	for _, test := range []struct {
		name      string
		states    map[string]string // of snapshots; default: agent-1 is active
		environ   map[string]string
		arguments []string
		change    func(*promotion)
		want      map[string]string // the names in the configs afterwards
		log       string
		err       string
	}{
		{name: "the name in dev", arguments: []string{"--to=prd"}, want: map[string]string{"prd": "agent-1"}},
		{
			name: "several configs", arguments: []string{"agent-1", "--to=prd,plain,app.prd"},
			want: map[string]string{"prd": "agent-1", "plain": "agent-1"}, log: "will be set in app.prd, app.plain",
		},
		{
			name: "service tokens", environ: map[string]string{"DOPPLER_TOKEN": "dp.st.dev.x"},
			arguments: []string{"--to=prd", "--to-token=dp.st.prd.x"}, want: map[string]string{"prd": "agent-1"},
		},
		{
			name: "no token for the target", environ: map[string]string{"DOPPLER_TOKEN": "dp.st.dev.x"},
			arguments: []string{"--to=prd"}, err: `input to: check write access to Doppler config "prd"`,
		},
		{
			name: "an unverified snapshot", states: map[string]string{"agent-2": "active"},
			arguments: []string{"agent-2", "--to=prd"}, want: map[string]string{"prd": "agent-2"},
			log: "::warning title=The snapshot was not verified::",
		},
		{
			name: "an unverified snapshot is refused", states: map[string]string{"agent-2": "active"},
			arguments: []string{"agent-2", "--to=prd", "--require-verified"}, err: "input require_verified",
		},
		{
			name: "verified with another image", arguments: []string{"--to=prd", "--require-verified"},
			change: func(p *promotion) {
				p.doppler.SetSecret("app", "dev", historySecret, `[{"name":"agent-1","digest":"sha256:1","verified":"suite"}]`)
			},
			err: "input require_verified",
		},
		{name: "not found", arguments: []string{"agent-9", "--to=prd"}, err: `input name: "agent-9" not found at Daytona`},
		{
			name: "no name in dev", arguments: []string{"--to=prd"}, err: "input name: is missing",
			change: func(p *promotion) { p.doppler.SetSecret("app", "dev", nameSecret, "") },
		},
		{
			name: "failed", states: map[string]string{"agent-1": "error"}, arguments: []string{"--to=prd"},
			err: `promote to app.prd: input name: "agent-1" is in state error`,
		},
		{
			name: "inactive, and its image is deleted", states: map[string]string{"agent-1": "inactive"},
			arguments: []string{"--to=prd"}, err: "create another one: action-snapshot", log: "Activating snapshot agent-1",
		},
		{
			name: "in another region", arguments: []string{"--to=eu"},
			err: `promote to app.eu: input region: "eu" snapshot agent-1 is in us; create one there: action-snapshot --region eu`,
		},
		{name: "in the region", arguments: []string{"--to=prd", "--region=US"}, want: map[string]string{"prd": "agent-1"}},
		{name: "unknown region", arguments: []string{"--to=prd", "--region=mars"}, err: `input region: unknown region "mars"`},
		{
			name: "changed by another run", arguments: []string{"--to=prd,plain"}, want: map[string]string{"plain": "agent-1"},
			change: func(p *promotion) {
				p.doppler.Fail(local.Fault{Method: "POST", Path: "secrets", Times: 2}) // the checks
				p.doppler.Fail(local.Fault{Method: "POST", Path: "secrets", Times: 1, Before: func() {
					p.doppler.SetSecret("app", "prd", nameSecret, "agent-7")
				}})
			},
			err: `another client has set "agent-7" since this run started; updated: app.plain`,
		},
		{
			name: "pull request", environ: map[string]string{"GITHUB_EVENT_NAME": "pull_request"},
			arguments: []string{"--to=prd"}, err: "this run (pull_request) is for a pull request",
		},
		{
			name: "restricted key", environ: map[string]string{"DOPPLER_TOKEN": "dp.ct.user"},
			arguments: []string{"--to=locked"}, err: "DAYTONA_API_KEY is restricted",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startPromotion(t)
			if test.states == nil {
				test.states = map[string]string{"agent-1": "active"}
			}
			for name, state := range test.states {
				p.add(t, name, state)
			}
			if test.change != nil {
				test.change(&p)
			}
			maps.Copy(p.environ, test.environ)
			arguments := append([]string{"--environment=prd", "--github-token=" + deployToken}, test.arguments...)
			outputs, out, err := p.run(t.Context(), t, arguments...)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, want %q\n%s", err, test.err, out)
			}
			if (err == nil) != (outputs["snapshot_name"] != "") || !strings.Contains(out, test.log) {
				t.Errorf("outputs %v, log %s", outputs, out)
			}
			named := map[string]string{}
			for _, w := range p.doppler.Writes() {
				if w.Set[nameSecret] != "" {
					named[w.Config] = w.Set[nameSecret]
				}
			}
			if test.want == nil {
				test.want = map[string]string{}
			}
			if !maps.Equal(named, test.want) {
				t.Errorf("named %v, want %v", named, test.want)
			}
			state := ""
			if deployments := p.github.Deployments("acme", "app"); len(deployments) > 0 {
				state = deployments[0].State()
			}
			switch {
			case err == nil && state != "success", err != nil && len(named) > 0 && state != "failure",
				err != nil && len(named) == 0 && state != "":
				t.Errorf("the deployment is %q", state)
			}
		})
	}
}

// In another organization, the same snapshot is created from the image in a registry.
func TestPromoteToAnotherOrganization(t *testing.T) {
	host := strings.TrimPrefix(httptestRegistry(t), "http://")
	reference := host + "/team/agent"
	push := func(t *testing.T, img v1.Image) string {
		t.Helper()
		if err := image.PushImage(t.Context(), reference+":1", img, image.Auth{}, nil); err != nil {
			t.Fatal(err)
		}
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return reference + "@" + digest.String()
	}
	for _, test := range []struct {
		name     string
		image    func(t *testing.T, p promotion) string // the input image
		existing string                                 // digest of the snapshot in the other organization
		err      string
	}{
		{name: "copied", image: func(t *testing.T, p promotion) string { return push(t, p.img) }},
		{name: "copied from the history", image: func(t *testing.T, p promotion) string {
			p.doppler.SetSecret("app", "dev", historySecret, `[{"name":"agent-1","digest":"`+p.digest(t)+
				`","image":"`+push(t, p.img)+`"}]`)
			return ""
		}},
		{name: "no image", err: "promote to app.other: input image: is missing; snapshot agent-1 must be copied"},
		{
			name: "image not found", image: func(*testing.T, promotion) string { return host + "/team/none:1" },
			err: "promote to app.other: input image: read the image of snapshot agent-1",
		},
		{
			name: "another image", err: "has the digest",
			image: func(t *testing.T, p promotion) string {
				changed, err := mutate.AppendLayers(p.img, layerOf(t))
				if err != nil {
					t.Fatal(err)
				}
				return push(t, changed)
			},
		},
		{name: "exists", existing: "same"},
		{name: "exists with another image", existing: "sha256:" + strings.Repeat("0", 64), err: "of another image, sha256:000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPromotion(t)
			p.add(t, "agent-1", "active")
			if test.existing == "same" {
				test.existing = p.digest(t)
			}
			if test.existing != "" {
				p.Put(cloudaytona.Snapshot{Organization: "org-2", Name: "agent-1", Digest: test.existing, Region: "eu"})
			}
			arguments := []string{"--to=other"}
			if test.image != nil {
				arguments = append(arguments, "--image="+test.image(t, p))
			}
			_, out, err := p.run(t.Context(), t, arguments...)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("got %v, want %q\n%s", err, test.err, out)
			}
			other := daytona.Client{URL: p.URL(), Key: otherKey}
			copied, found, findErr := other.Find(t.Context(), "agent-1")
			if findErr != nil || found != (err == nil || test.existing != "") {
				t.Fatalf("found %t, %v", found, findErr)
			}
			if err != nil {
				return
			}
			if copied.State != daytona.Active || copied.Digest != p.digest(t) || copied.Regions[0] != "eu" {
				t.Errorf("%+v", copied)
			}
			if name := p.doppler.Secret("app", "other", nameSecret); name != "agent-1" {
				t.Errorf("named %q", name)
			}
			if want := []string{"/init", "-x"}; test.existing == "" && !slices.Equal(copied.Entrypoint, want) {
				t.Errorf("entry point %q, want %q", copied.Entrypoint, want)
			}
		})
	}
}

// httptestRegistry starts a registry without authentication and returns its URL.
func httptestRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return server.URL
}

// A deployment that cannot be recorded is one warning. The commit of the run takes the place of an unknown one.
func TestPromoteDeployment(t *testing.T) {
	for _, test := range []struct {
		name, token, commit string
		fault               github.Fault
		warning             string
		states              string // "" for no deployment
	}{
		{name: "no permission", token: readToken, warning: "add `permissions: deployments: write` to the job"},
		{name: "no token", warning: "add `permissions: deployments: write` to the job"},
		{name: "unknown commit", token: deployToken, commit: strings.Repeat("0", 40), states: "in_progress,success"},
		{
			name: "outage", token: deployToken, fault: github.Fault{Path: "/deployments", Status: 500},
			warning: "Deployment to prd: record a deployment to prd in acme/app: GitHub returned 500",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPromotion(t)
			p.add(t, "agent-1", "active")
			if test.commit != "" {
				p.doppler.SetSecret("app", "dev", historySecret,
					`[{"name":"agent-1","digest":"`+p.digest(t)+`","commit":"`+test.commit+`"}]`)
			}
			if test.fault.Status != 0 {
				p.github.Fail(test.fault)
			}
			_, out, err := p.run(t.Context(), t, "--to=prd", "--environment=prd", "--github-token="+test.token)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			warnings := strings.Count(out, "::warning title=The deployment was not recorded::")
			if (test.warning != "") != (warnings == 1) || !strings.Contains(out, test.warning) {
				t.Errorf("%d warnings, want %q:\n%s", warnings, test.warning, out)
			}
			var want []string
			if test.states != "" {
				want = []string{"prd " + test.states + " " + p.environ["GITHUB_SHA"]}
			}
			if got := p.deployments(); !slices.Equal(got, want) {
				t.Errorf("deployments %q, want %q", got, want)
			}
		})
	}
}

// A snapshot is not deployed if Doppler already names a newer one.
func TestDeploymentOfOutdatedSnapshot(t *testing.T) {
	p := startPromotion(t)
	job, _, _ := testJob(t, p.environ)
	deployed := startDeployment(t.Context(), job, deployToken, "dev", namingRecord{Name: "agent-1", Commit: p.commit})
	deployed.finish(t.Context(), job, dopplerUpdate{Unchanged: []string{"app.dev"}, Outdated: []string{"app.dev"}}, nil)
	if got := p.deployments(); !slices.Equal(got, []string{"dev in_progress,inactive " + p.commit}) {
		t.Errorf("deployments %q", got)
	}
	description := p.github.Deployments("acme", "app")[0].Statuses[1].Description
	if description != "Doppler names a newer snapshot than agent-1" {
		t.Errorf("description %q", description)
	}
}

// A canceled promotion reports whether Doppler names the snapshot, and ends its deployment.
func TestPromoteCanceled(t *testing.T) {
	p := startPromotion(t)
	p.add(t, "agent-1", "active")
	ctx, cancel := context.WithCancelCause(t.Context())
	canceled := errors.New("canceled")
	p.doppler.Fail(local.Fault{Method: "POST", Path: "secrets", Times: 1}) // the check
	p.doppler.Fail(local.Fault{Method: "POST", Path: "secrets", NoResponse: true, Before: func() { cancel(canceled) }})
	outputs, _, err := p.run(ctx, t, "--to=prd", "--environment=prd", "--github-token="+deployToken)
	if !errors.Is(err, canceled) || !strings.Contains(err.Error(), "agent-1 is active, but Doppler was not updated") ||
		len(outputs) > 0 {
		t.Errorf("got %v, outputs %v", err, outputs)
	}
	if got := p.deployments(); !slices.Equal(got, []string{"prd in_progress,failure " + p.commit}) {
		t.Errorf("deployments %q", got)
	}
}

// Every event but those that only people with write access trigger is refused before anything is read.
func TestPromoteTrust(t *testing.T) {
	p := startPromotion(t)
	p.environ["GITHUB_EVENT_NAME"] = "issue_comment"
	_, _, err := p.run(t.Context(), t, "--to=prd")
	refused := (*trust.NamingError)(nil)
	if !errors.As(err, &refused) || len(p.doppler.Requests()) > 0 {
		t.Errorf("got %v, %d requests", err, len(p.doppler.Requests()))
	}
}

package actions

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	local "github.com/org/sandbox-actions/internal/localcloud/doppler"
	"github.com/org/sandbox-actions/pkg/credentials"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/doppler"
	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/runrecord"
)

const (
	nameSecret   = "DAYTONA_SNAPSHOT_NAME"
	mirrorSecret = "VITE_DAYTONA_SNAPSHOT_NAME"
	everything   = "dp.sa.everything"
	readsPrd     = "dp.sa.reads-prd"
)

// startDoppler starts Doppler with two projects. Only the config dev of the project app has the mirror.
func startDoppler(t *testing.T) *local.Server {
	t.Helper()
	server, err := local.Start(t.Context(), local.Options{
		Projects: []local.Project{
			{Name: "app", Configs: []local.Config{
				{
					Name: "dev", Secrets: map[string]string{nameSecret: "old", mirrorSecret: "old", "APP": "sandbox", "MODE": "json"},
					Visibility: map[string]local.Visibility{"MODE": local.Unmasked},
				},
				{Name: "prd", Secrets: map[string]string{"A": "1", "OTHER_NAME": "pinned"}},
			}},
			{Name: "website", Configs: []local.Config{{Name: "dev"}}},
		},
		Tokens: []local.Token{
			{Value: everything, Access: []local.Access{{Project: "app", Write: true}, {Project: "website", Write: true}}},
			{Value: readsPrd, Access: []local.Access{
				{Project: "app", Config: "dev", Write: true}, {Project: "app", Config: "prd"},
			}},
			{Value: "dp.st.prd.x", Access: []local.Access{{Project: "app", Config: "prd", Write: true}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// snapshotSpec returns the spec of a snapshot with the given arguments.
func snapshotSpec(t *testing.T, arguments ...string) inputs.SnapshotSpec {
	t.Helper()
	var in inputs.Snapshot
	source := inputs.Source{Args: arguments, Environ: []string{"GITHUB_ACTIONS=true"}}
	if _, err := source.Parse(&in); err != nil {
		t.Fatal(err)
	}
	spec, err := in.Spec(inputs.Env{Getenv: func(string) string { return "" }, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// Every config is checked before the build and written after it. The mirror is written where it exists or is required.
func TestUpdateDoppler(t *testing.T) {
	const project, dev, prd = "--doppler-project=app", "app.dev", "app.prd"
	link := "${" + nameSecret + "}"
	for _, test := range []struct {
		name, token string
		environ     map[string]string
		arguments   []string
		fault       local.Fault // after the check
		written     map[string]map[string]string
		log         string
		checkErr    string
		updateErr   []string
	}{
		{
			name: "the config that is read", token: everything, arguments: []string{project},
			written: map[string]map[string]string{dev: {nameSecret: "new", mirrorSecret: link}},
			log:     "will be set in app.dev (selected by default)",
		},
		{
			name: "the config of doppler run", token: everything,
			environ: map[string]string{
				"DOPPLER_PROJECT": "app", "DOPPLER_CONFIG": "prd", "DOPPLER_ENVIRONMENT": "prd",
			},
			written: map[string]map[string]string{prd: {nameSecret: "new"}},
			log:     "will be set in app.prd (selected by DOPPLER_CONFIG)",
		},
		{
			name: "the config of a service token", token: "dp.st.prd.x",
			written: map[string]map[string]string{prd: {nameSecret: "new"}},
			log:     "will be set in app.prd (selected by the service token in DOPPLER_TOKEN)",
		},
		{
			name: "several configs", token: everything,
			arguments: []string{project, "--doppler-configs=dev,prd,website.dev,app.dev"},
			written: map[string]map[string]string{
				dev: {nameSecret: "new", mirrorSecret: link}, prd: {nameSecret: "new"}, "website.dev": {nameSecret: "new"},
			},
			log: "will be set in app.dev, app.prd, website.dev (selected by doppler_configs)",
		},
		{
			name: "other names", token: everything, arguments: []string{
				project, "--doppler-config=prd", "--doppler-secret=OTHER_NAME", "--doppler-mirror=PUBLIC_NAME",
			},
			written: map[string]map[string]string{prd: {"OTHER_NAME": "new", "PUBLIC_NAME": "${OTHER_NAME}"}},
			log:     "OTHER_NAME will be set in app.prd (selected by doppler_config)",
		},
		{
			name: "one of several is not writable", token: readsPrd, arguments: []string{project, "--doppler-configs=dev,prd"},
			checkErr: `input update_doppler: check write access to Doppler config "prd" of project "app": `,
		},
		{
			name: "a service token does not reach another config", token: "dp.st.prd.x",
			arguments: []string{"--doppler-configs=dev,prd"}, checkErr: "a service token can access only its own config",
		},
		{
			name: "one of several fails", token: everything, arguments: []string{
				project, "--doppler-configs=dev,prd,website.dev",
			},
			fault: local.Fault{Method: "POST", Status: 400, Times: 1},
			written: map[string]map[string]string{
				prd: {nameSecret: "new"}, "website.dev": {nameSecret: "new"},
			},
			updateErr: []string{
				"snapshot new is active, but updating Doppler failed: ", "updated: app.prd, website.dev",
				"(run again, or set DAYTONA_SNAPSHOT_NAME=new in app.dev)",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := startDoppler(t)
			environ := map[string]string{"DOPPLER_API_HOST": server.URL(), "DOPPLER_TOKEN": test.token}
			maps.Copy(environ, test.environ)
			job, _, stderr := testJob(t, environ)
			spec := snapshotSpec(t, test.arguments...)
			config, err := readDoppler(t.Context(), job.Env, snapshotDoppler(job, spec))
			if err != nil {
				t.Fatal(err)
			}
			var target snapshotTarget
			target.Doppler, err = checkDoppler(t.Context(), job, spec, config)
			if len(server.Writes()) > 0 {
				t.Errorf("the check wrote %v", server.Writes())
			}
			if test.checkErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.checkErr) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || !strings.Contains(stderr.String(), test.log) {
				t.Fatalf("%v; log %q, want %q", err, stderr, test.log)
			}
			if test.fault.Status != 0 {
				server.Fail(test.fault)
			}
			update, err := writeNames(t.Context(), job, namings(t.Context(), job, []createdSnapshot{
				{Spec: spec, Target: target, Snapshot: daytona.Snapshot{Name: "new"}},
			}))
			for _, part := range test.updateErr {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want %q", err, part)
				}
			}
			if test.updateErr == nil && err != nil {
				t.Error(err)
			}
			written := map[string]map[string]string{}
			for _, w := range server.Writes() {
				records, err := parseHistory(w.Set[spec.Record.History])
				if err != nil || len(records) == 0 || records[len(records)-1].Name != "new" {
					t.Errorf("history in %s: %v, %v", w.Config, records, err)
				}
				delete(w.Set, spec.Record.History)
				written[w.Project+"."+w.Config] = w.Set
			}
			if !maps.EqualFunc(written, test.written, maps.Equal) ||
				!slices.Equal(slices.Sorted(slices.Values(update.Written)), slices.Sorted(maps.Keys(test.written))) {
				t.Errorf("wrote %v, reported %q; want %v", written, update.Written, test.written)
			}
		})
	}
}

// A run that is canceled during the write looks whether Doppler has the name, and reports what it knows.
func TestUpdateDopplerCanceled(t *testing.T) {
	for _, test := range []struct {
		name     string
		written  bool
		readable bool
		want     string // in the leftovers; empty if the run continues
	}{
		{name: "written", written: true, readable: true},
		{name: "not written", readable: true, want: "snapshot new is active, but Doppler was not updated (run again, or set"},
		{name: "unknown", written: true, want: "snapshot new is active, but Doppler may not be updated"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := startDoppler(t)
			ctx, cancel := context.WithCancel(t.Context())
			client := doppler.Client{Host: server.URL(), Token: everything, Project: "app", Config: "dev"}
			client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodPost && (ctx.Err() == nil || test.readable) {
					return http.DefaultTransport.RoundTrip(r)
				}
				if r.Method == http.MethodPost && test.written {
					response, err := http.DefaultTransport.RoundTrip(r)
					if err != nil {
						return nil, err
					}
					response.Body.Close()
				}
				cancel()
				return nil, errors.New("connection lost")
			})
			job, _, _ := testJob(t, nil)
			target := snapshotTarget{Doppler: []dopplerConfig{{Client: client, Previous: "old"}}}
			update, err := writeNames(ctx, job, namings(ctx, job, []createdSnapshot{
				{Spec: snapshotSpec(t), Target: target, Snapshot: daytona.Snapshot{Name: "new"}},
			}))
			left := (*daytona.LeftoverError)(nil)
			if test.want == "" {
				if err != nil || !slices.Equal(update.Written, []string{"app.dev"}) {
					t.Errorf("%v, %v", update, err)
				}
			} else if !errors.As(err, &left) || !strings.HasPrefix(left.Leftovers[0], test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A Daytona key alone makes a snapshot. Without a token, Doppler is skipped with a notice, unless an input requires it.
func TestDopplerIsOptional(t *testing.T) {
	for _, test := range []struct {
		name, key string
		arguments []string
		err       error
		notice    bool
	}{
		{name: "key alone", key: "dtn_key", notice: true},
		{name: "not updated", key: "dtn_key", arguments: []string{"--no-update-doppler"}},
		{name: "no key", err: credentials.ErrNoDopplerToken},
		{name: "update", key: "dtn_key", arguments: []string{"--update-doppler"}, err: credentials.ErrNoDopplerToken},
		{name: "config", key: "dtn_key", arguments: []string{"--doppler-config=dev"}, err: credentials.ErrNoDopplerToken},
		{name: "configs", key: "dtn_key", arguments: []string{"--doppler-configs=dev"}, err: credentials.ErrNoDopplerToken},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, stderr := testJob(t, map[string]string{"DAYTONA_API_KEY": test.key})
			spec := snapshotSpec(t, test.arguments...)
			config, err := readDoppler(t.Context(), job.Env, snapshotDoppler(job, spec))
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), "without Doppler, set daytona_api_key and update_doppler: false") {
					t.Errorf("got %v", err)
				}
				return
			}
			configs, err := checkDoppler(t.Context(), job, spec, config)
			if err != nil || configs != nil || strings.Contains(stderr.String(), "notice: ") != test.notice {
				t.Errorf("got %v, %v, log %q", configs, err, stderr)
			}
			client, err := daytonaClient(job.Env, spec.Daytona, config)
			if err != nil || client.Key != test.key {
				t.Errorf("Daytona: %v", err)
			}
		})
	}
}

// A run whose prefix differs from that of the named snapshot says how to go on with the older snapshots.
func TestNoticeOtherPrefix(t *testing.T) {
	const suffix = "-20260102-030405-0123456-me"
	for _, test := range []struct {
		name, previous, want string
		arguments            []string
	}{
		{name: "former default", previous: "iterate-sandbox" + suffix, want: "set name_prefix: iterate-sandbox to reuse"},
		{name: "variant", previous: "other-small" + suffix, want: "set name_prefix: other to reuse",
			arguments: []string{"--variants=small: cpu=1"}},
		{name: "same prefix", previous: "sandbox" + suffix},
		{name: "no generated name", previous: "pinned"},
		{name: "no name"},
		{name: "given name", previous: "other" + suffix, arguments: []string{"--name=pinned"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, log := testJob(t, nil)
			spec := snapshotSpec(t, test.arguments...).Each()[0]
			noticeOtherPrefix(job, spec, []dopplerConfig{{Previous: test.previous}})
			if !strings.Contains(log.String(), test.want) || (test.want == "") != (log.Len() == 0) {
				t.Errorf("log %q, want %q", log, test.want)
			}
		})
	}
}

// keep and delete spare the snapshots that any readable config names in the chosen secret.
func TestDopplerProtectsSnapshots(t *testing.T) {
	server, c := startDoppler(t), startDaytona(t, nil)
	id := c.put("current", "active", 0)
	for _, name := range []string{"pinned", "elsewhere", "old"} {
		c.put(name, "active", 1)
	}
	server.SetSecret("app", "prd", "OTHER_NAME", generated+"pinned")
	server.SetSecret("website", "dev", "OTHER_NAME", generated+"elsewhere")
	server.SetSecret("app", "dev", nameSecret, generated+"old") // another secret
	job, _, log := testJob(t, map[string]string{"DOPPLER_API_HOST": server.URL(), "DOPPLER_TOKEN": everything})
	in := inputs.DeleteSnapshot{
		Name: generated + "elsewhere", SnapshotSecret: inputs.SnapshotSecret{DopplerSecret: "OTHER_NAME"},
		Doppler: inputs.Doppler{DopplerProject: "app"},
		Daytona: inputs.Daytona{DaytonaAPIKey: fullKey, DaytonaAPIURL: c.URL()},
	}
	err := DeleteSnapshot(t.Context(), job.Env, in)
	if err == nil || !strings.Contains(err.Error(), "named by the Doppler config website.dev") {
		t.Errorf("delete: %v", err)
	}
	config, err := readDoppler(t.Context(), job.Env, inputs.Doppler{DopplerProject: "app", Default: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	current, err := c.client.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	c.spec.Keep, c.spec.Record.Secret = 1, "OTHER_NAME"
	deleted := pruneSnapshots(t.Context(), job, c.spec, config, []createdSnapshot{c.created(current)})
	if !slices.Equal(deleted, []string{generated + "old"}) || !strings.Contains(log.String(), "config app.prd") {
		t.Errorf("deleted %q\n%s", deleted, log)
	}
}

// A name that contains a masked value is refused before the build, with the names of the secret and the input. An
// unmasked value is part of a name like any other word.
func TestNamesWithSecrets(t *testing.T) {
	server := startDoppler(t)
	server.SetSecret("app", "dev", "WORD", "iterate")
	for _, test := range []struct{ argument, input, secret string }{
		{"--name=my-json", "", ""},
		{"--name=my-sandbox", "name", "APP"},
		{"--name-prefix=iterate", "name_prefix", "WORD"},
		{"--push=ghcr.io/acme/sandbox:1", "push", "APP"},
		{"--image=ghcr.io/acme/sandbox:1", "image", "APP"},
	} {
		job, _, _ := testJob(t, map[string]string{
			"DOPPLER_API_HOST": server.URL(), "DOPPLER_TOKEN": everything, "GITHUB_ACTOR": "me",
		})
		spec := snapshotSpec(t, "--name=plain", "--doppler-project=app", test.argument)
		if test.input == "name_prefix" {
			spec.Name = ""
		}
		if _, err := readDoppler(t.Context(), job.Env, spec.Doppler); err != nil {
			t.Fatal(err)
		}
		err := errors.Join(checkSnapshotName(t.Context(), job, spec), checkBuildNames(job, spec.BuildSpec, buildSource{}))
		invalid := (*inputs.Error)(nil)
		if errors.As(err, &invalid) != (test.input != "") {
			t.Fatalf("%s: %v", test.argument, err)
		}
		if invalid != nil &&
			(invalid.Input != test.input || !strings.Contains(err.Error(), "the Doppler secret "+test.secret+",")) {
			t.Errorf("%s: %v, want an error about %s and %s", test.argument, err, test.input, test.secret)
		}
	}
}

// No output is written if one contains a secret.
func TestSecretOutputs(t *testing.T) {
	job, stdout, _ := testJob(t, nil)
	job.Output = inputs.EnvOutput
	job.Runner.MaskAs("the Doppler secret APP", "sandbox")
	var run runrecord.Record
	run.Outputs = outputList(SnapshotOutputs{SnapshotName: "iterate-sandbox-1", SnapshotState: "active"})
	err := job.present(t.Context(), run, nil)
	leak := (*runner.SecretOutputError)(nil)
	if !errors.As(err, &leak) || leak.Output != "snapshot_name" || leak.Secret != "the Doppler secret APP" ||
		stdout.Len() > 0 {
		t.Errorf("got %v, outputs %q", err, stdout)
	}
}

package credentials

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// dopplerServer is a stand-in for Doppler's API with one config. It records requests.
type dopplerServer struct {
	*httptest.Server
	tokens  []string            // tokens that were used to read the config
	queries []string            // PROJECT.CONFIG of those requests
	logins  []map[string]string // bodies of exchanged OIDC tokens
}

func startDoppler(t *testing.T, secrets map[string]string, visibility ...string) *dopplerServer {
	t.Helper()
	answer := map[string]any{}
	for name, value := range secrets {
		secret := map[string]any{"raw": value, "computed": value, "computedVisibility": "masked"}
		for i := 0; i < len(visibility); i += 2 {
			if visibility[i] == name {
				secret["computedVisibility"] = visibility[i+1]
			}
		}
		if value == "" && secret["computedVisibility"] == "restricted" {
			secret["computed"] = nil
		}
		answer[name] = secret
	}
	s := &dopplerServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v3/configs/config/secrets", func(w http.ResponseWriter, r *http.Request) {
		s.tokens = append(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		s.queries = append(s.queries, r.URL.Query().Get("project")+"."+r.URL.Query().Get("config"))
		_ = json.NewEncoder(w).Encode(map[string]any{"secrets": answer, "success": true})
	})
	mux.HandleFunc("POST /v3/auth/oidc", func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		_ = json.NewDecoder(r.Body).Decode(&body)
		s.logins = append(s.logins, body)
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "token": "dp.sa.exchanged"})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// startOIDC starts a stand-in for the Actions runner's OIDC endpoint. Its tokens contain the audience.
func startOIDC(t *testing.T) OIDC {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"value": "oidc for " + r.URL.Query().Get("audience")})
	}))
	t.Cleanup(server.Close)
	return OIDC{RequestURL: server.URL + "?a=b", RequestToken: "request-token"}
}

// keyring puts a doppler command in PATH that prints a token like the keyring of `doppler login`.
func keyring(t *testing.T, token string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\n[ \"$1 $2 $3\" = 'configure get token' ] && echo " + token + "\n"
	if token == "" {
		script = "#!/bin/sh\necho 'keyring is locked' >&2\nexit 1\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "doppler"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// readDoppler reads the config of a source from a server, with the home directory home.
func readDoppler(t *testing.T, source DopplerSource, server *dopplerServer, environ map[string]string) (
	config Doppler, masked map[string]string, log string, err error,
) {
	t.Helper()
	masked = map[string]string{}
	source.OIDC = startOIDC(t)
	source.Mask = func(name, secret string) {
		if secret != "" {
			masked[secret] = name
		}
	}
	source.Logf = func(format string, args ...any) { log += fmt.Sprintf(format, args...) + "\n" }
	source.Getenv = func(name string) string {
		if name == "DOPPLER_API_HOST" {
			return server.URL
		}
		return environ[name]
	}
	config, err = ReadDoppler(t.Context(), source)
	return config, masked, log, err
}

// The input takes precedence over the environment, and that over the settings of the Doppler CLI, for the project, the
// config and the token. A service token implies its config.
func TestDopplerPrecedence(t *testing.T) {
	type values = map[string]string
	run := values{"DOPPLER_PROJECT": "env-p", "DOPPLER_CONFIG": "prd", "DOPPLER_ENVIRONMENT": "prd"}
	with := func(environ values, name, value string) values {
		environ = maps.Clone(environ)
		environ[name] = value
		return environ
	}
	const cli = `scoped:
    "*":    {token: dp.ct.all, enclave.project: all, enclave.config: all}
    /w:     {enclave.project: w}
    /w/app: {enclave.project: cli-p, enclave.config: stg}
    /w/app123: {token: dp.ct.other, enclave.project: other, enclave.config: other}
`
	for _, test := range []struct {
		name    string
		source  DopplerSource
		environ values
		cli     string
		keyring string
		token   string // that reads the config; "" if none is read
		query   string // PROJECT.CONFIG
		by      string // in the log
		err     error
	}{
		{name: "nothing selects a config", environ: with(run, "DOPPLER_TOKEN", "env"), cli: cli},
		{name: "input", source: DopplerSource{Config: "dev", Token: "input", Project: "p"},
			environ: with(run, "DOPPLER_TOKEN", "env"), cli: cli, token: "input", query: "p.dev", by: "doppler_config"},
		{name: "environment of doppler run", source: DopplerSource{Default: "dev"}, environ: run, cli: cli,
			token: "dp.ct.all", query: "env-p.prd", by: "DOPPLER_CONFIG"},
		{name: "environment in GitHub Actions", source: DopplerSource{Default: "dev", InActions: true},
			environ: with(run, "DOPPLER_TOKEN", "env"), cli: cli, token: "env", query: "env-p.prd", by: "DOPPLER_CONFIG"},
		{name: "environment's name alone", source: DopplerSource{Default: "dev"},
			environ: values{"DOPPLER_ENVIRONMENT": "stg", "DOPPLER_TOKEN": "env"}, token: "env", query: ".stg",
			by: "DOPPLER_ENVIRONMENT"},
		{name: "input before doppler run", source: DopplerSource{Default: "dev", Config: "dev"}, environ: run, cli: cli,
			token: "dp.ct.all", query: "env-p.dev", by: "doppler_config"},
		{name: "doppler setup", source: DopplerSource{Default: "dev", Dir: "/w/app/src"}, cli: cli, token: "dp.ct.all",
			query: "cli-p.stg", by: "doppler setup"},
		{name: "doppler setup of a parent", source: DopplerSource{Default: "dev", Dir: "/w/other"}, cli: cli,
			token: "dp.ct.all", query: "w.all", by: "doppler setup"},
		{name: "input with the project of doppler setup", source: DopplerSource{Config: "dev", Dir: "/w/app"}, cli: cli,
			token: "dp.ct.all", query: "cli-p.dev", by: "doppler_config"},
		{name: "token of the environment with doppler setup", source: DopplerSource{Default: "dev", Dir: "/w/app"},
			environ: values{"DOPPLER_TOKEN": "env"}, cli: cli, token: "env", query: "cli-p.stg", by: "doppler setup"},
		{name: "token in the keyring", source: DopplerSource{Default: "dev"}, keyring: "dp.ct.key",
			cli:   "scoped: {/: {token: secret-0123}}",
			token: "dp.ct.key", query: ".dev", by: "default"},
		{name: "no keyring", source: DopplerSource{Default: "dev"}, cli: "scoped: {/: {token: secret-0123}}",
			err: errKeyring},
		{name: "no keyring, optional", source: DopplerSource{Default: "dev", Optional: true},
			cli: "scoped: {/: {token: secret-0123}}", by: "keyring"},
		{name: "service token of the environment", source: DopplerSource{Default: "dev", Dir: "/w/app"},
			environ: values{"DOPPLER_TOKEN": "dp.st.prd.x"}, cli: cli, token: "dp.st.prd.x", query: ".",
			by: "the service token in DOPPLER_TOKEN"},
		{name: "service token of the input", source: DopplerSource{Default: "dev", Token: "dp.st.stg.x"}, environ: run,
			token: "dp.st.stg.x", query: ".", by: "the service token in doppler_token"},
		{name: "service token with an explicit config", source: DopplerSource{Default: "dev", Config: "dev"},
			environ: values{"DOPPLER_TOKEN": "dp.st.prd.x"}, token: "dp.st.prd.x", query: ".dev", by: "doppler_config"},
		{name: "no CLI in GitHub Actions", source: DopplerSource{Config: "dev", InActions: true}, cli: cli,
			err: ErrNoDopplerToken},
		{name: "identity before tokens of the environment", source: DopplerSource{
			Config: "dev", Identity: "id", Repository: "acme/app",
		}, environ: values{"DOPPLER_TOKEN": "dp.st.prd.x"}, token: "dp.sa.exchanged", query: ".dev", by: "doppler_config"},
		{name: "input before the identity", source: DopplerSource{Config: "dev", Token: "input", Identity: "id"},
			token: "input", query: ".dev", by: "doppler_config"},
		{name: "default", source: DopplerSource{Default: "dev"}, environ: values{"DOPPLER_TOKEN": "env"}, token: "env",
			query: ".dev", by: "default"},
		{name: "no token", source: DopplerSource{Config: "dev"}, err: ErrNoDopplerToken},
		{name: "no token, optional", source: DopplerSource{Default: "dev", Optional: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, home := startDoppler(t, values{"A": "value of A"}), t.TempDir()
			keyring(t, test.keyring)
			if err := os.Mkdir(filepath.Join(home, ".doppler"), 0o700); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(home, ".doppler", ".doppler.yaml")
			if err := os.WriteFile(file, []byte(test.cli), 0o600); err != nil {
				t.Fatal(err)
			}
			if test.source.Dir == "" {
				test.source.Dir = t.TempDir()
			}
			if test.environ == nil {
				test.environ = values{}
			}
			config, masked, log, err := readDoppler(t, test.source, server, with(test.environ, "HOME", home))
			if test.err == errKeyring {
				if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(err.Error(), "keyring is locked") {
					t.Errorf("got %v", err)
				}
			} else if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if test.token == "" {
				if config.Client != nil || config.Secrets != nil || len(server.tokens) > 0 {
					t.Errorf("read %v with %q, want nothing", config.Secrets, server.tokens)
				}
				if !strings.Contains(log, test.by) {
					t.Errorf("log %q, want %q", log, test.by)
				}
				return
			}
			if !slices.Equal(server.tokens, []string{test.token}) || !slices.Equal(server.queries, []string{test.query}) {
				t.Errorf("read %q with %q, want %q with %q", server.queries, server.tokens, test.query, test.token)
			}
			if masked[test.token] == "" || config.Secrets["A"] != "value of A" || config.Client == nil {
				t.Errorf("masked %v, secrets %v", masked, config.Secrets)
			}
			from := map[string]string{
				"input": "doppler_token", "env": "DOPPLER_TOKEN", "dp.ct.all": "doppler login",
				"dp.sa.exchanged": "doppler_identity",
			}[test.token]
			if !strings.Contains(log, "Doppler token: from "+from) {
				t.Errorf("log %q, want the source %q", log, from)
			}
			if config.Selected != test.by || !strings.Contains(log, "(selected by "+test.by+")") {
				t.Errorf("selected by %q, log %q; want %q", config.Selected, log, test.by)
			}
		})
	}
}

var errKeyring = errors.New("the keyring is not available")

func TestDopplerCLISettings(t *testing.T) {
	home := t.TempDir()
	environ := environ("DOPPLER_CONFIG_DIR="+home, "HOME=/home/me")
	if got, err := readDopplerCLI("/x", environ); err != nil || got != (dopplerCLISettings{}) {
		t.Errorf("without a file: %+v, %v", got, err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(home, ".doppler.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("scoped: {~/a/: {enclave.config: stg, api-host: https://a.example}, /: {enclave.config: root}}")
	want := dopplerCLISettings{Config: "stg", Host: "https://a.example"}
	if got, err := readDopplerCLI("/home/me/a", environ); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	write("scoped: [")
	if _, err := readDopplerCLI("/x", environ); err == nil || !strings.Contains(err.Error(), "read the settings of") {
		t.Errorf("invalid file: %v", err)
	}
}

// Doppler's project and config name the config in messages and for writes, whatever selected it.
func TestDopplerConfigName(t *testing.T) {
	server := startDoppler(t, map[string]string{"DOPPLER_PROJECT": "app", "DOPPLER_CONFIG": "prd"})
	config, _, log, err := readDoppler(t, DopplerSource{Token: "dp.st.prd.x"}, server, nil)
	if err != nil || config.Client.Project != "app" || config.Client.Config != "prd" ||
		!strings.Contains(log, `Read Doppler config "prd" of project "app"`) {
		t.Errorf("%+v, %v, log %q", config.Client, err, log)
	}
}

func TestDopplerIdentityAudience(t *testing.T) {
	server := startDoppler(t, map[string]string{})
	source := DopplerSource{Config: "dev", Identity: "identity", Repository: "acme/app"}
	_, masked, _, err := readDoppler(t, source, server, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{{"identity": "identity", "token": "oidc for https://github.com/acme"}}
	if !reflect.DeepEqual(server.logins, want) {
		t.Errorf("logins %v, want %v", server.logins, want)
	}
	if masked["dp.sa.exchanged"] == "" {
		t.Errorf("the token is not masked: %q", masked)
	}
	_, err = DopplerSource{Identity: "identity", Repository: "acme/app"}.login(context.Background())
	if !errors.Is(err, ErrNoIDToken) || !strings.HasPrefix(err.Error(), "input doppler_identity: ") {
		t.Errorf("without OIDC: %v", err)
	}
}

// Doppler's visibility decides which values are masked, except names and URLs that appear in logs and outputs.
func TestDopplerMasksByVisibility(t *testing.T) {
	server := startDoppler(t, map[string]string{
		"DAYTONA_SNAPSHOT_NAME_HISTORY": "[{}]",
		"DAYTONA_SNAPSHOT_NAME":         "sandbox-1", "VITE_DAYTONA_SNAPSHOT_NAME": "sandbox-1", "DEPOT_PROJECT_ID": "project",
		"DAYTONA_API_URL": "https://daytona.example", "DAYTONA_ORG_ID": "org-1", "DAYTONA_ORGANIZATION_ID": "org-2",
		"DOPPLER_PROJECT": "app", "DOPPLER_ENVIRONMENT": "development", "DOPPLER_CONFIG": "dev", "FLAG": "true", "BIT": "0",
		"NAME": "in doppler_secret", "WORD": "unmasked", "COPY": "unmasked", "MODE": "development",
		"PASSWORD": "correct horse", "SNAPSHOT_NAME": "hidden", "SHORT": "word", "ROOT": "restricted",
		"REPOSITORY": "shop", "BRANCH": "main", "OWNER": "acme",
	}, "WORD", "unmasked", "ROOT", "restricted", "OWNER", "restricted")
	source := DopplerSource{Config: "dev", Token: "token", Public: []string{"NAME"}, Repository: "acme/shop"}
	_, masked, _, err := readDoppler(t, source, server, map[string]string{"GITHUB_REF_NAME": "main"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"token": "the Doppler token", "correct horse": "the Doppler secret PASSWORD",
		"hidden": "the Doppler secret SNAPSHOT_NAME", "word": "the Doppler secret SHORT",
		"restricted": "the Doppler secret ROOT", "acme": "the Doppler secret OWNER",
	}
	if !maps.Equal(masked, want) {
		t.Errorf("masked %v, want %v", masked, want)
	}
}

// Doppler withholds restricted secrets from a user's token. They are not empty secrets.
func TestDopplerWithheldSecrets(t *testing.T) {
	server := startDoppler(t, map[string]string{"A": "a", "KEY": ""}, "KEY", "restricted")
	config, _, log, err := readDoppler(t, DopplerSource{Config: "dev", Token: "dp.ct.x"}, server, nil)
	if _, found := config.Secrets["KEY"]; err != nil || found || !strings.Contains(log, "restricted secrets KEY ") {
		t.Errorf("secrets %v, %v, log %q", config.Secrets, err, log)
	}
}

// The values that `doppler run` sets are used, and masked, except those that it does not set.
func TestDopplerRun(t *testing.T) {
	stored := map[string]string{
		"DOPPLER_PROJECT": "app", "DOPPLER_ENVIRONMENT": "prd", "DOPPLER_CONFIG": "prd", "KEY": "stored", "GONE": "kept",
		"HOME": "secret home",
	}
	environ := map[string]string{
		"DOPPLER_PROJECT": "app", "DOPPLER_ENVIRONMENT": "prd", "DOPPLER_CONFIG": "prd", "KEY": "injected",
		"HOME": t.TempDir(),
	}
	source := DopplerSource{Default: "dev", Token: "token", Project: "app"}
	for _, test := range []struct{ config, key string }{{"", "injected"}, {"dev", "stored"}} {
		source.Config = test.config
		stored["DOPPLER_CONFIG"] = cmp.Or(test.config, "prd")
		config, masked, _, err := readDoppler(t, source, startDoppler(t, stored), environ)
		if err != nil || config.Secrets["KEY"] != test.key || config.Secrets["GONE"] != "kept" ||
			config.Secrets["HOME"] != "secret home" {
			t.Errorf("config %q: %v, %v", test.config, config.Secrets, err)
		}
		if masked["stored"] == "" || masked[test.key] == "" {
			t.Errorf("config %q: masked %v", test.config, masked)
		}
	}
}

func TestDopplerSecrets(t *testing.T) {
	config := Doppler{Secrets: map[string]string{
		"A": "doppler", "EMPTY": "", "DAYTONA_API_KEY": "k",
		"DEPOT_TOKEN": "d", "DEPOT_API_TOKEN": "d", "DEPOT_JIT_TOKEN": "d", "DEPOT_CACHE_TOKEN": "d",
	}}
	getenv := config.Over(func(name string) string { return "env " + name })
	if getenv("A") != "doppler" || getenv("EMPTY") != "env EMPTY" || getenv("B") != "env B" {
		t.Errorf("got %s, %s, %s", getenv("A"), getenv("EMPTY"), getenv("B"))
	}
	if got, want := config.BuildSecrets(), map[string]string{"A": "doppler", "EMPTY": ""}; !reflect.DeepEqual(got, want) {
		t.Errorf("build secrets %v, want %v", got, want)
	}
	if got := (Doppler{}).Over(func(string) string { return "env" })("A"); got != "env" {
		t.Errorf("without a config: %s", got)
	}
}

package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// dopplerServer is a stand-in for Doppler's API with one config. It records requests.
type dopplerServer struct {
	*httptest.Server
	tokens   []string // tokens that were used to read the config
	projects []string
	logins   []map[string]string // bodies of exchanged OIDC tokens
}

func startDoppler(t *testing.T, secrets map[string]string) *dopplerServer {
	t.Helper()
	s := &dopplerServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v3/configs/config/secrets/download", func(w http.ResponseWriter, r *http.Request) {
		s.tokens = append(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		s.projects = append(s.projects, r.URL.Query().Get("project"))
		_ = json.NewEncoder(w).Encode(secrets)
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

// fakeCLI puts a doppler command in PATH that prints settings like `doppler configure get`.
func fakeCLI(t *testing.T, settings map[string]string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$1 $2 $3\" in\n"
	for name, value := range settings {
		script += "'configure get " + name + "') echo " + value + " ;;\n"
	}
	script += "*) exit 1 ;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "doppler"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestReadDoppler(t *testing.T) {
	for _, test := range []struct {
		name    string
		source  DopplerSource
		environ map[string]string
		cli     map[string]string
		token   string // that reads the config; "" if none is read
		project string
		err     error
	}{
		{name: "no config", environ: map[string]string{"DOPPLER_TOKEN": "env"}},
		{name: "input", source: DopplerSource{Config: "dev", Token: "input", Project: "p"},
			environ: map[string]string{
				"DOPPLER_TOKEN": "env",
			}, cli: map[string]string{"token": "cli"}, token: "input", project: "p"},
		{name: "environment", source: DopplerSource{Config: "dev"},
			environ: map[string]string{"DOPPLER_TOKEN": "env"}, cli: map[string]string{
				"token": "cli", "project": "cli-p",
			}, token: "env"},
		{name: "CLI at a terminal", source: DopplerSource{Config: "dev"},
			cli: map[string]string{"token": "cli", "project": "cli-p"}, token: "cli", project: "cli-p"},
		{name: "CLI with the input's project", source: DopplerSource{Config: "dev", Project: "p"},
			cli: map[string]string{"token": "cli", "project": "cli-p"}, token: "cli", project: "p"},
		{name: "no CLI in GitHub Actions", source: DopplerSource{Config: "dev", InActions: true},
			cli: map[string]string{"token": "cli"}, err: ErrNoDopplerToken},
		{name: "identity before DOPPLER_TOKEN", source: DopplerSource{Config: "dev", Identity: "id", Repository: "acme/app"},
			environ: map[string]string{"DOPPLER_TOKEN": "env"}, token: "dp.sa.exchanged"},
		{name: "no token", source: DopplerSource{Config: "dev"}, err: ErrNoDopplerToken},
		{name: "no token, optional", source: DopplerSource{Config: "dev", Optional: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := startDoppler(t, map[string]string{"A": "value of A"})
			fakeCLI(t, test.cli)
			var masked []string
			source := test.source
			source.Dir, source.OIDC = t.TempDir(), startOIDC(t)
			source.Mask = func(secret string) { masked = append(masked, secret) }
			source.Getenv = func(name string) string {
				if name == "DOPPLER_API_HOST" {
					return server.URL
				}
				return test.environ[name]
			}
			config, err := ReadDoppler(t.Context(), source)
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if test.token == "" {
				if config.Client != nil || config.Secrets != nil || len(server.tokens) > 0 {
					t.Errorf("read %v with %q, want nothing", config.Secrets, server.tokens)
				}
				return
			}
			if !slices.Equal(server.tokens, []string{test.token}) || !slices.Equal(server.projects, []string{test.project}) {
				t.Errorf(
					"read with the tokens %q and projects %q, want %q, %q", server.tokens, server.projects, test.token, test.project,
				)
			}
			if !slices.Contains(masked, test.token) || config.Secrets["A"] != "value of A" || config.Client == nil {
				t.Errorf("masked %q, secrets %v", masked, config.Secrets)
			}
		})
	}
}

func TestDopplerIdentityAudience(t *testing.T) {
	server := startDoppler(t, nil)
	var masked []string
	_, err := ReadDoppler(t.Context(), DopplerSource{
		Config: "dev", Identity: "identity", Repository: "acme/app", OIDC: startOIDC(t),
		Mask:   func(secret string) { masked = append(masked, secret) },
		Getenv: func(name string) string { return map[string]string{"DOPPLER_API_HOST": server.URL}[name] },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{{"identity": "identity", "token": "oidc for https://github.com/acme"}}
	if !reflect.DeepEqual(server.logins, want) {
		t.Errorf("logins %v, want %v", server.logins, want)
	}
	if !slices.Contains(masked, "dp.sa.exchanged") {
		t.Errorf("the token is not masked: %q", masked)
	}
	_, err = DopplerSource{Identity: "identity", Repository: "acme/app"}.login(context.Background())
	if !errors.Is(err, ErrNoIDToken) || !strings.HasPrefix(err.Error(), "input doppler_identity: ") {
		t.Errorf("without OIDC: %v", err)
	}
}

// Names and URLs that appear in logs and outputs are not masked; other values are.
func TestDopplerMasksSecretsOnly(t *testing.T) {
	public := map[string]string{
		"DAYTONA_SNAPSHOT_NAME": "sandbox-1", "VITE_DAYTONA_SNAPSHOT_NAME": "sandbox-1", "DEPOT_PROJECT_ID": "project",
		"DAYTONA_API_URL": "https://daytona.example", "DAYTONA_ORG_ID": "org-1", "DAYTONA_ORGANIZATION_ID": "org-2",
		"DOPPLER_PROJECT": "app", "DOPPLER_ENVIRONMENT": "development", "DOPPLER_CONFIG": "dev", "FLAG": "true", "BIT": "0",
	}
	secret := map[string]string{"PASSWORD": "correct horse", "SNAPSHOT_NAME": "hidden"}
	all := maps.Clone(public)
	maps.Copy(all, secret)
	server := startDoppler(t, all)
	var masked []string
	_, err := ReadDoppler(t.Context(), DopplerSource{
		Config: "dev", Token: "token", Mask: func(secret string) { masked = append(masked, secret) },
		Getenv: func(name string) string { return map[string]string{"DOPPLER_API_HOST": server.URL}[name] },
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(masked)
	if want := []string{"correct horse", "hidden", "token"}; !slices.Equal(masked, want) {
		t.Errorf("masked %q, want %q", masked, want)
	}
}

func TestDopplerSecrets(t *testing.T) {
	config := Doppler{Secrets: map[string]string{"A": "doppler", "EMPTY": "", "DEPOT_TOKEN": "d", "DAYTONA_API_KEY": "k"}}
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

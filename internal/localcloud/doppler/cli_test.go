package doppler

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	readToken  = "dp.st.dev.read"
	writeToken = "dp.st.dev.write"
	prdToken   = "dp.st.prd.write"
	cliToken   = "dp.ct.everything"
)

// options returns two projects and a token of each kind.
func options() Options {
	return Options{
		Projects: []Project{
			{Name: "sandbox", Configs: []Config{
				{Name: "dev", Secrets: map[string]string{
					"PLAIN": "one", "QUOTED": "a \"b\" $c `d`\n#e", "REFERENCE": "<${PLAIN}>",
					"CHAIN":   "${REFERENCE}${prd.PLAIN}${other.dev.PLAIN}",
					"NOWHERE": "${ABSENT}", "CIRCLE": "${CIRCLE}", "PER_CONFIG": "${DOPPLER_CONFIG}",
				}},
				{Name: "dev_personal", Secrets: map[string]string{"PLAIN": "mine"}},
				{Name: "prd", Secrets: map[string]string{"PLAIN": "two"}},
			}},
			{Name: "other", Configs: []Config{{Name: "dev", Secrets: map[string]string{"PLAIN": "three"}}}},
		},
		Tokens: []Token{
			{Value: readToken, Access: []Access{{Project: "sandbox", Config: "dev"}}},
			{Value: writeToken, Access: []Access{{Project: "sandbox", Config: "dev", Write: true}}},
			{Value: prdToken, Access: []Access{{Project: "sandbox", Config: "prd", Write: true}}},
			{
				Value: "dp.st.dev.expired", Access: []Access{{Project: "sandbox", Config: "dev"}},
				Expires: time.Now().Add(-time.Second),
			},
			{Value: cliToken, Access: []Access{{Project: "sandbox", Write: true}, {Project: "other", Write: true}}},
			{
				Value:  "dp.sa.sandbox",
				Access: []Access{{Project: "sandbox", Config: "dev"}, {Project: "sandbox", Config: "prd", Write: true}},
			},
		},
	}
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The real Doppler CLI works with the stand-in and prints its errors.
func TestCLI(t *testing.T) {
	for _, test := range []struct {
		name, token, arguments string
		ok                     bool
		output                 string // standard output
		message                string // part of standard error
		fault                  Fault
		dev                    string // the value of SET in the config dev afterwards
	}{
		{name: "get", token: readToken, arguments: "secrets get PLAIN --plain", ok: true, output: "one"},
		{
			name: "get a chain of references", token: readToken, arguments: "secrets get CHAIN --plain", ok: true,
			output: "<one>twothree",
		},
		{name: "get raw", token: readToken, arguments: "secrets get REFERENCE --plain --raw", ok: true, output: "<${PLAIN}>"},
		{
			name: "get two", token: readToken, arguments: "secrets get PLAIN DOPPLER_CONFIG --plain", ok: true,
			output: "one\ndev",
		},
		{
			name: "get from another config", token: cliToken, arguments: "secrets get PLAIN --plain -p sandbox -c prd", ok: true,
			output: "two",
		},
		{
			name: "get from a branch config", token: cliToken,
			arguments: "secrets get PLAIN REFERENCE PER_CONFIG --plain -p sandbox -c dev_personal", ok: true,
			output: "mine\n<mine>\ndev_personal",
		},
		{
			name: "get an unknown secret", token: readToken, arguments: "secrets get ABSENT --plain",
			message: "Could not find requested secret: ABSENT",
		},
		{
			name: "names", token: prdToken, arguments: "secrets --only-names --json", ok: true,
			output: `{"DOPPLER_CONFIG":{},"DOPPLER_ENVIRONMENT":{},"DOPPLER_PROJECT":{},"PLAIN":{}}`,
		},
		{name: "set", token: writeToken, arguments: "secrets set SET=new --silent", ok: true, dev: "new"},
		{
			name: "set two", token: writeToken, arguments: "secrets set SET=new OTHER=${SET} --json", ok: true,
			output: `{"OTHER":{"computed":"new","computedVisibility":"masked","note":""},` +
				`"SET":{"computed":"new","computedVisibility":"masked","note":""}}`, dev: "new",
		},
		{
			name: "set a reference", token: writeToken, arguments: "secrets set SET=${PLAIN} --silent", ok: true,
			dev: "${PLAIN}",
		},
		{
			name: "set with an account's token", token: cliToken, arguments: "secrets set SET=new --silent -p sandbox -c dev",
			ok: true, dev: "new",
		},
		{
			name: "set with a read-only token", token: readToken, arguments: "secrets set SET=new",
			message: "You do not have write access to this config's secrets.",
		},
		{
			name: "set an invalid name", token: writeToken, arguments: "secrets set bad-name=new",
			message: "Secret names must only contain",
		},
		{name: "set a reserved name", token: writeToken, arguments: "secrets set DOPPLER_CONFIG=new", message: "reserved"},
		{name: "delete", token: writeToken, arguments: "secrets delete PLAIN -y --silent", ok: true},
		{
			name: "download json", token: prdToken, arguments: "secrets download --no-file --format json", ok: true,
			output: `{"DOPPLER_CONFIG":"prd","DOPPLER_ENVIRONMENT":"prd","DOPPLER_PROJECT":"sandbox","PLAIN":"two"}`,
		},
		{
			name: "download env", token: prdToken, arguments: "secrets download --no-file --format env", ok: true,
			output: "DOPPLER_CONFIG=\"prd\"\nDOPPLER_ENVIRONMENT=\"prd\"\nDOPPLER_PROJECT=\"sandbox\"\nPLAIN=\"two\"",
		},
		{
			name: "download yaml", token: prdToken, arguments: "secrets download --no-file --format yaml", ok: true,
			output: "DOPPLER_CONFIG: prd\nDOPPLER_ENVIRONMENT: prd\nDOPPLER_PROJECT: sandbox\nPLAIN: two",
		},
		{
			name: "download docker", token: prdToken, arguments: "secrets download --no-file --format docker", ok: true,
			output: "DOPPLER_CONFIG=prd\nDOPPLER_ENVIRONMENT=prd\nDOPPLER_PROJECT=sandbox\nPLAIN=two",
		},
		{
			name: "run", token: readToken, arguments: "run -- printenv QUOTED REFERENCE DOPPLER_CONFIG", ok: true,
			output: "a \"b\" $c `d`\n#e\n<one>\ndev",
		},
		{name: "run returns the exit code", token: readToken, arguments: "run -- false"},
		{
			name: "run with another config", token: readToken, arguments: "run -p sandbox -c prd -- true",
			message: "This token does not have access to requested config 'prd'",
		},
		{
			name: "projects", token: readToken, arguments: "projects --json", ok: true,
			output: `[{"id":"sandbox","name":"sandbox","description":"","created_at":"2024-01-01T00:00:00.000Z"}]`,
		},
		{
			name: "me", token: readToken, arguments: "me --json", ok: true,
			output: `{"workplace":{"name":"Local cloud","slug":"local"},"type":"service_token",` +
				`"token_preview":"dp.st.…ead","slug":"local","created_at":"2024-01-01T00:00:00.000Z",` +
				`"name":"local","last_seen_at":"2024-01-01T00:00:00.000Z"}`,
		},
		{
			name: "unknown config", token: cliToken, arguments: "secrets get PLAIN -p sandbox -c absent",
			message: "Could not find requested config 'absent'",
		},
		{
			name: "unknown project", token: cliToken, arguments: "secrets get PLAIN -p absent -c dev",
			message: "Could not find requested project 'absent'",
		},
		{
			name: "another project", token: readToken, arguments: "secrets get PLAIN -p other -c dev",
			message: "This token does not have access to requested project 'other'",
		},
		{name: "no project", token: cliToken, arguments: "secrets get PLAIN", message: "You must specify a project"},
		{name: "invalid token", token: "dp.st.dev.unknown", arguments: "secrets get PLAIN", message: "Invalid Auth token"},
		{name: "expired token", token: "dp.st.dev.expired", arguments: "secrets get PLAIN", message: "Invalid Auth token"},
		{
			name: "429 once", token: readToken, arguments: "secrets get PLAIN --plain", ok: true, output: "one",
			fault: Fault{Status: 429, Times: 1, Header: map[string]string{"Retry-After": "1"}},
		},
		{
			name: "server error", token: readToken, arguments: "secrets get PLAIN", message: "Internal Server Error",
			fault: Fault{Status: 500},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options())
			if test.fault.Status != 0 {
				s.Fail(test.fault)
			}
			command := cli(t, s, t.TempDir(), test.token, test.arguments)
			var stdout, stderr bytes.Buffer
			command.Stdout, command.Stderr = &stdout, &stderr
			err := command.Run()
			if got := strings.TrimRight(stdout.String(), "\n"); (err == nil) != test.ok || got != test.output ||
				!strings.Contains(stderr.String(), test.message) {
				t.Errorf(
					"%v, want success: %v; stdout\n%s\nwant\n%s\nstderr, which must contain %q\n%s",
					err,
					test.ok,
					got,
					test.output,
					test.message,
					&stderr,
				)
			}
			if got := s.Secret("sandbox", "dev", "SET"); got != test.dev {
				t.Errorf("SET is %q, want %q", got, test.dev)
			}
			if len(s.Requests()) == 0 {
				t.Error("the CLI sent no request")
			}
		})
	}
}

// Restricted secrets, and those that refer to them, are withheld from a user's token.
func TestCLIVisibility(t *testing.T) {
	o := options()
	o.Projects = []Project{{Name: "sandbox", Configs: []Config{{
		Name: "dev", Secrets: map[string]string{"WORD": "json", "ROOT": "r00t", "LINK": "<${ROOT}>"},
		Visibility: map[string]Visibility{"WORD": Unmasked, "ROOT": Restricted},
	}}}}
	for _, test := range []struct{ token, arguments, want string }{
		{readToken, "secrets get WORD ROOT LINK --plain", "json\nr00t\n<r00t>\n"},
		{cliToken, "secrets get WORD --json -p sandbox -c dev", `{"WORD":{"computed":"json","computedVisibility":` +
			`"unmasked","note":""}}` + "\n"},
		{cliToken, "secrets get LINK --json -p sandbox -c dev", `{"LINK":{"computed":null,"computedVisibility":` +
			`"restricted","note":""}}` + "\n"},
		{cliToken, "secrets download --no-file --format env-no-quotes -p sandbox -c dev",
			"DOPPLER_CONFIG=dev\nDOPPLER_ENVIRONMENT=dev\nDOPPLER_PROJECT=sandbox\nWORD=json\n\n"},
	} {
		out, err := cli(t, start(t, o), t.TempDir(), test.token, test.arguments).CombinedOutput()
		if err != nil || string(out) != test.want {
			t.Errorf("%s: %v, got %s, want %s", test.arguments, err, out, test.want)
		}
	}
}

// The CLI revalidates its cache with the ETag.
func TestCLICache(t *testing.T) {
	s, home := start(t, options()), t.TempDir()
	for _, want := range []struct {
		plain  string
		status int
	}{{"one", 200}, {"one", 304}, {"changed", 200}} {
		if want.plain == "changed" {
			s.SetSecret("sandbox", "dev", "PLAIN", "changed")
		}
		out, err := cli(t, s, home, readToken, "run -- printenv PLAIN").Output()
		if err != nil || string(out) != want.plain+"\n" {
			t.Errorf("%q, %v; want %q", out, err, want.plain)
		}
		requests := s.Requests()
		if last := requests[len(requests)-1]; last.Status != want.status {
			t.Errorf("status %d, want %d", last.Status, want.status)
		}
	}
}

// cli returns a command that runs the Doppler CLI against the stand-in, with its files below home. It skips the test
// under -short.
func cli(t *testing.T, s *Server, home, token, arguments string) *exec.Cmd {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the Doppler CLI; run without -short")
	}
	program, err := filepath.Abs("../../../.cache/bin/doppler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("the Doppler CLI is missing: %v (run scripts/setup.sh test)", err)
	}
	dir := filepath.Join(home, ".doppler")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// The CLI sends analytics to Doppler even if the API host is another one.
	config := filepath.Join(dir, ".doppler.yaml")
	if err := os.WriteFile(config, []byte("analytics:\n  disable: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--api-host", s.URL(), "--no-check-version"}
	command := exec.CommandContext(t.Context(), program, append(flags, strings.Fields(arguments)...)...)
	command.WaitDelay = time.Second
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "DOPPLER_TOKEN=" + token}
	return command
}

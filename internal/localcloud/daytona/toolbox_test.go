package daytona

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// serve is a program that answers one HTTP request after another.
const serve = `use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1);
$| = 1; print "listening\n"; while ($c = $s->accept) { <$c>; print $c "HTTP/1.0 200 OK\r\n\r\nhello"; close $c }`

// startBox starts a sandbox of an image with the client of the programs.
func startBox(t *testing.T, s *Server, name string, config v1.Config) (*daytona.Client, daytona.Sandbox, error) {
	t.Helper()
	img, err := mutate.Config(debian(t), config)
	if err != nil {
		t.Fatal(err)
	}
	if got := process(t, s, name, push(t, s, "app:"+name, img)); got.State != api.SNAPSHOTSTATE_ACTIVE {
		t.Fatal(got.GetErrorReason())
	}
	c := &daytona.Client{URL: s.URL(), Key: "dtn_boxes"}
	box, err := c.CreateSandbox(t.Context(), daytona.SandboxRequest{Snapshot: name, Labels: map[string]string{"of": name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.DeleteSandbox(context.WithoutCancel(t.Context()), box.ID); err != nil {
			t.Error(err)
		}
	})
	box, err = c.WaitUntilStarted(t.Context(), box.ID)
	return c, box, err
}

func TestToolbox(t *testing.T) {
	docker := withEngine(t)
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.Engine = docker
	})
	c, box, err := startBox(t, s, "serve", v1.Config{
		Entrypoint: []string{"perl", "-e", serve}, User: "nobody", Env: []string{"HOME=/tmp", "IMAGE=set"},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.ListSandboxes(t.Context(), map[string]string{"of": "serve"})
	if err != nil || len(list) != 1 || list[0].ID != box.ID {
		t.Errorf("got %v, %v, want %s", list, err, box.ID)
	}
	t.Run("commands", func(t *testing.T) { testCommands(t, c, box) })
	t.Run("files", func(t *testing.T) { testFiles(t, c, box) })
	t.Run("entry point and preview", func(t *testing.T) { testPreview(t, c, box) })
}

func testCommands(t *testing.T, c *daytona.Client, box daytona.Sandbox) {
	for _, test := range []struct {
		name    string
		command daytona.Command
		exit    int
		output  string
	}{
		{"streams in order", daytona.Command{Line: "echo a; echo b >&2; echo c; exit 5"}, 5, "a\nb\nc\n"},
		{"user and directory of the image", daytona.Command{Line: `echo "$(id -un) $PWD $IMAGE"`}, 0, "nobody /tmp set\n"},
		{"environment and directory", daytona.Command{
			Line: `echo "$A $PWD"`, Dir: "/etc", Env: map[string]string{"A": "b c"},
		}, 0, "b c /etc\n"},
		{"missing directory", daytona.Command{Line: "true", Dir: "/none"}, -1, "chdir /none: no such file or directory"},
		{"missing program", daytona.Command{Line: "nope"}, 127, "/usr/bin/bash: line 1: nope: command not found\n"},
		{"several lines", daytona.Command{Line: "A=1\nif true; then\necho \"$A\"\nfi"}, 0, "1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := c.Execute(t.Context(), box, test.command)
			if want := (daytona.CommandResult{ExitCode: test.exit, Output: test.output}); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
	_, err := c.Execute(t.Context(), box, daytona.Command{Line: "sleep 60", Timeout: time.Second})
	if !errors.Is(err, daytona.ErrCommandTimeout) {
		t.Errorf("got %v, want a timeout", err)
	}
}

func testFiles(t *testing.T, c *daytona.Client, box daytona.Sandbox) {
	ctx := t.Context()
	const content = "\x00binary\xff\n"
	if err := c.Upload(ctx, box, "/tmp/new/dir/f%20 é", []byte(content)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Download(ctx, box, "/tmp/new/dir/f%20 é"); err != nil || string(got) != content {
		t.Errorf("got %q, %v", got, err)
	}
	for file, want := range map[string]daytona.FileInfo{
		"/etc/shadow": {Name: "shadow", Mode: "-rw-r-----", Permissions: "0640", Owner: "0", Group: "42"},
		"/bin":        {Name: "bin", Mode: "drwxr-xr-x", Permissions: "0755", Owner: "0", Group: "0", IsDir: true},
		"/tmp":        {Name: "tmp", Mode: "dtrwxrwxrwx", Permissions: "0777", Owner: "0", Group: "0", IsDir: true},
	} {
		got, found, err := c.FileInfo(ctx, box, file)
		if got.ModifiedAt.IsZero() {
			t.Errorf("%s: no time", file)
		}
		got.ModifiedAt, got.Size = time.Time{}, 0
		if err != nil || !found || got != want {
			t.Errorf("%s: got %+v, %v, %v, want %+v", file, got, found, err, want)
		}
	}
	if _, found, err := c.FileInfo(ctx, box, "/none"); found || err != nil {
		t.Error(found, err)
	}
	for file, status := range map[string]int{
		"/none": http.StatusNotFound, "/etc/shadow": http.StatusForbidden, "/tmp": http.StatusBadRequest,
	} {
		if _, err := c.Download(ctx, box, file); httpclient.Status(err) != status {
			t.Errorf("%s: got %v, want status %d", file, err, status)
		}
	}
	if err := c.Upload(ctx, box, "/etc/x", nil); httpclient.Status(err) != http.StatusBadRequest {
		t.Errorf("got %v for a directory without write permission", err)
	}
}

func testPreview(t *testing.T, c *daytona.Client, box daytona.Sandbox) {
	ctx := t.Context()
	state, found, err := c.Entrypoint(ctx, box)
	if err != nil || !found || !state.Running {
		t.Fatalf("got %+v, %v, %v, want a running entry point", state, found, err)
	}
	for log := ""; log != "listening\n"; {
		if log, err = c.EntrypointLog(ctx, box); err != nil || len(log) > len("listening\n") {
			t.Fatalf("got %q, %v", log, err)
		}
	}
	masked := ""
	c.Mask = func(secret string) { masked = secret }
	preview, err := c.PreviewURL(ctx, box, 8080)
	if err != nil || masked != preview.Token {
		t.Fatalf("got %v, %v", preview, err)
	}
	for _, authorized := range []bool{false, true} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, preview.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		want, status := "", http.StatusTemporaryRedirect
		if authorized {
			preview.Authorize(request)
			want, status = "hello", http.StatusOK
		}
		r, err := httpclient.Config{}.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != status || !strings.Contains(string(body), want) {
			t.Errorf("authorized: %v: got %d, %q, %v", authorized, r.StatusCode, body, err)
		}
	}
}

// The daemon does not start if the image's user has no home directory that it can write.
func TestSandboxWithoutHome(t *testing.T) {
	docker := withEngine(t)
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.Engine, o.StartTimeout = docker, time.Millisecond
	})
	_, _, err := startBox(t, s, "homeless", v1.Config{User: "4321"})
	failed := (*daytona.SandboxError)(nil)
	if !errors.As(err, &failed) || failed.Sandbox.Reason != "timeout waiting for daemon to start" {
		t.Errorf("got %v", err)
	}
}

// An idle sandbox is stopped, or deleted if it is ephemeral. Requests to its toolbox are activity.
func TestAutoStop(t *testing.T) {
	now := time.Now()
	s := startCloud(t, func(o *Options) {
		withSandboxKey(o)
		o.Cron, o.Clock, o.Simulation = -1, func() time.Time { return now }, &Simulation{}
	})
	s.Put(Snapshot{Organization: "org-1", Name: "app", Digest: "sha256:" + strings.Repeat("a", 64)})
	ids := map[string]string{}
	for name, want := range map[string]struct {
		stop, remove int
	}{"kept": {5, -1}, "ephemeral": {5, 0}, "active": {5, 0}, "endless": {0, 0}} {
		ids[name] = s.PutSandbox(Sandbox{Organization: "org-1", Name: name, Snapshot: "app"})
		box := s.sandboxes[len(s.sandboxes)-1]
		box.autoStop, box.autoDelete = float64(want.stop), float64(want.remove)
	}
	now = now.Add(4 * time.Minute)
	sendRequest(t, s, "dtn_boxes", "POST", "/toolbox/"+ids["active"]+"/process/execute", `{"command":"true"}`)
	now = now.Add(2 * time.Minute)
	s.Tick()
	for name, want := range map[string]string{"kept": "stopped", "active": "started", "endless": "started"} {
		if _, box := exchange(t, s, "GET", "/sandbox/"+name, ""); box["state"] != want {
			t.Errorf("%s: %v, want %s", name, box, want)
		}
	}
	if status, body := exchange(t, s, "GET", "/sandbox/"+ids["ephemeral"], ""); status != http.StatusNotFound {
		t.Error(status, body)
	}
}

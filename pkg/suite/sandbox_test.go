package suite

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/engine"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// sandboxes is the local cloud's Daytona, with a client.
type sandboxes struct {
	*cloud.Server
	client *daytona.Client
}

func startSandboxes(t *testing.T) sandboxes {
	t.Helper()
	r, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop() })
	s, err := cloud.Start(t.Context(), cloud.Options{
		Registry: r, Engine: fleet(t)[engine.Current].Host,
		Organizations: []cloud.Organization{{
			ID: "o", Regions: []cloud.Region{{ID: "us"}}, Keys: []cloud.Key{{Value: "dtn_k", Permissions: []string{
				cloud.WriteSnapshots, cloud.WriteSandboxes, cloud.DeleteSandboxes,
			}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return sandboxes{s, &daytona.Client{
		URL: s.URL(), Key: "dtn_k", Timing: daytona.Timing{MinPoll: 20 * time.Millisecond, MaxPoll: 100 * time.Millisecond},
		HTTP: httpclient.Config{Policy: httpclient.Policy{MaxBody: 32 << 20, MinWait: time.Millisecond}},
	}}
}

// target creates a snapshot of an image and returns the target of its sandboxes.
func (s sandboxes) target(t *testing.T, img v1.Image) Target {
	t.Helper()
	ctx := t.Context()
	access, err := s.client.PushAccess(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(access.Registry + "/" + access.Project + "/image:" + rand.Text())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx), remote.WithAuth(&authn.Basic{
		Username: access.User, Password: access.Secret,
	})); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	name := "s-" + digest.Hex[:8]
	snapshot, err := s.client.Create(ctx, daytona.Request{Name: name, Image: ref.Name()})
	if err == nil {
		_, err = s.client.WaitUntilActive(ctx, snapshot.ID, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return InSandboxes(s.client, daytona.SandboxRequest{Snapshot: name}, config.Config)
}

// checkRemoved checks that no sandboxes of tests remain.
func (s sandboxes) checkRemoved(t *testing.T) {
	t.Helper()
	s.Tick()
	left, err := s.client.ListSandboxes(context.WithoutCancel(t.Context()), nil)
	if err != nil || len(left) > 0 {
		t.Errorf("remaining sandboxes: %v, %v", left, err)
	}
}

// The tests for engines have the same results in sandboxes, except those that are listed here.
func TestSandboxes(t *testing.T) {
	s := startSandboxes(t)
	target := s.target(t, debian)
	unsupported := func(reason string) want { return want{Skipped, "not supported in a Daytona sandbox: " + reason} }
	for _, test := range []struct {
		name    string
		cases   func(*testing.T) (*Suite, map[string]want)
		differs map[string]want
	}{
		{"commands", commandCases, map[string]want{
			"no network": {Failed, `must not match "eth0"`}, // docs/suite.md
			"tty":        unsupported("tty"), "fixture": unsupported("mounts"), "limits": unsupported("limits"),
		}},
		{"programs that cannot start", startCases, nil},
		{"services", serviceCases, map[string]want{
			"everything":  unsupported("requests with the header Host"),
			"own command": {Failed, "does not match"}, // the first process is Daytona's
		}},
		{"misbehaving commands", misbehavingCases, map[string]want{
			"too many processes": unsupported("limits"), "enough processes": unsupported("limits"),
			"out of memory": unsupported("limits"), "kills the session": {Failed, "the shell that runs it was killed"},
		}},
		{"sessions", sessionCases, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			suite, wants := test.cases(t)
			all := map[string]want{}
			maps.Copy(all, wants)
			maps.Copy(all, test.differs)
			r, err := Run(t.Context(), suite, Options{Image: debian, Target: target, Parallel: 4, Log: t.Output()})
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, all)
			s.checkRemoved(t)
		})
	}
}

// The files of a sandbox are those of the image. Those that the image's user cannot read are not known.
func TestSandboxFiles(t *testing.T) {
	s := startSandboxes(t)
	tests := parse(t, `
tests:
  - {name: content, files: [{path: /etc/passwd, mode: "0644", owner: 'root:root', content: '(?m)^root:x:0:0:'}]}
  - {name: two contents, files: [{path: '/etc/{issue,debian_version}', content: '^[^\x00]+$', count: 2}]}
  - {name: empty, files: [{path: /etc/.pwd.lock, having: [empty], count: {max: 1}, content: ^$, mode: "0600"}]}
  - {name: other content, files: [{path: /etc/passwd, content: nothing}]}
  - {name: links, files: [{path: /bin/sh, target: dash}, {path: '/usr/bin/pager', follow: true, type: file}]}
  - name: linked directory
    files: [{path: /bin, type: symlink}, {path: '/bin/*', having: [executable], count: {min: 100}}]
  - {name: setuid, files: [{path: /usr/bin/passwd, mode: "4755", executable_by: others}]}
  - {name: sticky, files: [{path: /tmp, mode: "1777", type: directory}]}
  - {name: size, files: [{path: /service, size: {min: 1MB}, executable_by: any}]}
  - {name: absent, files: [{path: /no/such, absent: true}, {path: '/usr/**/*.no-such', absent: true}]}
  - {name: not absent, files: [{path: '/etc/pass*', absent: true}]}
  - {name: "daemon's files", files: [{path: '/**/.daytona', absent: true}]}
  - {name: mounted files, files: [{path: '/etc/resolv.conf', count: {max: 0}}]}
  - {name: directory of root, files: [{path: /root/.bashrc, content: bash}]}
  - {name: shadow, files: [{path: /etc/shadow, content: '(?m)^root:'}]}
  - {name: everything, files: [{path: '/**', having: [file], count: {min: 1000}}]}
  - {name: layers, image: {max_layers: 2, platform: linux/amd64, workdir: /tmp}}
  - {name: too many layers, image: {max_layers: 1}}
  - {name: size of the image, image: {max_size: 1GB}}
  - {name: size and layers, image: {max_size: 1GB, max_layers: 1}}
`[1:], nil)
	wants := map[string]want{
		"other content":     {Failed, `does not match "nothing"`},
		"not absent":        {Failed, "must be absent: /etc/passwd"},
		"too many layers":   {Failed, "image has 2 layers"},
		"size and layers":   {Failed, "image has 2 layers"},
		"size of the image": {Skipped, "max_size"},
	}
	for _, test := range []struct {
		user    string
		differs map[string]want
	}{
		{"", nil},
		{"www-data", map[string]want{
			"directory of root": {Skipped, `the image's user cannot read "/root"`},
			"shadow":            {Skipped, `the image's user cannot read "/etc/shadow"`},
			"everything":        {Skipped, `the image's user cannot read "/`},
			"empty":             {Skipped, `the image's user cannot read "/etc/.pwd.lock"`},
			"daemon's files":    {Skipped, "cannot read"},
		}},
	} {
		t.Run("user "+test.user, func(t *testing.T) {
			config, err := debian.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			set := config.Config
			set.User = test.user
			set.Env = append(set.Env, "HOME=/tmp")
			img, err := mutate.Config(debian, set)
			if err != nil {
				t.Fatal(err)
			}
			target := s.target(t, img)
			if config, err = img.ConfigFile(); err != nil {
				t.Fatal(err)
			}
			r, err := Run(t.Context(), tests, Options{Config: config, Target: target, Log: t.Output()})
			if err != nil {
				t.Fatal(err)
			}
			all := maps.Clone(wants)
			maps.Copy(all, test.differs)
			check(t, r, all)
			s.checkRemoved(t)
		})
	}
}

// What only sandboxes, or their client, can do differently.
func TestSandboxCases(t *testing.T) {
	s := startSandboxes(t)
	tests := parse(t, `
tests:
  - name: bytes that are not UTF-8
    run: printf 'a\377\200b\n'; printf '\376' >&2
    stdout: {golden: bytes}
    stderr: {exclude: [a]}
  - {name: streams, run: 'printf out; printf err >&2', stdout: {equals: out}, stderr: {equals: err}}
  - {name: long output, run: head -c 300000 /dev/zero, stdout: '^\x00{300}'}
  - {name: no input, run: cat, stdout: {equals: ""}}
  - {name: quotes, run: [printf, '%s|', "it's", '$HOME', '', "a\nb", '\'], stdout: {equals: "it's|$HOME||a\nb|\\|"}}
  - {name: variables, env: {A: "it's\n$x", a.b-c: d}, run: [env], stdout: {include: ["A=it's\n\\$x\n", a.b-c=d]}}
  - {name: path, env: {PATH: /usr/sbin}, run: [sh], exit: 127}
  - {name: signal, run: 'kill -SEGV $$', exit: 139}
  - {name: interrupt, run: 'kill -INT $$', exit: 130}
  - {name: user of a name, user: 'www-data', run: 'id -Gn; echo $HOME', stdout: {equals: "www-data\n/var/www\n"}}
  - {name: user and group, user: 'www-data:backup', run: id -Gn, stdout: {equals: "backup\n"}}
  - {name: unknown user, user: nobody-else, run: id}
  - {name: unknown group, user: 'root:no-group', run: id}
  - {name: privileged, privileges: all, run: id}
  - {name: explicit network, network: none, run: id}
  - {name: background process, run: 'sleep 100 & echo started', stdout: {equals: "started\n"}}
  - name: service
    env: {MODE: tested}
    service:
      ready: {healthy: true, port: 8080, http: {port: 8080, path: /health}, log: listening, within: 30s}
      steps:
        - http:
            port: 8080
            path: /health?a=b
            headers: {X-Version: '7', X-No: null, Access-Control-Allow-Origin: null}
            body: {equals: '{"status":"ok","mode":"tested"}'}
        - http: {port: 8080, path: /moved, status: 302, headers: {Location: {matches: health$}}}
        - http: {port: 8080, path: /echo, method: POST, request: {X-Ask: it}, body: ^POST it}
        - run: [/service, health]
        - run: id -u
          stdout: ^0
        - restart: true
        - http: {port: 8080, path: /health}
        - logs: {stdout: '(?s)listening.*ending.*listening'}
        - stop: {exit: 0, within: 5s}
        - logs: {stdout: {include: ['ending\n$']}, stderr: {equals: ""}}
  - {name: refused, service: {ready: {log: listening}, steps: [{http: {port: 81}}]}}
  - {name: interrupted service, service: {ready: {log: listening}, steps: [{stop: {signal: INT, exit: 130}}]}}
  - {name: service of an unknown user, user: nobody-else, service: {ready: {port: 8080}}}
`[1:], map[string]string{"bytes": "a\xff\x80b\n"})
	r, err := Run(t.Context(), tests, Options{Image: debian, Target: s.target(t, debian), Parallel: 4, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	unsupported := func(reason string) want { return want{Skipped, "not supported in a Daytona sandbox: " + reason} }
	check(t, r, map[string]want{
		"unknown user":     {Failed, `user "nobody-else" not found`},
		"unknown group":    {Failed, `user "root:no-group" not found`},
		"privileged":       unsupported("privileges: all"),
		"explicit network": unsupported("network: none"),
		"refused":          {Failed, "connection refused"},

		"service of an unknown user": {Failed, `user "nobody-else" not found`},
	})
	s.checkRemoved(t)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Lost and failed requests do not run a command twice.
func TestSandboxFaults(t *testing.T) {
	s := startSandboxes(t)
	target := s.target(t, debian)
	once := parse(t, `
tests:
  - {name: once, session: s, run: 'echo x >> /tmp/runs; cat /tmp/runs', stdout: {equals: "x\n"}}
  - name: service
    service:
      ready: {http: {port: 8080, path: /health}}
      steps: [{stop: true}, {logs: {stdout: "^listening on 8080\nending\n$"}}]
`[1:], nil)
	for _, test := range []struct {
		name   string
		faults []cloud.Fault
	}{
		{"server error", []cloud.Fault{{Method: "POST", Path: "/process/execute", Status: 500, Times: 1}}},
		{"lost connection", []cloud.Fault{{Method: "POST", Path: "/process/execute", Hangup: true, Times: 1}}},
		{"creation", []cloud.Fault{{Method: "POST", Path: "/api/sandbox", Status: 503, ReplaceResponse: true, Times: 1}}},
		{"quota", []cloud.Fault{{
			Method: "POST", Path: "/api/sandbox", Status: 400, Message: "Total CPU limit exceeded. Maximum allowed: 4.",
			Times: 1,
		}}},
		{"deletion", []cloud.Fault{{Method: "DELETE", Path: "/api/sandbox/", Status: 500, Times: 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, f := range test.faults {
				s.Fail(f)
			}
			defer s.ClearFaults()
			r, err := Run(t.Context(), once, Options{Image: debian, Target: target, Parallel: 1, Log: t.Output()})
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, nil)
			s.checkRemoved(t)
		})
	}
	t.Run("lost responses", func(t *testing.T) {
		var lost atomic.Int32
		s.client.HTTP.Base = roundTripper(func(r *http.Request) (*http.Response, error) {
			var body []byte
			if r.Body != nil {
				var err error
				if body, err = io.ReadAll(r.Body); err != nil {
					return nil, err
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			response, err := http.DefaultTransport.RoundTrip(r)
			if bytes.Contains(body, []byte("/tmp/runs")) && lost.Add(1) <= 2 && err == nil {
				return nil, errors.Join(io.ErrUnexpectedEOF, response.Body.Close())
			}
			return response, err
		})
		defer func() { s.client.HTTP.Base = nil }()
		r, err := Run(t.Context(), once, Options{Image: debian, Target: target, Parallel: 1, Log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, nil)
		if n := lost.Load(); n != 3 {
			t.Errorf("%d requests for the command, want 3", n)
		}
		s.checkRemoved(t)
	})
	t.Run("lost sandbox", func(t *testing.T) {
		lost := parse(t, `
tests:
  - {name: lost, session: s, run: 'touch /tmp/started; sleep 100'}
  - {name: next, session: s, run: 'test ! -e /tmp/started'}
`[1:], nil)
		go s.onStarted(t, func(box daytona.Sandbox) {
			if err := s.client.DeleteSandbox(t.Context(), box.ID); err != nil {
				t.Error(err)
			}
		})
		r, err := Run(t.Context(), lost, Options{Image: debian, Target: target, Log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		check(t, r, map[string]want{"lost": {Failed, "sandbox"}})
		s.checkRemoved(t)
	})
	t.Run("cancel", func(t *testing.T) {
		canceled := errors.New("workflow canceled")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		go s.onStarted(t, func(daytona.Sandbox) { cancel(canceled) })
		long := parse(t, "tests: [{name: a, run: 'touch /tmp/started; sleep 100'}, {name: b, run: sleep 100}]", nil)
		r, err := Run(ctx, long, Options{Image: debian, Target: target, Parallel: 2})
		if !errors.Is(err, canceled) || r.Skipped != 2 {
			t.Error(r.Line(), err)
		}
		s.checkRemoved(t)
	})
}

// onStarted calls do with the sandbox in which a command has created /tmp/started.
func (s sandboxes) onStarted(t *testing.T, do func(daytona.Sandbox)) {
	for t.Context().Err() == nil {
		boxes, err := s.client.ListSandboxes(t.Context(), nil)
		if err != nil {
			continue
		}
		for _, box := range boxes {
			if _, found, err := s.client.FileInfo(t.Context(), box, "/tmp/started"); err == nil && found {
				do(box)
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

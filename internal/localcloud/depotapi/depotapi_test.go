package depotapi

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	content "github.com/containerd/containerd/api/services/content/v1"
	depot "github.com/depot/depot-go/build"
	"github.com/depot/depot-go/machine"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/depot/depot-go/proto/depot/cli/v1/cliv1connect"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// start starts a server with two projects: "sandbox", which trusts org/sandbox-actions, and "other".
func start(t *testing.T, o Options) *Server {
	t.Helper()
	o.Projects = []Project{
		{ID: "sandbox", Tokens: []string{"project-token"}, Trust: []string{"org/sandbox-actions"}},
		{ID: "other", Tokens: []string{"other-token"}},
	}
	o.OrganizationTokens, o.UserTokens = []string{"organization-token"}, []string{"user-token"}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("DEPOT_API_URL", s.URL())
	t.Setenv("TMPDIR", t.TempDir()) // for the keys of depot-go
	return s
}

// startWithMachines starts a server with daemons for these platforms.
func startWithMachines(t *testing.T, platforms ...string) (*Server, *builders.Builders) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BuildKit daemons; run without -short")
	}
	b, err := builders.Start(t.Context(), builders.Options{Dir: t.TempDir(), Platforms: platforms})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return start(t, Options{Machines: b}), b
}

func createBuild(t *testing.T, token string, options ...*cliv1.BuildOptions) depot.Build {
	t.Helper()
	b, err := depot.NewBuild(t.Context(), &cliv1.CreateBuildRequest{ProjectId: "sandbox", Options: options}, token)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// service returns a client that sends a token with every call.
func service(s *Server, token string) cliv1connect.BuildServiceClient {
	return cliv1connect.NewBuildServiceClient(http.DefaultClient, s.URL(), withToken(token))
}

func withToken(token string) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			if token != "" {
				request.Header().Set("Authorization", "Bearer "+token)
			}
			return next(ctx, request)
		}
	}))
}

func code(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}

func TestDepotGo(t *testing.T) {
	s, direct := startWithMachines(t, "linux/amd64", "linux/arm64")
	b := createBuild(t, "project-token")
	machines := map[string]*machine.Machine{}
	for _, platform := range []string{"amd64", "arm64"} {
		m, err := machine.Acquire(t.Context(), b.ID, b.Token, platform)
		if err != nil {
			t.Fatal(err)
		}
		machines[platform] = m
		bk, err := m.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		digest := solve(t, bk)
		raw, err := client.New(t.Context(), direct.Address("linux/"+platform))
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if _, err := raw.ContentClient().Info(t.Context(), &content.InfoRequest{Digest: digest}); err != nil {
			t.Errorf("%s: image %s is not in the daemon: %v", platform, digest, err)
		}
		if err := m.Release(); err != nil {
			t.Error(err)
		}
	}
	b.Finish(nil)

	for platform, m := range machines {
		late := &machine.Machine{Addr: m.Addr, ServerName: m.ServerName, CACert: m.CACert, Cert: m.Cert, Key: m.Key}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := late.CheckReady(ctx); err == nil {
			t.Errorf("%s: the machine still answers after Finish", platform)
		}
	}

	got := map[string]int{}
	for _, c := range s.Calls() {
		if c.Status != http.StatusOK || c.HTTP != "HTTP/1.1" || c.Project != "sandbox" || c.BuildID != b.ID ||
			c.Time.IsZero() {
			t.Errorf("unexpected call %+v", c)
		}
		got[strings.TrimSpace(fmt.Sprintf("%s %s %s %s%s", c.Method, c.Token, c.Platform, c.State, c.Result))]++
	}
	for _, want := range []string{
		"CreateBuild project",
		"GetBuildKitConnection build linux/amd64 pending",
		"GetBuildKitConnection build linux/amd64 active",
		"GetBuildKitConnection build linux/arm64 pending",
		"GetBuildKitConnection build linux/arm64 active",
		"FinishBuild build  success",
	} {
		if got[want] != 1 {
			t.Errorf("%d calls %q, want 1; all: %v", got[want], want, got)
		}
	}
	if got["ReportBuildHealth build linux/amd64"] == 0 || got["ReportBuildHealth build linux/arm64"] == 0 {
		t.Errorf("no health reports: %v", got)
	}
}

func TestTokens(t *testing.T) {
	issuer, otherIssuer := startIssuer(t), startIssuer(t)
	s := start(t, Options{Issuer: issuer.url})
	trusted := map[string]any{"repository": "org/sandbox-actions"}
	expired := time.Now().Add(-time.Minute).Unix()
	notYet := time.Now().Add(time.Hour).Unix()
	with := func(name string, value any) map[string]any {
		return map[string]any{"repository": "org/sandbox-actions", name: value}
	}
	for _, test := range []struct {
		name, token, project string
		want                 string
		kind                 TokenKind
	}{
		{"no token", "", "sandbox", "unauthenticated", ""},
		{"unknown token", "unknown-token", "sandbox", "unauthenticated", ""},
		{"project token", "project-token", "sandbox", "ok", ProjectToken},
		{"project token without project", "project-token", "", "ok", ProjectToken},
		{"project token, other project", "project-token", "other", "permission_denied", ProjectToken},
		{"project token, unknown project", "project-token", "absent", "not_found", ProjectToken},
		{"organization token", "organization-token", "sandbox", "ok", OrganizationToken},
		{"organization token, other project", "organization-token", "other", "ok", OrganizationToken},
		{"organization token, unknown project", "organization-token", "absent", "not_found", OrganizationToken},
		{"organization token without project", "organization-token", "", "invalid_argument", OrganizationToken},
		{"user token", "user-token", "sandbox", "ok", UserToken},
		{"OIDC", issuer.token(t, trusted), "sandbox", "ok", OIDCToken},
		{"OIDC, other case", issuer.token(t, with("repository", "Org/Sandbox-Actions")), "sandbox", "ok", OIDCToken},
		{"OIDC, project without trust", issuer.token(t, trusted), "other", "permission_denied", OIDCToken},
		{"OIDC, unknown project", issuer.token(t, trusted), "absent", "not_found", OIDCToken},
		{
			"OIDC, another repository", issuer.token(t, with("repository", "org/other")), "sandbox",
			"permission_denied", OIDCToken,
		},
		{"OIDC, no repository", issuer.token(t, with("repository", "")), "sandbox", "unauthenticated", ""},
		{"OIDC, expired", issuer.token(t, with("exp", expired)), "sandbox", "unauthenticated", ""},
		{"OIDC, not valid yet", issuer.token(t, with("nbf", notYet)), "sandbox", "unauthenticated", ""},
		{"OIDC, another audience", issuer.token(t, with("aud", "https://github.com/org")), "sandbox", "unauthenticated", ""},
		{"OIDC, another issuer", otherIssuer.token(t, trusted), "sandbox", "unauthenticated", ""},
		{"OIDC, claims another issuer", otherIssuer.token(t, with("iss", issuer.url)), "sandbox", "unauthenticated", ""},
		{"OIDC, tampered", tamper(issuer.token(t, trusted)), "sandbox", "unauthenticated", ""},
		{"OIDC, unsigned", unsigned(issuer.url), "sandbox", "unauthenticated", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := service(s, test.token).CreateBuild(t.Context(),
				connect.NewRequest(&cliv1.CreateBuildRequest{ProjectId: test.project}))
			if got := code(err); got != test.want {
				t.Errorf("got %s (%v), want %s", got, err, test.want)
			}
			calls := s.Calls()
			if got := calls[len(calls)-1].Token; got != test.kind {
				t.Errorf("recorded as a %q token, want %q", got, test.kind)
			}
		})
	}
}

func TestBuildTokensAreForOneBuild(t *testing.T) {
	s, _ := startWithMachines(t, "linux/amd64")
	running, other := createBuild(t, "project-token"), createBuild(t, "project-token")
	finished := createBuild(t, "project-token")
	finished.Finish(errors.New("exit code: 2"))
	const amd64, arm64 = cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64, cliv1.BuilderPlatform_BUILDER_PLATFORM_ARM64
	for _, test := range []struct {
		name, build, token string
		platform           cliv1.BuilderPlatform
		want, finish       string
	}{
		{"unknown build", "absent", running.Token, amd64, "not_found", "not_found"},
		{"finished build", finished.ID, finished.Token, amd64, "failed_precondition", "failed_precondition"},
		{"another build's token", running.ID, other.Token, amd64, "permission_denied", "permission_denied"},
		{"the project's token", running.ID, "project-token", amd64, "permission_denied", "permission_denied"},
		{"no token", running.ID, "", amd64, "unauthenticated", "unauthenticated"},
		{"unknown platform", other.ID, other.Token, 7, "invalid_argument", "ok"},
		{"platform without machine", running.ID, running.Token, arm64, "invalid_argument", "ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := service(s, test.token)
			connection := connect.NewRequest(&cliv1.GetBuildKitConnectionRequest{BuildId: test.build, Platform: test.platform})
			response, err := client.GetBuildKitConnection(t.Context(), connection)
			if err == nil && response.Msg.GetPending() != nil {
				_, err = client.GetBuildKitConnection(t.Context(), connection)
			}
			if got := code(err); got != test.want {
				t.Errorf("connection: %s (%v), want %s", got, err, test.want)
			}
			_, err = client.FinishBuild(t.Context(), connect.NewRequest(&cliv1.FinishBuildRequest{BuildId: test.build}))
			if got := code(err); got != test.finish {
				t.Errorf("finish: %s (%v), want %s", got, err, test.finish)
			}
		})
	}
	_, err := service(s, running.Token).CreateBuild(t.Context(), connect.NewRequest(&cliv1.CreateBuildRequest{}))
	if got := code(err); got != "permission_denied" {
		t.Errorf("CreateBuild with a build token: %s", got)
	}
	for _, c := range s.Calls() {
		if c.BuildID == finished.ID && c.Result == "error" && c.ResultError == "exit code: 2" {
			return
		}
	}
	t.Error("the error of the finished build was not recorded")
}

// Past the time in the answer, the build goes on until the client ends it.
func TestCancellation(t *testing.T) {
	cancelsAt := func(s *Server, build depot.Build) time.Time {
		response, err := service(s, build.Token).ReportBuildHealth(t.Context(),
			connect.NewRequest(&cliv1.ReportBuildHealthRequest{
				BuildId: build.ID, Platform: cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64,
			}))
		if err != nil {
			t.Fatal(err)
		}
		if response.Msg.CancelsAt == nil {
			return time.Time{}
		}
		return response.Msg.CancelsAt.AsTime()
	}
	s := start(t, Options{})
	build := createBuild(t, "project-token")
	if at := cancelsAt(s, build); !at.IsZero() {
		t.Errorf("a build without a limit is canceled at %s", at)
	}
	s.Cancel(build.ID)
	if at := cancelsAt(s, build); at.IsZero() || at.After(time.Now()) {
		t.Errorf("a canceled build is canceled at %s", at)
	}
	limited := start(t, Options{Limit: time.Hour})
	build = createBuild(t, "project-token")
	if left := time.Until(cancelsAt(limited, build)); left <= 0 || left > time.Hour {
		t.Errorf("a build with a limit of an hour is canceled in %s", left)
	}
}

func TestBothHTTPVersions(t *testing.T) {
	s := start(t, Options{})
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(version == "HTTP/1.1")
		protocols.SetUnencryptedHTTP2(version == "HTTP/2.0")
		for name, protocol := range map[string]connect.ClientOption{
			"connect": connect.WithClientOptions(), "connect JSON": connect.WithProtoJSON(), "gRPC-Web": connect.WithGRPCWeb(),
		} {
			client := cliv1connect.NewBuildServiceClient(
				&http.Client{Transport: &http.Transport{Protocols: protocols}}, s.URL(), withToken("project-token"), protocol)
			response, err := client.CreateBuild(t.Context(), connect.NewRequest(&cliv1.CreateBuildRequest{ProjectId: "sandbox"}))
			if err != nil {
				t.Fatalf("%s, %s: %v", version, name, err)
			}
			if m := response.Msg; m.ProjectId != "sandbox" ||
				!strings.HasSuffix(m.BuildUrl, "/projects/sandbox/builds/"+m.BuildId) {
				t.Errorf("%s, %s: %v", version, name, m)
			}
			calls := s.Calls()
			if got := calls[len(calls)-1].HTTP; got != version {
				t.Errorf("%s was recorded as %s", version, got)
			}
		}
	}
}

func TestSaveAndPull(t *testing.T) {
	s := start(t, Options{Registry: Registry{
		Host: "127.0.0.1:5000",
		Credential: func(project string, push bool) (string, error) {
			return fmt.Sprintf("%s push=%v", project, push), nil
		},
	}})
	plain := createBuild(t, "project-token", &cliv1.BuildOptions{})
	if m := plain.Response.Msg; len(m.AdditionalTags) != 1 || len(m.AdditionalCredentials) != 1 {
		t.Errorf("build without save: %v", m)
	}

	options := &cliv1.BuildOptions{Save: true}
	unknown := protowire.AppendTag(nil, 8, protowire.VarintType)
	unknown = protowire.AppendVarint(unknown, 1)
	for _, tag := range []string{"latest", "v1", "latest"} {
		unknown = protowire.AppendTag(unknown, 9, protowire.BytesType)
		unknown = protowire.AppendString(unknown, tag)
	}
	options.ProtoReflect().SetUnknown(unknown)
	saved := createBuild(t, "project-token", options)
	var tags []string
	for _, tag := range saved.Response.Msg.AdditionalTags {
		if tags = append(tags, tag.Tag); tag.Push {
			t.Errorf("%s is to be pushed, without push in the request", tag.Tag)
		}
	}
	const repository = "127.0.0.1:5000/sandbox:"
	if got, want := strings.Join(tags, " "), repository+saved.ID+" "+repository+"latest "+repository+"v1"; got != want {
		t.Errorf("tags %s, want %s", got, want)
	}
	credential := saved.Response.Msg.AdditionalCredentials[0]
	auth, err := base64.StdEncoding.DecodeString(credential.Token)
	if err != nil || credential.Host != "127.0.0.1:5000" || string(auth) != "x-token:sandbox push=true" {
		t.Errorf("credential %v: %q, %v", credential, auth, err)
	}

	for _, test := range []struct {
		method, token string
		request, want fields
		code          string
	}{
		{"GetPullToken", "project-token", fields{"project_id": "sandbox"}, fields{"token": "sandbox push=false"}, "ok"},
		{
			"GetPullToken", "project-token", fields{"project_id": "sandbox", "build_id": saved.ID},
			fields{"token": "sandbox push=false"}, "ok",
		},
		{"GetPullToken", saved.Token, fields{"build_id": saved.ID}, fields{"token": "sandbox push=false"}, "ok"},
		{"GetPullToken", plain.Token, fields{"build_id": saved.ID}, nil, "permission_denied"},
		{"GetPullToken", "other-token", fields{"build_id": saved.ID}, nil, "permission_denied"},
		{"GetPullToken", "other-token", fields{"project_id": "other", "build_id": saved.ID}, nil, "not_found"},
		{"GetPullToken", "project-token", fields{"project_id": "absent"}, nil, "not_found"},
		{"GetPullToken", "", fields{"project_id": "sandbox"}, nil, "unauthenticated"},
		{
			"GetPullInfo", "project-token", fields{"build_id": saved.ID},
			fields{"reference": repository + saved.ID, "username": "x-token", "password": "sandbox push=false"}, "ok",
		},
		{
			"GetPullInfo", "project-token", fields{"build_id": plain.ID},
			fields{"reference": repository + plain.ID, "username": "x-token", "password": "sandbox push=false"}, "ok",
		},
		{"GetPullInfo", "project-token", fields{"build_id": "absent"}, nil, "not_found"},
		{
			"GetBuild", "user-token", fields{"build_id": saved.ID},
			fields{"build_id": saved.ID, "project_id": "sandbox", "build_url": saved.BuildURL}, "ok",
		},
		{"GetBuild", "user-token", fields{}, nil, "invalid_argument"},
	} {
		got, err := pull(t, s, test.method, test.token, test.request)
		options, _ := got["options"].(protoreflect.List)
		if isSaved := test.request.text("build_id") == saved.ID; test.method == "GetPullInfo" && err == nil {
			save := options.Get(0).Message().Descriptor().Fields().ByName("save")
			if options.Get(0).Message().Get(save).Bool() != isSaved {
				t.Errorf("%v: options %v", test.request, options)
			}
		}
		delete(got, "options")
		if code(err) != test.code || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s %v: %v, %s (%v); want %v, %s", test.method, test.request, got, code(err), err, test.want, test.code)
		}
	}
}

func pull(t *testing.T, s *Server, method, token string, request fields) (fields, error) {
	m := pullMethods.ByName(protoreflect.Name(method))
	client := connect.NewClient[dynamicpb.Message, dynamicpb.Message](http.DefaultClient,
		s.URL()+"/depot.cli.v1.BuildService/"+method, withToken(token), connect.WithSchema(m),
		connect.WithResponseInitializer(func(_ connect.Spec, message any) error {
			*message.(*dynamicpb.Message) = *dynamicpb.NewMessage(m.Output())
			return nil
		}))
	response, err := client.CallUnary(t.Context(), connect.NewRequest(write(m.Input(), request)))
	if err != nil {
		return nil, err
	}
	return read(response.Msg), nil
}

func TestForkChallenge(t *testing.T) {
	shown := map[string]bool{}
	s := start(t, Options{LogInterval: time.Nanosecond, FindInLog: func(code string) bool { return shown[code] }})
	post := func(url, body string) (int, string) {
		t.Helper()
		response, err := http.Post(url, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(data)
	}
	claim := func(aud, event, repo, run, attempt string) string {
		data, _ := json.Marshal(map[string]string{
			"aud": aud, "eventName": event, "repo": repo, "runID": run, "attempt": attempt,
		})
		return string(data)
	}
	if status, body := post(s.ClaimURL(), "not JSON"); status != 500 || !strings.Contains(body, `"error":`) {
		t.Errorf("not JSON: %d %s", status, body)
	}
	for _, invalid := range []string{
		claim(Audience, "push", "org/sandbox-actions", "1", "1"),
		claim(Audience, "pull_request", "sandbox-actions", "1", "1"),
		claim(Audience, "pull_request", "org/sandbox-actions", "", "1"),
		claim(Audience, "pull_request", "org/sandbox-actions", "one", "1"),
		claim(Audience, "pull_request", "org/sandbox-actions", "1", ""),
	} {
		if status, body := post(s.ClaimURL(), invalid); status != 400 || !strings.Contains(body, `"error":`) {
			t.Errorf("%s: %d %s", invalid, status, body)
		}
	}
	for _, test := range []struct{ aud, repository, want string }{
		{Audience, "org/sandbox-actions", "ok"},
		{Audience, "org/other", "permission_denied"},
		{"https://github.com", "org/sandbox-actions", "unauthenticated"},
	} {
		var challenge struct{ ChallengeCode, ExchangeURL string }
		for _, isShown := range []bool{false, true} {
			status, body := post(s.ClaimURL(), claim(test.aud, "pull_request", test.repository, "1", "2"))
			if err := json.Unmarshal([]byte(body), &challenge); status != 200 || err != nil || challenge.ChallengeCode == "" {
				t.Fatalf("claim: %d %s", status, body)
			}
			if shown[challenge.ChallengeCode] = isShown; isShown {
				break
			}
			for _, want := range []string{"no validated jobs", "challenge already used or not found"} {
				shown[challenge.ChallengeCode] = want != "no validated jobs" // too late
				if status, body := post(challenge.ExchangeURL, ""); status != 500 || !strings.Contains(body, want) {
					t.Errorf("code that is not in the log: %d %s, want %s", status, body, want)
				}
			}
		}
		status, token := post(challenge.ExchangeURL, "")
		if status != 200 {
			t.Fatalf("exchange: %d %s", status, token)
		}
		if status, body := post(challenge.ExchangeURL, ""); status != 500 {
			t.Errorf("second exchange: %d %s", status, body)
		}
		_, err := service(s, token).CreateBuild(t.Context(),
			connect.NewRequest(&cliv1.CreateBuildRequest{ProjectId: "sandbox"}))
		if got := code(err); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
	if status, _ := post(s.URL()+exchangePath+"unknown", ""); status != 500 {
		t.Errorf("unknown challenge: %d", status)
	}
}

func TestFaults(t *testing.T) {
	s := start(t, Options{})
	closed := make(chan struct{})
	close(closed)
	for _, test := range []struct {
		name  string
		fault Fault
		want  []string // of consecutive calls of CreateBuild
	}{
		{"none", Fault{Method: "FinishBuild", Code: connect.CodeInternal}, []string{"ok"}},
		{
			"429 twice", Fault{Times: 2, Code: connect.CodeResourceExhausted, Message: "slow down"},
			[]string{"resource_exhausted", "resource_exhausted", "ok"},
		},
		{
			"503", Fault{Method: "CreateBuild", Code: connect.CodeUnavailable},
			[]string{"unavailable", "unavailable", "unavailable"},
		},
		{"proxy error page", Fault{Times: 1, Status: 502, Body: "<html>"}, []string{"unavailable", "ok"}},
		{"garbage", Fault{Times: 1, Status: 200, Body: "\x00garbage"}, []string{"internal", "ok"}},
		{"no response", Fault{Times: 1, NoResponse: true}, []string{"deadline_exceeded", "ok"}},
		{"delay", Fault{Times: 1, Delay: 20 * time.Millisecond}, []string{"ok"}},
		{"held", Fault{Times: 1, Hold: make(chan struct{})}, []string{"deadline_exceeded", "ok"}},
		{"hold released", Fault{Times: 1, Hold: closed}, []string{"ok"}},
		{"hangup", Fault{Times: 1, Hangup: true}, []string{"unavailable", "ok"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			defer s.ClearFaults()
			s.Fail(test.fault)
			for i, want := range test.want {
				ctx := t.Context()
				if want == "deadline_exceeded" {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
					defer cancel()
				}
				_, err := service(s, "project-token").CreateBuild(ctx, connect.NewRequest(&cliv1.CreateBuildRequest{}))
				if got := code(err); got != want {
					t.Errorf("call %d: %s (%v), want %s", i+1, got, err, want)
				}
			}
		})
	}
}

func TestMachineFaults(t *testing.T) {
	s, _ := startWithMachines(t, "linux/amd64")
	for _, fault := range []MachineFault{
		NeverActive, Unreachable, ClientRejected, UntrustedServer, MalformedKey, InvalidAddress,
	} {
		s.ClearFaults()
		s.Fail(Fault{Method: "GetBuildKitConnection", Machine: fault})
		b := createBuild(t, "project-token")
		if fault == NeverActive { // depot-go's Acquire would send health reports forever
			for range 5 {
				response, err := service(s, b.Token).GetBuildKitConnection(t.Context(),
					connect.NewRequest(&cliv1.GetBuildKitConnectionRequest{
						BuildId: b.ID, Platform: cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64,
					}))
				if err != nil || response.Msg.GetPending().GetWaitMs() != 20 {
					t.Errorf("%s: %v, %v", fault, response, err)
				}
			}
			continue
		}
		m, err := machine.Acquire(t.Context(), b.ID, b.Token, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := m.CheckReady(ctx); err == nil {
			t.Errorf("%s: the machine answers", fault)
		}
		if err := m.Release(); err != nil {
			t.Error(err)
		}
		b.Finish(context.Canceled)
	}
}

func TestFaultHeaders(t *testing.T) {
	s := start(t, Options{})
	s.Fail(Fault{Code: connect.CodeResourceExhausted, Message: "slow down", Header: map[string]string{"Retry-After": "7"}})
	_, err := service(s, "project-token").CreateBuild(t.Context(), connect.NewRequest(&cliv1.CreateBuildRequest{}))
	if refused := new(connect.Error); !errors.As(err, &refused) || refused.Meta().Get("Retry-After") != "7" {
		t.Errorf("got %v", err)
	}
}

func TestMachineWithoutCertificates(t *testing.T) {
	s, _ := startWithMachines(t, "linux/amd64")
	s.Fail(Fault{Method: "GetBuildKitConnection", Machine: NoCertificates})
	b := createBuild(t, "project-token")
	defer b.Finish(nil)
	request := connect.NewRequest(
		&cliv1.GetBuildKitConnectionRequest{BuildId: b.ID, Platform: cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64},
	)
	for {
		response, err := service(s, b.Token).GetBuildKitConnection(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if response.Msg.GetPending() != nil {
			continue
		}
		if active := response.Msg.GetActive(); active.GetEndpoint() == "" || active.Cert != nil || active.CaCert != nil {
			t.Errorf("got %v", active)
		}
		return
	}
}

// issuer is an OIDC issuer with a generated key.
type issuer struct {
	url string
	key *rsa.PrivateKey
}

func startIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	answer := func(path string, body any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(body) })
	}
	answer("/.well-known/openid-configuration", map[string]any{
		"issuer": server.URL, "jwks_uri": server.URL + "/jwks", "id_token_signing_alg_values_supported": []string{"RS256"},
	})
	answer(
		"/jwks",
		jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}},
	)
	return &issuer{url: server.URL, key: key}
}

// token returns a signed token. claims override the claims of a valid token.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: i.key, KeyID: "1"}},
		nil,
	)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": i.url, "aud": Audience, "sub": "repo:org/sandbox-actions:ref:refs/heads/main",
		"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
	}).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// tamper changes the subject of a token without signing it again.
func tamper(token string) string {
	parts := strings.Split(token, ".")
	claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
	claims = []byte(strings.Replace(string(claims), `"sub":"repo:org`, `"sub":"repo:own`, 1))
	parts[1] = base64.RawURLEncoding.EncodeToString(claims)
	return strings.Join(parts, ".")
}

func unsigned(issuer string) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims := fmt.Appendf(nil, `{"iss":%q,"aud":%q,"exp":%d,"repository":"org/sandbox-actions"}`,
		issuer, Audience, time.Now().Add(time.Hour).Unix())
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(claims) + "."
}

// solve builds an image with one file and returns its digest.
func solve(t *testing.T, bk *client.Client) string {
	t.Helper()
	dir := t.TempDir()
	dockerfile := []byte("FROM scratch\nCOPY Dockerfile /\n")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), dockerfile, 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	response, err := bk.Solve(t.Context(), nil, client.SolveOpt{
		Frontend:    "dockerfile.v0",
		LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree},
		Exports:     []client.ExportEntry{{Type: client.ExporterImage}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return response.ExporterResponse[exptypes.ExporterImageDigestKey]
}

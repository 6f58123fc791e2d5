package builder

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/cenkalti/backoff/v5"
	"github.com/depot/depot-go/api"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/depot/depot-go/proto/depot/cli/v1/cliv1connect"
	"github.com/moby/buildkit/client"
)

// Depot lends machines for a build.
type Depot struct {
	Project string
	Token   func(context.Context) (string, error)
	Log     func(format string, args ...any) // says what is waited for; may be nil
	Mask    func(secret string)              // called with each secret before its first use; may be nil
}

// platform is Depot's name of a platform.
func platform(name string) (cliv1.BuilderPlatform, error) {
	switch name {
	case "linux/amd64":
		return cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64, nil
	case "linux/arm64":
		return cliv1.BuilderPlatform_BUILDER_PLATFORM_ARM64, nil
	}
	return 0, fmt.Errorf("Depot has no machine for %s: build linux/amd64, linux/arm64 or both", name)
}

const (
	callTimeout  = 20 * time.Second // for one answer of the API
	healthPeriod = 5 * time.Second  // between reports that the build lives; without them Depot takes the machine back
	finishTime   = 4 * time.Second  // for all of Finish
	maxTries     = 5
)

// firstWait is how long the second try waits; it doubles. A variable for tests.
var firstWait = 300 * time.Millisecond

// Start creates a build. Machines are asked for by [Build.Machine].
func (d Depot) Start(ctx context.Context, r Request) (*Build, error) {
	for _, name := range r.Platforms {
		if _, err := platform(name); err != nil {
			return nil, err
		}
	}
	token, err := d.Token(ctx)
	if err != nil {
		return nil, err
	}
	d.mask(token)
	s := &session{Depot: d, service: newService()}
	options := &cliv1.BuildOptions{Command: cliv1.Command_COMMAND_BUILD, Tags: r.Tags, Push: r.Push, Load: r.Load, Save: r.Save}
	options.Outputs = []*cliv1.BuildOutput{{Kind: "image"}}
	request := &cliv1.CreateBuildRequest{ProjectId: d.Project, Options: []*cliv1.BuildOptions{options}}
	created, err := call(ctx, token, request, s.service.CreateBuild, once)
	if err != nil {
		return nil, explain(ctx, "create a build in the project "+d.Project, err)
	}
	if created.BuildId == "" || created.BuildToken == "" {
		return nil, fmt.Errorf("create a build at Depot: the answer of %s names no build: check DEPOT_API_URL", apiURL())
	}
	d.mask(created.BuildToken)
	s.id, s.token = created.BuildId, created.BuildToken
	s.alive, s.end = context.WithCancel(context.WithoutCancel(ctx))
	b := &Build{
		ID: created.BuildId, URL: created.BuildUrl, ProjectID: created.ProjectId,
		machines: map[string]*machine{}, connect: s.connect, finish: s.finish,
	}
	if b.ProjectID == "" {
		b.ProjectID = d.Project
	}
	for _, tag := range created.AdditionalTags {
		if tag.Push {
			b.Tags = append(b.Tags, tag.Tag)
		}
	}
	for _, c := range created.AdditionalCredentials {
		d.mask(c.Token)
		credential := Credential{Host: c.Host, Username: "x-token", Password: c.Token}
		// The token is what Docker's configuration calls auth: user and password in base64.
		if decoded, err := base64.StdEncoding.DecodeString(c.Token); err == nil {
			if user, password, ok := strings.Cut(string(decoded), ":"); ok {
				credential.Username, credential.Password = user, password
				d.mask(password)
			}
		}
		b.Credentials = append(b.Credentials, credential)
	}
	if r.Save {
		b.pull = s.pull(b)
	}
	if r.Save && len(b.Tags) == 0 {
		b.Finish(errors.New("no registry"))
		return nil, fmt.Errorf("input save: Depot named no place in its registry for project %s: check the project's registry settings at Depot", b.ProjectID)
	}
	return b, nil
}

func (d Depot) mask(secret string) {
	if d.Mask != nil && secret != "" {
		d.Mask(secret)
	}
}

func (d Depot) log(format string, args ...any) {
	if d.Log != nil {
		d.Log(format, args...)
	}
}

func apiURL() string {
	if url := os.Getenv("DEPOT_API_URL"); url != "" {
		return strings.TrimSuffix(url, "/")
	}
	return "https://api.depot.dev"
}

func newService() cliv1connect.BuildServiceClient {
	return cliv1connect.NewBuildServiceClient(http.DefaultClient, apiURL(), api.WithUserAgent(), connect.WithReadMaxBytes(4<<20))
}

// session is one build at Depot.
type session struct {
	Depot
	service cliv1connect.BuildServiceClient
	id      string
	token   string
	alive   context.Context // ends with the build, not with who asked for it
	end     context.CancelFunc
	reports sync.WaitGroup
	warned  sync.Once
}

// connect waits for a platform's machine and connects to it.
func (s *session) connect(ctx context.Context, name string) (*client.Client, error) {
	kind, err := platform(name)
	if err != nil {
		return nil, err
	}
	s.reports.Go(func() { s.reportHealth(kind) })
	active, err := s.wait(ctx, name, kind)
	if err != nil {
		return nil, err
	}
	s.mask(active.GetCert().GetKey())
	target := endpoint{addr: active.Endpoint, serverName: active.ServerName}
	if key := active.GetCert().GetKey(); key != "" {
		if err := target.pem(active.GetCaCert().GetCert(), active.GetCert().GetCert(), key); err != nil {
			return nil, fmt.Errorf("the machine for %s: Depot's certificates can not be used: %w", name, err)
		}
	}
	c, _, err := target.connect(ctx, connectPatience)
	if err != nil {
		return nil, fmt.Errorf("the machine for %s at %s: %w", name, strings.TrimPrefix(active.Endpoint, "tcp://"), err)
	}
	return c, nil
}

// wait asks until the machine is there. The log says after 2 seconds, then every 10, that it is waited for.
func (s *session) wait(ctx context.Context, name string, kind cliv1.BuilderPlatform) (*cliv1.GetBuildKitConnectionResponse_ActiveConnection, error) {
	began := time.Now()
	say := began.Add(2 * time.Second)
	request := &cliv1.GetBuildKitConnectionRequest{
		BuildId: s.id, Platform: kind,
		RequiredEngine: &cliv1.GetBuildKitConnectionRequest_RequiredEngine{
			Engine: &cliv1.GetBuildKitConnectionRequest_RequiredEngine_Buildkit{Buildkit: &cliv1.GetBuildKitConnectionRequest_RequiredEngine_BuildKitEngine{}},
		},
	}
	for {
		answer, err := call(ctx, s.token, request, s.service.GetBuildKitConnection, again)
		if err != nil {
			return nil, explain(ctx, "get a machine for "+name, err)
		}
		switch answer := answer.Connection.(type) {
		case *cliv1.GetBuildKitConnectionResponse_Active:
			if waited := time.Since(began); waited > 2*time.Second {
				s.log("The machine for %s is ready after %s", name, waited.Round(time.Second))
			}
			return answer.Active, nil
		case *cliv1.GetBuildKitConnectionResponse_Pending:
			pause := min(max(time.Duration(answer.Pending.WaitMs)*time.Millisecond, 50*time.Millisecond), 10*time.Second)
			if now := time.Now(); now.After(say) {
				s.log("Waiting for a machine for %s: Depot is starting one, for %s now", name, now.Sub(began).Round(time.Second))
				say = now.Add(10 * time.Second)
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		default:
			return nil, fmt.Errorf("get a machine for %s: the answer of %s names neither a machine nor a wait: check DEPOT_API_URL", name, apiURL())
		}
	}
}

// reportHealth tells Depot every few seconds that the build lives, until it ends.
func (s *session) reportHealth(kind cliv1.BuilderPlatform) {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	for {
		ctx, cancel := context.WithTimeout(s.alive, callTimeout)
		request := &cliv1.ReportBuildHealthRequest{BuildId: s.id, Platform: kind}
		_, err := s.service.ReportBuildHealth(ctx, api.WithAuthentication(connect.NewRequest(request), s.token))
		cancel()
		if err != nil && s.alive.Err() == nil {
			s.warned.Do(func() { s.log("Depot did not take a report that the build lives (%s); it goes on", oneLine(err)) })
		}
		select {
		case <-ticker.C:
		case <-s.alive.Done():
			return
		}
	}
}

// finish tells Depot how the build ended.
func (s *session) finish(cause error) {
	s.end()
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	request := &cliv1.FinishBuildRequest{BuildId: s.id}
	switch {
	case cause == nil:
		request.Result = &cliv1.FinishBuildRequest_Success{Success: &cliv1.FinishBuildRequest_BuildSuccess{}}
	case errors.Is(cause, context.Canceled):
		request.Result = &cliv1.FinishBuildRequest_Canceled{Canceled: &cliv1.FinishBuildRequest_BuildCanceled{}}
	default:
		request.Result = &cliv1.FinishBuildRequest_Error{Error: &cliv1.FinishBuildRequest_BuildError{Error: cause.Error()}}
	}
	if _, err := call(ctx, s.token, request, s.service.FinishBuild, again); err != nil {
		s.log("Depot could not be told that build %s is over (%s): it will notice by itself", s.id, oneLine(err))
	}
	s.reports.Wait()
}

// pull asks for a password that pulls what the build keeps. depot-go has no message for this call of the same service.
func (s *session) pull(b *Build) func(context.Context) (Credential, error) {
	return func(ctx context.Context) (Credential, error) {
		body, err := json.Marshal(map[string]string{"projectId": b.ProjectID, "buildId": b.ID})
		if err != nil {
			return Credential{}, err
		}
		type token struct {
			Token string `json:"token"`
		}
		answer, err := retry(ctx, again, func(ctx context.Context) (token, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, apiURL()+"/depot.cli.v1.BuildService/GetPullToken", bytes.NewReader(body))
			if err != nil {
				return token{}, err
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Connect-Protocol-Version", "1")
			request.Header.Set("Authorization", "Bearer "+s.token)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return token{}, connect.NewError(connect.CodeUnavailable, err)
			}
			defer response.Body.Close()
			data, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
			if err != nil {
				return token{}, connect.NewError(connect.CodeUnavailable, err)
			}
			var got token
			if response.StatusCode != http.StatusOK {
				return token{}, connect.NewError(codeOf(response.StatusCode), fmt.Errorf("HTTP status %s", response.Status))
			}
			if err := json.Unmarshal(data, &got); err != nil || got.Token == "" {
				return token{}, connect.NewError(connect.CodeDataLoss, errors.New("the answer holds no token"))
			}
			return got, nil
		})
		if err != nil {
			return Credential{}, explain(ctx, "get a token to pull what was saved", err)
		}
		s.mask(answer.Token)
		host, _, _ := strings.Cut(b.Tags[0], "/")
		return Credential{Host: host, Username: "x-token", Password: answer.Token}, nil
	}
}

func codeOf(status int) connect.Code {
	switch status {
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	}
	if status >= 500 {
		return connect.CodeUnavailable
	}
	return connect.CodeUnknown
}

// Whether a call whose outcome is not known may be made again.
const (
	again = true
	once  = false
)

func call[Q, A any](ctx context.Context, token string, request *Q, method func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), repeatable bool) (*A, error) {
	return retry(ctx, repeatable, func(ctx context.Context) (*A, error) {
		answer, err := method(ctx, api.WithAuthentication(connect.NewRequest(request), token))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	})
}

// retry asks again when the answer may be another one next time: 429, 5xx, a broken connection, and silence if the call may be repeated. A call that may
// not (creating a build twice keeps a machine busy) is repeated only when the server has surely not taken it: it said so, or was never reached.
func retry[A any](ctx context.Context, repeatable bool, ask func(context.Context) (A, error)) (A, error) {
	waits := backoff.NewExponentialBackOff()
	waits.InitialInterval = firstWait
	return backoff.Retry(ctx, func() (A, error) {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		answer, err := ask(limited)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			return answer, backoff.Permanent(err)
		}
		code := connect.CodeOf(err)
		fromServer := connect.IsWireError(err)
		dial := new(net.OpError)
		unreached := errors.As(err, &dial) && dial.Op == "dial"
		switch code {
		case connect.CodeResourceExhausted, connect.CodeUnavailable, connect.CodeInternal, connect.CodeAborted:
			if !repeatable && !fromServer && !unreached {
				return answer, backoff.Permanent(err)
			}
		case connect.CodeDeadlineExceeded:
			if !repeatable {
				return answer, backoff.Permanent(err)
			}
		case connect.CodeUnknown: // an answer that is not the API's, such as a proxy's error page
			if !repeatable && !strings.Contains(err.Error(), "HTTP status 5") {
				return answer, backoff.Permanent(err)
			}
		default:
			return answer, backoff.Permanent(err)
		}
		if wire := new(connect.Error); errors.As(err, &wire) {
			if seconds, e := strconv.Atoi(wire.Meta().Get("Retry-After")); e == nil && seconds > 0 && seconds <= 60 {
				return answer, errors.Join(err, backoff.RetryAfter(seconds))
			}
		}
		return answer, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(maxTries))
}

// explain turns Depot's answer into one sentence.
func explain(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	said := oneLine(err)
	if wire := new(connect.Error); errors.As(err, &wire) {
		said = strings.Join(strings.Fields(wire.Message()), " ")
	}
	say := func(format string, args ...any) error {
		return &apiError{sentence: doing + ": " + fmt.Sprintf(format, args...), err: err}
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		return say("Depot does not accept the token (%s): give a depot_token or DEPOT_TOKEN that has not expired, or none to enter with GitHub OIDC", said)
	case connect.CodePermissionDenied:
		return say("Depot does not trust the caller (%s): add the repository to the project's trust relationships at https://depot.dev, or give a token of that project", said)
	case connect.CodeNotFound:
		return say("Depot does not find it (%s): check the project's id in depot.json, DEPOT_PROJECT_ID or depot_project", said)
	case connect.CodeResourceExhausted:
		return say("Depot asks to slow down (429), after %d tries (%s): try again in a few minutes, or look at the organization's limits", maxTries, said)
	case connect.CodeUnavailable:
		if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" {
			return say("Depot's API at %s can not be reached (%s): check the network and DEPOT_API_URL", apiURL(), said)
		}
		return say("Depot's API at %s is not available, after %d tries (%s): try again later (https://status.depot.dev)", apiURL(), maxTries, said)
	case connect.CodeInternal, connect.CodeAborted:
		return say("Depot's API at %s failed, after %d tries (%s): try again later (https://status.depot.dev)", apiURL(), maxTries, said)
	case connect.CodeDeadlineExceeded:
		return say("Depot's API at %s did not answer within %s: check the network, and https://status.depot.dev", apiURL(), callTimeout)
	case connect.CodeUnknown, connect.CodeUnimplemented, connect.CodeDataLoss:
		return say("Depot's API at %s gave an answer that is none of its own (%s): check DEPOT_API_URL and what stands between", apiURL(), said)
	}
	return say("Depot answered: %s", said)
}

// apiError is one sentence of ours about an answer of Depot's.
type apiError struct {
	sentence string
	err      error
}

func (e *apiError) Error() string { return e.sentence }
func (e *apiError) Unwrap() error { return e.err }

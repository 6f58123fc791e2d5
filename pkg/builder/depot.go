package builder

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/depot/depot-go/api"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
)

// Depot lends machines for a build.
type Depot struct {
	Project string // "" when the token names it: a project's own token does
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

// Variables for tests.
var (
	finishTime        = 4 * time.Second // for all of Finish
	healthPeriod      = 5 * time.Second // between two reports that the build lives; without them Depot takes the machine back
	patienceUntilSaid = 2 * time.Second // before the log says what is waited for
)

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
	created, err := call(ctx, fmt.Sprintf("create a build in project %q", d.Project), token, request, s.service.CreateBuild, once)
	if d.Project == "" && connect.CodeOf(err) == connect.CodeInvalidArgument {
		return nil, ErrNoProject
	}
	if err != nil {
		return nil, err
	}
	if created.BuildId == "" || created.BuildToken == "" {
		return nil, fmt.Errorf("create a build at Depot: the answer of %s names no build: check DEPOT_API_URL", apiURL())
	}
	d.mask(created.BuildToken)
	s.id, s.token = created.BuildId, created.BuildToken
	b := newBuild(ctx)
	b.ID, b.URL, b.ProjectID = created.BuildId, created.BuildUrl, created.ProjectId
	b.connect, b.finish, s.build = s.connect, s.finish, b
	if ctx.Err() != nil { // it ended while the build was being made
		b.Finish(context.Canceled)
		return nil, context.Cause(ctx)
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

// session is one build at Depot.
type session struct {
	Depot
	service service
	build   *Build
	id      string
	token   string
	warned  sync.Once // that Depot does not hear
	limited sync.Once // that Depot will end the build
}

// connect waits for a platform's machine and connects to it. That the build lives is reported before the machine is there, so that
// Depot does not give it up; when there will be none, the reports end too.
func (s *session) connect(ctx context.Context, name string) (c *client.Client, err error) {
	kind, err := platform(name)
	if err != nil {
		return nil, err
	}
	reporting, stop := context.WithCancel(ctx)
	s.build.running.Go(func() { s.reportHealth(reporting, kind) })
	defer func() {
		if err != nil {
			stop()
		}
	}()
	active, err := s.wait(ctx, name, kind)
	if err != nil {
		return nil, err
	}
	s.mask(active.GetCert().GetKey())
	target := endpoint{addr: active.Endpoint, serverName: active.ServerName}
	if err := CheckAddress(active.Endpoint); err != nil {
		return nil, fmt.Errorf("the machine for %s: the address that %s gave is none: check DEPOT_API_URL", name, apiURL())
	}
	if err := target.pem(active.GetCaCert().GetCert(), active.GetCert().GetCert(), active.GetCert().GetKey()); err != nil {
		return nil, fmt.Errorf("the machine for %s: the certificates that %s gave can not be used (%w): run it again for new ones", name, apiURL(), err)
	}
	late := time.AfterFunc(patienceUntilSaid, func() { s.log("The machine for %s is there and starting", name) })
	defer late.Stop()
	c, _, err = target.connect(ctx, connectPatience)
	if err != nil {
		return nil, fmt.Errorf("the machine for %s at %s: %w", name, strings.TrimPrefix(active.Endpoint, "tcp://"), err)
	}
	return c, nil
}

// wait asks until the machine is there. The log says after 2 seconds, then every 10, that it is waited for.
func (s *session) wait(ctx context.Context, name string, kind cliv1.BuilderPlatform) (*cliv1.GetBuildKitConnectionResponse_ActiveConnection, error) {
	began := time.Now()
	say := began.Add(patienceUntilSaid)
	request := &cliv1.GetBuildKitConnectionRequest{
		BuildId: s.id, Platform: kind,
		RequiredEngine: &cliv1.GetBuildKitConnectionRequest_RequiredEngine{
			Engine: &cliv1.GetBuildKitConnectionRequest_RequiredEngine_Buildkit{Buildkit: &cliv1.GetBuildKitConnectionRequest_RequiredEngine_BuildKitEngine{}},
		},
	}
	for {
		answer, err := call(ctx, "get a machine for "+name, s.token, request, s.service.GetBuildKitConnection, again)
		if err != nil {
			return nil, err
		}
		switch answer := answer.Connection.(type) {
		case *cliv1.GetBuildKitConnectionResponse_Active:
			if waited := time.Since(began); waited > patienceUntilSaid {
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

// reportHealth tells Depot every few seconds that the build lives, until ctx ends.
func (s *session) reportHealth(ctx context.Context, kind cliv1.BuilderPlatform) {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, callTimeout)
		request := &cliv1.ReportBuildHealthRequest{BuildId: s.id, Platform: kind}
		answer, err := s.service.ReportBuildHealth(limited, api.WithAuthentication(connect.NewRequest(request), s.token))
		cancel()
		if err != nil && ctx.Err() == nil { // the next report is the next try
			s.warned.Do(func() { s.log("Depot did not take a report that the build lives (%s); it goes on", oneLine(err)) })
		}
		if err == nil && answer.Msg.CancelsAt.IsValid() { // else nobody would know why the machine goes away then
			at := answer.Msg.CancelsAt.AsTime()
			s.limited.Do(func() {
				s.log("Depot will cancel this build at %s, in %s: that is the project's limit", at.Format(time.TimeOnly+" MST"), time.Until(at).Round(time.Second))
			})
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// finish tells Depot how the build ended.
func (s *session) finish(cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), finishTime)
	defer cancel()
	request := &cliv1.FinishBuildRequest{BuildId: s.id}
	switch {
	case cause == nil:
		request.Result = &cliv1.FinishBuildRequest_Success{Success: &cliv1.FinishBuildRequest_BuildSuccess{}}
	case errors.Is(cause, context.Canceled) || grpcerrors.Code(cause) == codes.Canceled:
		request.Result = &cliv1.FinishBuildRequest_Canceled{Canceled: &cliv1.FinishBuildRequest_BuildCanceled{}}
	default:
		request.Result = &cliv1.FinishBuildRequest_Error{Error: &cliv1.FinishBuildRequest_BuildError{Error: cause.Error()}}
	}
	if _, err := call(ctx, "finish it", s.token, request, s.service.FinishBuild, again); err != nil {
		said := err
		if inner := errors.Unwrap(err); inner != nil {
			said = inner
		}
		s.log("Depot could not be told that build %s is over (%s): it will notice by itself", s.id, oneLine(said))
	}
}

package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"google.golang.org/grpc/codes"
)

// Depot acquires BuildKit machines from Depot.
type Depot struct {
	Project string // "" with a project token, which implies the project
	Token   func(context.Context) (string, error)
	BuildID string                           // existing build to attach to, with its build token; "" creates a build
	APIURL  string                           // "" means https://api.depot.dev
	Logf    func(format string, args ...any) // logs long waits and failed reports; may be nil
	Mask    func(secret string)              // called with each secret before its first use; may be nil
	Policy  Policy
	Egress  EgressFilter
}

// Policy configures the timing of a lease from Depot. Zero fields mean the defaults.
type Policy struct {
	HTTP    httpclient.Policy // calls to the API; 5 attempts by default
	Connect ConnectPolicy     // connections to machines
	Clock   httpclient.Clock  // nil means the system clock

	HealthPeriod   time.Duration // between health reports, without which Depot reclaims a machine; default 5 s
	NoticeAfter    time.Duration // how long to wait for a machine before logging the wait; default 2 s
	ReleaseTimeout time.Duration // for [Lease.Release]; default 4 s
	CreateTimeout  time.Duration // for the response to CreateBuild; default 2 min
	CreateGrace    time.Duration // how long a canceled CreateBuild waits for its response; default 2 s
}

func (p Policy) withDefaults() Policy {
	if p.Clock == nil {
		p.Clock = httpclient.SystemClock{}
	}
	p.Connect.Timeout = cmp.Or(p.Connect.Timeout, 5*time.Minute) // as depot/cli b57f518, pkg/buildxdriver/driver.go
	p.HealthPeriod = cmp.Or(p.HealthPeriod, 5*time.Second)
	p.NoticeAfter = cmp.Or(p.NoticeAfter, 2*time.Second)
	p.ReleaseTimeout = cmp.Or(p.ReleaseTimeout, 4*time.Second)
	p.CreateGrace = cmp.Or(p.CreateGrace, 2*time.Second)
	return p
}

// Limits of the interval between requests for a pending machine. Depot proposes an interval in each response.
const (
	minPendingWait     = 10 * time.Millisecond
	maxPendingWait     = 10 * time.Second
	defaultPendingWait = 50 * time.Millisecond // if Depot proposes none
	noticePeriod       = 10 * time.Second      // between log lines about a pending machine
)

// depotPlatform returns the machine that builds an OCI platform, as Depot's CLI selects it (depot/cli b57f518,
// pkg/buildx/builder/builder.go).
func depotPlatform(name string) (cliv1.BuilderPlatform, error) {
	switch name {
	case "linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/386":
		return cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64, nil
	case "linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6":
		return cliv1.BuilderPlatform_BUILDER_PLATFORM_ARM64, nil
	}
	return 0, fmt.Errorf("unsupported platform %q: Depot builds linux/amd64, linux/arm64, linux/386 and linux/arm", name)
}

// IsDepotPlatform reports whether Depot has a machine that builds a platform, in the form that platforms.Format
// returns.
func IsDepotPlatform(name string) bool {
	_, err := depotPlatform(name)
	return err == nil
}

// String returns the name of the service in messages.
func (Depot) String() string { return "Depot" }

// Acquire creates a build in Depot, or attaches to one. [Lease.Machine] requests its machines.
func (d Depot) Acquire(ctx context.Context, r Request) (*Lease, error) {
	for _, name := range r.Platforms {
		if _, err := depotPlatform(name); err != nil {
			return nil, err
		}
	}
	token, err := d.Token(ctx)
	if err != nil {
		return nil, err
	}
	d.mask(token)
	d.Policy = d.Policy.withDefaults()
	lease := newLease(ctx, d.Policy.Connect)
	s := &session{Depot: d, api: d.api(), lease: lease, onCanceled: r.Canceled}
	lease.connect, lease.finish = s.connect, s.finish
	begin := s.create
	if d.BuildID != "" {
		begin = s.attach
	}
	if err := begin(ctx, token, r); err != nil {
		return nil, err
	}
	return lease, nil
}

func (d Depot) mask(secret string) {
	if d.Mask != nil && secret != "" {
		d.Mask(secret)
	}
}

func (d Depot) logf(format string, args ...any) {
	if d.Logf != nil {
		d.Logf(format, args...)
	}
}

// session is one Depot build.
type session struct {
	Depot      // with defaults in Policy
	api        *apiClient
	lease      *Lease
	token      string
	onCanceled func(*CanceledError) // may be nil

	warnUnhealthy  sync.Once
	warnCancel     sync.Once
	cancelReleases sync.Once
}

// acquisitions is how often a machine is requested: Depot may name one that does not start. Source: depot/cli b57f518,
// pkg/buildxdriver/driver.go.
const acquisitions = 2

// connect waits for a platform's machine and connects to it. It starts health reports before the machine is ready, so
// that Depot does not reclaim it, and stops them if connecting fails.
func (s *session) connect(ctx context.Context, name string) (c connection, err error) {
	platform, err := depotPlatform(name)
	if err != nil {
		return connection{}, err
	}
	reporting, stop := context.WithCancel(ctx)
	s.lease.running.Go(func() { s.reportHealth(reporting, platform) })
	defer func() {
		if err != nil {
			stop()
		}
	}()
	for n := 1; ; n++ {
		active, err := s.waitForMachine(ctx, name, platform)
		if err != nil {
			return connection{}, err
		}
		c, err := s.connectTo(ctx, name, active)
		if err == nil || n == acquisitions || context.Cause(ctx) != nil {
			return c, err
		}
		s.logf("%v; requesting a machine again", err)
	}
}

// connectTo connects to a machine that Depot reports as active. BuildKit may still be starting there.
func (s *session) connectTo(
	ctx context.Context, name string, active *cliv1.GetBuildKitConnectionResponse_ActiveConnection,
) (connection, error) {
	s.mask(active.GetCert().GetKey())
	op := "connect to the machine for " + name
	if err := checkAddress(active.Endpoint); err != nil {
		return connection{}, s.api.incomplete(op, "invalid machine address")
	}
	target := endpoint{addr: active.Endpoint, serverName: active.ServerName, policy: s.Policy.Connect}
	cert := active.GetCert()
	if err := target.setCertificates(active.GetCaCert().GetCert(), cert.GetCert(), cert.GetKey()); err != nil {
		return connection{}, s.api.incomplete(op, err.Error())
	}
	addr := strings.TrimPrefix(active.Endpoint, "tcp://")
	if err := s.Egress.admit(ctx, addr); err != nil {
		s.logf("The runner's egress filter may block the machine for %s: %v", name, err)
	}
	notice := time.AfterFunc(
		s.Policy.NoticeAfter,
		func() { s.logf("Waiting for BuildKit to start on the machine for %s", name) },
	)
	defer notice.Stop()
	c, err := target.connect(ctx)
	if err != nil {
		return connection{}, fmt.Errorf("%s at %s: %w", op, addr, err)
	}
	return c, nil
}

// waitForMachine polls until Depot has started the machine, and logs long waits.
func (s *session) waitForMachine(
	ctx context.Context, name string, platform cliv1.BuilderPlatform,
) (*cliv1.GetBuildKitConnectionResponse_ActiveConnection, error) {
	clock := s.Policy.Clock
	start := clock.Now()
	nextNotice := start.Add(s.Policy.NoticeAfter)
	op := "get a machine for " + name
	request := &cliv1.GetBuildKitConnectionRequest{
		BuildId: s.lease.ID, Platform: platform,
		RequiredEngine: &cliv1.GetBuildKitConnectionRequest_RequiredEngine{
			Engine: &cliv1.GetBuildKitConnectionRequest_RequiredEngine_Buildkit{
				Buildkit: &cliv1.GetBuildKitConnectionRequest_RequiredEngine_BuildKitEngine{},
			},
		},
	}
	for {
		answer, err := call(httpclient.Idempotent(ctx), s.api, op, s.token, request, s.api.GetBuildKitConnection)
		if err != nil {
			return nil, err
		}
		switch connection := answer.Connection.(type) {
		case *cliv1.GetBuildKitConnectionResponse_Active:
			if waited := clock.Now().Sub(start); waited > s.Policy.NoticeAfter {
				s.logf("The machine for %s is ready after %s", name, waited.Round(time.Second))
			}
			return connection.Active, nil
		case *cliv1.GetBuildKitConnectionResponse_Pending:
			if now := clock.Now(); now.After(nextNotice) {
				s.logf("Waiting for Depot to start a machine for %s (%s so far)", name, now.Sub(start).Round(time.Second))
				nextNotice = now.Add(noticePeriod)
			}
			proposed := time.Duration(connection.Pending.WaitMs) * time.Millisecond
			if proposed <= 0 {
				proposed = defaultPendingWait
			}
			if err := clock.Sleep(ctx, min(max(proposed, minPendingWait), maxPendingWait)); err != nil {
				return nil, err
			}
		default:
			return nil, s.api.incomplete(op, "neither an active nor a pending connection")
		}
	}
}

// reportHealth sends a health report immediately and then at every HealthPeriod, until ctx ends. An answer may contain
// the time at which the client must release the machine: see depot/cli b57f518, pkg/machine/machine.go.
func (s *session) reportHealth(ctx context.Context, platform cliv1.BuilderPlatform) {
	request := &cliv1.ReportBuildHealthRequest{BuildId: s.lease.ID, Platform: platform}
	var cancelsAt time.Time // by the local clock
	for {
		answer, err := callWithHeader(
			httpclient.Idempotent(ctx), s.api, "report health", s.token, request, s.api.ReportBuildHealth,
		)
		now := s.Policy.Clock.Now()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.warnUnhealthy.Do(func() { s.logf("Health report to Depot failed; the build continues: %v", err) })
		case answer.Msg.CancelsAt.IsValid():
			cancelsAt = answer.Msg.CancelsAt.AsTime()
			if date, err := http.ParseTime(answer.Header().Get("Date")); err == nil { // the local clock may be wrong
				cancelsAt = now.Add(cancelsAt.Sub(date))
			}
		default:
			cancelsAt = time.Time{}
		}
		if !cancelsAt.IsZero() {
			if now.After(cancelsAt) {
				s.cancel(cancelsAt)
				return
			}
			s.warnCancel.Do(func() {
				s.logf("Depot will cancel this build at %s (in %s): it was canceled on Depot, or reaches the project's time limit",
					cancelsAt.Format(time.TimeOnly+" MST"), cancelsAt.Sub(now).Round(time.Second))
			})
		}
		if s.Policy.Clock.Sleep(ctx, s.Policy.HealthPeriod) != nil {
			return
		}
	}
}

// cancel ends a build that Depot canceled: it releases the machines and finishes the build as canceled.
func (s *session) cancel(at time.Time) {
	s.cancelReleases.Do(func() {
		canceled := &CanceledError{Build: s.lease.ID, At: at}
		s.lease.cancel(canceled)
		if s.lease.Err() == nil {
			return // released before
		}
		s.logf("%v", canceled)
		if s.onCanceled != nil {
			s.onCanceled(canceled)
		}
		go s.lease.Release(canceled) // waits until this report has returned
	})
}

// finish reports the outcome to Depot, which then reclaims the machines.
func (s *session) finish(outcome error) {
	op := "finish Depot build " + s.lease.ID
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.Policy.ReleaseTimeout,
		fmt.Errorf("%s: no response within %s", op, s.Policy.ReleaseTimeout))
	defer cancel()
	request := &cliv1.FinishBuildRequest{BuildId: s.lease.ID}
	switch {
	case outcome == nil:
		request.Result = &cliv1.FinishBuildRequest_Success{Success: &cliv1.FinishBuildRequest_BuildSuccess{}}
	case errors.Is(outcome, context.Canceled) || grpcerrors.Code(outcome) == codes.Canceled:
		request.Result = &cliv1.FinishBuildRequest_Canceled{Canceled: &cliv1.FinishBuildRequest_BuildCanceled{}}
	default:
		request.Result = &cliv1.FinishBuildRequest_Error{Error: &cliv1.FinishBuildRequest_BuildError{Error: outcome.Error()}}
	}
	if _, err := call(httpclient.Idempotent(ctx), s.api, op, s.token, request, s.api.FinishBuild); err != nil {
		s.logf("Could not report the end of the build; Depot will notice missing health reports: %v", err)
	}
}

//go:build linux

package soak

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/org/sandbox-actions/internal/faultproxy"
	cloudaytona "github.com/org/sandbox-actions/internal/localcloud/daytona"
)

var expired = class{"Credentials that expire during a run", `A token or an account is revoked at a request of the run.
The run must request another one and succeed, or fail with one error that names the service.`, "credential"}

// Credentials expire in the middle of a run.
func TestExpiry(t *testing.T) {
	type expiry struct {
		credential  string
		flow        flow
		mustSucceed bool
		hint        string // of the error
		inject      func(l *lab)
	}
	var cases []expiry
	for n := range 6 { // the requests after the login
		cases = append(cases, expiry{
			credential: "Doppler token of an identity", flow: snapshot, mustSucceed: true,
			inject: func(l *lab) { l.revokeDopplerToken(n + 1) },
		})
	}
	for _, times := range []int{1, 0} {
		how := "always"
		if times == 1 {
			how = "once"
		}
		cases = append(cases, expiry{
			credential: "access to Daytona's registry, " + how, flow: snapshot, mustSucceed: times == 1,
			hint: "Daytona", inject: func(l *lab) {
				l.Daytona.Fail(cloudaytona.Fault{Registry: cloudaytona.AccessExpires, Times: times})
			},
		})
	}
	for _, f := range []flow{push, load, snapshot} {
		for _, method := range []string{"GetBuildKitConnection", "ReportBuildHealth", "FinishBuild"} {
			cases = append(cases, expiry{
				credential: "Depot's token of the build, " + method, flow: f,
				mustSucceed: method != "GetBuildKitConnection", hint: "no longer valid", inject: func(l *lab) {
					l.proxies[depot].Fail(faultproxy.Rule{Path: "/" + method, Fault: faultproxy.Respond(
						"expired", http.StatusUnauthorized, `{"code":"unauthenticated","message":"invalid API token"}`,
						"Content-Type", "application/json",
					)})
				},
			})
		}
	}
	inSomeLabs(t, newLab(t), func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 6) && !yield(func(l *lab) {
				c.inject(l)
				run := l.try(t.Context(), c.flow.withLongTimeout(), nil)
				l.Daytona.ClearFaults()
				for _, proxy := range l.proxies {
					proxy.Clear()
				}
				run.name = fmt.Sprintf("%s: %s (case %d)", c.flow.name, c.credential, n)
				l.recordExpiry(t, c.flow, run, c.mustSucceed, c.hint, row{expired, c.credential})
			}) {
				return
			}
		}
	})
}

// revokeDopplerToken revokes the token of the nth request to Doppler that has one, before Doppler handles it.
func (l *lab) revokeDopplerToken(n int) {
	var requests atomic.Int64
	l.proxies[doppler].Fail(faultproxy.Rule{Match: func(r *http.Request) bool {
		token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if found && requests.Add(1) == int64(n) {
			l.Doppler.Revoke(token)
		}
		return false
	}})
}

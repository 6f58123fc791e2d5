package builder

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// EgressFilter is the filter for outgoing connections on Depot's own runners. Its zero value is that of a runner.
// Protocol: depot/cli b57f518, pkg/machine/agentd_client.go and pkg/helpers/gha.go.
type EgressFilter struct {
	Agent string // file that exists on Depot's runners only; default /usr/local/bin/agentd
	URL   string // of the agent; default http://127.0.0.1:912/
}

// egressTimeout limits the request to the agent.
const egressTimeout = 30 * time.Second

// admit requests that the filter lets this machine connect to addr, host:port. It does nothing on other runners and
// for a host that is not an IP address. It returns nil if the agent does not listen, because then nothing is filtered.
func (f EgressFilter) admit(ctx context.Context, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host) == nil {
		return nil
	}
	if _, err := os.Stat(cmp.Or(f.Agent, "/usr/local/bin/agentd")); err != nil {
		return nil
	}
	agent := httpclient.JSONClient{
		Service: httpclient.Service{Name: "the runner's agent", URL: cmp.Or(f.URL, "http://127.0.0.1:912/")},
		HTTP:    httpclient.Config{Policy: httpclient.Policy{Attempts: 1, Timeout: egressTimeout}}.Client(),
	}
	op := "allow connections to " + host
	var answer struct {
		Success bool   `json:"success"`
		Error   string `json:"error"`
	}
	err = agent.Do(ctx, httpclient.JSONCall{
		Op: op, Method: http.MethodPost, Body: map[string][]string{"allowIPs": {host}},
	}, &answer)
	switch {
	case httpclient.Status(err) == 0 && err != nil && context.Cause(ctx) == nil:
		return nil
	case err != nil:
		return err
	case !answer.Success:
		return fmt.Errorf("%s: %s", op, cmp.Or(safetext.Line(answer.Error, maxErrorLength), "refused"))
	}
	return nil
}

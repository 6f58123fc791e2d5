package credentials

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// A request for an OIDC token survives a fault that may pass, and otherwise ends with an error that names the service
// and what to do.
func TestOIDCFaults(t *testing.T) {
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"value":"aaa.bbb.ccc"}`)
	}))
	defer issuer.Close()
	proxy, err := faultproxy.Start(t.Context(), issuer.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	final := []string{ // a retry does not help
		"wrong types", "empty response with status 200", "web page with status 200", "401", "403", "404", "409", "huge body",
	}
	for _, fault := range faultproxy.All() {
		if fault.Name == "unknown state" { // changes nothing in this response
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			oidc := OIDC{
				RequestURL: proxy.URL + "/token", RequestToken: "request-token", HTTP: httpclient.Config{Clock: &fakeclock.Clock{}},
			}
			proxy.Clear()
			proxy.Fail(faultproxy.Rule{Fault: fault, Times: 1})
			if _, err := oidc.Token(t.Context(), DepotAudience); (err != nil) != slices.Contains(final, fault.Name) {
				t.Errorf("after one fault: %v", err)
			}
			proxy.Clear()
			proxy.Fail(faultproxy.Rule{Fault: fault})
			_, err := oidc.Token(t.Context(), DepotAudience)
			if err == nil {
				t.Fatal("no error")
			}
			var status int
			_, _ = fmt.Sscan(fault.Name, &status)
			if got := httpclient.Status(err); status != 0 && got != status {
				t.Errorf("got status %d, want %d", got, status)
			}
			names := httpclient.Status(err) != 0 && strings.Contains(err.Error(), "GitHub returned ") ||
				strings.Contains(err.Error(), proxy.URL) || fault.Name == "huge body"
			if text := err.Error(); !names || !strings.HasSuffix(text, ")") {
				t.Errorf("got %q, want the service and a hint", text)
			}
		})
	}
}

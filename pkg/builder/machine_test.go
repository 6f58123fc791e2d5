package builder

import (
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"golang.org/x/sync/errgroup"
)

// Both platforms are asked for at once, and neither waits for the other: Depot answers the first only when the second has asked too.
func TestTwoPlatformsAtOnce(t *testing.T) {
	hold := make(chan struct{})
	s := startDepot(t)
	s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Times: 2, Hold: hold})
	b := startBuild(t, depot(&journal{}, "project-token"), Request{Platforms: []string{"linux/amd64", "linux/arm64"}})
	var both errgroup.Group
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		for range 2 { // and each by two who are told the same
			both.Go(func() error {
				c, err := b.Machine(t.Context(), platform)
				if err != nil {
					return err
				}
				if again, err := b.Machine(t.Context(), platform); err != nil || again != c {
					t.Errorf("%s, asked again: %v, %v", platform, again, err)
				}
				workers, err := c.ListWorkers(t.Context())
				if err != nil {
					return err
				}
				if p := workers[0].Platforms[0]; p.OS+"/"+p.Architecture != platform {
					t.Errorf("the machine for %s is one for %s/%s", platform, p.OS, p.Architecture)
				}
				return solve(t.Context(), t, c, oneFile)
			})
		}
	}
	eventually(t, "a request for each platform", func() bool { return calls(s, "GetBuildKitConnection", nil) == 2 })
	close(hold)
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		if n := calls(s, "GetBuildKitConnection", func(c depotapi.Call) bool { return c.Platform == platform && c.State == "active" }); n != 1 {
			t.Errorf("%s: %d machines were lent", platform, n)
		}
	}
}

func TestMachinesThatDoNotWork(t *testing.T) {
	const (
		machine = "the machine for linux/amd64 at MACHINE: "
		refused = "the TLS connection is refused ("
		renew   = "): the certificate is not of this builder, or has expired; run it again for a new one"
	)
	for _, test := range []struct {
		fault          depotapi.MachineFault
		prefix, suffix string
	}{
		{depotapi.Unreachable, machine + "it can not be reached, tried for 300ms (dial tcp MACHINE: connect: connection refused", "): check that it runs and that the network lets us through"},
		{depotapi.RefusesClient, machine + refused + "remote error: tls: ", renew},
		{depotapi.UntrustedServer, machine + refused + "tls: failed to verify certificate: x509: certificate signed by unknown authority", renew},
		{depotapi.NoCertificates, "the machine for linux/amd64: the certificates that API gave can not be used (", "): run it again for new ones"},
		{depotapi.GarbledKey, "the machine for linux/amd64: the certificates that API gave can not be used (", "): run it again for new ones"},
		{depotapi.BadAddress, "the machine for linux/amd64: the address that API gave is none", ": check DEPOT_API_URL"},
	} {
		t.Run(string(test.fault), func(t *testing.T) {
			if test.fault == depotapi.Unreachable {
				set(t, &connectPatience, 300*time.Millisecond)
			}
			j := &journal{}
			s := startDepot(t)
			s.Fail(depotapi.Fault{Method: "GetBuildKitConnection", Machine: test.fault})
			b := startBuild(t, depot(j, "project-token"), Request{})
			_, err := b.Machine(t.Context(), "linux/amd64")
			if err == nil {
				t.Fatal("a machine")
			}
			got := strings.NewReplacer(s.URL(), "API", addressIn(err.Error()), "MACHINE").Replace(err.Error())
			if !strings.HasPrefix(got, test.prefix) || !strings.HasSuffix(got, test.suffix) {
				t.Errorf("got\n%s\nwant\n%s…%s", got, test.prefix, test.suffix)
			}
			oneSentence(t, err, j.secrets()...)
			if _, again := b.Machine(t.Context(), "linux/amd64"); again != err { //nolint:errorlint // the very same
				t.Errorf("asked again: %v", again)
			}
		})
	}
}

// addressIn is the loopback address that a sentence speaks of; "no address" when it speaks of none.
func addressIn(sentence string) string {
	if _, rest, ok := strings.Cut(sentence, " at "); ok {
		address, _, _ := strings.Cut(rest, ": ")
		return address
	}
	return "no address"
}

// A certificate is one build's: it opens nothing else, and nothing after its time.
func TestCertificatesAreOneBuilds(t *testing.T) {
	open := func(lifetime time.Duration) *builders.Connection {
		c, err := machines(t).Open("linux/amd64", lifetime)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	one, two := open(time.Minute), open(time.Minute)
	expired := open(-time.Second)
	for _, test := range []struct {
		name          string
		addr          string
		ca, cert, key string
		want          string
	}{
		{"its own", one.Endpoint, one.CACert, one.Cert, one.Key, ""},
		{"another build's certificate", one.Endpoint, one.CACert, two.Cert, two.Key, "the TLS connection is refused (remote error: tls: "},
		{"another build's machine", two.Endpoint, one.CACert, one.Cert, one.Key, "the TLS connection is refused (tls: failed to verify certificate"},
		{"expired", expired.Endpoint, expired.CACert, expired.Cert, expired.Key, "the TLS connection is refused (tls: failed to verify certificate: x509: certificate has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := endpoint{addr: test.addr, serverName: one.ServerName}
			if err := e.pem(test.ca, test.cert, test.key); err != nil {
				t.Fatal(err)
			}
			c, _, err := e.connect(t.Context(), time.Minute)
			if err == nil {
				_ = c.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// After its end a build has no way to its machine, whoever kept the client.
func TestAfterTheEnd(t *testing.T) {
	s := startDepot(t)
	b := startBuild(t, depot(&journal{}, "project-token"), Request{})
	c, err := b.Machine(t.Context(), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	b.Finish(nil)
	if _, err := c.ListWorkers(t.Context()); err == nil {
		t.Error("the machine still answers")
	}
	late := &session{Depot: Depot{}, service: newService(), build: newBuild(t.Context()), id: b.ID, token: "build_unknown"}
	if _, err := late.connect(t.Context(), "linux/amd64"); err == nil || !strings.Contains(err.Error(), "does not accept the token") {
		t.Errorf("a token that is none: %v", err)
	}
	late.build.Finish(nil)
	if n := calls(s, "FinishBuild", nil); n != 1 {
		t.Errorf("%d calls of FinishBuild", n)
	}
}

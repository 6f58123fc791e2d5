package builder

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

// A check distinguishes the reasons for which a build would be refused, and creates none.
func TestDepotCheck(t *testing.T) {
	s := startDepot(t)
	building := acquire(t, depot(s, &journal{}, "project-token"), Request{})
	var buildToken string
	token := func(context.Context) (string, error) { return buildToken, nil }
	created := len(s.Calls())
	for _, test := range []struct {
		name, token, project, build string
		status                      int
	}{
		{name: "project token", token: "project-token", project: "sandbox"},
		{name: "organization token", token: "organization-token", project: "sandbox"},
		{name: "unknown token", token: "unknown", project: "sandbox", status: http.StatusUnauthorized},
		{name: "token of another project", token: "other-token", project: "sandbox", status: http.StatusForbidden},
		{name: "unknown project", token: "organization-token", project: "gone", status: http.StatusNotFound},
		{name: "existing build", token: "project-token", build: building.ID},
		{name: "unknown build", token: "project-token", build: "gone", status: http.StatusNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := &journal{}
			d := depot(s, j, "")
			buildToken = test.token
			d.Token, d.Project, d.BuildID = token, test.project, test.build
			err := d.Check(t.Context())
			if got := httpclient.Status(err); got != test.status || (err == nil) != (test.status == 0) {
				t.Errorf("got %v, want status %d", err, test.status)
			}
			if !slices.Equal(j.secrets(), []string{test.token}) {
				t.Errorf("masked %q", j.secrets())
			}
		})
	}
	for _, c := range s.Calls()[created:] {
		if c.Method != "ListBuilds" && c.Method != "GetBuild" {
			t.Errorf("called %s", c.Method)
		}
	}
	s.Fail(depotapi.Fault{Method: "ListBuilds", Times: 1, Status: http.StatusBadGateway})
	if err := depot(s, &journal{}, "project-token").Check(t.Context()); err != nil {
		t.Errorf("after one failure: %v", err)
	}
}

func TestInspect(t *testing.T) {
	amd64 := machines(t).Address("linux/amd64")
	secure, certificates := serveTLS(t, strings.TrimPrefix(amd64, "unix://"))
	for _, address := range []Address{{Addr: amd64}, {Addr: secure, CertDir: certificates}} {
		daemon, err := address.Inspect(t.Context(), "linux/amd64")
		if err != nil || !slices.Equal(daemon.Platforms, []string{"linux/amd64"}) || daemon.Version == "" ||
			daemon.Expires.IsZero() != (address.CertDir == "") {
			t.Errorf("%s: got %+v, %v", address.Addr, daemon, err)
		}
	}
	_, err := Address{Addr: amd64}.Inspect(t.Context(), "linux/arm64")
	if err == nil || !strings.Contains(err.Error(), "does not support linux/arm64") {
		t.Errorf("got %v", err)
	}
}

func TestCheckValidity(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	certificate := func(from, until time.Time) string {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	valid := certificate(day(-1), day(9))
	for _, test := range []struct {
		name, ca, cert string
		expires        time.Time
		want           string // of the error; "" for success
	}{
		{"valid", valid, certificate(day(-1), day(5)), day(5), ""},
		{"authority expires first", certificate(day(-1), day(3)) + valid, valid, day(3), ""},
		{"expired", valid, certificate(day(-3), day(-2)), time.Time{}, "cert.pem expired on 2025-12-31T00:00:00Z"},
		{"expired authority", valid + certificate(day(-3), day(-2)), valid, time.Time{}, "ca.pem expired on"},
		{"not valid yet", valid, certificate(day(1), day(2)), time.Time{}, "is not valid before 2026-01-03T00:00:00Z"},
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"ca.pem": test.ca, "cert.pem": test.cert})
		expires, err := checkValidity(dir, now)
		if !expires.Equal(test.expires) || (err == nil) != (test.want == "") {
			t.Errorf("%s: got %s, %v", test.name, expires, err)
		}
		if err != nil &&
			(!strings.Contains(err.Error(), test.want) || !strings.HasSuffix(err.Error(), "renew the certificate)")) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

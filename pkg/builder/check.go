package builder

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Check returns an error if the token cannot use the project, or the build BuildID. It changes nothing: it lists the
// project's last build, as `depot list builds` does (depot/cli b57f518, pkg/helpers/buildlist.go). This needs the same
// permission as a build, "Container Builds" of https://depot.dev/docs/cli/authentication.
func (d Depot) Check(ctx context.Context) error {
	token, err := d.Token(ctx)
	if err != nil {
		return err
	}
	d.mask(token)
	api := d.api()
	ctx = httpclient.Idempotent(ctx)
	if d.BuildID != "" {
		op := "read Depot build " + safetext.Line(d.BuildID, 100)
		_, err = call(ctx, api, op, token, &getBuildRequest{d.BuildID}, api.getBuild.CallUnary)
		return err
	}
	request := &cliv1.ListBuildsRequest{ProjectId: d.Project, PageSize: 1}
	_, err = call(ctx, api, fmt.Sprintf("read project %q", d.Project), token, request, api.ListBuilds)
	return err
}

// Daemon describes a BuildKit daemon.
type Daemon struct {
	Version   string    // "" if the daemon does not report it
	Platforms []string  // without the levels of amd64
	Expires   time.Time // when the first of the certificates in CertDir expires; zero without
}

// Inspect connects to the daemon and describes it. It returns an error for a platform that the daemon does not support,
// and for certificates in CertDir that are not valid now.
func (a Address) Inspect(ctx context.Context, platforms ...string) (Daemon, error) {
	var d Daemon
	if err := a.Check(); err != nil {
		return d, err
	}
	target := endpoint{addr: a.Addr, policy: a.Connect}
	if a.CertDir != "" && strings.HasPrefix(a.Addr, "tcp://") {
		if err := target.readCertificates(a.CertDir); err != nil {
			return d, err
		}
		var err error
		if d.Expires, err = checkValidity(a.CertDir, time.Now()); err != nil {
			return d, err
		}
	}
	c, err := target.connect(ctx)
	if err != nil {
		return d, fmt.Errorf("connect to builder %s: %w", a.Addr, err)
	}
	defer c.client.Close()
	supported := supportedPlatforms(c.workers)
	for _, platform := range platforms {
		if err := a.checkPlatform(platform, supported); err != nil {
			return d, err
		}
	}
	d.Platforms = withoutAMD64Levels(supported)
	if info, err := c.client.Info(ctx); err == nil { // BuildKit before v0.11 has no such call
		d.Version = safetext.Line(info.BuildkitVersion.Version, 100)
	}
	return d, nil
}

// checkValidity returns when the first of the certificates in a directory expires, or an error if one is not valid now.
func checkValidity(dir string, now time.Time) (expires time.Time, err error) {
	for _, name := range []string{"ca.pem", "cert.pem"} {
		path := filepath.Join(dir, name)
		rest, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}, err
		}
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				continue // not a certificate; readCertificates has found the required ones
			}
			problem, at := "expired on", certificate.NotAfter
			if now.Before(certificate.NotBefore) {
				problem, at = "is not valid before", certificate.NotBefore
			} else if now.Before(certificate.NotAfter) {
				problem = ""
			}
			if problem != "" {
				return time.Time{}, fmt.Errorf("%s=%s: the certificate in %s %s %s (check the clock of this machine; if it is "+
					"right, renew the certificate)", CertPath, dir, name, problem, at.UTC().Format(time.RFC3339))
			}
			if expires.IsZero() || certificate.NotAfter.Before(expires) {
				expires = certificate.NotAfter
			}
		}
	}
	return expires, nil
}

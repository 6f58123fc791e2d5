package actions

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/doctor"
	"github.com/org/sandbox-actions/pkg/git"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/trust"
)

// minFree is the free disk space below which a check fails, in bytes.
const minFree = 1e9

// maxSkew is the maximum difference of clocks. The certificates of Depot's machines and OIDC tokens are valid for
// minutes from the moment in which they are issued.
const maxSkew = time.Minute

// machineChecks returns the checks of the program and of the machine and the event for which it runs.
func (e examination) machineChecks(needs trust.Needs) []doctor.Check {
	return []doctor.Check{
		newCheck("Version", "", func(context.Context) doctor.Result {
			return doctor.Pass("%s, %s, %s/%s", cmp.Or(Version, "built from source"), runtime.Version(), runtime.GOOS,
				runtime.GOARCH)
		}),
		newCheck("Runner", "", func(ctx context.Context) doctor.Result { return e.examineRunner(ctx, needs) }),
		newCheck("Disk", "", func(context.Context) doctor.Result {
			return examineDisk(cmp.Or(e.Getenv("RUNNER_TEMP"), os.TempDir()))
		}),
	}
}

// examineRunner describes the event and its permissions, as far as a job can see them.
func (e examination) examineRunner(ctx context.Context, needs trust.Needs) doctor.Result {
	if !e.Runner.InActions() {
		return doctor.Skip("not in GitHub Actions")
	}
	if err := checkForkPermissions(ctx, e.job, needs); err != nil {
		return doctor.Fail(err)
	}
	token := "no permission id-token: write"
	if e.oidc().Available() {
		token = "permission id-token: write"
	}
	from := e.Event.Repository
	if e.Event.IsFork() {
		from = trust.PullRequest(e.Event)
	}
	return doctor.Pass("event %s of %s, %s", e.Event.Name, from, token)
}

// examineDisk checks the free space of the file system that has a directory.
func examineDisk(dir string) doctor.Result {
	free, err := freeSpace(dir)
	switch {
	case err != nil:
		return doctor.Fail(fmt.Errorf("read the free space of %s: %w (set RUNNER_TEMP to a writable directory)", dir, err))
	case free < minFree:
		return doctor.Fail(
			fmt.Errorf("only %s free in %s (free disk space, or set RUNNER_TEMP to a directory on another disk)",
				gigabytes(free), dir),
		)
	}
	return doctor.Pass("%s free in %s", gigabytes(free), dir)
}

// freeSpace returns the bytes that a user without privileges can write to the file system that has a directory.
func freeSpace(dir string) (float64, error) {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	return float64(s.Bavail) * float64(s.Bsize), err
}

func gigabytes(bytes float64) string {
	if bytes < 10e9 {
		return fmt.Sprintf("%.1f GB", bytes/1e9)
	}
	return fmt.Sprintf("%.0f GB", bytes/1e9)
}

// sourceChecks returns the checks of git and GitHub. GitHub is unneeded for the given reason, "" for none.
func (e examination) sourceChecks(unneeded string) []doctor.Check {
	return []doctor.Check{
		newCheck("Git", "", e.examineGit),
		newCheck("GitHub", unneeded, e.examineGitHub),
	}
}

// examineGit describes the checkout. Without one, it says what is built instead.
func (e examination) examineGit(ctx context.Context) doctor.Result {
	version, err := git.Git{}.Version(ctx)
	if err != nil {
		return doctor.Fail(err)
	}
	checkout, err := e.checkout(ctx)
	if err != nil {
		return doctor.Fail(err)
	}
	ref, _, _ := refToBuild(e.job, e.spec, checkout)
	switch {
	case checkout.SHA == "" && ref == "":
		if err := checkGitContext(e.spec, checkout); err != nil {
			return doctor.Fail(err)
		}
		return doctor.Pass("%s; %s is not a git repository", version, e.Dir)
	case checkout.SHA == "":
		return doctor.Pass("%s; no checkout is needed to build %s", version, ref)
	}
	shallow, err := checkout.IsShallow(ctx)
	if err != nil {
		return doctor.Fail(err)
	}
	facts := []string{fmt.Sprintf("%s; commit %s", version, shortCommit(checkout.SHA))}
	for _, fact := range []struct {
		applies bool
		text    string
	}{
		{checkout.Ref != "", checkout.Ref}, {checkout.Repository != "", "of " + checkout.Repository},
		{checkout.Dirty, "with uncommitted changes"}, {shallow, "shallow"},
	} {
		if fact.applies {
			facts = append(facts, fact.text)
		}
	}
	return doctor.Pass("%s", strings.Join(facts, ", "))
}

// engineCheck returns the check of the Docker Engine.
func (e examination) engineCheck(unneeded string) doctor.Check {
	return newCheck("Docker Engine", unneeded, func(ctx context.Context) doctor.Result {
		engine, err := dockerengine.Open(ctx, e.Getenv)
		if err != nil {
			return doctor.Fail(err)
		}
		defer engine.Close()
		info, err := engine.Info(ctx)
		if err != nil {
			return doctor.Fail(err)
		}
		if e.spec.Load {
			if _, err := loadPlatform(e.spec.Platforms, info.Platform); err != nil {
				return doctor.Fail(err)
			}
		}
		free := ""
		if bytes, ok := engineSpace(engine.Host, info); ok {
			if bytes < minFree {
				return doctor.Fail(fmt.Errorf("the engine at %s has only %s free in %s (free disk space with docker system prune)",
					engine.Host, gigabytes(bytes), info.Dir))
			}
			free = fmt.Sprintf(", %s free", gigabytes(bytes))
		}
		return doctor.Pass("%s at %s (%s), %s, image store %s%s", info.Version, engine.Host, engine.From, info.Platform,
			info.Store, free)
	})
}

// engineSpace returns the free space where an engine stores its data, if the engine runs on this machine: the API does
// not report it.
func engineSpace(address string, info dockerengine.Info) (bytes float64, ok bool) {
	host, err := os.Hostname()
	if err != nil || host != info.Host || !strings.HasPrefix(address, "unix://") || info.Dir == "" {
		return 0, false
	}
	bytes, err = freeSpace(info.Dir)
	return bytes, err == nil
}

// networkChecks returns the checks of the clock, the proxy and the trusted certificates.
func (e examination) networkChecks() []doctor.Check {
	return []doctor.Check{
		newCheck("Clock", "", e.examineClock), newCheck("Proxy", "", e.examineProxy),
		newCheck("Certificates", "", func(context.Context) doctor.Result { return examineCertificates(e.Getenv) }),
	}
}

// examineClock compares the clock with those of the services.
func (e examination) examineClock(ctx context.Context) doctor.Result {
	skews := make([]*time.Duration, len(e.servers)) // nil without an answer
	var group errgroup.Group
	for i, server := range e.servers {
		group.Go(func() error {
			if skew, err := e.clockSkew(ctx, server); err == nil {
				skews[i] = &skew
			}
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	var agreeing []string
	var smallest *time.Duration
	var other string
	for i, skew := range skews {
		switch {
		case skew == nil:
			continue
		case skew.Abs() <= maxSkew:
			agreeing = append(agreeing, hostOf(e.servers[i]))
		case smallest == nil || skew.Abs() < smallest.Abs():
			smallest, other = skew, hostOf(e.servers[i])
		}
	}
	switch {
	case len(agreeing) > 0: // then another server is wrong
		return doctor.Pass("within a minute of %s", strings.Join(agreeing, ", "))
	case smallest == nil:
		return doctor.Skip("no service answered with its time")
	}
	direction := "ahead of"
	if *smallest < 0 {
		direction = "behind"
	}
	return doctor.Fail(fmt.Errorf("this machine is %s %s %s (set the clock, for example with timedatectl set-ntp true: "+
		"tokens and the certificates of builders are valid for minutes only)",
		smallest.Abs().Round(10*time.Second), direction, other))
}

// clockSkew returns how far the clock of this machine is ahead of that of a server, by the header Date of an answer.
func (e examination) clockSkew(ctx context.Context, server string) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, server, http.NoBody)
	if err != nil {
		return 0, err
	}
	clock := e.http.Clock
	if clock == nil {
		clock = httpclient.SystemClock{}
	}
	sent := clock.Now()
	response, err := e.http.Client().Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return 0, err
	}
	middle := sent.Add(clock.Now().Sub(sent) / 2)
	return middle.Sub(date.Add(time.Second / 2)), nil // the header has no fractions of seconds
}

// hostOf returns the host of a URL without its port, or the text itself.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Hostname()
	}
	return address
}

// examineProxy checks the proxy that requests to the services use. Connections to builders and engines use none.
func (e examination) examineProxy(ctx context.Context) doctor.Result {
	variable := func(upper string) string { return cmp.Or(e.Getenv(upper), e.Getenv(strings.ToLower(upper))) }
	config := httpproxy.Config{
		HTTPProxy: variable("HTTP_PROXY"), HTTPSProxy: variable("HTTPS_PROXY"), NoProxy: variable("NO_PROXY"),
	}
	if config.HTTPProxy == "" && config.HTTPSProxy == "" {
		return doctor.Skip("HTTPS_PROXY and HTTP_PROXY are not set")
	}
	if !isProxy(config.HTTPProxy) || !isProxy(config.HTTPSProxy) { // net/http would use none
		return doctor.Fail(errors.New("HTTPS_PROXY or HTTP_PROXY is not the URL of a proxy (write for example " +
			"http://proxy.example.com:3128)"))
	}
	proxyOf := config.ProxyFunc()
	proxies := map[string]*url.URL{} // by address
	var through, direct []string
	for _, server := range e.servers {
		target, err := url.Parse(server)
		if err != nil {
			continue // its own check fails
		}
		if proxy, _ := proxyOf(target); proxy == nil {
			direct = append(direct, target.Hostname())
		} else {
			through = append(through, target.Hostname())
			proxies[proxyAddress(proxy)] = proxy
		}
	}
	for address, proxy := range proxies {
		conn, err := (&net.Dialer{Timeout: e.http.Policy.Timeout}).DialContext(ctx, "tcp", address)
		if err != nil {
			return doctor.Fail(fmt.Errorf("connect to the proxy %s://%s: %w (check HTTPS_PROXY and HTTP_PROXY)",
				proxy.Scheme, proxy.Host, err))
		}
		_ = conn.Close()
	}
	list := func(hosts []string) string { return cmp.Or(strings.Join(hosts, ", "), "none") }
	return doctor.Pass("used for: %s; not used for: %s, builders, the Docker Engine", list(through), list(direct))
}

// isProxy reports whether a value is empty, a URL with a scheme that net/http supports, or host:port.
func isProxy(value string) bool {
	if value == "" {
		return true
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	return err == nil && u.Hostname() != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
}

// proxyAddress returns host:port of a proxy.
func proxyAddress(proxy *url.URL) string {
	port := map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[proxy.Scheme]
	return net.JoinHostPort(proxy.Hostname(), cmp.Or(proxy.Port(), port, "80"))
}

// examineCertificates checks that this machine trusts certificate authorities. See [x509.SystemCertPool] for the
// variables.
func examineCertificates(getenv func(string) string) doctor.Result {
	file := getenv("SSL_CERT_FILE")
	if file == "" {
		pool, err := x509.SystemCertPool()
		if err == nil && pool.Equal(x509.NewCertPool()) {
			err = errors.New("this machine trusts no certificate authorities")
		}
		if err != nil {
			return doctor.Fail(fmt.Errorf("%w (install the package ca-certificates, or set SSL_CERT_FILE)", err))
		}
		return doctor.Pass("those of the system")
	}
	rest, err := os.ReadFile(file)
	if err != nil {
		return doctor.Fail(fmt.Errorf("SSL_CERT_FILE: %w (correct or unset the variable)", err))
	}
	count := 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err == nil {
			count++
		}
	}
	if count == 0 {
		return doctor.Fail(
			fmt.Errorf("SSL_CERT_FILE: %s contains no certificate in PEM format (correct or unset the variable)",
				file),
		)
	}
	return doctor.Pass("%d of SSL_CERT_FILE (%s)", count, file)
}

package daytona

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/org/sandbox-actions/internal/fakeclock"
	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestPushAccess(t *testing.T) {
	s := startCloud(t, nil)
	var masked []string
	c := newClient(s, "dtn_all")
	c.URL += "/"
	c.Mask = func(secret string) { masked = append(masked, secret) }
	access, err := c.PushAccess(t.Context(), "eu")
	checkError(t, err, "")
	if access.Registry != s.RegistryHost() || access.Project != "sbox-transient" ||
		!strings.HasPrefix(access.User, "robot$sbox-transient+") {
		t.Errorf("got %+v", access)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, access); strings.Contains(text, access.Secret) ||
			!strings.Contains(text, access.User) {
			t.Errorf("%s prints %s", format, text)
		}
	}
	if access.Secret == "" || !slices.Equal(masked, []string{access.Secret}) {
		t.Errorf("masked: %q", masked)
	}
	_, err = newClient(s, "dtn_read").PushAccess(t.Context(), "")
	checkError(t, err, "use an API key with the write:snapshots permission")
	if httpclient.Status(err) != http.StatusForbidden {
		t.Error(err)
	}
}

func TestPushAccessFormat(t *testing.T) {
	for _, test := range []struct {
		name                      string
		registry, project, secret string
		host                      string // "": an error
	}{
		{"complete", "http://r:1", "p", "s3cret", "r:1"},
		{"without a scheme", "r:1", "p", "s3cret", "r:1"},
		{"no registry", "", "p", "s3cret", ""},
		{"no project", "r:1", "", "s3cret", ""},
		{"no secret", "r:1", "p", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startCloud(t, nil)
			s.Fail(cloud.Fault{
				Path: "registry-push-access", Status: 200, Header: map[string]string{"Content-Type": "application/json"},
				Body: fmt.Sprintf(`{"username":"u","secret":%q,"registryUrl":%q,"project":%q}`,
					test.secret, test.registry, test.project),
			})
			var masked []string
			c := newClient(s, "dtn_all")
			c.Mask = func(secret string) { masked = append(masked, secret) }
			access, err := c.PushAccess(t.Context(), "")
			if test.host == "" {
				if !errors.Is(err, httpclient.ErrFormat) || access != (PushAccess{}) {
					t.Errorf("got %+v, %v", access, err)
				}
			} else if err != nil || access.Registry != test.host {
				t.Errorf("got %+v, %v", access, err)
			}
			if test.secret != "" && !slices.Equal(masked, []string{test.secret}) || test.secret == "" && masked != nil {
				t.Errorf("masked %q", masked)
			}
		})
	}
}

func TestWaitForImage(t *testing.T) {
	s := startCloud(t, func(o *cloud.Options) { o.ReadsUntilVisible = 3 })
	c := newClient(s, "dtn_all")
	access, ref, want := push(t, c, image(t))
	digest, err := c.WaitForImage(t.Context(), access, ref)
	if err != nil || digest != want {
		t.Errorf("got %q, %v, want %s", digest, err, want)
	}
	repository := strings.TrimSuffix(ref, ":1")
	clock := &fakeclock.Clock{}
	c.HTTP.Clock = clock
	_, err = c.WaitForImage(t.Context(), access, repository+":none")
	checkError(t, err, "find "+repository+":none in Daytona's registry: not visible 2m0s after the push (run again)")
	if missing, ok := errors.AsType[*transport.Error](err); !ok || missing.StatusCode != http.StatusNotFound {
		t.Errorf("cause: %v", err)
	}
	if waited := clock.Now().Sub(fakeclock.Start); waited < 2*time.Minute || waited > 3*time.Minute {
		t.Errorf("waited %s", waited)
	}
	_, err = c.WaitForImage(t.Context(), access, "A B")
	checkError(t, err, `invalid image reference "A B"`)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	c.HTTP.Clock = &fakeclock.Clock{OnSleep: func() { cancel(interrupted) }}
	if _, err = c.WaitForImage(ctx, access, repository+":none"); err != interrupted {
		t.Errorf("got %v, want the cause", err)
	}
	access.Secret = "wrong"
	_, err = c.WaitForImage(t.Context(), access, ref)
	checkError(t, err, "access has expired (run again)")
	if httpclient.Status(err) != http.StatusUnauthorized {
		t.Error(err)
	}
}

func TestWaitForImageFaults(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, test := range []struct {
		name   string
		faults int64 // number of failing requests for the manifest
		status int   // of those responses; 0 for no response
		found  bool
		want   int // status of the error
		logged int // number of log lines
	}{
		{name: "found", found: true},
		{name: "no response once", faults: 1, found: true, logged: 1},
		{name: "no response", faults: 1000, logged: 1},
		{name: "server error twice", faults: 2, status: 500, found: true, logged: 1},
		{name: "not found once", faults: 1, status: 404, found: true},
		{name: "unauthorized once", faults: 1, status: 401, want: 401},
		{name: "forbidden once", faults: 1, status: 403, want: 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			var n atomic.Int64
			registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.Contains(r.URL.Path, "/manifests/"):
				case n.Add(1) > test.faults:
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					w.Header().Set("Docker-Content-Digest", digest)
					w.Header().Set("Content-Length", "7")
				case test.status == 0:
					<-r.Context().Done()
				default:
					w.WriteHeader(test.status)
				}
			}))
			defer registry.Close()
			c := &Client{HTTP: httpclient.Config{
				Clock: &fakeclock.Clock{}, Policy: httpclient.Policy{Attempts: 1},
			}, Timing: Timing{ImageVisible: time.Second}}
			logged := 0
			c.Logf = func(string, ...any) { logged++ }
			if test.faults > 0 && test.status == 0 {
				c.HTTP.Policy.Timeout = 50 * time.Millisecond
				if test.found {
					c.HTTP.Policy.Timeout = 2 * time.Second // for the second request, too
				}
			}
			image := fmt.Sprintf("%s/p/app:1", strings.TrimPrefix(registry.URL, "http://"))
			got, err := c.WaitForImage(t.Context(), PushAccess{User: "u", Secret: "s"}, image)
			switch {
			case test.found && (err != nil || got != digest), !test.found && err == nil:
				t.Errorf("got %q, %v", got, err)
			case httpclient.Status(err) != test.want:
				t.Errorf("got %v, want status %d", err, test.want)
			case !test.found && test.want == 0 && !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("got %v, want a timeout", err)
			}
			if logged != test.logged {
				t.Errorf("%d log lines, want %d", logged, test.logged)
			}
		})
	}
}

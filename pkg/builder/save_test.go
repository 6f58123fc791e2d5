package builder

import (
	"slices"
	"strings"
	"testing"
	"time"

	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/org/sandbox-actions/internal/localcloud/depotapi"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"google.golang.org/protobuf/proto"
)

func TestSave(t *testing.T) {
	saved, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = saved.Stop() })
	saved.AddAccount(registry.Account{User: "x-token", Password: "push-secret", Prefix: "sandbox", Push: true})
	saved.AddAccount(registry.Account{User: "x-token", Password: "pull-secret", Prefix: "sandbox"})
	withRegistry := func(o *depotapi.Options) {
		o.Registry = depotapi.Registry{Host: saved.Addr, Credential: func(_ string, push bool) (string, error) {
			if push {
				return "push-secret", nil
			}
			return "pull-secret", nil
		}}
	}
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	push := func(reference string, c Credential) error {
		ref, err := name.NewTag(reference)
		if err != nil {
			return err
		}
		return remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: c.Username, Password: c.Password}))
	}

	t.Run("push with the lease, pull with another credential", func(t *testing.T) {
		s := startDepot(t, withRegistry)
		j := &journal{}
		d := depot(s, j, "project-token")
		lease := acquire(t, d, Request{Save: true})
		if len(lease.Tags) != 1 || lease.Tags[0] != saved.Addr+"/sandbox:"+lease.ID ||
			len(lease.Credentials) != 1 || lease.Credentials[0].Host != saved.Addr {
			t.Fatalf("tags %q, credentials %+v", lease.Tags, lease.Credentials)
		}
		if err := push(lease.Tags[0], lease.Credentials[0]); err != nil {
			t.Fatal(err)
		}
		pull, err := d.PullCredential(t.Context(), lease.Tags[0]+"@"+digest(t, image).String())
		if err != nil || pull.Host != saved.Addr {
			t.Fatalf("got %+v, %v", pull, err)
		}
		if err := push(lease.Tags[0]+"-other", pull); err == nil {
			t.Error("the pull credential can push")
		}
		ref, err := name.ParseReference(lease.Tags[0])
		if err != nil {
			t.Fatal(err)
		}
		auth := remote.WithAuth(&authn.Basic{Username: pull.Username, Password: pull.Password})
		pulled, err := remote.Image(ref, auth)
		if err != nil {
			t.Fatal(err)
		}
		if digest(t, pulled) != digest(t, image) {
			t.Error("the pulled image has a different digest")
		}
		for _, secret := range []string{"push-secret", "pull-secret"} {
			if !slices.Contains(j.secrets(), secret) {
				t.Errorf("%s is not masked", secret)
			}
		}
	})

	t.Run("build without save", func(t *testing.T) {
		s := startDepot(t, withRegistry)
		d := depot(s, &journal{}, "project-token")
		lease := acquire(t, d, Request{})
		if len(lease.Tags)+len(lease.Credentials) != 0 {
			t.Errorf("tags %q, credentials %+v", lease.Tags, lease.Credentials)
		}
		_, err := d.PullCredential(t.Context(), saved.Addr+"/sandbox:"+lease.ID)
		if err == nil || !strings.Contains(err.Error(), "build "+lease.ID+" was not saved") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("save tags", func(t *testing.T) {
		s := startDepot(t, withRegistry)
		d := depot(s, &journal{}, "project-token")
		lease := acquire(t, d, Request{Save: true, SaveTags: []string{"v1", "latest"}})
		repository := saved.Addr + "/sandbox:"
		want := []string{repository + lease.ID, repository + "v1", repository + "latest"}
		if sent := s.Calls()[0].SaveTags; !slices.Equal(sent, []string{"v1", "latest"}) || !slices.Equal(lease.Tags, want) {
			t.Errorf("sent %q, got %q, want %q", sent, lease.Tags, want)
		}
		// Depot knows no build with such an ID, so that the credential is that of the project.
		for _, reference := range []string{repository + "v1", saved.Addr + "/sandbox@" + digest(t, image).String()} {
			c, err := d.PullCredential(t.Context(), reference)
			if err != nil || c != (Credential{saved.Addr, "x-token", "pull-secret"}) {
				t.Errorf("%s: got %+v, %v", reference, c, err)
			}
		}
		if n := calls(s, "GetPullToken", func(c depotapi.Call) bool { return c.Project == "sandbox" }); n != 2 {
			t.Errorf("got %d calls of GetPullToken for the project", n)
		}
	})

	t.Run("attach to a build", func(t *testing.T) {
		s := startDepot(t, withRegistry)
		j := &journal{}
		created := acquire(t, depot(s, j, "project-token"), Request{})
		token := j.secrets()[1] // of the build
		d := depot(s, j, token)
		d.Project, d.BuildID = "", created.ID
		lease := acquire(t, d, Request{Save: true, SaveTags: []string{"v1"}})
		repository := saved.Addr + "/sandbox:"
		if lease.ID != created.ID || lease.URL != created.URL || lease.ProjectID != "sandbox" ||
			!slices.Equal(lease.Tags, []string{repository + lease.ID, repository + "v1"}) ||
			!slices.Equal(lease.Credentials, []Credential{{saved.Addr, "x-token", token}}) {
			t.Errorf("got %+v", lease)
		}
		lease.Release(nil)
		if n := calls(s, "CreateBuild", nil); n != 1 {
			t.Errorf("got %d builds", n)
		}
		if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "success" }); n != 1 {
			t.Errorf("the build was finished %d times", n)
		}
		s.Fail(depotapi.Fault{
			Method: "GetPullInfo", Status: 200, Body: `{"password":"p"}`, Header: map[string]string{
				"Content-Type": "application/json",
			},
		})
		_, err := d.Acquire(t.Context(), Request{Save: true})
		checkAPIError(t, err, "attach to Depot build "+created.ID,
			wantError{status: 200, format: true, message: "no reference in Depot's registry"})
		d.BuildID = "absent"
		_, err = d.Acquire(t.Context(), Request{})
		checkAPIError(t, err, "attach to Depot build absent", wantError{status: 404, message: "build absent not found"})
	})

	t.Run("malformed reference", func(t *testing.T) {
		s := startDepot(t, withRegistry)
		d := depot(s, &journal{}, "project-token")
		for _, reference := range []string{
			saved.Addr + "/sandbox", saved.Addr + "/team/sandbox:1", "sandbox", "sandbox:1", "",
			saved.Addr + "/sandbox:", saved.Addr + "/sandbox@", saved.Addr + "/:1", saved.Addr + "/sandbox:@sha256:1",
		} {
			_, err := d.PullCredential(t.Context(), reference)
			if err == nil || !strings.Contains(err.Error(), "HOST/PROJECT:BUILD") {
				t.Errorf("%q: %v", reference, err)
			}
		}
		if n := len(s.Calls()); n != 0 {
			t.Errorf("got %d calls", n)
		}
	})

	t.Run("reference on another host", func(t *testing.T) {
		s := startDepot(t, withRegistry)
		d := depot(s, &journal{}, "project-token")
		lease := acquire(t, d, Request{Save: true})
		got, err := d.PullCredential(t.Context(), "evil.example.com/sandbox:"+lease.ID)
		if err == nil || !strings.Contains(err.Error(), "the image is at "+lease.Tags[0]) || got != (Credential{}) {
			t.Errorf("got %+v, %v", got, err)
		}
		for reference, ok := range map[string]bool{
			"evil.example.com/sandbox:v1": false, "registry.depot.dev.evil.example.com/sandbox:v1": false,
			"evilregistry.depot.dev/sandbox:v1": false, "registry.depot.dev/sandbox:v1": true,
			"org.registry.depot.dev/sandbox:v1": true,
		} {
			host, _, _ := strings.Cut(reference, "/")
			got, err := d.PullCredential(t.Context(), reference)
			if (err == nil) != ok || ok != (got.Host == host) || !ok && !strings.Contains(err.Error(), "not Depot's registry") {
				t.Errorf("%s: got %+v, %v", reference, got, err)
			}
		}
	})

	t.Run("Depot without a registry", func(t *testing.T) {
		s := startDepot(t)
		_, err := depot(s, &journal{}, "project-token").Acquire(t.Context(), Request{Save: true})
		checkAPIError(t, err, `create a build in project "sandbox"`,
			wantError{status: 400, message: "this organization has no registry"})
	})

	t.Run("CreateBuild returns no registry", func(t *testing.T) {
		s := startDepot(t)
		answer, err := proto.Marshal(&cliv1.CreateBuildResponse{BuildId: "build", BuildToken: "build-secret"})
		if err != nil {
			t.Fatal(err)
		}
		s.Fail(depotapi.Fault{
			Method: "CreateBuild", Status: 200, Header: map[string]string{"Content-Type": "application/proto"},
			Body: string(answer),
		})
		_, err = depot(s, &journal{}, "project-token").Acquire(t.Context(), Request{Save: true})
		if err == nil || !strings.HasPrefix(err.Error(), "input save: Depot returned no registry for project sandbox") {
			t.Errorf("got %v", err)
		}
		if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "error" }); n != 1 {
			t.Errorf("the build was finished %d times, want once", n)
		}
	})
}

func TestPullCredentialErrors(t *testing.T) {
	json := map[string]string{"Content-Type": "application/json"}
	for _, test := range []struct {
		name  string
		fault depotapi.Fault
		want  wantError // calls 0: success
	}{
		{"502 once", depotapi.Fault{Times: 1, Status: 502}, wantError{}},
		{"502", depotapi.Fault{Status: 502}, wantError{5, 502, true, "empty", "try again later"}},
		{
			"malformed JSON", depotapi.Fault{Status: 200, Header: json, Body: "<html>"},
			wantError{1, 200, true, "web page", "check DEPOT_API_URL"},
		},
		{
			"no password", depotapi.Fault{Status: 200, Header: json, Body: "{}"},
			wantError{1, 200, true, "no password", "check DEPOT_API_URL"},
		},
		{
			"no response", depotapi.Fault{NoResponse: true},
			wantError{5, 0, false, "no response within 100ms, after 5 attempts", "check the network"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := startDepot(t, func(o *depotapi.Options) {
				o.Registry = depotapi.Registry{
					Host: "registry.example.com", Credential: func(string, bool) (string, error) { return "pull-secret", nil },
				}
			})
			d := depot(s, &journal{}, "project-token")
			lease := acquire(t, d, Request{Save: true})
			if test.fault.NoResponse {
				d.Policy.HTTP.Timeout = 100 * time.Millisecond
			}
			test.fault.Method = "GetPullInfo"
			s.Fail(test.fault)
			_, err := d.PullCredential(t.Context(), lease.Tags[0])
			if test.want.calls == 0 {
				if n := calls(s, "GetPullInfo", nil); err != nil || n != 2 {
					t.Errorf("got %d calls, %v", n, err)
				}
				return
			}
			checkAPIError(t, err, "get a password to pull "+lease.Tags[0], test.want)
			checkMessage(t, err, "pull-secret")
			checkCalls(t, s, "GetPullInfo", test.want.calls, test.fault)
		})
	}
}

func digest(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

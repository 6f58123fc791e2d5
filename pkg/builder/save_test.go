package builder

import (
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
	kept, err := registry.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kept.Stop() })
	kept.AddAccount(registry.Account{User: "x-token", Password: "push-secret", Prefix: "sandbox", Push: true})
	kept.AddAccount(registry.Account{User: "x-token", Password: "pull-secret", Prefix: "sandbox"})
	withRegistry := func(o *depotapi.Options) {
		o.Registry = depotapi.Registry{Host: kept.Addr, Credential: func(_ string, push bool) (string, error) {
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

	t.Run("kept, and pulled by another", func(t *testing.T) {
		startDepot(t, withRegistry)
		j := &journal{}
		d := depot(j, "project-token")
		b := startBuild(t, d, Request{Save: true})
		if len(b.Tags) != 1 || b.Tags[0] != kept.Addr+"/sandbox:"+b.ID || len(b.Credentials) != 1 || b.Credentials[0].Host != kept.Addr {
			t.Fatalf("tags %q, credentials %+v", b.Tags, b.Credentials)
		}
		if err := push(b.Tags[0], b.Credentials[0]); err != nil {
			t.Fatal(err)
		}
		pulls, err := d.PullCredential(t.Context(), b.Tags[0]+"@"+same(t, image).String())
		if err != nil || pulls.Host != kept.Addr {
			t.Fatalf("%+v, %v", pulls, err)
		}
		if err := push(b.Tags[0]+"-other", pulls); err == nil {
			t.Error("what pulls may push")
		}
		ref, err := name.ParseReference(b.Tags[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := remote.Image(ref, remote.WithAuth(&authn.Basic{Username: pulls.Username, Password: pulls.Password}))
		if err != nil {
			t.Fatal(err)
		}
		if same(t, got) != same(t, image) {
			t.Error("another image came back")
		}
		masked := strings.Join(j.secrets(), "\n")
		for _, secret := range []string{"push-secret", "pull-secret"} {
			if !strings.Contains(masked, secret) {
				t.Errorf("%s is not masked", secret)
			}
		}
	})

	t.Run("nothing to keep", func(t *testing.T) {
		startDepot(t, withRegistry)
		d := depot(&journal{}, "project-token")
		b := startBuild(t, d, Request{})
		if len(b.Tags)+len(b.Credentials) != 0 {
			t.Errorf("tags %q, credentials %+v", b.Tags, b.Credentials)
		}
		for _, reference := range []string{kept.Addr + "/sandbox:" + b.ID, kept.Addr + "/sandbox", kept.Addr + "/team/sandbox:1", "sandbox"} {
			if _, err := d.PullCredential(t.Context(), reference); err == nil {
				t.Errorf("a password for %s", reference)
			} else {
				oneSentence(t, err)
			}
		}
	})

	t.Run("the name of a build, and another's registry", func(t *testing.T) {
		startDepot(t, withRegistry)
		j := &journal{}
		d := depot(j, "project-token")
		b := startBuild(t, d, Request{Save: true})
		got, err := d.PullCredential(t.Context(), "evil.example.com/sandbox:"+b.ID)
		want := "get a password to pull evil.example.com/sandbox:" + b.ID + ": Depot keeps that build as " + b.Tags[0] + ": write that"
		if err == nil || err.Error() != want || got != (Credential{}) {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
	})

	t.Run("Depot has no registry", func(t *testing.T) {
		startDepot(t)
		_, err := depot(&journal{}, "project-token").Start(t.Context(), Request{Save: true})
		const want = `create a build in project "sandbox": Depot refuses it (this organization has no registry): run it again, and look at the build's page if it happens again`
		if err == nil || err.Error() != want {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
	})

	t.Run("Depot names no place", func(t *testing.T) {
		s := startDepot(t)
		answer, err := proto.Marshal(&cliv1.CreateBuildResponse{BuildId: "build", BuildToken: "build-secret"})
		if err != nil {
			t.Fatal(err)
		}
		s.Fail(depotapi.Fault{Method: "CreateBuild", Status: 200, Header: map[string]string{"Content-Type": "application/proto"}, Body: string(answer)})
		_, err = depot(&journal{}, "project-token").Start(t.Context(), Request{Save: true})
		const want = "input save: Depot named no place in its registry for project sandbox: check the project's registry settings at Depot"
		if err == nil || err.Error() != want {
			t.Errorf("got\n%v\nwant\n%s", err, want)
		}
		if n := calls(s, "FinishBuild", func(c depotapi.Call) bool { return c.Result == "error" }); n != 1 {
			t.Errorf("Depot was told of the end %d times", n)
		}
	})

	for _, test := range []struct {
		name  string
		fault depotapi.Fault
		want  string
	}{
		{"5xx once", depotapi.Fault{Times: 1, Status: 502}, ""},
		{"5xx for ever", depotapi.Fault{Status: 502}, "Depot's API at API failed (502), after 5 tries (502 Bad Gateway): try again later (https://status.depot.dev)"},
		{"garbage", depotapi.Fault{Status: 200, Header: map[string]string{"Content-Type": "application/json"}, Body: "<html>"},
			"what answers at API is not Depot's API, after 5 tries (unmarshal message: invalid character '<' looking for beginning of value): check DEPOT_API_URL, and what stands between"},
		{"no token", depotapi.Fault{Status: 200, Header: map[string]string{"Content-Type": "application/json"}, Body: "{}"},
			"the answer of API holds none: check DEPOT_API_URL"},
		{"silence", depotapi.Fault{Silence: true}, "Depot's API at API did not answer within 100ms, after 5 tries: check the network, and https://status.depot.dev"},
	} {
		t.Run("GetPullInfo, "+test.name, func(t *testing.T) {
			s := startDepot(t, withRegistry)
			d := depot(&journal{}, "project-token")
			b := startBuild(t, d, Request{Save: true})
			if test.fault.Silence {
				set(t, &callTimeout, 100*time.Millisecond)
			}
			test.fault.Method = "GetPullInfo"
			s.Fail(test.fault)
			_, err := d.PullCredential(t.Context(), b.Tags[0])
			got := ""
			if err != nil {
				oneSentence(t, err, "pull-secret")
				got = strings.TrimPrefix(strings.ReplaceAll(err.Error(), s.URL(), "API"), "get a password to pull "+b.Tags[0]+": ")
			}
			if got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func same(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

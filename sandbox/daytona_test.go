package sandbox_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/internal/localcloud/registry"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/suite"
)

// The image passes its suite in sandboxes of Daytona, except for what Daytona does not support.
func TestSuiteInDaytona(t *testing.T) {
	ctx, img := t.Context(), built(t).image
	tests, err := suite.Load("tests.yaml", "tests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.Start(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	server, err := cloud.Start(ctx, cloud.Options{
		Registry: r, Engine: testdaemons.Engine(t, kinds[0]), Organizations: []cloud.Organization{{
			ID: "o", Regions: []cloud.Region{{ID: "us"}}, Keys: []cloud.Key{{Value: "dtn_k", Permissions: []string{
				cloud.WriteSnapshots, cloud.WriteSandboxes, cloud.DeleteSandboxes,
			}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client := &daytona.Client{
		URL: server.URL(), Key: "dtn_k", HTTP: httpclient.Config{Policy: httpclient.Policy{MaxBody: 64 << 20}},
	}
	access, err := client.PushAccess(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(access.Registry + "/" + access.Project + "/sandbox:1")
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(&authn.Basic{Username: access.User, Password: access.Secret})
	if err := remote.Write(ref, img, remote.WithContext(ctx), auth); err != nil {
		t.Fatal(err)
	}
	snapshot, err := client.Create(ctx, daytona.Request{Name: "sandbox", Image: ref.Name()})
	if err == nil {
		_, err = client.WaitUntilActive(ctx, snapshot.ID, "", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	report, err := suite.Run(ctx, tests, suite.Options{
		Config: config, Target: suite.InSandboxes(client, daytona.SandboxRequest{Snapshot: "sandbox"}, config.Config),
		Parallel: 2, ReportDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report.Line())
	var skipped []string
	for _, result := range report.Tests {
		if result.Status == suite.Skipped {
			skipped = append(skipped, result.Name)
		}
	}
	if want := []string{"config"}; report.Failed > 0 || !slices.Equal(skipped, want) { // the size of the image
		var text bytes.Buffer
		if err := report.WriteText(&text, &text); err != nil {
			t.Fatal(err)
		}
		t.Errorf("skipped %q, want %q\n%s", skipped, want, text.String())
	}
}

package daytona

import (
	"fmt"
	"net/http"
	"testing"

	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestRegions(t *testing.T) {
	regions, err := newClient(startCloud(t, nil), "dtn_all").Regions(t.Context())
	if err != nil || fmt.Sprint(regions) != "[{us US} {eu EU} {void Void}]" {
		t.Error(regions, err)
	}
}

func TestDefaultRegion(t *testing.T) {
	s := startCloud(t, nil)
	for _, test := range []struct{ name, key, organization, want string }{
		{"user", userToken, "org-1", "us"},
		{"key, several regions", "dtn_all", "", ""}, // no request that a key may send shows it
		{"key, one region", "dtn_other", "", "asia"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(s, test.key)
			c.Organization = test.organization
			if got, err := c.DefaultRegion(t.Context()); err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	s.Fail(cloud.Fault{Status: 403, Message: "no"})
	for _, key := range []string{userToken, "dtn_all"} {
		c := newClient(s, key)
		c.Organization = "org-1"
		if _, err := c.DefaultRegion(t.Context()); httpclient.Status(err) != http.StatusForbidden {
			t.Error(err)
		}
	}
}

func TestRegion(t *testing.T) {
	c := newClient(startCloud(t, nil), "dtn_all")
	for _, test := range []struct {
		wanted string
		found  Region
		want   string
	}{
		{wanted: ""},
		{wanted: "eu", found: Region{"eu", "EU"}},
		{wanted: "void", found: Region{"void", "Void"}},
		{wanted: "us", found: Region{"us", "US"}},
		{wanted: "eU", found: Region{"eu", "EU"}},
		{wanted: "mars", want: `unknown region "mars" (use one of us, eu, void, or leave it empty for the default)`},
	} {
		found, err := c.Region(t.Context(), test.wanted)
		checkError(t, err, test.want)
		if found != test.found {
			t.Errorf("%s: %v", test.wanted, found)
		}
	}
}

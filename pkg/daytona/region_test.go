package daytona

import (
	"fmt"
	"testing"
)

func TestRegions(t *testing.T) {
	regions, err := newClient(startCloud(t, nil), "dtn_all").Regions(t.Context())
	if err != nil || fmt.Sprint(regions) != "[{us US} {eu EU} {void Void}]" {
		t.Error(regions, err)
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

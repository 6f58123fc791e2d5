package inputs

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestPromoteSpec(t *testing.T) {
	for _, test := range []struct {
		args, name, invalid string
		to                  []DopplerConfigName
	}{
		{args: "agent-1 --to prd", name: "agent-1", to: []DopplerConfigName{{"", "prd"}}},
		{args: "--name agent-1 --to prd,website.prd", name: "agent-1", to: []DopplerConfigName{{"", "prd"}, {"website", "prd"}}},
		{args: "agent-1 --name agent-1 --to prd", name: "agent-1", to: []DopplerConfigName{{"", "prd"}}},
		{args: "--to prd", to: []DopplerConfigName{{"", "prd"}}},
		{args: "agent-1", invalid: "to"},
		{args: "agent-1 --to a/b", invalid: "to"},
		{args: "agent-1 --name agent-2 --to prd", invalid: "name"},
		{args: "agent:latest --to prd", invalid: "name"},
		{args: "--to prd --doppler-secret lower", invalid: "doppler_secret"},
		{args: "--to prd --doppler-mirror DAYTONA_SNAPSHOT_NAME_HISTORY", invalid: "doppler_mirror"},
		{args: "--to prd --timeout 0s", invalid: "timeout"},
	} {
		var in Promote
		source := Source{Args: strings.Fields(test.args), Stdout: io.Discard}
		if _, err := source.Parse(&in); err != nil {
			t.Fatalf("%s: %v", test.args, err)
		}
		spec, err := in.Spec()
		if test.invalid != "" {
			if invalid := (*Error)(nil); !errors.As(err, &invalid) || invalid.Input != test.invalid {
				t.Errorf("%s: got %v, want an error about %s", test.args, err, test.invalid)
			}
			continue
		}
		if err != nil || spec.Name != test.name || !reflect.DeepEqual(spec.Record.Configs, test.to) {
			t.Errorf("%s: %+v, %v", test.args, spec, err)
		}
	}
}

// --config is short for --doppler-config.
func TestRollbackSpec(t *testing.T) {
	var in Rollback
	if _, err := (Source{Args: []string{"--config=prd"}, Stdout: io.Discard}).Parse(&in); err != nil {
		t.Fatal(err)
	}
	spec, err := in.Spec()
	if err != nil || spec.Doppler.DopplerConfig != "prd" || spec.Record.History != "DAYTONA_SNAPSHOT_NAME_HISTORY" {
		t.Errorf("%+v, %v", spec, err)
	}
}

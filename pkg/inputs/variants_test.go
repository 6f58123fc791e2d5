package inputs

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// snapshotVariants validates an input variants, with the defaults of GitHub Actions for the other inputs.
func snapshotVariants(t *testing.T, text string, args ...string) (SnapshotSpec, error) {
	t.Helper()
	var in Snapshot
	source := Source{Args: args, Environ: []string{"GITHUB_ACTIONS=true", "INPUT_VARIANTS=" + text}, Stdout: io.Discard}
	if _, err := source.Parse(&in); err != nil {
		return SnapshotSpec{}, err
	}
	return in.Spec(Env{Getenv: noEnv, Dir: t.TempDir()})
}

func TestVariants(t *testing.T) {
	const text = `
		# comment
		small: cpu=1, memory=2 ,disk=5
		large-gpu:cpu=4,gpu=1,sandbox_class=linux-vm, region=eu,doppler_secret=BIG`
	spec, err := snapshotVariants(t, text, "--name=agent-1", "--doppler-mirror=PUBLIC", "--region=us")
	if err != nil {
		t.Fatal(err)
	}
	small, large := spec.Each()[0], spec.Each()[1]
	if small.Resources != (daytona.Resources{CPU: 1, Memory: 2, Disk: 5}) || small.Region != "us" || small.GPU != 0 ||
		small.Variant != "small" || small.Name != "agent-1-small" || small.NamePrefix != "sandbox-small" ||
		small.Record.Secret != "DAYTONA_SNAPSHOT_NAME_SMALL" || small.Record.Mirror != "PUBLIC_SMALL" {
		t.Errorf("small: %+v", small)
	}
	if large.Resources != (daytona.Resources{CPU: 4, Memory: 4, Disk: 10}) || large.Region != "eu" || large.GPU != 1 ||
		large.SandboxClass != "linux-vm" || large.Record.Secret != "BIG" || large.Record.Mirror != "PUBLIC_LARGE_GPU" {
		t.Errorf("large: %+v", large)
	}
	for _, secret := range []string{"DAYTONA_SNAPSHOT_NAME_SMALL", "BIG", "PUBLIC_SMALL"} {
		if !slices.Contains(spec.Doppler.Public, secret) {
			t.Errorf("%s is masked: %q", secret, spec.Doppler.Public)
		}
	}
	prefixes := []string{"sandbox", "sandbox-small", "sandbox-large-gpu"}
	if got := large.NamePrefixes(); !slices.Equal(got, prefixes) || !slices.Equal(got, spec.NamePrefixes()) {
		t.Errorf("prefixes %q, want %q", got, prefixes)
	}
	if got := small.Secrets(); !slices.Equal(got, []string{
		"DAYTONA_SNAPSHOT_NAME", "DAYTONA_SNAPSHOT_NAME_SMALL", "BIG",
	}) {
		t.Errorf("secrets %q", got)
	}
	one, err := snapshotVariants(t, "")
	if err != nil || len(one.Each()) != 1 || one.Each()[0].Variant != "" || len(one.NamePrefixes()) != 1 {
		t.Errorf("without variants: %d, %v", len(one.Each()), err)
	}
}

// An invalid line is named with its number and a correct example.
func TestInvalidVariants(t *testing.T) {
	for _, test := range []struct {
		name, text string
		line       int
		reason     string
	}{
		{"no settings", "small:", 1, "write for example large: cpu=4"},
		{"no colon", "small cpu=1", 1, "lower-case letters, digits and hyphens"},
		{"no name", "cpu=1,memory=2", 1, "has no name"},
		{"upper case", "Small: cpu=1", 1, "has no name"},
		{"hyphen at the end", "small-: cpu=1", 1, "has no name"},
		{"unknown setting", "a: cpu=1\n\nb: cores=1", 3, `the unknown setting "cores"; use cpu, memory`},
		{"setting without value", "a: cpu", 1, "has no value for cpu"},
		{"setting with an empty value", "a: cpu=,memory=1", 1, "has no value for cpu"},
		{"setting twice", "a: cpu=1,cpu=2", 1, "cpu twice"},
		{"cpu", "a: cpu=1\nb: cpu=two", 2, "cpu=two must be a whole, positive number of cores, for example 2"},
		{"memory with a unit", "a: memory=4GB", 1, "memory=4GB must be"},
		{"gpu", "a: gpu=-1", 1, "gpu=-1 must be 0 or"},
		{"class", "a: sandbox_class=windows", 1, "sandbox_class=windows cannot be made from an image"},
		{"secret", "a: doppler_secret=lower", 1, "doppler_secret=lower is not a valid secret name"},
		{"same name", "a: cpu=1\na: cpu=2", 2, "name of an earlier line"},
		{"same secret", "a: doppler_secret=X\nb: doppler_secret=X", 2, "secret X of an earlier line"},
		{"secret of a mirror", "a: doppler_secret=X\nb: doppler_secret=VITE_X", 2, "of an earlier line"},
		{"long name", "a" + strings.Repeat("-a", 30) + ": cpu=1", 1, "more than 58 characters"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := snapshotVariants(t, test.text)
			invalid := (*Error)(nil)
			if !errors.As(err, &invalid) || invalid.Input != "variants" || invalid.Line != test.line ||
				!strings.Contains(err.Error(), test.reason) {
				t.Errorf("%v, want line %d with %q", err, test.line, test.reason)
			}
		})
	}
	if _, err := snapshotVariants(t, strings.Repeat("a: cpu=1\n", maxVariants+1)); err == nil ||
		!strings.Contains(err.Error(), "at most 50") {
		t.Errorf("too many: %v", err)
	}
	_, err := snapshotVariants(t, "phone: sandbox_class=android", "--entrypoint=a")
	if err == nil || !strings.Contains(err.Error(), "has no effect with sandbox_class: android") {
		t.Errorf("entry point of android: %v", err)
	}
}

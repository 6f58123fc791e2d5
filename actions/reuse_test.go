package actions

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/daytona"
	"github.com/org/sandbox-actions/pkg/inputs"
)

var testDigest = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}

func TestWantedSnapshotMatches(t *testing.T) {
	resources := daytona.Resources{CPU: 2, Memory: 4, Disk: 10}
	same := daytona.Snapshot{
		Image: "host/p/a:" + imageTag(testDigest, false), Digest: testDigest.String(), Resources: resources,
		Entrypoint: []string{"/init", "-x"}, SandboxClass: "container",
	}
	wanted := wantedSnapshot{
		spec: inputs.SnapshotSpec{Resources: resources}, digest: testDigest, entrypoint: []string{"/init", "-x"},
		image: v1.Config{Entrypoint: []string{"/init"}, Cmd: []string{"-x"}},
	}
	withoutCMD := wanted
	withoutCMD.entrypoint, withoutCMD.image.Cmd = []string{"/init"}, nil
	vm := wanted
	vm.spec.SandboxClass = "linux-vm"
	for _, test := range []struct {
		name   string
		wanted wantedSnapshot
		change func(*daytona.Snapshot)
		want   bool
	}{
		{"identical", wanted, func(*daytona.Snapshot) {}, true},
		{"not inspected yet", wanted, func(s *daytona.Snapshot) { s.Digest = "" }, true},
		{"not inspected yet, in the default region", wanted, func(s *daytona.Snapshot) {
			s.Digest, s.Image = "", s.Image+defaultRegionMark
		}, true},
		{
			"not inspected yet, another image", wanted, func(s *daytona.Snapshot) { s.Digest, s.Image = "", "host/p/a:1" },
			false,
		},
		{"another image under the tag", wanted, func(s *daytona.Snapshot) { s.Digest = "sha256:2" }, false},
		{"the image's ENTRYPOINT without its CMD", wanted, func(s *daytona.Snapshot) { s.Entrypoint = nil }, false},
		{"the image's ENTRYPOINT", withoutCMD, func(s *daytona.Snapshot) { s.Entrypoint = nil }, true},
		{"another entry point", wanted, func(s *daytona.Snapshot) { s.Entrypoint = []string{"/other"} }, false},
		{"other resources", wanted, func(s *daytona.Snapshot) { s.Resources.CPU = 4 }, false},
		{"a GPU", wanted, func(s *daytona.Snapshot) { s.GPU = 1 }, false},
		{"another class", wanted, func(s *daytona.Snapshot) { s.SandboxClass = "linux-vm" }, false},
		{"a server without classes", wanted, func(s *daytona.Snapshot) { s.SandboxClass = "" }, true},
		{"the default class instead of a requested one", vm, func(*daytona.Snapshot) {}, false},
		{"the requested class", vm, func(s *daytona.Snapshot) { s.SandboxClass = "linux-vm" }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := same
			test.change(&s)
			if got := test.wanted.matches(s); got != test.want {
				t.Errorf("%t, want %t", got, test.want)
			}
		})
	}
}

// An API key cannot read the default region, but a snapshot that was created without a region is there.
func TestDefaultRegion(t *testing.T) {
	marked := daytona.Snapshot{Image: "host/p/a:" + imageTag(testDigest, true), Regions: []string{"eu"}}
	explicit := daytona.Snapshot{Image: "host/p/a:" + imageTag(testDigest, false), Regions: []string{"us"}}
	foreign := daytona.Snapshot{Image: "host/p/a:v1" + defaultRegionMark, Regions: []string{"us"}}
	for _, test := range []struct {
		name string
		list []daytona.Snapshot
		want string
	}{
		{"none", nil, ""},
		{"created in a region", []daytona.Snapshot{explicit, foreign, {}}, ""},
		{"created without a region", []daytona.Snapshot{explicit, foreign, marked}, "eu"},
	} {
		if got := defaultRegion(test.list); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestImageTag(t *testing.T) {
	for _, inDefaultRegion := range []bool{false, true} {
		tag := imageTag(testDigest, inDefaultRegion)
		digest, isDefault := parseImageTag("127.0.0.1:1/p/a:" + tag)
		if digest != testDigest || isDefault != inDefaultRegion {
			t.Errorf("%s: %s, %t", tag, digest, isDefault)
		}
	}
	for _, reference := range []string{"", "a", "a:v1-default", "a:sha256-1-default", "a@" + testDigest.String()} {
		if digest, isDefault := parseImageTag(reference); digest != (v1.Hash{}) || isDefault {
			t.Errorf("%q: %s, %t", reference, digest, isDefault)
		}
	}
}

package inputs

import (
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/shlex"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// AndroidClass is the sandbox class that starts the image's own entry point, without Daytona's daemon
// (daytonaio/daytona v0.190.0, apps/runner/pkg/docker/container_configs.go, getContainerCreateConfig).
const AndroidClass = "android"

// SnapshotPlatform is the only platform that Daytona runs.
const SnapshotPlatform = "linux/amd64"

// DefaultAttempts is the default of the input attempts.
const DefaultAttempts = 3

// IfExists selects what to do if the snapshot already exists.
type IfExists string

// The values of the input if_exists.
const (
	Reuse   IfExists = "reuse"
	Replace IfExists = "replace"
	Fail    IfExists = "fail"
)

// Verify selects how a snapshot is verified.
type Verify string

// The values of the input verify. Another value is the path of a suite, which means VerifySuite.
const (
	VerifyDefault Verify = "" // boot, if the key has the permissions
	VerifyOff     Verify = "off"
	VerifyBoot    Verify = "boot"
	VerifySuite   Verify = "suite"
)

// SnapshotSpec is a validated [Snapshot].
type SnapshotSpec struct {
	BuildSpec
	Image         string // empty to build one
	Optional      bool   // whether to build one if the engine does not have Image
	ExpectImageID string // sha256:…; empty accepts any
	Name          string // empty to generate one
	NamePrefix    string
	Resources     daytona.Resources
	GPU           int
	SandboxClass  string   // empty for the server's default
	Entrypoint    []string // empty for the image's
	Region        string   // ID or name; empty for the organization's default
	IfExists      IfExists
	Attempts      int // to create the snapshot, at least 1
	Verify        Verify
	VerifySuite   string // path of the suite, relative to the root; empty unless Verify is VerifySuite
	KeepFailed    bool
	Keep          int  // snapshots to keep; 0 keeps all
	MakeRoom      bool // delete old snapshots if the quota is exceeded
	UpdateDoppler bool
	Record        DopplerRecord
	Environment   string // GitHub environment of the deployment; empty records none
	DryRun        bool
	Daytona       Daytona

	Variant  string         // name of the variant that this is the snapshot of; empty without the input variants
	Variants []SnapshotSpec // see Each
	run      *SnapshotSpec  // the spec that has a variant; nil outside Variants
}

var imageID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Spec validates the inputs without reading file contents or using the network. An error is an [*Error].
func (in Snapshot) Spec(env Env) (SnapshotSpec, error) {
	build, err := in.Build.Spec(env)
	if err != nil {
		return SnapshotSpec{}, err
	}
	spec := SnapshotSpec{
		BuildSpec: build, Image: in.Image, Optional: in.DefaultImage, Name: in.Name, NamePrefix: in.NamePrefix,
		IfExists: IfExists(in.IfExists), Keep: in.Keep, UpdateDoppler: in.updatesDoppler(),
		DryRun: in.DryRun, Daytona: in.Daytona, ExpectImageID: in.ExpectImageID, Environment: in.Environment,
		Attempts: in.Attempts, MakeRoom: in.MakeRoom, KeepFailed: in.KeepFailed,
	}
	if in.ExpectImageID != "" && !imageID.MatchString(in.ExpectImageID) {
		return SnapshotSpec{}, Errorf("expect_image_id", in.ExpectImageID,
			"must be an image ID such as sha256:0123…, with 64 hexadecimal digits")
	}
	if spec.Record, err = in.record(); err != nil {
		return SnapshotSpec{}, err
	}
	spec.Doppler.Default = DefaultDopplerConfig
	spec.Doppler.Public = spec.Record.names()
	if !slices.Equal(build.Platforms, []string{SnapshotPlatform}) {
		return SnapshotSpec{}, Errorf("platform", strings.Join(build.Platforms, ","),
			"is not supported by Daytona; write %s only", SnapshotPlatform)
	}
	if in.Load {
		return SnapshotSpec{}, Errorf("load", "true", "is not supported for a snapshot; remove it")
	}
	if in.Name != "" {
		if err := daytona.CheckName(in.Name); err != nil {
			return SnapshotSpec{}, Wrap("name", err)
		}
	}
	if err := daytona.CheckName(in.NamePrefix); err != nil {
		return SnapshotSpec{}, Wrap("name_prefix", err)
	}
	if spec.Entrypoint, err = shlex.Split(in.Entrypoint); err != nil {
		return SnapshotSpec{}, Errorf("entrypoint", in.Entrypoint, "cannot be split into words (%v); close every quote", err)
	}
	if len(spec.Entrypoint) > 0 && strings.TrimSpace(spec.Entrypoint[0]) == "" {
		return SnapshotSpec{}, Errorf("entrypoint", in.Entrypoint, "has no program; write for example sleep infinity")
	}
	if err := in.sandbox(&spec); err != nil {
		return SnapshotSpec{}, err
	}
	if !slices.Contains([]IfExists{Reuse, Replace, Fail}, spec.IfExists) {
		return SnapshotSpec{}, Errorf("if_exists", in.IfExists, "must be reuse, replace or fail")
	}
	if spec.Verify, spec.VerifySuite, err = parseVerify(in); err != nil {
		return SnapshotSpec{}, err
	}
	if in.Keep < 0 {
		return SnapshotSpec{}, Errorf("keep", strconv.Itoa(in.Keep),
			"must be 0 to keep all, or the number of snapshots to keep")
	}
	if in.DryRun && in.Keep == 0 {
		return SnapshotSpec{}, &Error{Input: "dry_run", Reason: "needs --keep N"}
	}
	if err := validateAttempts(in); err != nil {
		return SnapshotSpec{}, err
	}
	return spec, validateVariants(&spec, in)
}

// sandbox validates the settings of sandboxes that may differ between variants.
func (in Snapshot) sandbox(spec *SnapshotSpec) (err error) {
	if spec.Resources, err = parseResources(in); err != nil {
		return err
	}
	if spec.GPU, err = strconv.Atoi(strings.TrimSpace(in.GPU)); err != nil || spec.GPU < 0 || spec.GPU > math.MaxInt32 {
		return Errorf("gpu", in.GPU, "must be 0 or a whole number of GPUs, for example 1")
	}
	if strings.Contains(in.Region, ",") {
		return Errorf("region", in.Region, "must be one region; for several, write a line of variants for each, for "+
			"example eu: region=eu")
	}
	spec.Region, spec.SandboxClass = in.Region, in.SandboxClass
	if len(spec.Entrypoint) > 0 && spec.SandboxClass == AndroidClass {
		return Errorf("entrypoint", in.Entrypoint,
			"has no effect with sandbox_class: android; remove it, and set ENTRYPOINT in the Dockerfile")
	}
	return checkSandboxClass(in.SandboxClass)
}

// parseVerify validates the input verify. YAML 1.1 reads off as false.
func parseVerify(in Snapshot) (mode Verify, suite string, err error) {
	value := strings.TrimSpace(in.Verify)
	switch mode = Verify(value); {
	case mode == VerifyDefault || mode == VerifyOff:
		return mode, "", nil
	case value == "false":
		return VerifyOff, "", nil
	case in.SandboxClass == AndroidClass:
		return "", "", Errorf("verify", value, "is not supported for sandbox_class: android; write off")
	case mode == VerifyBoot:
		return mode, "", nil
	case mode == VerifySuite:
		return mode, DefaultSuite, nil
	case slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(value)):
		return VerifySuite, value, nil
	}
	return "", "", Errorf("verify", value, "must be off, boot, suite, or the path of a suite such as %s", DefaultSuite)
}

var validSandboxClass = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// checkSandboxClass validates a class of sandbox. Daytona checks whether it knows the class. It accepts no image for
// windows (daytonaio/daytona v0.190.0, apps/api/src/sandbox/services/snapshot.service.ts).
func checkSandboxClass(class string) error {
	switch {
	case class == "":
		return nil
	case class == "windows":
		return Errorf("sandbox_class", class, "cannot be made from an image; use container, linux-vm or android")
	case !validSandboxClass.MatchString(class):
		return Errorf("sandbox_class", class, "is invalid; use for example container, linux-vm or android")
	}
	return nil
}

func parseResources(in Snapshot) (r daytona.Resources, err error) {
	for _, resource := range []struct {
		input, text, unit string
		value             *int
	}{
		{"cpu", in.CPU, "cores", &r.CPU}, {"memory", in.Memory, "GB", &r.Memory}, {"disk", in.Disk, "GB", &r.Disk},
	} {
		*resource.value, err = strconv.Atoi(strings.TrimSpace(resource.text))
		if err != nil || *resource.value < 1 || *resource.value > math.MaxInt32 { // an int32 in Daytona's API
			return daytona.Resources{}, Errorf(resource.input, resource.text,
				"must be a whole, positive number of %s, for example 2", resource.unit)
		}
	}
	return r, nil
}

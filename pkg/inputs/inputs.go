// Package inputs declares the inputs of every action, reads them from flags and INPUT_* variables, and turns them into
// validated, immutable specs.
//
// One struct declares the inputs of one command. The field's name is the input's name, its help text is in [help], and
// its tags hold the defaults. action.yml, the reusable workflows, the command line and docs/reference.md are generated
// from these structs. The tags:
//
//	default    value when nothing sets the input
//	terminal   default outside GitHub Actions, where it differs
//	variable   another environment variable that sets the input; flags and INPUT_* take precedence
//	secret     the value is masked; in a list, everything after "=" in each element
//	cli        the input exists on the command line only
//
// A default of the form ${name} is looked up in [defaultsOf].
package inputs

import "time"

// Build declares the inputs of the build action.
type Build struct {
	Ref                   string
	AllowUntrustedRef     bool
	AllowUntrustedSecrets bool
	Submodules            string
	LFS                   bool `name:"lfs" default:"true" negatable:""`
	Platform              List `default:"linux/amd64" terminal:"${terminal_platform}" variable:"SANDBOX_BUILD_PLATFORM"`
	Doppler
	Context               string `default:"."`
	Dockerfile            string
	Target                string
	ImageName             List `default:"sandbox:ci" terminal:"${image_name}" variable:"LOCAL_DOCKER_IMAGE_NAME"`
	BuildArgs             Lines
	BuildContexts         Lines
	Labels                Lines
	DefaultLabels         bool `default:"true" terminal:"false" negatable:""`
	Annotations           Lines
	Secrets               Lines `secret:""`
	SecretEnvs            List
	SecretFiles           Lines
	SSH                   Lines `name:"ssh"`
	Allow                 List
	AddHosts              List
	NoCacheFilters        List
	Outputs               Lines
	Attests               Lines
	NoCache               bool
	Pull                  bool
	Provenance            string
	SBOM                  string `name:"sbom"`
	Network               string
	ShmSize               string
	Ulimit                Lines
	CgroupParent          string
	GitContext            string `terminal:"auto"`
	Load                  bool   `default:"${load}" negatable:""`
	Push                  List
	Save                  bool
	SaveTags              List
	DepotProject          string
	DepotToken            string `secret:""`
	Builder               string `default:"depot"`
	AllowPlaintextBuilder bool
	GithubToken           string        `secret:""`
	Timeout               time.Duration `default:"30m"`
	Report                bool
	ReportDir             string `terminal:"test-results"`
	PreviousRecord        string
	PreviousArtifact      string
	Comment               string `default:"false"`
	Doctor                bool
	OutputFormat
}

// Doppler declares the Doppler config to read and how to authenticate to Doppler.
type Doppler struct {
	DopplerConfig   string `aliases:"config"`
	DopplerProject  string
	DopplerToken    string `secret:""`
	DopplerIdentity string

	Default  string   `kong:"-"` // config to read if nothing selects one; "" reads none without one of these inputs
	Optional bool     `kong:"-"` // without a token, no config is read
	Instead  string   `kong:"-"` // how to do without Doppler, for errors; "" if it is required
	Public   []string `kong:"-"` // secrets that are not masked
}

// DefaultDopplerConfig is the Doppler config that commands for snapshots read if nothing selects one.
const DefaultDopplerConfig = "dev"

// SnapshotSecret declares the Doppler secret that contains the name of the snapshot.
type SnapshotSecret struct {
	DopplerSecret string `default:"DAYTONA_SNAPSHOT_NAME"`
}

// Snapshot declares the inputs of the snapshot action: those of build, and how the snapshot is created.
type Snapshot struct {
	Build
	Image         string `short:"i" terminal:"${image_name}"`
	DefaultImage  bool   `kong:"-"` // whether Image is its default
	ExpectImageID string `name:"expect-image-id"`
	Name          string `short:"n"`
	NamePrefix    string `default:"${name_prefix}" variable:"SANDBOX_NAME_PREFIX"`
	CPU           string `name:"cpu" short:"c" default:"2" variable:"DAYTONA_DEFAULT_SNAPSHOT_CPU"`
	Memory        string `short:"m" default:"4" variable:"DAYTONA_DEFAULT_SNAPSHOT_MEMORY"`
	Disk          string `short:"d" default:"10" variable:"DAYTONA_DEFAULT_SNAPSHOT_DISK"`
	GPU           string `name:"gpu" default:"0"`
	SandboxClass  string
	Entrypoint    string
	Region        string
	Variants      Lines
	IfExists      string `default:"reuse"`
	Attempts      int    `default:"3"`
	Verify        string
	KeepFailed    bool
	Keep          int `default:"0"`
	MakeRoom      bool
	UpdateDoppler *bool `negatable:""`
	SnapshotSecret
	DopplerMirror  string
	DopplerConfigs List
	DopplerHistory bool `default:"true" negatable:""`
	Environment    string
	Daytona
	DryRun bool `cli:""`
}

// Promote declares the inputs of the promote action.
type Promote struct {
	Argument        string `arg:"" optional:"" name:"snapshot" help:"Name of the snapshot; the same as --name."`
	Name            string `short:"n" help:"Name of the snapshot. Default: the one that doppler_config names."`
	To              List
	RequireVerified bool
	Image           string `help:"${promoted_image}"`
	Region          string `help:"${promoted_region}"`
	Environment     string
	Doppler
	ToToken string `secret:""`
	SnapshotSecret
	DopplerMirror  string
	DopplerHistory bool `default:"true" negatable:""`
	Daytona
	GithubToken string        `secret:"" help:"GitHub token to record the deployment of environment."`
	Timeout     time.Duration `default:"30m"`
	OutputFormat
}

// Rollback declares the arguments of action-snapshot rollback.
type Rollback struct {
	Doppler
	SnapshotSecret
	DopplerMirror string
	Environment   string
	Daytona
	GithubToken string        `secret:"" help:"GitHub token to record the deployment of environment."`
	Timeout     time.Duration `default:"30m"`
	OutputFormat
}

// History declares the arguments of action-snapshot history.
type History struct {
	Doppler
	SnapshotSecret
	Daytona
	OutputFormat
}

// Daytona declares how to authenticate to Daytona.
type Daytona struct {
	DaytonaAPIKey         string `name:"daytona-api-key" secret:""`
	DaytonaOrganizationID string `name:"daytona-organization-id"`
	DaytonaAPIURL         string `name:"daytona-api-url"`
}

// Test declares the inputs of the test action: those of build, and how the image is tested.
type Test struct {
	Build
	Image           string `short:"i" terminal:"${image_name}"`
	DefaultImage    bool   `kong:"-"` // whether Image is its default
	Suite           string `default:"sandbox/tests.yaml"`
	AllowPrivileged bool
	Command         string
	Parallel        string `default:"cores"`
	Run             string `cli:""`
	Tags            List   `cli:""`
	Seed            string `cli:""`
}

// DefaultSuite is the suite that [Test] runs by default, relative to the repository root.
const DefaultSuite = "sandbox/tests.yaml"

// NoSuite is the value of the input suite that runs no suite.
const NoSuite = "none"

// Shell declares the arguments of action-test shell.
type Shell struct {
	Image string `short:"i" default:"${image_name}" help:"Image in the local engine."`
	Mount bool
	Cmd   []string `arg:"" optional:"" passthrough:"" help:"Command to run instead of a login shell, after --."`
}

// Convert declares the arguments of action-test convert.
type Convert struct {
	File string `arg:"" help:"Test file of container-structure-test (.yaml, .yml or .json)."`
}

// Completion declares the arguments of the command completion.
type Completion struct {
	Shell string `arg:"" help:"bash, zsh or fish."`
}

// ListSnapshots declares the arguments of action-snapshot list.
type ListSnapshots struct {
	NamePrefix string `default:"${name_prefix}" variable:"SANDBOX_NAME_PREFIX"`
	SnapshotSecret
	Doppler
	Daytona
	OutputFormat
}

// DeleteSnapshot declares the arguments of action-snapshot delete.
type DeleteSnapshot struct {
	Name  string `arg:"" help:"Name of the snapshot."`
	Force bool
	SnapshotSecret
	Doppler
	Daytona
}

// Package runrecord describes one run of a program: its inputs, what it did, and its result.
//
// Everything that presents a run is made from a [Record]: the job summary, report.html, the comment on a pull request,
// the closing lines on a terminal, and the JSON that --output json prints. A record of a failed run contains what the
// run reached.
package runrecord

//go:generate go run ../../internal/gen/schema record

import "time"

// Version is the version of the format. It changes when a field is removed or its meaning changes, not when a field is
// added.
const Version = 1

// Record is the record of a run. It contains no secrets: all text from outside is redacted, and has no control
// characters.
type Record struct {
	Format  int    `json:"format"`            // [Version]
	Program string `json:"program"`           // action-build, or action-snapshot promote for a command of a program
	Release string `json:"release,omitempty"` // of the program, for example v1.2.3; "" if built from source

	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	ExitCode int       `json:"exit_code"`
	Error    *Error    `json:"error,omitempty"` // nil if the run succeeded

	Run       *Run       `json:"run,omitempty"`    // nil outside GitHub Actions
	Inputs    []Input    `json:"inputs,omitempty"` // that differ from their defaults, in the order of the reference
	Source    *Source    `json:"source,omitempty"`
	Phases    []Phase    `json:"phases,omitempty"` // in the order of their start
	Steps     []Step     `json:"steps,omitempty"`  // of the build, in the order of their start
	Image     *Image     `json:"image,omitempty"`
	Changes   *Changes   `json:"changes,omitempty"` // since the previous record; nil without one
	Tests     *Tests     `json:"tests,omitempty"`
	Snapshots []Snapshot `json:"snapshots,omitempty"` // one, or one for each variant
	Doppler   *Doppler   `json:"doppler,omitempty"`
	Outputs   []Output   `json:"outputs,omitempty"` // in the order of the reference
}

// Kind is the kind of an error.
type Kind string

// The kinds of errors. Others may be added.
const (
	InvalidInput    Kind = "input"    // an argument or an input is invalid, or names something that does not exist
	BuildFailed     Kind = "build"    // the Dockerfile or its context is to blame
	TestsFailed     Kind = "test"     // a test or the test command failed, or results are missing
	SnapshotFailed  Kind = "snapshot" // Daytona could not create the snapshot, or it does not work
	TimedOut        Kind = "timeout"  // the input timeout passed
	Canceled        Kind = "canceled" // by a signal, or by Depot
	OtherwiseFailed Kind = "other"
)

// Error describes why a run failed.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`         // as printed at the end of the log
	Input   string `json:"input,omitempty"` // the invalid input; "" for another cause
	File    string `json:"file,omitempty"`  // relative to the root of the repository; "" if none is to blame
	Line    int    `json:"line,omitempty"`  // of File, from 1; 0 if unknown
	EndLine int    `json:"end_line,omitempty"`
	Excerpt string `json:"excerpt,omitempty"` // lines of File around Line, with their numbers
	Step    string `json:"step,omitempty"`    // the step of the Dockerfile that failed
	Output  string `json:"output,omitempty"`  // the last lines of the step's output
}

// Run identifies the workflow run.
type Run struct {
	Repository string `json:"repository"`       // owner/name
	Server     string `json:"server"`           // URL of the GitHub server, without a slash at the end
	ID         string `json:"id"`               // of the workflow run
	Attempt    string `json:"attempt"`          // from 1
	Job        string `json:"job"`              // ID in the workflow
	Event      string `json:"event"`            // push, pull_request, …
	Pull       int    `json:"pull,omitempty"`   // number of the pull request
	Branch     string `json:"branch,omitempty"` // of the run: the head branch of a pull request
}

// Input is one input with its value.
type Input struct {
	Name   string `json:"name"`  // as in a workflow, for example build_args
	Value  string `json:"value"` // "" if Secret
	Secret bool   `json:"secret,omitempty"`
}

// Source is the code that was built.
type Source struct {
	SHA        string            `json:"sha,omitempty"`
	Ref        string            `json:"ref,omitempty"`   // full name
	Dirty      bool              `json:"dirty,omitempty"` // whether the workspace had uncommitted changes
	Context    string            `json:"context,omitempty"`
	Dockerfile string            `json:"dockerfile,omitempty"` // relative to the root of the repository
	Definition string            `json:"definition,omitempty"` // content of the Dockerfile; "" if it is too large
	Files      map[string]string `json:"files,omitempty"`      // mode and hash by path in the context, see [FoldFiles]
	BuildArgs  map[string]string `json:"build_args,omitempty"` // hash of each value, by name, see [HashBuildArgs]
}

// Phase is a part of the run, such as "Build" or "Load sandbox:ci". Phases can overlap.
type Phase struct {
	Name    string  `json:"name"`
	Offset  float64 `json:"offset"` // seconds from the start of the run
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes,omitempty"` // transferred; 0 if unknown
	Failed  bool    `json:"failed,omitempty"`
}

// Step is one step of the build.
type Step struct {
	Name     string  `json:"name"`               // as BuildKit shows it: [builder 2/5] RUN make
	Platform string  `json:"platform,omitempty"` // if there are several
	Stage    string  `json:"stage,omitempty"`    // of the Dockerfile; "" for the only one, and for internal steps
	Line     int     `json:"line,omitempty"`     // of the Dockerfile, from 1; 0 if unknown
	Offset   float64 `json:"offset"`             // seconds from the start of the run; 0 for a step that did not start
	Seconds  float64 `json:"seconds"`
	Cached   bool    `json:"cached,omitempty"`
	Error    string  `json:"error,omitempty"`
	Log      string  `json:"log,omitempty"` // the end of its output, at most 64 KiB; only in the report
}

// Image is the image that was built, tested or made a snapshot.
type Image struct {
	Digest    string          `json:"digest"` // of the manifest, or of the index
	ID        string          `json:"id,omitempty"`
	Ref       string          `json:"ref,omitempty"`    // for later steps and jobs
	Names     []string        `json:"names,omitempty"`  // in the local engine
	Pushed    []string        `json:"pushed,omitempty"` // references, with the tag
	Created   time.Time       `json:"created,omitzero"`
	Existing  bool            `json:"existing,omitempty"` // whether the run did not build it
	Platforms []PlatformImage `json:"platforms"`
	Cached    int             `json:"cached_steps"`
	Total     int             `json:"total_steps"`
	BuildURL  string          `json:"build_url,omitempty"`
}

// PlatformImage is the image of one platform.
type PlatformImage struct {
	Platform string    `json:"platform"`           // linux/amd64
	Size     int64     `json:"size"`               // bytes in a registry: the config and the compressed layers
	Layers   []Layer   `json:"layers"`             // from the base image up
	Packages []Package `json:"packages,omitempty"` // sorted by manager and name; nil if the layers were not read
}

// Layer is one layer of an image.
type Layer struct {
	Digest    string `json:"digest"`
	DiffID    string `json:"diff_id"`
	Size      int64  `json:"size"`                 // compressed bytes
	Unpacked  int64  `json:"unpacked,omitempty"`   // bytes of its files; 0 if the layer was not read
	CreatedBy string `json:"created_by,omitempty"` // the instruction of the Dockerfile
	Read      bool   `json:"read,omitempty"`       // whether the layer was read, so that the fields below describe it
	Files     []File `json:"files,omitempty"`      // sorted by path; nil if the layer was not read

	Omitted     int   `json:"omitted,omitempty"`      // files that are not in Files, the smallest ones
	OmittedSize int64 `json:"omitted_size,omitempty"` // bytes of the largest of them

	Databases []Database `json:"databases,omitempty"` // sorted by path
}

// Database is a package database in a layer.
type Database struct {
	Path     string    `json:"path"`
	Packages []Package `json:"packages,omitempty"`
}

// File is a file of a layer.
type File struct {
	Path    string `json:"path"`              // without a leading slash
	Size    int64  `json:"size"`              // bytes
	Hash    string `json:"hash,omitempty"`    // of the content of a small file; "" for others
	Removed bool   `json:"removed,omitempty"` // whether the layer removes the path, or with Opaque all below it
	Opaque  bool   `json:"opaque,omitempty"`
}

// Package is an installed package.
type Package struct {
	Manager string `json:"manager"` // dpkg, apk, rpm, npm, pip
	Name    string `json:"name"`
	Version string `json:"version"`
	Size    int64  `json:"size,omitempty"` // installed bytes; 0 if unknown
}

// Changes compares the image with that of the previous record.
type Changes struct {
	Since      time.Time        `json:"since"` // when the previous run started
	SHA        string           `json:"sha,omitempty"`
	Digest     string           `json:"digest"`
	Seconds    float64          `json:"seconds"`          // duration of the previous run
	Run        string           `json:"run,omitempty"`    // ID of the previous run, in the same repository
	Branch     string           `json:"branch,omitempty"` // of Run
	Platforms  []PlatformChange `json:"platforms"`
	CacheBreak *CacheBreak      `json:"cache_break,omitempty"` // nil if all steps were cached, or if the cause is unknown
}

// PlatformChange is the difference between the images of one platform.
type PlatformChange struct {
	Platform string          `json:"platform"`
	Size     int64           `json:"size"` // difference in bytes; negative if the image shrank
	Layers   []LayerChange   `json:"layers,omitempty"`
	Files    []FileChange    `json:"files,omitempty"`    // the largest differences first
	Omitted  int             `json:"omitted,omitempty"`  // files that are not in Files
	Packages []PackageChange `json:"packages,omitempty"` // sorted by manager and name
	Unread   int             `json:"unread,omitempty"`   // layers that were not read: Files and Packages can lack changes
}

// LayerChange is a layer that only one of the images has. A layer of the same instruction in both is one change.
type LayerChange struct {
	CreatedBy string `json:"created_by"`
	Before    int64  `json:"before"` // compressed bytes; 0 if it is new
	After     int64  `json:"after"`  // compressed bytes; 0 if it is gone
}

// FileChange is a file that was added, removed or changed.
type FileChange struct {
	Path   string `json:"path"`
	Before int64  `json:"before"` // bytes; -1 if the file is new
	After  int64  `json:"after"`  // bytes; -1 if the file is gone
}

// PackageChange is a package that was added, removed or changed.
type PackageChange struct {
	Manager string `json:"manager"`
	Name    string `json:"name"`
	Before  string `json:"before,omitempty"` // version; "" if the package is new
	After   string `json:"after,omitempty"`  // version; "" if the package is gone
}

// CacheBreak is the first step that was not cached, and the inputs that changed since the previous run.
type CacheBreak struct {
	Step        string   `json:"step"`
	Line        int      `json:"line,omitempty"`
	Instruction bool     `json:"instruction,omitempty"` // whether the instruction itself changed
	BaseImage   bool     `json:"base_image,omitempty"`  // whether another base image was used
	Files       []string `json:"files,omitempty"`       // of the context, at most 20
	MoreFiles   int      `json:"more_files,omitempty"`  // that are not in Files
	BuildArgs   []string `json:"build_args,omitempty"`  // names

	// Earlier are instructions on which the step depends, and that were added, changed or removed without being an
	// uncached step: ENV and ARG, or a removed RUN. At most 20.
	Earlier []string `json:"earlier,omitempty"`
}

// Tests are the results of the tests.
type Tests struct {
	Suite      string   `json:"suite"` // name
	File       string   `json:"file,omitempty"`
	Seed       string   `json:"seed"`
	Seconds    float64  `json:"seconds"`
	Total      int      `json:"total"`
	Passed     int      `json:"passed"`
	Failed     int      `json:"failed"`
	Skipped    int      `json:"skipped"`
	Flaky      int      `json:"flaky"`
	Tests      []Test   `json:"tests"`
	Incomplete []string `json:"incomplete,omitempty"` // why results may be missing
}

// Test is the result of one test.
type Test struct {
	Name     string        `json:"name"`
	Class    string        `json:"class,omitempty"`
	File     string        `json:"file,omitempty"`
	Line     int           `json:"line,omitempty"`
	Tags     []string      `json:"tags,omitempty"`
	Status   string        `json:"status"` // passed, failed, skipped or flaky
	Attempts int           `json:"attempts"`
	Reason   string        `json:"reason,omitempty"` // why it was skipped
	Seconds  float64       `json:"seconds"`
	Failures []TestFailure `json:"failures,omitempty"`
	Log      string        `json:"log,omitempty"` // path of the file with the container's output
}

// TestFailure is one failed check.
type TestFailure struct {
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"`
}

// Snapshot is a Daytona snapshot.
type Snapshot struct {
	Variant      string   `json:"variant,omitempty"`
	Name         string   `json:"name"`
	ID           string   `json:"id"`
	State        string   `json:"state"`
	Digest       string   `json:"digest,omitempty"`
	SizeGB       float64  `json:"size_gb,omitempty"`
	Reused       bool     `json:"reused"`
	Verified     string   `json:"verified,omitempty"` // boot, suite or none
	CPU          int      `json:"cpu"`
	MemoryGB     int      `json:"memory_gb"`
	DiskGB       int      `json:"disk_gb"`
	GPU          int      `json:"gpu,omitempty"`
	SandboxClass string   `json:"sandbox_class,omitempty"`
	Region       string   `json:"region,omitempty"`
	Entrypoint   []string `json:"entrypoint,omitempty"`
	States       []State  `json:"states,omitempty"` // its life in this run
}

// State is a state that Daytona reported for a snapshot.
type State struct {
	Name   string  `json:"name"`
	Offset float64 `json:"offset"` // seconds from the start of the run
}

// Doppler describes where the snapshot is named.
type Doppler struct {
	Secret    string   `json:"secret"`
	Written   []string `json:"written,omitempty"`   // configs in which the name changed, as PROJECT.CONFIG
	Unchanged []string `json:"unchanged,omitempty"` // configs that had the name already
	Skipped   string   `json:"skipped,omitempty"`   // why no config was written
	Previous  string   `json:"previous,omitempty"`  // the name before
	Deleted   []string `json:"deleted,omitempty"`   // older snapshots that the run deleted
}

// Output is an output of the action.
type Output struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

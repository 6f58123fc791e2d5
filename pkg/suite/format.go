package suite

// The types in this file and in forms.go define the format of a suite: its keys (yaml tags), its rules (jsonschema and
// schema tags, JSONForm methods) and its documentation (the comments). schema.json is generated from them. Parse
// validates files against the schema, and Convert encodes these types.

//go:generate go run ../../internal/gen/schema suite

// Position is the position of a value in the suite's file.
type Position struct {
	Line int // from 1; 0 for a value that is not from a file
}

// Document is a test suite for a container image. Regular expressions use Go's syntax (RE2): (?m) at the start makes ^
// and $ match at each line. Paths of golden files and mounts are relative to the suite's file.
type Document struct {
	// Name of the suite in reports. Default: the name of the file.
	Name string `yaml:"name,omitempty"`
	// Default settings of the tests.
	Defaults Settings `yaml:"defaults,omitempty"`
	// Tests, in the order of the report.
	Tests []*Test `yaml:"tests" jsonschema:"required,minItems=1"`
}

// Test checks one thing: the metadata of the image, its files, a command, or the image as a running service.
type Test struct {
	Position `yaml:"-"`
	// Unique name of the test.
	Name string `yaml:"name" jsonschema:"required,title=one-line name,pattern=^[^\\p{C}]{1\\,200}$"`
	// Words by which tests can be selected (--tags).
	Tags []Word `yaml:"tags,omitempty"`
	// Reason why the test is skipped.
	Skip string `yaml:"skip,omitempty"`
	// Number of times to retry after a failure. A test that passes on a retry is reported as flaky, not as passed.
	Retries int `yaml:"retries,omitempty" jsonschema:"minimum=0,maximum=10,default=0"`
	// Values of environment variables. Each combination of values becomes a separate test.
	Matrix Matrix `yaml:"matrix,omitempty"`

	Settings `yaml:",inline"`

	Image *ImageCheck `yaml:"image,omitempty" jsonschema:"oneof_required=image"`
	// Checks of files in the image's layers. No container is started.
	Files   []FileCheck   `yaml:"files,omitempty" jsonschema:"oneof_required=files,minItems=1"`
	Service *ServiceCheck `yaml:"service,omitempty" jsonschema:"oneof_required=service"`

	// Name of a container that the tests of the session share, in the order of the file. Sessions are faster, but each
	// test sees the changes of those before it. The image needs /bin/sh.
	Session Word `yaml:"session,omitempty"`
	// Commands to run first in the same container. Each must exit with 0. The image needs /bin/sh.
	Setup []Command `yaml:"setup,omitempty"`
	// Continue after a setup command that fails, unless it cannot be started.
	SetupMayFail bool `yaml:"setup_may_fail,omitempty" jsonschema:"default=false"`

	CommandCheck `yaml:",inline"`

	ownLimits bool // whether the test itself sets limits of resources
}

// Settings configure a test's containers and how commands run in them.
type Settings struct {
	// Maximum duration of the whole test. Default: 60s.
	Timeout Duration `yaml:"timeout,omitempty"`
	// User, as in docker run --user. Default: the image's user, or 65534:65534 if that is root, so a test that needs root
	// must set it. The default for a service is always the image's user.
	User Text `yaml:"user,omitempty"`
	// Let commands without user run as root if that is the image's user.
	AllowRoot bool `yaml:"allow_root,omitempty" jsonschema:"default=false"`
	// Privileges. none: no capabilities and no way to gain them (sudo does not work); default: as in docker run; all: as
	// in docker run --privileged.
	Privileges string `yaml:"privileges,omitempty" jsonschema:"enum=none,enum=default,enum=all,default=none"`
	// Network: none, or bridge for the engine's default network. Default: bridge for a service with a port to connect to,
	// otherwise none.
	Network string `yaml:"network,omitempty" jsonschema:"enum=none,enum=bridge,enum="`
	// Run commands in a terminal. All output is then stdout.
	TTY bool `yaml:"tty,omitempty" jsonschema:"default=false"`
	// Run the command through the image's entry point.
	Entrypoint bool `yaml:"entrypoint,omitempty" jsonschema:"default=false"`
	// Working directory of commands. Default: the image's working directory.
	Workdir string `yaml:"workdir,omitempty" jsonschema:"title=absolute path,pattern=^(/|$),example=/tmp"`
	// Environment variables in addition to those of the image.
	Env Env `yaml:"env,omitempty"`
	// Replace $NAME and ${NAME} in run, setup, their env, and paths of files with the image's variables, and $$ with $. A
	// variable that the image does not set is empty. Services ignore this setting.
	Expand bool `yaml:"expand,omitempty" jsonschema:"default=false"`
	// Files and directories next to the suite to mount read-only.
	Mounts []Mount `yaml:"mounts,omitempty"`
	Limits Limits  `yaml:"limits,omitempty"`
}

// Mount makes a file or directory available in the container, read-only.
type Mount struct {
	Position `yaml:"-" schema:"example={source: fixtures, target: /fixtures}"`
	// Path relative to the suite's file.
	Source string `yaml:"source" jsonschema:"required,minLength=1"`
	// Absolute path in the container.
	Target string `yaml:"target" jsonschema:"required,title=absolute path,pattern=^/.,example=/fixtures"`
}

// Limits limit the resources of a container.
type Limits struct {
	// Memory in bytes, including swap. Default: unlimited.
	Memory Size `yaml:"memory,omitempty"`
	// CPU cores. Default: unlimited.
	CPUs float64 `yaml:"cpus,omitempty" jsonschema:"minimum=0,maximum=1000000"`
	// Number of processes and threads.
	PIDs int `yaml:"pids,omitempty" jsonschema:"minimum=0,maximum=4194304,default=512"`
	// Size of each output stream of a command. A command that prints more is killed. Default: 8MiB.
	Output Size `yaml:"output,omitempty"`
}

// CommandCheck runs a command and checks its exit code and output.
type CommandCheck struct {
	// Command to run: a line for /bin/sh, or a list of the program and its arguments.
	Run *Command `yaml:"run,omitempty" jsonschema:"oneof_required=run"`
	// Expected exit code.
	Exit int `yaml:"exit,omitempty" jsonschema:"minimum=0,maximum=255,default=0"`
	// Expected output.
	Stdout *TextCheck `yaml:"stdout,omitempty"`
	// Expected output on standard error.
	Stderr *TextCheck `yaml:"stderr,omitempty"`
}

// TextCheck checks a text: the output of a command, the content of a file, or the body of a response.
type TextCheck struct {
	Position `yaml:"-" schema:"minProperties=1"`
	// Regular expressions that must all match.
	Include []Pattern `yaml:"include,omitempty"`
	// Regular expressions that must not match.
	Exclude []Pattern `yaml:"exclude,omitempty"`
	// The complete text.
	Equals *string `yaml:"equals,omitempty"`
	// File next to the suite that contains the complete text.
	Golden string `yaml:"golden,omitempty" jsonschema:"minLength=1"`
}

// ImageCheck checks the image's metadata: its config, platform and size.
type ImageCheck struct {
	Position `yaml:"-" schema:"minProperties=1"`
	// Environment variables.
	Env    map[string]ValueCheck `yaml:"env,omitempty"`
	Labels map[string]ValueCheck `yaml:"labels,omitempty"`
	// The complete entry point; [] for none.
	Entrypoint *[]string `yaml:"entrypoint,omitempty"`
	// The complete default command; [] for none.
	Cmd     *[]string   `yaml:"cmd,omitempty"`
	User    *ValueCheck `yaml:"user,omitempty"`
	Workdir *ValueCheck `yaml:"workdir,omitempty"`
	// Ports that must be exposed.
	Ports []Port `yaml:"ports,omitempty"`
	// Ports that must not be exposed.
	PortsAbsent []Port `yaml:"ports_absent,omitempty"`
	// Volumes that must be declared.
	Volumes []string `yaml:"volumes,omitempty"`
	// Volumes that must not be declared.
	VolumesAbsent []string     `yaml:"volumes_absent,omitempty"`
	Healthcheck   *Healthcheck `yaml:"healthcheck,omitempty"`
	StopSignal    *ValueCheck  `yaml:"stop_signal,omitempty"`
	// Operating system and architecture, optionally with the variant.
	Platform string `yaml:"platform,omitempty" jsonschema:"pattern=^[^/]+/[^/]+(/[^/]+)?$,example=linux/amd64"`
	// Maximum size of all layers, uncompressed.
	MaxSize   Size `yaml:"max_size,omitempty"`
	MaxLayers int  `yaml:"max_layers,omitempty" jsonschema:"minimum=0"`
}

// FileCheck checks one path, or every path that matches a pattern.
type FileCheck struct {
	Position `yaml:"-"`
	// A path, or a pattern: * matches within a name, ** across directories. The checks apply to every match. At least one
	// file must match, unless absent or count is set. Symbolic links in the directories of a path are followed, but **
	// does not search linked directories. A link at the end of a plain path is followed, except with absent, target, or
	// type or having symlink. At the end of a pattern, mode, executable_by, size and content apply to the file to which a
	// link points, and the other keys to the link.
	Path PathPattern `yaml:"path" jsonschema:"required"`
	// Patterns of paths to ignore.
	Except []Glob `yaml:"except,omitempty"`
	// Select only files with all of these traits.
	Having []Trait `yaml:"having,omitempty"`
	// Whether the checks apply to the file to which a link at the end of the path points. The default is above.
	Follow *bool `yaml:"follow,omitempty"`
	// Require that no file matches.
	Absent bool   `yaml:"absent,omitempty" jsonschema:"default=false"`
	Type   string `yaml:"type,omitempty" jsonschema:"enum=file,enum=directory,enum=symlink,enum=fifo,enum=char,enum=block"`
	// Permission bits in octal.
	Mode string `yaml:"mode,omitempty" jsonschema:"title=file mode,pattern=^[0-7]{3\\,4}$,example=0644,example=4755"`
	// user or user:group, by number or by name (from the image's /etc/passwd and /etc/group).
	Owner        Text   `yaml:"owner,omitempty"`
	ExecutableBy string `yaml:"executable_by,omitempty" jsonschema:"enum=owner,enum=group,enum=others,enum=any"`
	// Target of the symbolic link, as stored in the link.
	Target *ValueCheck `yaml:"target,omitempty"`
	// Size of the file in bytes.
	Size *Range `yaml:"size,omitempty"`
	// Number of matching files.
	Count *Range `yaml:"count,omitempty"`
	// Content of the file.
	Content *TextCheck `yaml:"content,omitempty"`
}

// Range is a range of numbers, including its bounds. A single number is both bounds.
type Range struct {
	Position `yaml:"-" schema:"minProperties=1"`
	Min      *Size `yaml:"min,omitempty"`
	Max      *Size `yaml:"max,omitempty"`
}

// ServiceCheck starts the image with its own entry point, user and command, and performs steps with it.
type ServiceCheck struct {
	Position `yaml:"-" schema:"minProperties=1"`
	// Arguments that replace the image's command, but not its entry point.
	Command []string        `yaml:"command,omitempty"`
	Ready   *ReadinessCheck `yaml:"ready,omitempty"`
	// Steps to perform in order. The first failure ends the test.
	Steps []Step `yaml:"steps,omitempty"`
}

// ReadinessCheck defines when the service is ready: when all conditions are met since its last start.
type ReadinessCheck struct {
	Position `yaml:"-" schema:"minProperties=1"`
	// The image's HEALTHCHECK reports healthy.
	Healthy bool `yaml:"healthy,omitempty"`
	// A port accepts connections.
	Port int `yaml:"port,omitempty" jsonschema:"minimum=1,maximum=65535"`
	// A request succeeds.
	HTTP *HTTPCheck `yaml:"http,omitempty"`
	// The log since the last start matches this regular expression.
	Log *Pattern `yaml:"log,omitempty"`
	// The service exits with this code, because it runs only once. Only logs and restart can follow.
	Exit *int `yaml:"exit,omitempty" jsonschema:"minimum=0,maximum=255"`
	// Time limit for the service to become ready. Default: 30s.
	Within Duration `yaml:"within,omitempty"`
}

// Step is one action with a running service: run, http, restart, stop or logs.
type Step struct {
	Position     `yaml:"-"`
	CommandCheck `yaml:",inline"`
	User         Text   `yaml:"user,omitempty"`
	Env          Env    `yaml:"env,omitempty"`
	Workdir      string `yaml:"workdir,omitempty" jsonschema:"title=absolute path,pattern=^(/|$),example=/tmp"`
	// How long to retry run, http or logs until it passes. Default: no retries.
	Within Duration `yaml:"within,omitempty"`

	HTTP *HTTPCheck `yaml:"http,omitempty" jsonschema:"oneof_required=http"`
	// Restart the service and wait until it is ready again.
	Restart bool       `yaml:"restart,omitempty" jsonschema:"oneof_required=restart" jsonschema_extras:"const=true"`
	Stop    *StopCheck `yaml:"stop,omitempty" jsonschema:"oneof_required=stop"`
	Logs    *LogsCheck `yaml:"logs,omitempty" jsonschema:"oneof_required=logs"`
}

// HTTPCheck sends a request to a port of the container. Redirects are not followed.
type HTTPCheck struct {
	Position `yaml:"-" schema:"example={port: 8080}"`
	// Port of the container.
	Port   int    `yaml:"port" jsonschema:"required,minimum=1,maximum=65535"`
	Path   string `yaml:"path,omitempty" jsonschema:"title=absolute path,pattern=^(/|$),default=/,example=/health"`
	Method string `yaml:"method,omitempty" jsonschema:"pattern=^[A-Z]+$,default=GET,example=POST"`
	// Headers of the request.
	Request map[string]Text `yaml:"request,omitempty"`
	// Expected status code.
	Status int `yaml:"status,omitempty" jsonschema:"minimum=100,maximum=599,default=200"`
	// Expected headers of the response.
	Headers map[string]ValueCheck `yaml:"headers,omitempty"`
	// Expected body of the response.
	Body *TextCheck `yaml:"body,omitempty"`
}

// StopCheck stops the service and checks its exit code.
type StopCheck struct {
	Position `yaml:"-"`
	// Signal to send. Default: the image's STOPSIGNAL, or TERM.
	Signal string `yaml:"signal,omitempty" jsonschema:"title=signal,pattern=^(SIG)?[A-Z0-9+]+$,example=TERM"`
	// Expected exit code.
	Exit int `yaml:"exit,omitempty" jsonschema:"minimum=0,maximum=255,default=0"`
	// Time limit for the service to stop. Default: 10s.
	Within Duration `yaml:"within,omitempty"`
}

// LogsCheck checks the output of the service so far.
type LogsCheck struct {
	Position `yaml:"-" schema:"minProperties=1"`
	Stdout   *TextCheck `yaml:"stdout,omitempty"`
	Stderr   *TextCheck `yaml:"stderr,omitempty"`
}

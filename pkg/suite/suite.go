// Package suite tests an image as a declarative file says: its metadata, its files, commands in fresh or shared containers, and the
// image as a running service. It reads the file ([Load]), runs it ([Run]) and reports.
//
// The format is described by schema.json, which editors use; [Load] holds a file against the same rules and names the line.
package suite

import (
	_ "embed"
	"regexp"
	"time"
)

// Schema is the JSON schema (draft 2020-12) of the format.
//
//go:embed schema.json
var Schema []byte

// Suite is a file of tests for one image.
type Suite struct {
	File  string  // as it was given to Load; what reports say, so it may be changed
	Name  string  // what the report is called; the file's name when it says nothing
	Tests []*Test // in the file's order, each value of a matrix a test of its own

	dir string // that golden files and mounts are relative to, absolute
}

// Test is one test: of the image's metadata, of its files, of a command, or of the image as a service. Exactly one of Image, Files, Run
// and Service is set.
type Test struct {
	at
	Name     string            `yaml:"name"`
	Tags     []string          `yaml:"tags"`
	Skip     string            `yaml:"skip"`    // why it is not run; "" runs it
	Retries  int               `yaml:"retries"` // how often a failure is tried again; passing then makes it flaky, not passed
	Matrix   map[string][]text `yaml:"matrix"`  // values of environment variables, each combination a test
	settings `yaml:",inline"`

	Image   *imageCheck `yaml:"image"`
	Files   []fileCheck `yaml:"files"`
	Service *service    `yaml:"service"`

	Session string `yaml:"session"` // name of the container that is shared with the session's other tests; "" for one of its own
	Setup   []argv `yaml:"setup"`   // run before in the same container; each must exit with 0
	command `yaml:",inline"`
}

// at is where something begins in its file. The decoder fills it in.
type at struct {
	Line int // from 1
}

// settings say how a test's containers are made and how commands run in them.
type settings struct {
	Timeout    duration        `yaml:"timeout"` // of the whole test
	User       text            `yaml:"user"`    // as for docker; "" is the image's own, or 65534 where that is root
	Env        map[string]text `yaml:"env"`
	Workdir    string          `yaml:"workdir"`
	TTY        bool            `yaml:"tty"`
	Entrypoint bool            `yaml:"entrypoint"` // run the command through the image's entry point
	Network    string          `yaml:"network"`    // none, or bridge; "": none, and bridge where a port is asked
	Privileges string          `yaml:"privileges"` // none, default (the engine's), or all
	Mounts     []mount         `yaml:"mounts"`
	Limits     limits          `yaml:"limits"`
}

// mount shows a file or folder beside the suite's file in the container, read only.
type mount struct {
	at
	Source string `yaml:"source"` // relative to the suite's file
	Target string `yaml:"target"`
}

type limits struct {
	Memory size    `yaml:"memory"` // bytes
	CPUs   float64 `yaml:"cpus"`
	PIDs   int     `yaml:"pids"`
}

// command is something to run, and what must come of it.
type command struct {
	Run    *argv   `yaml:"run"`
	Exit   int     `yaml:"exit"`
	Stdout *output `yaml:"stdout"`
	Stderr *output `yaml:"stderr"`
}

// output is what a text must be like: a command's output, a file, an answer's body.
type output struct {
	at
	Include []pattern `yaml:"include"`
	Exclude []pattern `yaml:"exclude"`
	Equals  *string   `yaml:"equals"`
	Golden  string    `yaml:"golden"` // a file beside the suite's that holds the text
}

// imageCheck is what the image's config must say.
type imageCheck struct {
	at
	Env           map[string]value `yaml:"env"`
	Labels        map[string]value `yaml:"labels"`
	Entrypoint    *[]string        `yaml:"entrypoint"`
	Cmd           *[]string        `yaml:"cmd"`
	User          *value           `yaml:"user"`
	Workdir       *value           `yaml:"workdir"`
	Ports         []text           `yaml:"ports"` // exposed, among others
	PortsAbsent   []text           `yaml:"ports_absent"`
	Volumes       []string         `yaml:"volumes"`
	VolumesAbsent []string         `yaml:"volumes_absent"`
	Healthcheck   *healthcheck     `yaml:"healthcheck"`
	StopSignal    *value           `yaml:"stop_signal"`
	Platform      string           `yaml:"platform"`
	MaxSize       size             `yaml:"max_size"` // bytes of all layers, unpacked
	MaxLayers     int              `yaml:"max_layers"`
}

// healthcheck is whether there is one, and its command if that is asked.
type healthcheck struct {
	at
	present bool
	test    []string // as in the config, CMD or CMD-SHELL first; nil for any
}

// fileCheck is what must hold of a path, or of each path that a pattern matches.
type fileCheck struct {
	at
	Path         string   `yaml:"path"`
	Except       []string `yaml:"except"`
	Having       []string `yaml:"having"` // only files that have each of these: see traits
	Absent       bool     `yaml:"absent"`
	Type         string   `yaml:"type"`
	Mode         string   `yaml:"mode"`
	Owner        text     `yaml:"owner"`
	ExecutableBy string   `yaml:"executable_by"`
	Target       *value   `yaml:"target"`
	Size         *between `yaml:"size"`
	Count        *between `yaml:"count"`
	Content      *output  `yaml:"content"`
}

// between is a number's bounds; a bare number is both.
type between struct {
	at
	Min *size `yaml:"min"`
	Max *size `yaml:"max"`
}

// service starts the image as it is, and does one thing after another with it.
type service struct {
	at
	Command []string `yaml:"command"` // instead of the image's own
	Ready   *ready   `yaml:"ready"`
	Steps   []step   `yaml:"steps"`
}

// ready is when a service has started: all that is set must hold.
type ready struct {
	at
	Healthy bool       `yaml:"healthy"`
	Port    int        `yaml:"port"`
	HTTP    *httpCheck `yaml:"http"`
	Log     *pattern   `yaml:"log"`
	Within  duration   `yaml:"within"` // of the start
}

// step is one of Run, HTTP, Restart, Stop and Logs.
type step struct {
	at
	command `yaml:",inline"`
	User    text            `yaml:"user"`
	Env     map[string]text `yaml:"env"`
	Workdir string          `yaml:"workdir"`
	Within  duration        `yaml:"within"` // how long run, http and logs are tried until they hold; 0: once

	HTTP    *httpCheck `yaml:"http"`
	Restart bool       `yaml:"restart"`
	Stop    *stop      `yaml:"stop"`
	Logs    *logs      `yaml:"logs"`
}

// httpCheck is a request to a port of the container, through one that is published on loopback.
type httpCheck struct {
	at
	Port    int              `yaml:"port"`
	Path    string           `yaml:"path"`
	Method  string           `yaml:"method"`
	Request map[string]text  `yaml:"request"` // headers that are sent
	Status  int              `yaml:"status"`
	Headers map[string]value `yaml:"headers"` // headers of the answer
	Body    *output          `yaml:"body"`
}

// stop asks the service to end, and says how it must.
type stop struct {
	at
	Signal string   `yaml:"signal"`
	Exit   int      `yaml:"exit"`
	Within duration `yaml:"within"`
}

// logs is what the container's log must be like.
type logs struct {
	at
	Stdout *output `yaml:"stdout"`
	Stderr *output `yaml:"stderr"`
}

// The smallest things, each with a form of its own in YAML.
type (
	text     string        // a string, for which a bare number is taken too
	duration time.Duration // "30s"
	size     int64         // bytes: 4096, "10MB", "1GiB"

	// pattern is a regular expression in Go's syntax (RE2).
	pattern struct {
		at
		*regexp.Regexp
	}
	// argv is a command: a list is run as it is, a string by /bin/sh -c.
	argv struct {
		at
		args []string
	}
	// value is what a value must be: a string itself, {matches: REGEX}, or null for none.
	value struct {
		at
		equals  string
		matches *regexp.Regexp
		absent  bool
	}
)

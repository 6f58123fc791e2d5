package inputs

import (
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
)

// TestSpec is a validated [Test].
type TestSpec struct {
	BuildSpec
	Image     string // empty to build one
	Optional  bool   // whether to build one if the engine does not have Image
	Suite     string // relative to the tested tree; [NoSuite] for none
	Command   string // run by sh; empty for none
	Parallel  int    // maximum number of containers at a time
	ReportDir string // relative to the workspace, or absolute
	Run       *regexp.Regexp
	Tags      []string
	Seed      uint64
	JSON      bool // write the report as JSON instead of the outputs

	AllowPrivileged bool // whether the suite may run privileged containers
}

// Spec validates the inputs without reading file contents or using the network. An error is an [*Error].
func (in Test) Spec(env Env) (TestSpec, error) {
	build, err := in.Build.Spec(env)
	if err != nil {
		return TestSpec{}, err
	}
	spec := TestSpec{
		BuildSpec: build, Image: in.Image, Optional: in.DefaultImage, Suite: in.Suite, Command: in.Command, ReportDir: in.ReportDir,
		Tags: Texts(in.Tags), Parallel: runtime.NumCPU(), Seed: rand.Uint64(), JSON: in.Output == "json",
		AllowPrivileged: in.AllowPrivileged,
	}
	if in.Suite == NoSuite && in.Command == "" {
		return TestSpec{}, Errorf("suite", in.Suite, "leaves nothing to run; write the path of a suite, or set command")
	}
	if !in.Load {
		return TestSpec{}, Errorf("load", "false", "leaves no image to test; remove it")
	}
	if in.Parallel != "cores" {
		if spec.Parallel, err = strconv.Atoi(in.Parallel); err != nil || spec.Parallel < 1 {
			return TestSpec{}, Errorf("parallel", in.Parallel, "must be cores, or a number of containers such as 4")
		}
	}
	if in.Run != "" {
		if spec.Run, err = regexp.Compile(in.Run); err != nil {
			return TestSpec{}, Errorf("run", in.Run, "is not a regular expression (%v)", err)
		}
	}
	if in.Seed != "" {
		if spec.Seed, err = strconv.ParseUint(in.Seed, 10, 64); err != nil {
			return TestSpec{}, Errorf("seed", in.Seed, "must be the number that an earlier run printed")
		}
	}
	if spec.ReportDir == "" {
		spec.ReportDir = filepath.Join(env.Getenv("RUNNER_TEMP"), "test-results")
	} else if _, err := SecureJoin(env.Dir, spec.ReportDir); err != nil {
		return TestSpec{}, Wrap("report_dir", err)
	}
	if in.Output != "" && in.Output != "json" {
		return TestSpec{}, Errorf("output", in.Output, "must be json or empty")
	}
	return spec, nil
}

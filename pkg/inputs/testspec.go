package inputs

import (
	"math/rand/v2"
	"regexp"
	"runtime"
	"strconv"
)

// TestSpec is a validated [Test].
type TestSpec struct {
	BuildSpec
	Image    string // empty to build one
	Optional bool   // whether to build one if the engine does not have Image
	Suite    string // relative to the tested tree; [NoSuite] for none
	Command  string // run by sh; empty for none
	Parallel int    // maximum number of containers at a time
	Run      *regexp.Regexp
	Tags     []string
	Seed     uint64

	AllowPrivileged bool // whether the suite may run privileged containers
}

// Spec validates the inputs without reading file contents or using the network. An error is an [*Error].
func (in Test) Spec(env Env) (TestSpec, error) {
	build, err := in.Build.Spec(env)
	if err != nil {
		return TestSpec{}, err
	}
	spec := TestSpec{
		BuildSpec: build, Image: in.Image, Optional: in.DefaultImage, Suite: in.Suite, Command: in.Command,
		Tags: Texts(in.Tags), Parallel: runtime.NumCPU(), Seed: rand.Uint64(),
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
	return spec, spec.checkReportDir(env)
}

package actions

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/suite"
)

// effectiveEntrypoint returns the command that a sandbox starts: that of the input, or the one that `docker run`
// starts, which is the image's ENTRYPOINT followed by its CMD.
//
// Daytona itself starts the snapshot's entry point, or the image's ENTRYPOINT if the snapshot has none, and never the
// image's CMD (daytonaio/daytona v0.190.0, apps/runner/pkg/docker/container_configs.go, getContainerCreateConfig). It
// drops blank words (processEntrypoint in apps/api/src/sandbox/services/snapshot.service.ts).
func effectiveEntrypoint(spec inputs.SnapshotSpec, image v1.Config) []string {
	command := slices.Clone(spec.Entrypoint)
	if len(command) == 0 && spec.SandboxClass != inputs.AndroidClass {
		command = slices.Concat(image.Entrypoint, image.Cmd)
	}
	return slices.DeleteFunc(command, func(word string) bool { return strings.TrimSpace(word) == "" })
}

// logEntrypoint logs what a sandbox starts, and warns about settings of the image that behave differently than with
// `docker run`.
func logEntrypoint(job job, spec inputs.SnapshotSpec, image v1.Config, entrypoint []string) {
	if spec.SandboxClass == inputs.AndroidClass {
		return
	}
	if len(entrypoint) == 0 {
		job.Runner.Infof("A sandbox starts no program: the image has neither ENTRYPOINT nor CMD")
	} else {
		job.Runner.Infof("A sandbox starts %q", entrypoint)
	}
	given := spec.Entrypoint
	if len(given) == 0 {
		given = slices.Concat(image.Entrypoint, image.Cmd)
	}
	if len(entrypoint) > 0 && len(entrypoint) < len(given) {
		job.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("Daytona drops the empty words of the entry point %q; "+
			"set the input entrypoint to a command without them", given)})
	}
	// Backups are commits of the container, which have no volumes (apps/runner/pkg/docker/backup.go).
	if len(image.Volumes) > 0 {
		job.Runner.Warning(runner.Annotation{Message: fmt.Sprintf("files in the image's volumes are lost when Daytona "+
			"archives a sandbox: remove VOLUME %s from the Dockerfile, or keep no data there",
			strings.Join(slices.Sorted(maps.Keys(image.Volumes)), ", "))})
	}
	if image.Healthcheck != nil && len(image.Healthcheck.Test) > 0 && image.Healthcheck.Test[0] != "NONE" {
		job.Runner.Infof("Daytona ignores the image's HEALTHCHECK")
	}
	if len(image.ExposedPorts) > 0 {
		job.Runner.Infof("Daytona ignores the image's EXPOSE: each port of a sandbox has a preview URL")
	}
}

// Limits on reading layers to check an entry point, in compressed bytes.
const (
	maxTopLayers = 16 << 20  // the top layers, which usually contain the program
	maxAllLayers = 128 << 20 // all layers
)

// checkEntrypoint returns an error if the image lacks the program of the entry point, or if the program is not
// executable. Daytona starts nothing when it creates a snapshot, and reports a sandbox as started even if its entry
// point fails (daytonaio/daytona v0.190.0, apps/daemon/cmd/daemon/main.go).
//
// It reads the top layers first, and all of them only if the program is not there and they are small.
func checkEntrypoint(ctx context.Context, job job, img v1.Image, config v1.Config, entrypoint []string) error {
	if len(entrypoint) == 0 {
		return nil
	}
	defer startActivity(ctx, "the check of the entry point")()
	candidates, err := programPaths(entrypoint[0], config)
	if err != nil {
		return err
	}
	part, err := topLayers(img, maxTopLayers)
	if err != nil {
		return err
	}
	tree, err := suite.ReadTree(ctx, part)
	if err != nil {
		return err
	}
	if !part.complete && findProgram(tree, candidates) != executable {
		if part, err = topLayers(img, maxAllLayers); err != nil {
			return err
		}
		if !part.complete {
			job.Runner.Infof("The entry point %q is not checked, because the image's layers have more than %s",
				entrypoint[0], units.HumanSize(maxAllLayers))
			return nil
		}
		if tree, err = suite.ReadTree(ctx, part); err != nil {
			return err
		}
	}
	return programError(tree, part.complete, entrypoint[0], candidates)
}

// partialImage is an image with only its top layers.
type partialImage struct {
	v1.Image
	layers   []v1.Layer
	complete bool // whether layers has all layers
}

// Layers implements [v1.Image].
func (p partialImage) Layers() ([]v1.Layer, error) { return p.layers, nil }

// topLayers returns the image with as many of its top layers as have at most limit compressed bytes in total.
func topLayers(img v1.Image, limit int64) (partialImage, error) {
	layers, err := img.Layers()
	if err != nil {
		return partialImage{}, fmt.Errorf("read the image's layers: %w", err)
	}
	first := len(layers)
	for total := int64(0); first > 0; first-- {
		size, err := layers[first-1].Size()
		if err != nil {
			return partialImage{}, fmt.Errorf("read the size of an image layer: %w", err)
		}
		if total += size; total > limit {
			break
		}
	}
	return partialImage{Image: img, layers: layers[first:], complete: first == 0}, nil
}

// defaultPath is the PATH of a container if the image sets none (moby v28, oci/defaults.go).
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// programPaths returns the absolute paths at which a sandbox looks for a program.
func programPaths(program string, config v1.Config) ([]string, error) {
	workdir := config.WorkingDir
	if workdir == "" {
		workdir = "/" // only for relative directories in PATH
	}
	switch {
	case path.IsAbs(program):
		return []string{program}, nil
	case strings.Contains(program, "/") && config.WorkingDir == "":
		// Without a WORKDIR, the daemon changes to the user's home directory (apps/daemon/cmd/daemon/main.go).
		return nil, fmt.Errorf("the entry point %q is relative, and Daytona starts it in the user's home directory because "+
			"the image has no WORKDIR (use an absolute path, or set WORKDIR)", program)
	case strings.Contains(program, "/"):
		return []string{path.Join(workdir, program)}, nil
	}
	search := defaultPath
	for _, variable := range config.Env {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			search = value
		}
	}
	var candidates []string
	for _, dir := range strings.Split(search, ":") {
		if !path.IsAbs(dir) {
			dir = path.Join(workdir, dir)
		}
		candidates = append(candidates, path.Join(dir, program))
	}
	return candidates, nil
}

// programState is what the image has at the paths of a program.
type programState int

const (
	missing programState = iota
	notExecutable
	executable
)

// findProgram returns the best state of a program at the candidate paths. It follows symbolic links.
func findProgram(tree *suite.Tree, candidates []string) programState {
	best := missing
	for _, candidate := range candidates {
		file, ok := tree.Stat(candidate)
		switch {
		case ok && file.Type == "file" && file.Mode&0o111 != 0:
			return executable
		case ok:
			best = notExecutable
		}
	}
	return best
}

// programError describes what is wrong with the program of an entry point in a tree, if anything.
func programError(tree *suite.Tree, complete bool, program string, candidates []string) error {
	const fix = "correct ENTRYPOINT or CMD in the Dockerfile, or set the input entrypoint"
	switch state := findProgram(tree, candidates); {
	case state == missing && candidates[0] == program:
		return fmt.Errorf("the entry point %q does not exist in the image (%s)", program, fix)
	case state == missing:
		return fmt.Errorf("the entry point %q does not exist in the image at %s (%s)",
			program, strings.Join(candidates, ", "), fix)
	case state == notExecutable:
		return fmt.Errorf("the entry point %q is not an executable file (set its mode, for example with COPY --chmod=755; "+
			"or %s)", program, fix)
	case !complete:
		return nil
	}
	// The daemon starts the entry point through sh or the shells of /etc/shells (apps/daemon/pkg/common/get_shell.go).
	shells, err := programPaths("sh", v1.Config{})
	if err != nil {
		return err
	}
	if findProgram(tree, shells) != executable {
		return fmt.Errorf("the image has no shell (sh), which Daytona needs to start the entry point %q (use a base image "+
			"with a shell)", program)
	}
	return nil
}

package actions

import (
	"cmp"
	"context"
	"os"
	"strings"

	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/inputs"
)

// Shell opens a terminal in a new container of an image. The command's exit code becomes the program's.
func Shell(ctx context.Context, env Env, in inputs.Shell) error {
	engine, err := dockerengine.Open(ctx, env.Getenv)
	if err != nil {
		return err
	}
	defer engine.Close()
	id, err := engine.ImageID(ctx, in.Image)
	if err != nil {
		return err
	}
	if id == "" {
		return notInEngine(in.Image)
	}
	container := dockerengine.ContainerSpec{Image: id, Cmd: shellCommand(in), Network: "bridge"}
	if in.Mount {
		target, err := workingDirectory(ctx, engine, id)
		if err != nil {
			return err
		}
		container.Mounts = []dockerengine.Mount{{Source: env.Dir, Target: target}}
	}
	code, err := engine.Interactive(ctx, container, os.Stdin, os.Stdout)
	if err != nil {
		return err
	}
	if code != 0 {
		return &ExitError{Code: code} // the command has reported what failed
	}
	return nil
}

func shellCommand(in inputs.Shell) []string {
	command := in.Cmd
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return []string{"bash", "-l"}
	}
	return command
}

// workingDirectory returns the image's working directory, or /workspace if that is the root.
func workingDirectory(ctx context.Context, engine *dockerengine.Engine, id string) (string, error) {
	img, err := engine.Image(ctx, id, "")
	if err != nil {
		return "", err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	return cmp.Or(strings.TrimSuffix(config.Config.WorkingDir, "/"), "/workspace"), nil
}

package actions

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Version is the release of the program, for example v1.2.3. scripts/release.sh sets it at link time; it is empty in
// a build from source.
var Version string

// versionLine is what --version prints.
func versionLine(program string) string {
	return program + " " + cmp.Or(Version, "(built from source)")
}

func versionCommand(program string) Command {
	return Command{
		Name: program + " version", Description: "Shows the version, the commit and the platform.",
		Inputs: &struct{}{},
		Run: func(_ context.Context, env Env) error {
			build, _ := debug.ReadBuildInfo() // nil without modules
			_, err := fmt.Fprintln(env.Stdout, versionLine(program)+"\n"+describeBuild(build))
			return err
		},
	}
}

// describeBuild returns the commit, the version of Go and the platform that a program was built from, with and for.
func describeBuild(build *debug.BuildInfo) string {
	settings := map[string]string{}
	if build != nil {
		for _, s := range build.Settings {
			settings[s.Key] = s.Value
		}
	}
	commit := cmp.Or(settings["vcs.revision"], "unknown")
	if settings["vcs.modified"] == "true" {
		commit += ", modified"
	}
	if date, _, found := strings.Cut(settings["vcs.time"], "T"); found {
		commit += " (" + date + ")"
	}
	return fmt.Sprintf("commit:   %s\nGo:       %s\nplatform: %s/%s",
		commit, strings.TrimPrefix(runtime.Version(), "go"), runtime.GOOS, runtime.GOARCH)
}

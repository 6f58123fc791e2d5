package image

import (
	"encoding/csv"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/session/auth/authprovider"
)

// ContextName returns the form of a named context's name that BuildKit looks up for an image or a stage: x for
// docker.io/library/x:latest (moby/buildkit v0.34.2, NamedContext in frontend/dockerui/config.go).
func ContextName(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// defaultScanner is the image that BuildKit runs for an SBOM unless the attestation names another.
const defaultScanner = "docker.io/docker/buildkit-syft-scanner"

// namedImages are the images that a build names, as actions by repository by registry, as in the scopes of tokens:
// pull, or pull and push.
type namedImages map[string]map[string][]string

// namedImages returns the images that the request and its Dockerfile name. It leaves out those that only the builder
// can know: of a Dockerfile in a remote context, of a custom frontend, and of the instruction ONBUILD in base images.
func (r Request) namedImages() namedImages {
	images := namedImages{}
	for _, image := range r.Push {
		images.add(image, "pull", "push")
	}
	for _, from := range r.Contexts {
		if image, ok := strings.CutPrefix(from, "docker-image://"); ok {
			images.add(image, "pull")
		}
	}
	if attributes, ok := r.Attestations["sbom"]; ok {
		images.add(defaultScanner, "pull")
		fields, _ := csv.NewReader(strings.NewReader(attributes)).Read() // the builder reports errors
		for _, field := range fields {
			if image, ok := strings.CutPrefix(field, "generator="); ok {
				images.add(image, "pull")
			}
		}
	}
	images.add(r.BuildArgs["BUILDKIT_SYNTAX"], "pull")
	if r.Definition != nil {
		images.addDockerfile(r.Definition, r.BuildArgs)
	}
	return images
}

// add adds a reference. It ignores an invalid one, such as the name of a stage with a digest.
func (n namedImages) add(image string, actions ...string) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return
	}
	registry := reference.Domain(named)
	if registry == "docker.io" {
		registry = authprovider.DockerHubRegistryHost
	}
	if n[registry] == nil {
		n[registry] = map[string][]string{}
	}
	if repository := reference.Path(named); len(n[registry][repository]) < len(actions) {
		n[registry][repository] = actions
	}
}

// addDockerfile adds the images in a Dockerfile.
func (n namedImages) addDockerfile(dockerfile *Dockerfile, args map[string]string) {
	if syntax, _, _, ok := parser.DetectSyntax(dockerfile.data); ok {
		n.add(syntax, "pull")
	}
	if dockerfile.parsed == nil {
		return
	}
	values := map[string]string{}
	lex := shell.NewLex(dockerfile.parsed.EscapeToken)
	expand := func(text string) string {
		var environ []string
		for _, name := range slices.Sorted(maps.Keys(values)) {
			environ = append(environ, name+"="+values[name])
		}
		if word, _, err := lex.ProcessWord(text, shell.EnvsFromSlice(environ)); err == nil {
			return word
		}
		return ""
	}
	for _, global := range dockerfile.args {
		for _, arg := range global.Args {
			if arg.Value != nil {
				values[arg.Key] = expand(*arg.Value)
			}
			if value, ok := args[arg.Key]; ok {
				values[arg.Key] = value
			}
		}
	}
	for _, stage := range dockerfile.stages {
		n.add(expand(stage.BaseName), "pull")
		for _, command := range stage.Commands {
			switch command := command.(type) {
			case *instructions.CopyCommand:
				n.add(expand(command.From), "pull")
			case *instructions.RunCommand:
				for _, mount := range instructions.GetMounts(command) {
					n.add(expand(mount.From), "pull")
				}
			}
		}
	}
}

func (n namedImages) hasRegistry(host string) bool { return len(n[host]) > 0 }

// allowedScopes returns the part of the scopes that the build needs at a registry. A scope has the form
// repository:NAME:ACTION,ACTION.
func (n namedImages) allowedScopes(host string, scopes []string) (allowed []string) {
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		i := strings.LastIndex(rest, ":")
		if kind != "repository" || i < 0 {
			continue
		}
		repository := rest[:i]
		actions := slices.DeleteFunc(strings.Split(rest[i+1:], ","), func(action string) bool {
			return !slices.Contains(n[host][repository], action)
		})
		if len(actions) > 0 {
			allowed = append(allowed, "repository:"+repository+":"+strings.Join(actions, ","))
		}
	}
	return allowed
}

package inputs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// defaultDockerfile is the default of the input dockerfile. It means the Dockerfile in the context, or
// sandboxDockerfile if the context has none.
const (
	defaultDockerfile = "Dockerfile"
	sandboxDockerfile = "sandbox/Dockerfile"
)

// Paths are the resolved paths of a build.
type Paths struct {
	Context    string            // absolute path of a directory, or a URL
	Dockerfile string            // absolute path; relative to the context if that is a URL
	Contexts   map[string]string // named contexts; local directories are absolute
}

// Resolve resolves the context, the Dockerfile and the named contexts in the tree at root. An error is an [*Error].
func (s BuildSpec) Resolve(root string) (Paths, error) {
	if IsRemote(s.Context) {
		return Paths{Context: s.Context, Dockerfile: s.Dockerfile, Contexts: s.Request.Contexts}, nil
	}
	context, err := s.resolveContext(root)
	if err != nil {
		return Paths{}, err
	}
	dockerfile, err := s.resolveDockerfile(root)
	if err != nil {
		return Paths{}, err
	}
	contexts := map[string]string{}
	for name, from := range s.Request.Contexts {
		if contexts[name], err = resolveNamedContext(root, name, from); err != nil {
			return Paths{}, err
		}
	}
	return Paths{Context: context, Dockerfile: dockerfile, Contexts: contexts}, nil
}

func (s BuildSpec) resolveContext(root string) (string, error) {
	path, err := SecureJoin(root, s.Context)
	if err != nil {
		return "", Wrap("context", err)
	}
	if info, err := os.Stat(path); err != nil {
		return "", Errorf("context", s.Context, "not found; write a directory relative to the repository root")
	} else if !info.IsDir() {
		return "", Errorf("context", s.Context, "is a file; write a directory")
	}
	return path, nil
}

func (s BuildSpec) resolveDockerfile(root string) (string, error) {
	path, err := SecureJoin(root, s.DockerfileIn(root))
	if err != nil {
		return "", Wrap("dockerfile", err)
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return "", Errorf("dockerfile", s.Dockerfile, "not found; write a path relative to the repository root")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", Wrap("dockerfile", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return "", Errorf("dockerfile", s.Dockerfile, "is empty")
	}
	return path, nil
}

// DockerfileIn returns the path of the Dockerfile for the tree at root: the input dockerfile or, by default, the
// Dockerfile in the context or in sandbox/. The file may not exist.
func (s BuildSpec) DockerfileIn(root string) string {
	if s.Dockerfile != defaultDockerfile {
		return s.Dockerfile
	}
	inContext := filepath.Join(s.Context, defaultDockerfile)
	if !filepath.IsAbs(s.Context) {
		inContext = filepath.Join(root, inContext)
	}
	if _, err := os.Stat(inContext); err != nil {
		if _, err := os.Stat(filepath.Join(root, sandboxDockerfile)); err == nil {
			return sandboxDockerfile
		}
	}
	return inContext
}

func resolveNamedContext(root, name, from string) (string, error) {
	const layout = "oci-layout://"
	directory, isLayout := strings.CutPrefix(from, layout)
	if IsRemote(directory) {
		return from, nil
	}
	if !isLayout {
		return ResolveDirectory(root, name, from)
	}
	path, err := SecureJoin(root, directory)
	if err != nil {
		return "", Wrap("build_contexts", fmt.Errorf("%s: %w", name, err))
	}
	return layout + path, nil
}

// ResolveDirectory returns the absolute path of a named context's directory in the tree at root.
func ResolveDirectory(root, name, directory string) (string, error) {
	path, err := SecureJoin(root, directory)
	if err != nil {
		return "", Wrap("build_contexts", fmt.Errorf("%s: %w", name, err))
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", Errorf("build_contexts", name+"="+directory, "is not a directory in the repository")
	}
	return path, nil
}

// IsRemote reports whether BuildKit fetches the context.
func IsRemote(context string) bool {
	return strings.Contains(context, "://") || strings.HasPrefix(context, "git@")
}

// SecureJoin joins a path to root. It returns an error if a path below root leads out of it through a symbolic link:
// such a link in a pull request could send files of this machine to the build, or make it overwrite them. Absolute
// paths elsewhere come from the workflow, not from the repository, and are returned unchanged.
func SecureJoin(root, path string) (string, error) {
	joined := path
	if !filepath.IsAbs(path) {
		joined = filepath.Join(root, path)
	}
	if !isBelow(root, joined) {
		return joined, nil
	}
	realRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", err
	}
	existing := joined
	for _, err := os.Lstat(existing); err != nil && existing != root; _, err = os.Lstat(existing) {
		existing = filepath.Dir(existing)
	}
	if resolved, err := filepath.EvalSymlinks(existing); err != nil || !isBelow(realRoot, resolved) {
		return "", fmt.Errorf("%q is a symbolic link that leads out of the repository", path)
	}
	return joined, nil
}

func isBelow(root, path string) bool {
	relative, err := filepath.Rel(root, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
}

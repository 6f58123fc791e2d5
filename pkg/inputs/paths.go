package inputs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"github.com/org/sandbox-actions/pkg/image"
)

const (
	// defaultDockerfile is the name of the Dockerfile in the context, which is built without the input dockerfile.
	defaultDockerfile = "Dockerfile"
	// sandboxDockerfile is built without the input dockerfile if the context has no Dockerfile.
	sandboxDockerfile = "sandbox/Dockerfile"
	// stdin is the Dockerfile that the input dockerfile names with -.
	stdin = "/dev/stdin"
)

// Paths are the resolved paths of a build.
type Paths struct {
	Context    string            // absolute path of a directory, or a URL
	Dockerfile string            // absolute path; relative to the context if that is a URL
	Contexts   map[string]string // named contexts; local directories are absolute

	Definition *image.Dockerfile // the content of Dockerfile; nil if the builder fetches it
}

// Resolve resolves the context, the Dockerfile and the named contexts in the tree at root, and reads the Dockerfile. An
// error is an [*Error].
func (s BuildSpec) Resolve(root string) (paths Paths, err error) {
	paths = Paths{
		Context: s.Context, Dockerfile: cmp.Or(s.Dockerfile, defaultDockerfile), Contexts: map[string]string{},
	}
	if !IsRemote(s.Context) {
		if paths.Context, err = s.resolveContext(root); err != nil {
			return Paths{}, err
		}
	}
	if !IsRemote(s.Context) || filepath.IsAbs(s.Dockerfile) {
		if paths.Dockerfile, paths.Definition, err = s.readDockerfile(root); err != nil {
			return Paths{}, err
		}
	}
	for name, from := range s.Request.Contexts {
		if paths.Contexts[name], err = resolveNamedContext(root, name, from); err != nil {
			return Paths{}, err
		}
	}
	return paths, nil
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
	return path, Wrap("context", checkIgnoreFile(root, s.Context))
}

// checkIgnoreFile returns an error if the .dockerignore of a context is a link that leads nowhere or out of the tree at
// root. BuildKit would take it for missing, and build with the files that it excludes.
func checkIgnoreFile(root, context string) error {
	name := filepath.Join(context, ".dockerignore")
	path, err := SecureJoin(root, name)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_, err = os.Stat(path)
	return err
}

// readDockerfile reads the Dockerfile, and returns it with its absolute path.
func (s BuildSpec) readDockerfile(root string) (string, *image.Dockerfile, error) {
	name, _ := s.DockerfileIn(root)
	path, err := SecureJoin(root, name)
	if err == nil {
		_, err = SecureJoin(root, name+".dockerignore")
	}
	if err != nil {
		return "", nil, Wrap("dockerfile", err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return "", nil, Errorf("dockerfile", name, "is a directory; write the path of a file")
	}
	dockerfile, err := image.ReadDockerfile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, Errorf("dockerfile", name, "not found%s", s.suggestDockerfile(root))
	case err != nil:
		return "", nil, Errorf("dockerfile", name, "cannot be read: %v", err)
	case dockerfile.IsEmpty():
		return "", nil, Errorf("dockerfile", name, "is empty")
	}
	return path, dockerfile, nil
}

// suggestDockerfile returns the end of a message about a Dockerfile that does not exist.
func (s BuildSpec) suggestDockerfile(root string) string {
	candidates := []string{defaultDockerfile, sandboxDockerfile}
	if s.Dockerfile != "" {
		inContext := []string{filepath.Join(s.Context, s.Dockerfile), filepath.Join(s.Context, defaultDockerfile)}
		candidates = append(inContext, candidates...)
	}
	const relative = "; the path is relative to the repository root"
	for _, candidate := range candidates {
		if file := findDockerfile(root, candidate); file != "" {
			return relative + ": write " + file
		}
	}
	return relative
}

// DockerfileIn returns the path of the Dockerfile for the tree at root, and whether it exists: that of the input
// dockerfile, relative to root, or else of the Dockerfile in the context or in sandbox/.
func (s BuildSpec) DockerfileIn(root string) (path string, exists bool) {
	candidates := []string{filepath.Join(s.Context, defaultDockerfile), sandboxDockerfile}
	switch {
	case s.Dockerfile != "":
		candidates = []string{s.Dockerfile}
	case IsRemote(s.Context):
		return defaultDockerfile, false
	}
	for _, candidate := range candidates {
		if file := findDockerfile(root, candidate); file != "" {
			return file, true
		}
	}
	return candidates[0], false
}

// findDockerfile returns the path if it exists in the tree at root, otherwise that of the file dockerfile for one named
// Dockerfile, like docker build. It returns "" if neither exists.
func findDockerfile(root, path string) string {
	names := []string{path}
	if filepath.Base(path) == defaultDockerfile {
		names = append(names, filepath.Join(filepath.Dir(path), strings.ToLower(defaultDockerfile)))
	}
	for _, name := range names {
		if _, err := os.Lstat(absolute(root, name)); err == nil {
			return name
		}
	}
	return ""
}

func absolute(root, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(root, path)
}

func resolveNamedContext(root, name, from string) (string, error) {
	const layout = "oci-layout://"
	directory, isLayout := strings.CutPrefix(from, layout)
	if !isLayout && IsRemote(from) {
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
	if err := checkIgnoreFile(root, directory); err != nil {
		return "", Wrap("build_contexts", fmt.Errorf("%s: %w", name, err))
	}
	return path, nil
}

// IsRemote reports whether a context is not a directory of this machine: a git reference as BuildKit parses it, or any
// URL. A directory with a name like github.com/a/b needs the prefix ./.
func IsRemote(context string) bool {
	_, isGit, _ := dfgitutil.ParseGitRef(context)
	return isGit || strings.Contains(context, "://")
}

// SecureJoin joins a path to root. It returns an error if a path below root leads out of it through a symbolic link:
// such a link in a pull request could send files of this machine to the build, or make it overwrite them. Absolute
// paths elsewhere come from the workflow, not from the repository, and are returned unchanged.
func SecureJoin(root, path string) (string, error) {
	joined := absolute(root, path)
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
	resolved, err := filepath.EvalSymlinks(existing)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%q is a symbolic link to a file that does not exist", path)
	}
	if err != nil || !isBelow(realRoot, resolved) {
		return "", fmt.Errorf("%q is a symbolic link that leads out of the repository", path)
	}
	return joined, nil
}

func isBelow(root, path string) bool {
	relative, err := filepath.Rel(root, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
}

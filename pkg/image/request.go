package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// Request describes the build of one platform.
type Request struct {
	Platform   string // os/architecture, for example linux/amd64
	Context    string // absolute path of a directory, or the URL of a git repository or an archive
	Dockerfile string // path of the file; relative to the context if that is a URL
	Target     string // the stage to build; "" for the last

	// Definition is the content of Dockerfile. If it is nil, Solve reads the file, or the builder does from a URL.
	Definition *Dockerfile

	// SharedKey identifies the context directory across builds: files that an earlier build with the same key has sent
	// are not sent again. A file counts as unchanged if its path, mode, size and modification time are equal, so
	// directories in which those can be equal for different contents must not share a key.
	SharedKey string

	// CommitFiles is a directory. The times of the files below it depend on their content, as those of a commit's files
	// do. For other files, the times that the builder gets are derived from their content, which costs reading them.
	CommitFiles string

	BuildArgs map[string]string
	Labels    map[string]string
	VCS       map[string]string // attributes of the provenance attestation, for example vcs:revision
	Contexts  map[string]string // named contexts: an absolute path, docker-image://, oci-layout://, or a URL

	Secrets map[string]func() ([]byte, error) // by ID; each is read when a step uses it
	SSH     []SSH
	Auth    Auth

	Allow          []string // entitlements, for example network.host
	AddHosts       []string // name=address
	NoCache        bool
	NoCacheFilters []string // stages to build without cache
	Pull           bool     // check for newer base images
	Network        string   // of RUN steps: default, host or none
	ShmSize        int64    // bytes; 0 for the builder's default
	Ulimits        []string // name=soft[:hard]
	CgroupParent   string

	Attestations map[string]string // attributes as CSV, by type: provenance or sbom
	Annotations  map[string]string // by exporter attribute, for example "annotation.org.opencontainers.image.source"
	Outputs      []client.ExportEntry

	Push         []string // references that BuildKit pushes to
	PushByDigest bool     // push without the tags in Push, which are added later

	Compression Compression

	// LayerDir is an empty directory of the caller. Layers of base images that the builder did not need to pull are
	// written there. If it is "", those layers cannot be read.
	LayerDir string

	// UnpulledDir is like LayerDir, but layers are written there only when a caller reads one that the builder has not
	// pulled.
	UnpulledDir string

	Logf  func(format string, args ...any) // reports retries; may be nil
	Clean func(line string) string         // redacts secrets in a line of the builder's output; may be nil

	DockerfileName string // the Dockerfile in errors; "" for the base name of Dockerfile

	withoutLease bool // the image is not read after the build
}

func (r Request) logf(format string, args ...any) {
	if r.Logf != nil {
		r.Logf(format, args...)
	}
}

// SSH is an agent, or keys, that a step may use.
type SSH struct {
	ID    string   // "default" if the Dockerfile sets none
	Paths []string // a socket or private keys; empty for SSH_AUTH_SOCK
}

// fromCache returns the same build without the options that make the builder run cached steps again.
func (r Request) fromCache() Request {
	r.NoCache, r.NoCacheFilters, r.Pull, r.Attestations = false, nil, false, nil
	return r
}

// hasFixedTime reports whether all timestamps in the image are fixed.
func (r Request) hasFixedTime() bool { return r.BuildArgs["SOURCE_DATE_EPOCH"] != "" }

// repositories returns the distinct repositories of references that may have tags.
func repositories(references []string) []string {
	var list []string
	for _, reference := range references {
		if i := strings.LastIndex(reference, ":"); i > strings.LastIndex(reference, "/") {
			reference = reference[:i]
		}
		if !slices.Contains(list, reference) {
			list = append(list, reference)
		}
	}
	return list
}

// exporterAttrs returns the attributes of BuildKit's image exporter.
func (r Request) exporterAttrs() map[string]string {
	attrs := r.Compression.exporterAttrs()
	maps.Copy(attrs, configAttrs)
	// BuildKit before v0.31 uses Docker's types by default, even for zstd, and OCI's for an image with attestations.
	attrs[string(exptypes.OptKeyOCITypes)] = "true"
	maps.Copy(attrs, r.Annotations)
	if r.hasFixedTime() { // only then, because the builder rewrites each layer; BuildKit before v0.13 ignores it
		attrs[string(exptypes.OptKeyRewriteTimestamp)] = "true"
	}
	if len(r.Push) > 0 {
		names := r.Push
		if r.PushByDigest {
			names = repositories(r.Push)
			attrs[string(exptypes.OptKeyPushByDigest)] = "true"
		}
		attrs[string(exptypes.OptKeyName)] = strings.Join(names, ",")
		attrs[string(exptypes.OptKeyPush)] = "true"
	}
	return attrs
}

// solveOpt returns BuildKit's options without exports, and the files that the options give the builder.
func (r Request) solveOpt() (client.SolveOpt, *contextFiles, error) {
	ssh, err := sshAgents(r.SSH)
	if err != nil {
		return client.SolveOpt{}, nil, err
	}
	files := &contextFiles{directories: map[string]string{}, commitFiles: r.CommitFiles}
	opt := client.SolveOpt{
		Frontend:            "dockerfile.v0",
		FrontendAttrs:       r.frontendAttrs(),
		OCIStores:           map[string]content.Store{},
		SharedKey:           r.SharedKey,
		AllowedEntitlements: r.Allow,
	}
	if r.isRemote() {
		opt.FrontendAttrs["context"] = r.Context
		opt.FrontendAttrs["filename"] = r.Dockerfile
		if filepath.IsAbs(r.Dockerfile) {
			opt.FrontendAttrs["dockerfilekey"] = dockerfileMount
		}
	} else if err := files.add(mainContext, r.Context); err != nil {
		return client.SolveOpt{}, nil, fmt.Errorf("open build context: %w", err)
	}
	if r.Definition == nil && filepath.IsAbs(r.Dockerfile) {
		if r.Definition, err = r.readDockerfile(); err != nil {
			return client.SolveOpt{}, nil, err
		}
	}
	if r.Definition != nil {
		files.dockerfile = r.Definition.files()
		opt.FrontendAttrs["filename"] = r.Definition.name
	}
	for name, from := range r.Contexts {
		if err := r.addContext(&opt, files, name, from); err != nil {
			return client.SolveOpt{}, nil, fmt.Errorf("open build context %q: %w", name, err)
		}
	}
	opt.Session = append(ssh, r.Auth.provider(r.namedImages()), secretProvider(r.Secrets), files)
	return opt, files, nil
}

// isRemote reports whether the builder fetches the context.
func (r Request) isRemote() bool { return !filepath.IsAbs(r.Context) }

// readDockerfile reads the Dockerfile for callers that have not.
func (r Request) readDockerfile() (*Dockerfile, error) {
	dockerfile, err := ReadDockerfile(r.Dockerfile)
	if err == nil {
		return dockerfile, nil
	}
	e := &ContextError{
		Context: "the Dockerfile " + r.shownDockerfile(), Message: err.Error(), Hint: dockerfileHint, Err: err,
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Message = "not found"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "make it readable"
	}
	return nil, e
}

// frontendAttrs returns the attributes of the Dockerfile frontend without those of the contexts.
func (r Request) frontendAttrs() map[string]string {
	attrs := map[string]string{"platform": r.Platform}
	for name, value := range map[string]string{
		"target":             r.Target,
		"force-network-mode": strings.TrimPrefix(r.Network, "default"),
		"cgroup-parent":      r.CgroupParent,
		"add-hosts":          strings.Join(r.AddHosts, ","),
		"ulimit":             strings.Join(r.Ulimits, ","),
		"no-cache":           strings.Join(r.NoCacheFilters, ","),
	} {
		if value != "" {
			attrs[name] = value
		}
	}
	if r.NoCache {
		attrs["no-cache"] = "" // of all stages
	}
	if r.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if r.ShmSize > 0 {
		attrs["shm-size"] = strconv.FormatInt(r.ShmSize, 10)
	}
	for name, value := range r.BuildArgs {
		attrs["build-arg:"+name] = value
	}
	for name, value := range r.Labels {
		attrs["label:"+name] = value
	}
	maps.Copy(attrs, r.VCS)
	for kind, value := range r.Attestations {
		attrs["attest:"+kind] = value
	}
	return attrs
}

// addContext adds a named context to the options.
func (r Request) addContext(opt *client.SolveOpt, files *contextFiles, name, from string) error {
	key := "context:" + name
	if layout, ok := strings.CutPrefix(from, layoutScheme); ok {
		dir, reference := splitLayout(layout)
		digest, err := layoutDigest(dir, reference)
		if err != nil {
			return err
		}
		store, err := local.NewStore(dir)
		if err != nil {
			return err
		}
		_ = os.Remove(filepath.Join(dir, "ingest")) // NewStore creates this directory for writes, but we only read
		id := mountName(name)
		opt.OCIStores[id] = store
		opt.FrontendAttrs[key] = layoutScheme + id + "@" + digest
		return nil
	}
	if !filepath.IsAbs(from) {
		opt.FrontendAttrs[key] = from
		return nil
	}
	mount := mountName(name)
	opt.FrontendAttrs[key] = "local:" + mount
	return files.add(mount, from)
}

// mountName returns a name without special characters for a context.
func mountName(context string) string {
	sum := sha256.Sum256([]byte(context))
	return "context-" + hex.EncodeToString(sum[:8])
}

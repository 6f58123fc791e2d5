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
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/fsutil"
)

// Request describes the build of one platform.
type Request struct {
	Platform   string // os/architecture, for example linux/amd64
	Context    string // a directory, or the URL of a git repository or an archive, which the builder fetches
	Dockerfile string // path of the file; relative to the context if that is a URL
	Target     string // the stage to build; "" for the last

	// SharedKey identifies the context directory across builds: files that an earlier build with the same key has sent
	// are not sent again. A file counts as unchanged if its path, mode, size and modification time are equal, so
	// directories in which those can be equal for different contents must not share a key.
	SharedKey string

	// ContentTimes makes the builder request every file with another content, although its size and time are the same. It
	// costs reading all files, and is not needed for the files of a commit.
	ContentTimes bool

	BuildArgs map[string]string
	Labels    map[string]string
	VCS       map[string]string // attributes of the provenance attestation, for example vcs:revision
	Contexts  map[string]string // named contexts: a directory, docker-image://, oci-layout://, or a URL

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
	PushByDigest bool     // push without tags, for an index that is pushed later

	Compression Compression

	// LayerDir is an empty directory of the caller. Layers of base images that the builder did not need to pull are
	// written there. If it is "", those layers cannot be read.
	LayerDir string

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
		attrs[string(exptypes.OptKeyName)] = strings.Join(r.Push, ",")
		attrs[string(exptypes.OptKeyPush)] = "true"
		if r.PushByDigest {
			attrs[string(exptypes.OptKeyPushByDigest)] = "true"
		}
	}
	return attrs
}

// solveOpt returns BuildKit's options without exports.
func (r Request) solveOpt() (client.SolveOpt, error) {
	ssh, err := sshAgents(r.SSH)
	if err != nil {
		return client.SolveOpt{}, err
	}
	opt := client.SolveOpt{
		Frontend:            "dockerfile.v0",
		FrontendAttrs:       r.frontendAttrs(),
		LocalMounts:         map[string]fsutil.FS{},
		OCIStores:           map[string]content.Store{},
		SharedKey:           r.SharedKey,
		Session:             append(ssh, r.Auth.provider(r.namedImages()), secretProvider(r.Secrets)),
		AllowedEntitlements: r.Allow,
	}
	if isRemote(r.Context) {
		opt.FrontendAttrs["context"] = r.Context
		opt.FrontendAttrs["filename"] = r.Dockerfile
	} else {
		if opt.LocalMounts["context"], err = r.openDirectory(r.Context); err != nil {
			return client.SolveOpt{}, fmt.Errorf("open build context: %w", err)
		}
		if opt.LocalMounts["dockerfile"], err = r.openDirectory(filepath.Dir(r.Dockerfile)); err != nil {
			return client.SolveOpt{}, fmt.Errorf("open the directory of the Dockerfile: %w", err)
		}
		opt.FrontendAttrs["filename"] = filepath.Base(r.Dockerfile)
	}
	for name, from := range r.Contexts {
		if err := r.addContext(&opt, name, from); err != nil {
			return client.SolveOpt{}, fmt.Errorf("open build context %q: %w", name, err)
		}
	}
	return opt, nil
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
func (r Request) addContext(opt *client.SolveOpt, name, from string) error {
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
	if isRemote(from) || strings.HasPrefix(from, "docker-image://") {
		opt.FrontendAttrs[key] = from
		return nil
	}
	dir, err := r.openDirectory(from)
	if err != nil {
		return err
	}
	mount := mountName(name)
	opt.LocalMounts[mount] = dir
	opt.FrontendAttrs[key] = "local:" + mount
	return nil
}

// mountName returns a name without special characters for a context.
func mountName(context string) string {
	sum := sha256.Sum256([]byte(context))
	return "context-" + hex.EncodeToString(sum[:8])
}

// isRemote reports whether the builder fetches the context itself.
func isRemote(from string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(from, prefix) {
			return true
		}
	}
	return false
}

func (r Request) openDirectory(dir string) (fsutil.FS, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist", dir)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	files, err := fsutil.NewFS(dir)
	if err == nil && r.ContentTimes {
		files = contentTimes{files}
	}
	return files, err
}

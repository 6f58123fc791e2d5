package image

import (
	"context"
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
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	_ "github.com/moby/buildkit/util/grpcutil/encoding/proto" // accepts file names that are not UTF-8, as buildctl does
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
)

// Request says what is to be built, for one platform, on one machine.
type Request struct {
	Platform   string // os/architecture, for example linux/amd64
	Context    string // a folder, or the URL of a git repository or an archive, which the builder fetches
	Dockerfile string // the file's path; below the context when that is a URL
	Target     string // the stage to build; "" for the last

	// SharedKey names the folder across builds: what an earlier build with the same key has sent and has not changed is not sent again.
	// Files count as unchanged when path, mode, size and modification time are the same, so a key must not be shared by folders
	// in which those can agree while the content does not.
	SharedKey string

	BuildArgs map[string]string
	Labels    map[string]string
	Contexts  map[string]string // named contexts: a folder, docker-image://, oci-layout://, or a URL

	Secrets map[string]func() ([]byte, error) // by id; asked for only when a step uses it
	SSH     []SSH
	Auth    Auth

	Allow          []string // entitlements, for example network.host
	AddHosts       []string // name=address
	NoCache        bool
	NoCacheFilters []string // stages that are built anew
	Pull           bool     // look for newer base images
	Network        string   // default, host or none, for RUN
	ShmSize        int64    // bytes; 0 for the builder's default
	Ulimits        []string // name=soft[:hard]
	CgroupParent   string

	Attestations map[string]string // by type, provenance or sbom: its attributes as CSV
	Annotations  map[string]string // by the image exporter's attribute, for example "annotation.org.opencontainers.image.source"
	Outputs      []client.ExportEntry

	Push         []string // references that BuildKit pushes to
	PushByDigest bool     // push without the tags, for an index that is made later

	Compression Compression

	// LayerDir is an empty folder of the caller's. With it the result can always be read whole: base layers that the builder
	// never needed to pull are put there. Without it they are left where they are.
	LayerDir string
}

// SSH is one agent socket, or keys, that a step may use.
type SSH struct {
	ID    string   // "default" when the Dockerfile names none
	Paths []string // a socket or private keys; none for SSH_AUTH_SOCK
}

// Result is an image that a builder holds. It can be read while the builder's connection is open.
//
// Two digests name it. Digest is that of the bytes as they are stored and moved, and with the compression of a layer it changes: the same
// build has one Digest for a [Gzip], and another for a [Uncompressed]. The config's digest (Image.ConfigName, Docker's image ID) names
// the files and the configuration, whatever the compression.
type Result struct {
	Platform string
	Digest   v1.Hash           // of what was built and pushed: the manifest's, or the index's when there are attestations
	Image    v1.Image          // read lazily; verified as it is read
	Index    v1.ImageIndex     // nil without attestations
	Metadata map[string]string // what BuildKit's exporters answered
}

// Solve builds r on c and waits for the end. It writes all that happens to status and closes it; status must be read.
//
// A step or a Dockerfile that fails is a [*BuildError].
func Solve(ctx context.Context, c *client.Client, r Request, status chan *client.SolveStatus) (*Result, error) {
	opt, err := r.options()
	if err != nil {
		close(status)
		return nil, err
	}
	var layouts []client.ExportEntry
	for _, output := range r.Outputs {
		if output.Type != client.ExporterLocal && output.Type != client.ExporterTar && output.Attrs["compression"] == "" {
			attrs := r.Compression.exporterAttrs() // the same image as everywhere
			maps.Copy(attrs, output.Attrs)
			output.Attrs = attrs
		}
		if output.OutputDir != "" && output.Type != client.ExporterLocal {
			layouts = append(layouts, output)
		} else {
			opt.Exports = append(opt.Exports, output)
		}
	}
	b := &blobs{ctx: ctx, client: c.ContentClient(), silence: builderSilence}
	if r.LayerDir != "" && r.fixedTime() {
		// Layers with rewritten times belong to nothing that the builder keeps: its next clean-up, seconds later, takes them.
		copied, err := r.copyTo(b)
		if err != nil {
			close(status)
			return nil, err
		}
		opt.Exports = append(opt.Exports, copied)
	}
	// The last one: of what several exporters answer BuildKit keeps the last, and another one's digest may be of other compression.
	opt.Exports = append(opt.Exports, client.ExportEntry{Type: client.ExporterImage, Attrs: r.exporter()})
	response, err := c.Solve(ctx, nil, opt, status)
	if err != nil {
		return nil, explain(ctx, r, err)
	}
	result, err := b.result(r.Platform, response.ExporterResponse)
	if err != nil {
		return nil, fmt.Errorf("read the image from the builder: %w", err)
	}
	// BuildKit's client writes a layout's index of the one answer that it has for all exporters, so each is alone in a solve of its own.
	for _, layout := range layouts {
		again := r.cached()
		again.Attestations = r.Attestations
		if err := again.export(ctx, c, layout); err != nil {
			return nil, explain(ctx, r, err)
		}
	}
	if r.LayerDir != "" && b.local == nil {
		if err := r.complete(ctx, c, b, result.Image); err != nil {
			return nil, fmt.Errorf("get the layers that the builder does not hold: %w", err)
		}
	}
	return result, nil
}

// complete gets the layers that the builder knows but never pulled, because no step read them: a second, fully cached solve has
// the builder send them.
func (r Request) complete(ctx context.Context, c *client.Client, b *blobs, image v1.Image) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, layer := range manifest.Layers {
		group.Go(func() error { return b.has(layer.Digest) })
	}
	if err := group.Wait(); err == nil || !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		return err
	}
	again := r.cached()
	copied, err := again.copyTo(b)
	if err != nil {
		return err
	}
	return again.export(ctx, c, copied)
}

// export builds once more, for one exporter.
func (r Request) export(ctx context.Context, c *client.Client, entry client.ExportEntry) error {
	opt, err := r.options()
	if err != nil {
		return err
	}
	opt.Exports = []client.ExportEntry{entry}
	_, err = c.Solve(ctx, nil, opt, nil)
	return err
}

// copyTo is an export of the same image into the scratch folder, where b then reads first.
func (r Request) copyTo(b *blobs) (client.ExportEntry, error) {
	store, err := local.NewStore(r.LayerDir)
	if err != nil {
		return client.ExportEntry{}, err
	}
	attrs := r.exporter()
	delete(attrs, string(exptypes.OptKeyPush))
	delete(attrs, string(exptypes.OptKeyName))
	attrs["tar"] = "false"
	b.local = store
	return client.ExportEntry{Type: client.ExporterOCI, Attrs: attrs, OutputStore: store}, nil
}

// fixedTime says that the caller fixes the time of everything in the image.
func (r Request) fixedTime() bool { return r.BuildArgs["SOURCE_DATE_EPOCH"] != "" }

// exporter is the image exporter's part.
func (r Request) exporter() map[string]string {
	attrs := map[string]string{}
	maps.Copy(attrs, r.Annotations)
	maps.Copy(attrs, r.Compression.exporterAttrs())
	// Timestamps in layers are clamped only when the caller fixes the time; otherwise every layer would be written anew.
	if r.fixedTime() {
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

// options is everything but the exports.
func (r Request) options() (client.SolveOpt, error) {
	auth, err := r.Auth.provider()
	if err != nil {
		return client.SolveOpt{}, err
	}
	ssh, err := agents(r.SSH)
	if err != nil {
		return client.SolveOpt{}, err
	}
	opt := client.SolveOpt{
		Frontend:            "dockerfile.v0",
		FrontendAttrs:       map[string]string{"platform": r.Platform},
		LocalMounts:         map[string]fsutil.FS{},
		OCIStores:           map[string]content.Store{},
		SharedKey:           r.SharedKey,
		Session:             append([]session.Attachable{auth, secrets(r.Secrets)}, ssh...),
		AllowedEntitlements: r.Allow,
	}
	attrs := opt.FrontendAttrs
	if isRemote(r.Context) {
		attrs["context"] = r.Context
		attrs["filename"] = r.Dockerfile
	} else {
		if opt.LocalMounts["context"], err = folder(r.Context); err != nil {
			return client.SolveOpt{}, fmt.Errorf("build context %w", err)
		}
		if opt.LocalMounts["dockerfile"], err = folder(filepath.Dir(r.Dockerfile)); err != nil {
			return client.SolveOpt{}, fmt.Errorf("the Dockerfile's folder %w", err)
		}
		attrs["filename"] = filepath.Base(r.Dockerfile)
	}
	set := func(name, value string) {
		if value != "" {
			attrs[name] = value
		}
	}
	set("target", r.Target)
	set("force-network-mode", strings.TrimPrefix(r.Network, "default"))
	set("cgroup-parent", r.CgroupParent)
	set("add-hosts", strings.Join(r.AddHosts, ","))
	set("ulimit", strings.Join(r.Ulimits, ","))
	set("no-cache", strings.Join(r.NoCacheFilters, ","))
	if r.NoCache {
		attrs["no-cache"] = ""
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
	for kind, value := range r.Attestations {
		attrs["attest:"+kind] = value
	}
	for name, from := range r.Contexts {
		if err := addContext(&opt, name, from); err != nil {
			return client.SolveOpt{}, fmt.Errorf("build context %q: %w", name, err)
		}
	}
	return opt, nil
}

// addContext makes from available as the named context.
func addContext(opt *client.SolveOpt, name, from string) error {
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
		_ = os.Remove(filepath.Join(dir, "ingest")) // the store makes it to write, and a layout is only read
		id := contentKey(name)
		opt.OCIStores[id] = store
		opt.FrontendAttrs[key] = layoutScheme + id + "@" + digest
		return nil
	}
	if isRemote(from) || strings.HasPrefix(from, "docker-image://") {
		opt.FrontendAttrs[key] = from
		return nil
	}
	dir, err := folder(from)
	if err != nil {
		return err
	}
	mount := contentKey(name)
	opt.LocalMounts[mount] = dir
	opt.FrontendAttrs[key] = "local:" + mount
	return nil
}

// contentKey is a name for a mount that holds no character with a meaning.
func contentKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "context-" + hex.EncodeToString(sum[:8])
}

// isRemote reports whether a context is fetched by the builder.
func isRemote(from string) bool {
	for _, prefix := range []string{"http://", "https://", "git://", "ssh://", "git@", "github.com/"} {
		if strings.HasPrefix(from, prefix) {
			return true
		}
	}
	return false
}

func folder(dir string) (fsutil.FS, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist", dir)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	return fsutil.NewFS(dir)
}

package inputs

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/buildkit/util/entitlements"

	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/source"
)

// Env is the environment that validation reads in addition to the inputs.
type Env struct {
	Getenv func(string) string // supplies build arguments and secrets that are named without a value
	Dir    string              // absolute path of the workspace; relative paths start here
	Fork   bool                // whether the run is for a fork's pull request, which gets no secrets from GitHub
}

// BuildSpec is a validated [Build]. Its paths are those of the inputs; [BuildSpec.Resolve] resolves them in a tree.
type BuildSpec struct {
	Ref                   string // empty: the checkout, or the event's commit
	AllowUntrustedRef     bool
	AllowUntrustedSecrets bool
	Platforms             []string // os/architecture, without duplicates
	Doppler               Doppler

	Context, Dockerfile string
	GitContext          string // name of the context that holds .git; empty for none
	GitContextOptional  bool   // whether source code without a commit is built without that context

	ImageName string
	Load      bool
	Push      []string // references with a tag
	Save      bool
	SaveTags  []string
	Outputs   []string // in BuildKit's syntax

	// Request holds the options that are the same on every platform. Context, Dockerfile, Platform, Outputs, Annotations
	// and everything that is known only during a run are empty. Its maps are shared: clone them before a change.
	Request image.Request

	DepotProject, DepotToken string
	Builder                  string // depot, or an address
	AllowPlaintextBuilder    bool   // connect to an address on another machine without TLS
	GitHubToken              string
	Timeout                  time.Duration

	annotations []annotation
	secrets     []secret
}

// annotation is one line of the input annotations.
type annotation struct {
	level    string // manifest, index, manifest-descriptor or index-descriptor
	platform string // empty for every platform
	key      string
	value    string
}

var (
	argPattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	levelPattern  = regexp.MustCompile(`^(manifest|index|manifest-descriptor|index-descriptor)(?:\[([a-z0-9/]+)\])?:(.*)$`)
	stagePattern  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	tagPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	depotPlatform = []string{"linux/amd64", "linux/arm64"}
)

// Spec validates the inputs without reading file contents or using the network. An error is an [*Error].
func (in Build) Spec(env Env) (BuildSpec, error) {
	spec := BuildSpec{
		Ref: in.Ref, AllowUntrustedRef: in.AllowUntrustedRef, AllowUntrustedSecrets: in.AllowUntrustedSecrets,
		Doppler: in.Doppler,
		Context: in.Context, Dockerfile: in.Dockerfile, GitContext: in.GitContext,
		ImageName: in.ImageName, Load: in.Load, Save: in.Save,
		DepotProject: in.DepotProject, DepotToken: in.DepotToken, Builder: in.Builder,
		AllowPlaintextBuilder: in.AllowPlaintextBuilder, GitHubToken: in.GithubToken, Timeout: in.Timeout,
	}
	spec.Request.Target, spec.Request.CgroupParent = in.Target, in.CgroupParent
	spec.Request.NoCache, spec.Request.Pull = in.NoCache, in.Pull
	spec.Request.NoCacheFilters = Texts(in.NoCacheFilters)
	for _, validate := range []func(*BuildSpec, Build, Env) error{
		validatePlatforms, validateReferences, validateArguments, validateAnnotations, validateHosts, validateSecrets,
		validateLimits, validateAttestations, validateBuilder, validateOutputs, validateGitContext,
	} {
		if err := validate(&spec, in, env); err != nil {
			return BuildSpec{}, err
		}
	}
	return spec, nil
}

func validatePlatforms(spec *BuildSpec, in Build, _ Env) error {
	const example = "write linux/amd64, linux/arm64 or both"
	for _, item := range in.Platform {
		platform := item.Text
		if !strings.Contains(platform, "/") {
			platform = "linux/" + platform
		}
		isLinux := strings.HasPrefix(platform, "linux/")
		if !slices.Contains(depotPlatform, platform) && (in.Builder == "depot" || !isLinux) {
			return Errorf("platform", item.Text, "is not a supported platform; %s", example)
		}
		if !slices.Contains(spec.Platforms, platform) {
			spec.Platforms = append(spec.Platforms, platform)
		}
	}
	if len(spec.Platforms) == 0 {
		return Errorf("platform", "", "must not be empty; %s", example)
	}
	return nil
}

func validateReferences(spec *BuildSpec, in Build, _ Env) error {
	if in.Load {
		named, err := reference.ParseNormalizedNamed(in.ImageName)
		if err != nil {
			return Errorf("image_name", in.ImageName, "is not an image name (%v); write for example iterate-sandbox:ci", err)
		}
		if _, ok := named.(reference.Digested); ok {
			return Errorf("image_name", in.ImageName, "must not contain a digest; write a name and a tag")
		}
	}
	for _, item := range in.Push {
		full, err := taggedReference(item)
		if err != nil {
			return err
		}
		spec.Push = append(spec.Push, full)
	}
	for _, item := range in.SaveTags {
		if !tagPattern.MatchString(item.Text) {
			return itemErrorf("save_tags", item, "is not a tag; use at most 128 letters, digits, _ . and -")
		}
		spec.SaveTags = append(spec.SaveTags, item.Text)
	}
	if len(spec.SaveTags) > 0 && !in.Save {
		return Errorf("save_tags", spec.SaveTags[0], "needs save: true")
	}
	return nil
}

// taggedReference returns an element of the input push as a full reference, with the tag latest if it has none. It must
// be valid for BuildKit, which pushes images, and for go-containerregistry, which pushes indexes.
func taggedReference(item Item) (string, error) {
	const example = "write for example ghcr.io/owner/name:tag"
	named, err := reference.ParseNormalizedNamed(item.Text)
	if err != nil {
		return "", itemErrorf("push", item, "is not an image reference (%v); %s", err, example)
	}
	if _, ok := named.(reference.Digested); ok {
		return "", itemErrorf("push", item, "must not contain a digest; write a tag")
	}
	full := reference.TagNameOnly(named).String()
	if _, err := name.ParseReference(full); err != nil {
		return "", itemErrorf("push", item, "is not an image reference (%v); %s", err, example)
	}
	return full, nil
}

func validateArguments(spec *BuildSpec, in Build, env Env) error {
	r := &spec.Request
	r.BuildArgs, r.Labels, r.Contexts = map[string]string{}, map[string]string{}, map[string]string{}
	for _, item := range in.BuildArgs {
		name, value, hasValue := strings.Cut(item.Text, "=")
		if !argPattern.MatchString(name) {
			return itemErrorf("build_args", item, "is not a build argument; write NAME=VALUE")
		}
		if !hasValue {
			if value = env.Getenv(name); value == "" {
				return itemErrorf("build_args", item, "has no value, and the environment variable is not set; write NAME=VALUE")
			}
		}
		r.BuildArgs[name] = value
	}
	for _, item := range in.Labels {
		name, value, _ := strings.Cut(item.Text, "=")
		if name = strings.TrimSpace(name); name == "" {
			return itemErrorf("labels", item, "has no name; write NAME=VALUE")
		}
		r.Labels[name] = value
	}
	for _, item := range in.BuildContexts {
		name, from, ok := strings.Cut(item.Text, "=")
		if name = strings.TrimSpace(name); !ok || name == "" || from == "" {
			return itemErrorf("build_contexts", item, "is not a named context; write NAME=DIRECTORY, "+
				"NAME=docker-image://IMAGE, NAME=oci-layout://DIRECTORY or NAME=URL")
		}
		r.Contexts[name] = from
	}
	if epoch := env.Getenv("SOURCE_DATE_EPOCH"); epoch != "" && r.BuildArgs["SOURCE_DATE_EPOCH"] == "" {
		r.BuildArgs["SOURCE_DATE_EPOCH"] = epoch
	}
	return nil
}

func validateAnnotations(spec *BuildSpec, in Build, _ Env) error {
	for _, item := range in.Annotations {
		key, value, ok := strings.Cut(item.Text, "=")
		a := annotation{level: "manifest", key: key, value: value}
		if m := levelPattern.FindStringSubmatch(key); m != nil {
			a.level, a.platform, a.key = m[1], m[2], m[3]
		}
		if !ok || a.key == "" || strings.ContainsAny(a.key, " :[]") {
			return itemErrorf("annotations", item, "is not an annotation; write NAME=VALUE, manifest:NAME=VALUE, "+
				"index:NAME=VALUE or manifest[linux/amd64]:NAME=VALUE")
		}
		if a.platform != "" && !slices.Contains(spec.Platforms, a.platform) {
			return itemErrorf("annotations", item, "names a platform that is not in the input platform")
		}
		spec.annotations = append(spec.annotations, a)
	}
	return nil
}

// Annotations returns the annotations of one platform's image, keyed by the attribute of BuildKit's image exporter.
func (s BuildSpec) Annotations(platform string) map[string]string {
	attributes := map[string]string{}
	for _, a := range s.annotations {
		ofIndex := strings.HasPrefix(a.level, "index") && len(s.Platforms) > 1 // see IndexAnnotations
		if ofIndex || a.platform != "" && a.platform != platform {
			continue
		}
		prefix := "annotation."
		if a.level != "manifest" {
			prefix = "annotation-" + a.level + "."
		}
		attributes[prefix+a.key] = a.value
	}
	return attributes
}

// IndexAnnotations returns the annotations of the index of several platforms.
func (s BuildSpec) IndexAnnotations() map[string]string {
	annotations := map[string]string{}
	for _, a := range s.annotations {
		if a.level == "index" {
			annotations[a.key] = a.value
		}
	}
	return annotations
}

func validateHosts(spec *BuildSpec, in Build, _ Env) error {
	for _, item := range in.AddHosts {
		name, address, ok := strings.Cut(item.Text, "=")
		if !ok {
			name, address, ok = strings.Cut(item.Text, ":")
		}
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if !ok || name == "" || err != nil {
			return itemErrorf("add_hosts", item, "is not a host entry; write NAME=ADDRESS, where ADDRESS is an IP address")
		}
		spec.Request.AddHosts = append(spec.Request.AddHosts, name+"="+ip.String())
	}
	return nil
}

func validateLimits(spec *BuildSpec, in Build, _ Env) error {
	r := &spec.Request
	for _, item := range in.Allow {
		if _, _, err := entitlements.Parse(item.Text); err != nil {
			return itemErrorf("allow", item, "is not an entitlement; write network.host or security.insecure")
		}
		r.Allow = append(r.Allow, item.Text)
	}
	switch in.Network {
	case "", "default", "none":
	case "host":
		if !slices.Contains(r.Allow, "network.host") {
			return Errorf("network", in.Network, "needs allow: network.host")
		}
	default:
		return Errorf("network", in.Network, "must be default, none or host")
	}
	r.Network = in.Network
	if in.ShmSize != "" {
		size, err := units.RAMInBytes(in.ShmSize)
		if err != nil || size <= 0 {
			return Errorf("shm_size", in.ShmSize, "is not a size; write for example 512m or 2g")
		}
		r.ShmSize = size
	}
	for _, item := range in.Ulimit {
		if _, err := units.ParseUlimit(item.Text); err != nil {
			return itemErrorf("ulimit", item, "is not a limit (%v); write for example nofile=1024:2048", err)
		}
		r.Ulimits = append(r.Ulimits, item.Text)
	}
	return nil
}

func validateBuilder(_ *BuildSpec, in Build, env Env) error {
	if in.Ref != "" {
		if err := source.ValidateRef(in.Ref); err != nil {
			return Wrap("ref", err)
		}
	}
	if in.Builder != "depot" {
		address := builder.Address{
			Addr: in.Builder, CertDir: env.Getenv(builder.CertPath), AllowPlaintext: in.AllowPlaintextBuilder,
		}
		if err := address.Check(); err != nil {
			return Wrap("builder", err)
		}
		if in.Save {
			return Errorf("save", "true", "needs builder: depot; to keep the image elsewhere, use push")
		}
	}
	if in.Timeout <= 0 {
		return Errorf("timeout", in.Timeout.String(), "must be positive, for example 30m")
	}
	return nil
}

func validateOutputs(spec *BuildSpec, in Build, env Env) error {
	for _, item := range in.Outputs {
		output, err := image.ParseOutput(item.Text, env.Dir, len(spec.Platforms) > 1)
		if err == nil && output.OutputDir != "" {
			_, err = SecureJoin(env.Dir, output.OutputDir)
		}
		if err != nil {
			return wrapItem("outputs", item, err)
		}
		spec.Outputs = append(spec.Outputs, item.Text)
	}
	return nil
}

func validateGitContext(spec *BuildSpec, in Build, _ Env) error {
	const auto, none, name = "auto", "none", "git"
	_, taken := spec.Request.Contexts[in.GitContext]
	switch in.GitContext {
	case "", none:
		spec.GitContext = ""
		return nil
	case auto:
		spec.GitContext, spec.GitContextOptional = name, true
		if _, taken = spec.Request.Contexts[name]; taken {
			spec.GitContext = ""
		}
		return nil
	}
	if taken || !stagePattern.MatchString(in.GitContext) {
		return Errorf("git_context", in.GitContext, "must be a name that build_contexts does not use, for example git")
	}
	return nil
}

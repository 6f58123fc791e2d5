package inputs

import (
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
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
	Fetch                 source.FetchOptions
	Platforms             []string // os/architecture[/variant], normalized, without duplicates
	Doppler               Doppler

	Context, Dockerfile string
	EventCommit         bool              // whether Context is a directory of the event's commit, not of the workspace
	EventContexts       map[string]string // named contexts that are directories of the event's commit
	GitContext          string            // name of the context that holds .git; empty for none
	GitContextOptional  bool              // whether source code without a commit is built without that context

	ImageName  string   // the first of ImageNames
	ImageNames []string // names in the local engine
	Load       bool
	Push       []string // references with a tag
	Save       bool
	SaveTags   []string
	Outputs    []string // in BuildKit's syntax

	DefaultLabels bool // whether to add the labels of the commit

	// Request holds the options that are the same on every platform. Context, Dockerfile, Platform, Outputs, Annotations
	// and everything that is known only during a run are empty. Its maps are shared: clone them before a change.
	Request image.Request

	DepotProject, DepotToken string
	Builder                  string // depot, or an address
	AllowPlaintextBuilder    bool   // connect to an address on another machine without TLS
	GitHubToken              string
	Timeout                  time.Duration

	ReportDir string // relative to the workspace, or absolute
	Report    Report

	Warnings []string // about inputs that have no effect

	annotations []annotation
	secrets     []secret
}

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// Spec validates the inputs without reading file contents or using the network. An error is an [*Error].
func (in Build) Spec(env Env) (BuildSpec, error) {
	spec := BuildSpec{
		Ref: in.Ref, AllowUntrustedRef: in.AllowUntrustedRef, AllowUntrustedSecrets: in.AllowUntrustedSecrets,
		Doppler: in.Doppler,
		Context: in.Context, Dockerfile: in.Dockerfile, GitContext: in.GitContext, DefaultLabels: in.DefaultLabels,
		ImageNames: Texts(in.ImageName), Load: in.Load, Save: in.Save,
		DepotProject: in.DepotProject, DepotToken: in.DepotToken, Builder: in.Builder,
		AllowPlaintextBuilder: in.AllowPlaintextBuilder, GitHubToken: in.GithubToken, Timeout: in.Timeout,
	}
	spec.Request.Target, spec.Request.CgroupParent = in.Target, in.CgroupParent
	spec.Request.NoCache, spec.Request.Pull = in.NoCache, in.Pull
	spec.Request.NoCacheFilters = Texts(in.NoCacheFilters)
	for _, validate := range []func(*BuildSpec, Build, Env) error{
		validateSource, validatePlatforms, validateReferences, validateArguments, validateContexts, validateHosts,
		validateSecrets, validateLimits, validateAttestations, validateAnnotations, validateBuilder, validateOutputs,
		validateReport, validateComment,
	} {
		if err := validate(&spec, in, env); err != nil {
			return BuildSpec{}, err
		}
	}
	return spec, nil
}

func validateSource(spec *BuildSpec, in Build, _ Env) error {
	if in.Ref != "" {
		if err := source.ValidateRef(in.Ref); err != nil {
			return Wrap("ref", err)
		}
	}
	spec.Fetch = source.FetchOptions{LFS: in.LFS, Submodules: source.Submodules(strings.ToLower(in.Submodules))}
	switch spec.Fetch.Submodules {
	case "", source.NoSubmodules, source.DirectSubmodules, source.RecursiveSubmodules:
		return nil
	}
	return Errorf("submodules", in.Submodules, "must be false, true or recursive")
}

func validatePlatforms(spec *BuildSpec, in Build, _ Env) error {
	for _, item := range in.Platform {
		platform, ok := normalizePlatform(item.Text)
		if !ok {
			return Errorf("platform", item.Text, "is not a supported platform; write for example linux/amd64,linux/arm64")
		}
		if in.Builder == "depot" && !builder.IsDepotPlatform(platform) {
			return Errorf("platform", item.Text, "is not a platform of Depot's machines; write linux/amd64, linux/arm64, "+
				"linux/386 or linux/arm/v7, or set builder to a BuildKit that supports it")
		}
		if !slices.Contains(spec.Platforms, platform) {
			spec.Platforms = append(spec.Platforms, platform)
		}
	}
	if len(spec.Platforms) == 0 {
		return Errorf("platform", "", "must not be empty; write for example linux/amd64,linux/arm64")
	}
	return nil
}

// normalizePlatform returns the shortest form of a Linux platform: linux/arm64 for arm64 or linux/arm64/v8.
func normalizePlatform(text string) (name string, ok bool) {
	if strings.EqualFold(text, "local") { // as in docker buildx
		text = runtime.GOARCH
	}
	if !strings.Contains(text, "/") {
		text = "linux/" + text
	}
	platform, err := platforms.Parse(text)
	return platforms.Format(platforms.Normalize(platform)), err == nil && platform.OS == "linux"
}

func validateReferences(spec *BuildSpec, in Build, _ Env) error {
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

// checkImageNames checks the names under which the image is loaded.
func checkImageNames(names []string) error {
	const example = "write for example sandbox:ci"
	if len(names) == 0 {
		return Errorf("image_name", "", "must not be empty if the image is loaded; %s", example)
	}
	for _, text := range names {
		if isBool(text) {
			return Errorf("image_name", text, "is not an image name; %s", example)
		}
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return Errorf("image_name", text, "is not an image name (%v); %s", err, example)
		}
		if _, ok := named.(reference.Digested); ok {
			return Errorf("image_name", text, "must not contain a digest; write a name and a tag")
		}
	}
	return nil
}

// isBool reports whether an element of a list is a boolean, which is a mistake of workflows that used another action.
func isBool(text string) bool {
	return strings.EqualFold(text, "true") || strings.EqualFold(text, "false")
}

// taggedReference returns an element of the input push as a full reference, with the tag latest if it has none. It must
// be valid for BuildKit, which pushes images, and for go-containerregistry, which pushes indexes.
func taggedReference(item Item) (string, error) {
	const example = "write for example ghcr.io/owner/name:tag"
	if isBool(item.Text) {
		return "", itemErrorf("push", item, "is not an image reference; push takes the references that "+
			"docker/build-push-action takes as tags: list them, or leave push empty to push nothing")
	}
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
	r.BuildArgs, r.Labels = map[string]string{}, map[string]string{}
	for _, item := range in.BuildArgs {
		name, value, hasValue := strings.Cut(item.Text, "=")
		if !isWord(name) {
			return itemErrorf("build_args", item, "is not a build argument; write NAME=VALUE, and quote an element that has "+
				`several lines: "NAME=VALUE"`)
		}
		if !hasValue {
			if value = env.Getenv(name); value == "" {
				return itemErrorf("build_args", item, "has no value, and the environment variable is not set or is empty; write "+
					"NAME=VALUE")
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
	if epoch := env.Getenv("SOURCE_DATE_EPOCH"); epoch != "" && r.BuildArgs["SOURCE_DATE_EPOCH"] == "" {
		r.BuildArgs["SOURCE_DATE_EPOCH"] = epoch
	}
	if epoch := r.BuildArgs["SOURCE_DATE_EPOCH"]; epoch != "" {
		if _, err := strconv.ParseInt(epoch, 10, 64); err != nil {
			return Errorf("build_args", "SOURCE_DATE_EPOCH="+epoch, "is not a number of seconds since 1970; correct the "+
				"build argument or the environment variable SOURCE_DATE_EPOCH")
		}
	}
	return nil
}

// validateHosts validates the input add_hosts. An address alone is another one of the name before it, as in
// NAME=ADDRESS,ADDRESS.
func validateHosts(spec *BuildSpec, in Build, _ Env) error {
	previous := ""
	for _, item := range in.AddHosts {
		name, address, ok := strings.Cut(item.Text, "=")
		if _, err := netip.ParseAddr(strings.Trim(item.Text, "[]")); err == nil && previous != "" {
			name, address, ok = previous, item.Text, true
		} else if !ok {
			name, address, ok = strings.Cut(item.Text, ":")
		}
		previous = name
		if ok && name != "" && address == image.HostGateway {
			if in.Builder == "depot" {
				return itemErrorf("add_hosts", item, "is not supported on Depot, where the builder's host is Depot's machine; "+
					"write an IP address")
			}
			spec.Request.AddHosts = append(spec.Request.AddHosts, name+"="+address)
			continue
		}
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if !ok || !isWord(name) || err != nil || ip.Zone() != "" {
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
			r.Allow = append(r.Allow, "network.host")
		}
	default:
		return Errorf("network", in.Network, "must be default, none or host")
	}
	r.Network = in.Network
	if in.ShmSize != "" {
		size, err := units.RAMInBytes(in.ShmSize)
		if err != nil || size < 0 { // 0 is the builder's default, as in docker build
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
	return checkTimeout(in.Timeout)
}

func checkTimeout(timeout time.Duration) error {
	if timeout <= 0 {
		return Errorf("timeout", timeout.String(), "must be positive, for example 30m")
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
		switch {
		case output.Type == image.CacheOnly: // the builder always keeps its cache
		case image.IsLoad(output):
			spec.Load = true
			if name := output.Attrs["name"]; name != "" {
				spec.ImageNames = strings.Split(name, ",")
			}
		case len(spec.Push) > 0:
			spec.Outputs = append(spec.Outputs, image.NameOutput(item.Text, output, spec.Push))
		default:
			spec.Outputs = append(spec.Outputs, image.NameOutput(item.Text, output, spec.ImageNames))
		}
	}
	if spec.Load {
		if err := checkImageNames(spec.ImageNames); err != nil {
			return err
		}
	}
	if len(spec.ImageNames) > 0 {
		spec.ImageName = spec.ImageNames[0]
	}
	return nil
}

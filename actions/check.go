package actions

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/org/sandbox-actions/pkg/builder"
	"github.com/org/sandbox-actions/pkg/image"
	"github.com/org/sandbox-actions/pkg/runner"
	"github.com/org/sandbox-actions/pkg/source"
	"github.com/tonistiigi/go-csvvalue"
)

// plan is what the inputs mean. Making it asks nobody and spends nothing.
type plan struct {
	platforms   []string
	request     image.Request // what is the same on every platform; folders are still as the inputs name them
	annotations []annotation
	outputs     []string
	push        []string
	saveTags    []string
}

type annotation struct {
	level, platform, key, value string
}

var (
	argName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	secretID  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]*$`)
	levelForm = regexp.MustCompile(`^(manifest|index|manifest-descriptor|index-descriptor)(?:\[([a-z0-9/]+)\])?:(.*)$`)
	stageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	tagForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// check refuses inputs that cannot be right. Getenv supplies build arguments and secrets that are named without a value; dir is
// what relative paths start from.
func check(in *BuildInputs, getenv func(string) string, dir string) (*plan, error) {
	p := &plan{}
	r := &p.request
	for _, step := range []func() error{
		func() error { return p.platform(in) },
		func() error { return p.names(in) },
		func() error { return p.arguments(in, getenv) },
		func() error { return p.secrets(in, getenv, dir) },
		func() error { return p.limits(in) },
		func() error { return p.attestations(in) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if in.Ref != "" {
		if err := source.ValidateRef(in.Ref); err != nil {
			return nil, fmt.Errorf("input ref: %w", err)
		}
	}
	if in.Builder != "depot" {
		if err := builder.CheckAddress(in.Builder); err != nil {
			return nil, fmt.Errorf("input builder: %w", err)
		}
		if in.Save {
			return nil, refuse("save", "true", "keeps the image in Depot's registry, and the input builder is not depot: use the input push")
		}
	}
	if in.Timeout <= 0 {
		return nil, refuse("timeout", in.Timeout.String(), "is no time to wait: write for example 30m")
	}
	for _, output := range in.Outputs {
		entry, err := image.ParseOutput(output.Text, dir, len(p.platforms) > 1)
		if err == nil && entry.OutputDir != "" {
			_, err = inside(dir, entry.OutputDir)
		}
		if err != nil {
			return nil, atLine("outputs", output, err)
		}
		p.outputs = append(p.outputs, output.Text)
	}
	r.Target, r.NoCache, r.Pull, r.CgroupParent = in.Target, in.NoCache, in.Pull, in.CgroupParent
	r.Context, r.Dockerfile = in.Context, in.Dockerfile
	r.NoCacheFilters = Texts(in.NoCacheFilters)
	if in.GitContext != "" {
		if _, taken := r.Contexts[in.GitContext]; taken || !stageName.MatchString(in.GitContext) {
			return nil, refuse("git_context", in.GitContext, "must be a name such as git that build_contexts does not use")
		}
	}
	return p, nil
}

func refuse(input, value, why string) error {
	return fmt.Errorf("input %s: %q %s", input, value, why)
}

func atLine(input string, item Item, err error) error {
	return fmt.Errorf("input %s, line %d: %w", input, item.Line, err)
}

func refuseLine(input string, item Item, why string) error {
	return fmt.Errorf("input %s, line %d: %q %s", input, item.Line, item.Text, why)
}

func (p *plan) platform(in *BuildInputs) error {
	for _, item := range in.Platform {
		platform := item.Text
		if !strings.Contains(platform, "/") {
			platform = "linux/" + platform
		}
		if slices.Contains(p.platforms, platform) {
			continue
		}
		if !slices.Contains([]string{"linux/amd64", "linux/arm64"}, platform) && (in.Builder == "depot" || !strings.HasPrefix(platform, "linux/")) {
			return refuse("platform", item.Text, "is not a platform that can be built: write linux/amd64, linux/arm64 or both")
		}
		p.platforms = append(p.platforms, platform)
	}
	if len(p.platforms) == 0 {
		return refuse("platform", "", "is empty: write linux/amd64, linux/arm64 or both")
	}
	return nil
}

func (p *plan) names(in *BuildInputs) error {
	if in.Load {
		if named, err := reference.ParseNormalizedNamed(in.ImageName); err != nil {
			return refuse("image_name", in.ImageName, "is no image name ("+err.Error()+"): write for example iterate-sandbox:ci")
		} else if _, ok := named.(reference.Digested); ok {
			return refuse("image_name", in.ImageName, "holds a digest, which only the build can know: write a name and a tag")
		}
	}
	for _, item := range in.Push {
		named, err := reference.ParseNormalizedNamed(item.Text)
		if err != nil {
			return refuseLine("push", item, "is no image reference ("+err.Error()+"): write for example ghcr.io/owner/name:tag")
		}
		if _, ok := named.(reference.Digested); ok {
			return refuseLine("push", item, "holds a digest, which only the build can know: write a tag")
		}
		full := reference.TagNameOnly(named).String()
		if _, err := name.ParseReference(full); err != nil { // who pushes an index reads fewer
			return refuseLine("push", item, "is no image reference ("+err.Error()+"): write for example ghcr.io/owner/name:tag")
		}
		p.push = append(p.push, full)
	}
	for _, item := range in.SaveTags {
		if !tagForm.MatchString(item.Text) {
			return refuseLine("save_tags", item, "is no tag: write letters, digits, _ . and -, at most 128")
		}
		p.saveTags = append(p.saveTags, item.Text)
	}
	if len(p.saveTags) > 0 && !in.Save {
		return refuse("save_tags", p.saveTags[0], "needs the input save: true")
	}
	return nil
}

func (p *plan) arguments(in *BuildInputs, getenv func(string) string) error {
	r := &p.request
	r.BuildArgs, r.Labels, r.Contexts = map[string]string{}, map[string]string{}, map[string]string{}
	for _, item := range in.BuildArgs {
		name, value, given := strings.Cut(item.Text, "=")
		if !argName.MatchString(name) {
			return refuseLine("build_args", item, "is no build argument: write NAME=VALUE")
		}
		if !given {
			if value = getenv(name); value == "" {
				return refuseLine("build_args", item, "has no value, and the environment has none for it: write NAME=VALUE")
			}
		}
		r.BuildArgs[name] = value
	}
	for _, item := range in.Labels {
		name, value, _ := strings.Cut(item.Text, "=")
		if name = strings.TrimSpace(name); name == "" {
			return refuseLine("labels", item, "has no name: write NAME=VALUE")
		}
		r.Labels[name] = value
	}
	for _, item := range in.BuildContexts {
		name, from, ok := strings.Cut(item.Text, "=")
		if !ok || strings.TrimSpace(name) == "" || from == "" {
			return refuseLine("build_contexts", item, "is no named context: write NAME=FOLDER, or NAME=docker-image://IMAGE, oci-layout://FOLDER or a URL")
		}
		r.Contexts[strings.TrimSpace(name)] = from
	}
	for _, item := range in.Annotations {
		key, value, ok := strings.Cut(item.Text, "=")
		a := annotation{level: "manifest", key: key, value: value}
		if m := levelForm.FindStringSubmatch(key); m != nil {
			a.level, a.platform, a.key = m[1], m[2], m[3]
		}
		if !ok || a.key == "" || strings.ContainsAny(a.key, " :[]") {
			return refuseLine("annotations", item, "is no annotation: write NAME=VALUE, or manifest:NAME=VALUE, index:NAME=VALUE, manifest[linux/amd64]:NAME=VALUE")
		}
		if a.platform != "" && !slices.Contains(p.platforms, a.platform) {
			return refuseLine("annotations", item, "is for a platform that is not built")
		}
		p.annotations = append(p.annotations, a)
	}
	for _, item := range in.AddHosts {
		name, address, ok := strings.Cut(item.Text, "=")
		if !ok {
			name, address, ok = strings.Cut(item.Text, ":")
		}
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if !ok || name == "" || err != nil {
			return refuseLine("add_hosts", item, "is no host: write NAME=ADDRESS, with an IP address")
		}
		r.AddHosts = append(r.AddHosts, name+"="+ip.String())
	}
	return nil
}

func (p *plan) secrets(in *BuildInputs, getenv func(string) string, dir string) error {
	r := &p.request
	r.Secrets = map[string]func() ([]byte, error){}
	add := func(input string, item Item, id string, read func() ([]byte, error)) error {
		if !secretID.MatchString(id) {
			return fmt.Errorf("input %s, line %d: the secret has no usable id: write ID=%s", input, item.Line, map[string]string{"secrets": "VALUE", "secret_envs": "VARIABLE", "secret_files": "PATH"}[input])
		}
		if r.Secrets[id] != nil {
			return fmt.Errorf("input %s, line %d: the secret %s is given twice", input, item.Line, id)
		}
		r.Secrets[id] = read
		return nil
	}
	for _, item := range in.Secrets {
		id, value, ok := strings.Cut(item.Text, "=")
		if !ok || value == "" {
			why := ""
			if runner.ReadEvent(getenv).IsFork() {
				why = " (GitHub gives the pull request of a fork no secrets)"
			}
			return fmt.Errorf("input secrets, line %d: the secret %s has no value%s: write ID=VALUE, and see that the value is not empty", item.Line, idOnly(id, ok), why)
		}
		if err := add("secrets", item, id, func() ([]byte, error) { return []byte(value), nil }); err != nil {
			return err
		}
	}
	for _, item := range in.SecretEnvs {
		id, variable, ok := strings.Cut(item.Text, "=")
		if !ok {
			variable = id
		}
		value := getenv(variable)
		if value == "" {
			return refuseLine("secret_envs", item, "has no source: the variable "+variable+" is not set")
		}
		if err := add("secret_envs", item, id, func() ([]byte, error) { return []byte(value), nil }); err != nil {
			return err
		}
	}
	for _, item := range in.SecretFiles {
		id, path, ok := strings.Cut(item.Text, "=")
		if !ok || path == "" {
			return refuseLine("secret_files", item, "has no source: write ID=PATH")
		}
		path, err := inside(dir, path)
		if err != nil {
			return atLine("secret_files", item, err)
		}
		value, err := os.ReadFile(path)
		if err != nil {
			return refuseLine("secret_files", item, "can not be read: "+err.Error())
		}
		if err := add("secret_files", item, id, func() ([]byte, error) { return value, nil }); err != nil {
			return err
		}
	}
	for _, item := range in.SSH {
		id, paths, ok := strings.Cut(item.Text, "=")
		agent := image.SSH{ID: id}
		if ok {
			agent.Paths = strings.Split(paths, ",")
		} else if getenv("SSH_AUTH_SOCK") == "" {
			return refuseLine("ssh", item, "has no source: start an agent (SSH_AUTH_SOCK), or write ID=SOCKET or ID=KEY")
		}
		for _, path := range agent.Paths {
			if _, err := os.Stat(path); err != nil {
				return refuseLine("ssh", item, "names what is not there: "+err.Error())
			}
		}
		r.SSH = append(r.SSH, agent)
	}
	return nil
}

// idOnly keeps what may be a secret out of an error.
func idOnly(id string, hasValue bool) string {
	if hasValue && secretID.MatchString(id) {
		return id
	}
	return "of that line"
}

func (p *plan) limits(in *BuildInputs) error {
	r := &p.request
	for _, item := range in.Allow {
		if _, _, err := entitlements.Parse(item.Text); err != nil {
			return refuseLine("allow", item, "is no entitlement: write network.host or security.insecure")
		}
		r.Allow = append(r.Allow, item.Text)
	}
	switch in.Network {
	case "", "default", "none":
	case "host":
		if !slices.Contains(r.Allow, "network.host") {
			return refuse("network", in.Network, "needs the input allow: network.host")
		}
	default:
		return refuse("network", in.Network, "is unknown: write default, none or host")
	}
	r.Network = in.Network
	if in.ShmSize != "" {
		size, err := units.RAMInBytes(in.ShmSize)
		if err != nil || size <= 0 {
			return refuse("shm_size", in.ShmSize, "is no size: write for example 512m or 2g")
		}
		r.ShmSize = size
	}
	for _, item := range in.Ulimit {
		if _, err := units.ParseUlimit(item.Text); err != nil {
			return refuseLine("ulimit", item, "is no limit ("+err.Error()+"): write for example nofile=1024:2048")
		}
		r.Ulimits = append(r.Ulimits, item.Text)
	}
	return nil
}

func (p *plan) attestations(in *BuildInputs) error {
	attests := map[string]string{}
	for _, item := range in.Attests {
		fields, err := csvvalue.Fields(item.Text, nil)
		if err != nil {
			return atLine("attests", item, err)
		}
		kind, disabled, rest := "", false, []string{}
		for i, field := range fields {
			name, value, ok := strings.Cut(field, "=")
			switch {
			case name == "type":
				kind = value
			case !ok && i == 0:
				kind = name
			case name == "disabled":
				disabled, _ = strconv.ParseBool(value)
			default:
				rest = append(rest, field)
			}
		}
		if kind != "sbom" && kind != "provenance" {
			return refuseLine("attests", item, "has no type that is known: write type=sbom or type=provenance")
		}
		if attests[kind] = strings.Join(rest, ","); disabled {
			delete(attests, kind)
		}
	}
	if !slices.ContainsFunc(in.Attests, func(i Item) bool { return strings.Contains(i.Text, "provenance") }) && in.Provenance == "" && (len(in.Push) > 0 || in.Save) {
		in.Provenance = "mode=min,inline-only=true"
	}
	for _, short := range []struct{ kind, value, example string }{{"provenance", in.Provenance, "mode=max"}, {"sbom", in.SBOM, "generator=IMAGE"}} {
		if short.value == "" {
			continue
		}
		on, err := strconv.ParseBool(short.value)
		switch {
		case err == nil && on:
			attests[short.kind] = ""
		case err == nil:
			delete(attests, short.kind)
		case !strings.Contains(short.value, "="):
			return refuse(short.kind, short.value, "is unknown: write true, false or attributes such as "+short.example)
		default:
			attests[short.kind] = short.value
		}
	}
	p.request.Attestations = attests
	return nil
}

// locate finds the context and the Dockerfile in root, and refuses what is not there.
func (p *plan) locate(root string) error {
	r := &p.request
	if strings.Contains(r.Context, "://") || strings.HasPrefix(r.Context, "git@") {
		return nil
	}
	var err error
	written := r.Context
	if r.Context, err = inside(root, written); err != nil {
		return fmt.Errorf("input context: %w", err)
	}
	if info, err := os.Stat(r.Context); err != nil {
		return refuse("context", written, "is not there: it is a folder, seen from the repository's root")
	} else if !info.IsDir() {
		return refuse("context", written, "is a file: it must be a folder")
	}
	written = r.Dockerfile
	if r.Dockerfile, err = inside(root, p.dockerfile(root)); err != nil {
		return fmt.Errorf("input dockerfile: %w", err)
	}
	if info, err := os.Stat(r.Dockerfile); err != nil || info.IsDir() {
		return refuse("dockerfile", written, "is not there: name the file to build from, seen from the repository's root")
	} else if data, err := os.ReadFile(r.Dockerfile); err != nil {
		return fmt.Errorf("input dockerfile: %w", err)
	} else if len(bytes.TrimSpace(data)) == 0 {
		return refuse("dockerfile", written, "is empty")
	}
	for name, from := range r.Contexts {
		layout, isLayout := strings.CutPrefix(from, "oci-layout://")
		if strings.Contains(from, "://") && !isLayout || strings.HasPrefix(from, "git@") {
			continue
		}
		path, err := inside(root, layout)
		if err != nil {
			return fmt.Errorf("input build_contexts: %s: %w", name, err)
		}
		if isLayout {
			r.Contexts[name] = "oci-layout://" + path
			continue
		}
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			return refuse("build_contexts", name+"="+from, "is no folder that is there")
		}
		r.Contexts[name] = path
	}
	return nil
}

// dockerfile is where the Dockerfile is looked for: without an input in the context, then where this project has its own.
func (p *plan) dockerfile(root string) string {
	if p.request.Dockerfile != "Dockerfile" {
		return p.request.Dockerfile
	}
	found := "Dockerfile"
	if context := p.request.Context; filepath.IsAbs(context) {
		found = filepath.Join(context, found)
	} else {
		found = filepath.Join(root, context, found)
	}
	if _, err := os.Stat(found); err != nil {
		if _, err := os.Stat(filepath.Join(root, "sandbox/Dockerfile")); err == nil {
			return "sandbox/Dockerfile"
		}
	}
	return found
}

// inside joins a path to root. A path that is written below root must also be below it once links are followed: otherwise a pull
// request could have a link of its own send the runner's files to its build, or have us write over them.
func inside(root, path string) (string, error) {
	joined := path
	if !filepath.IsAbs(path) {
		joined = filepath.Join(root, path)
	}
	if !below(root, joined) {
		return joined, nil // the workflow, not the repository, names a place elsewhere
	}
	realRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", err
	}
	there := joined // as much of it as is there
	for _, err := os.Lstat(there); err != nil && there != root; _, err = os.Lstat(there) {
		there = filepath.Dir(there)
	}
	if resolved, err := filepath.EvalSymlinks(there); err != nil || !below(realRoot, resolved) {
		return "", fmt.Errorf("%q is a link that leads out of the repository", path)
	}
	return joined, nil
}

func below(root, path string) bool {
	relative, err := filepath.Rel(root, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, "../")
}

// forPlatform is the request of one machine.
func (p *plan) forPlatform(platform, dir string) (image.Request, error) {
	r := p.request
	r.Platform = platform
	r.Annotations = map[string]string{}
	for _, a := range p.annotations {
		if a.platform != "" && a.platform != platform || strings.HasPrefix(a.level, "index") && len(p.platforms) > 1 {
			continue
		}
		name := "annotation."
		if a.level != "manifest" {
			name = "annotation-" + a.level + "."
		}
		r.Annotations[name+a.key] = a.value
	}
	r.Outputs = []client.ExportEntry{}
	for _, text := range p.outputs {
		output, err := image.ParseOutput(text, dir, len(p.platforms) > 1)
		if err != nil {
			return r, err
		}
		r.Outputs = append(r.Outputs, output)
	}
	r.Contexts = maps.Clone(r.Contexts)
	return r, nil
}

// indexAnnotations are those of the index that joins several platforms.
func (p *plan) indexAnnotations() map[string]string {
	found := map[string]string{}
	for _, a := range p.annotations {
		if a.level == "index" {
			found[a.key] = a.value
		}
	}
	return found
}

package actions

import (
	"cmp"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/org/sandbox-actions/pkg/inputs"
)

// imageLabels returns the labels of the inputs and, if the input default_labels is set, those of the commit. Labels
// that the Dockerfile or the inputs set are kept. A context that the builder fetches has no labels of a commit.
func imageLabels(job job, spec inputs.BuildSpec, source buildSource) map[string]string {
	labels := map[string]string{}
	if spec.DefaultLabels && isLocal(source) && source.Tree.SHA != "" {
		labels = commitLabels(job, source)
		for _, name := range source.Paths.Definition.Labels() {
			delete(labels, name)
		}
	}
	maps.Copy(labels, spec.Request.Labels)
	return labels
}

// commitLabels returns the labels of a commit. The same commit and ref always have the same labels, so the image is
// the same, too. created is therefore the time of the commit.
func commitLabels(job job, source buildSource) map[string]string {
	labels := map[string]string{
		specs.AnnotationRevision: source.Tree.SHA,
		specs.AnnotationSource:   repositoryURL(job, source),
		specs.AnnotationVersion:  version(sourceRef(job, source)),
	}
	if !source.Time.IsZero() {
		labels[specs.AnnotationCreated] = source.Time.Format(time.RFC3339)
	}
	maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
	return labels
}

// vcsAttributes returns the attributes that docker buildx adds to a provenance attestation (docker/buildx 461836b,
// build/git.go), for a context that is a directory.
func vcsAttributes(job job, source buildSource) map[string]string {
	if !isLocal(source) || source.Tree.SHA == "" {
		return nil
	}
	attributes := map[string]string{
		"vcs:revision": source.Tree.SHA, "vcs:source": repositoryURL(job, source),
	}
	for name, directory := range map[string]string{
		"context": source.Paths.Context, "dockerfile": filepath.Dir(source.Paths.Dockerfile),
	} {
		if relative, err := filepath.Rel(source.Tree.Dir, directory); err == nil && filepath.IsLocal(relative) {
			attributes["vcs:localdir:"+name] = relative
		}
	}
	maps.DeleteFunc(attributes, func(_, value string) bool { return value == "" })
	return attributes
}

// isLocal reports whether the context is a directory, not a URL that the builder fetches.
func isLocal(source buildSource) bool { return filepath.IsAbs(source.Paths.Context) }

// repositoryURL returns the URL of the source's repository on the GitHub server, or "" if the repository is unknown.
func repositoryURL(job job, source buildSource) string {
	repository := cmp.Or(source.Tree.Repository, source.Repository)
	if repository == "" {
		return ""
	}
	return cmp.Or(job.Getenv("GITHUB_SERVER_URL"), "https://github.com") + "/" + repository
}

// sourceRef returns the full name of the ref that is built. actions/checkout detaches HEAD for tags and pull requests;
// the ref is then that of the event, if the commit is.
func sourceRef(job job, source buildSource) string {
	if source.Tree.Ref == "" && source.Tree.SHA == job.Event.SHA {
		return job.Getenv("GITHUB_REF")
	}
	return source.Tree.Ref
}

// notInVersion matches characters that a version must not contain.
var notInVersion = regexp.MustCompile(`[^a-zA-Z0-9._-]+`)

// version returns the version that docker/metadata-action (v6.2.0, src/meta.ts) derives from a ref by default: the
// branch, the tag, or pr-N for a pull request.
func version(ref string) string {
	name := ref
	for _, prefix := range []string{"refs/heads/", "refs/tags/", "refs/pull/"} {
		name = strings.TrimPrefix(name, prefix)
	}
	if strings.HasPrefix(ref, "refs/pull/") {
		name = "pr-" + strings.TrimSuffix(name, "/merge")
	}
	return notInVersion.ReplaceAllString(name, "-")
}

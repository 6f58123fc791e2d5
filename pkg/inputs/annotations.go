package inputs

import (
	"regexp"
	"slices"
	"strings"
)

// annotation is one annotation of the input annotations, at one level.
type annotation struct {
	level    string // manifest, index, manifest-descriptor or index-descriptor
	platform string // empty for every platform
	key      string
	value    string
}

var levelPattern = regexp.MustCompile(
	`^(manifest|index|manifest-descriptor|index-descriptor)(?:\[([A-Za-z0-9_/-]+)\])?$`,
)

// validateAnnotations parses LEVELS:NAME=VALUE like docker buildx, where LEVELS is a list such as
// manifest,index[linux/amd64]. It comes after the attestations, which decide whether the image has an index.
func validateAnnotations(spec *BuildSpec, in Build, _ Env) error {
	for _, item := range in.Annotations {
		name, value, ok := strings.Cut(item.Text, "=")
		levels, key, hasLevels := strings.Cut(name, ":")
		if !hasLevels {
			levels, key = "manifest", name
		}
		if !ok || !isWord(key) {
			return itemErrorf("annotations", item, "is not an annotation; write NAME=VALUE, manifest:NAME=VALUE, "+
				"manifest,index:NAME=VALUE or manifest[linux/amd64]:NAME=VALUE")
		}
		for level := range strings.SplitSeq(levels, ",") {
			m := levelPattern.FindStringSubmatch(level)
			if m == nil {
				return itemErrorf("annotations", item, "is not an annotation: the level %q is unknown; write manifest, index, "+
					"manifest-descriptor or index-descriptor", level)
			}
			a := annotation{level: m[1], key: key, value: value}
			if m[2] != "" {
				a.platform, _ = normalizePlatform(m[2])
				if !slices.Contains(spec.Platforms, a.platform) {
					return itemErrorf("annotations", item, "names a platform that is not in the input platform")
				}
			}
			if err := spec.addAnnotation(item, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// addAnnotation adds an annotation if the image has a place for it. If not, the result is an error for a published
// image, and a warning for an image that is only built or loaded, such as in a pull request.
func (s *BuildSpec) addAnnotation(item Item, a annotation) error {
	reason := ""
	switch several, attested := len(s.Platforms) > 1, len(s.Request.Attestations) > 0; {
	case a.level == "index-descriptor" && several:
		reason = "needs an OCI layout, and several platforms cannot be written to one; write index:NAME=VALUE"
	case a.level == "manifest-descriptor" && several && !attested:
		reason = "needs an attestation, because BuildKit writes the descriptor; set provenance: mode=min"
	case strings.HasPrefix(a.level, "index") && !several && !attested:
		reason = "needs an index, which an image of one platform has only with an attestation; write manifest:NAME=VALUE, " +
			"or set provenance: mode=min"
	default:
		s.annotations = append(s.annotations, a)
		return nil
	}
	err := itemErrorf("annotations", item, "%s", reason)
	if len(s.Push) > 0 || s.Save {
		return err
	}
	s.Warnings = append(s.Warnings, err.Error()+"; it is left out, because the image is not published")
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

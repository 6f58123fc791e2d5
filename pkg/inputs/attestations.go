package inputs

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// defaultProvenance is the default of the input provenance for an image that is pushed or saved.
const defaultProvenance = "mode=min,inline-only=true"

// validateAttestations merges the inputs attests, provenance and sbom. The latter two take precedence.
func validateAttestations(spec *BuildSpec, in Build, _ Env) error {
	attestations := map[string]string{}
	for _, item := range in.Attests {
		kind, attributes, disabled, err := parseAttestation(item)
		if err != nil {
			return err
		}
		if attestations[kind] = attributes; disabled {
			delete(attestations, kind)
		}
	}
	for _, short := range []struct{ kind, value, example string }{
		{"provenance", provenance(in), "mode=max"},
		{"sbom", in.SBOM, "generator=IMAGE"},
	} {
		if short.value == "" {
			continue
		}
		enabled, err := strconv.ParseBool(short.value)
		switch {
		case err == nil && enabled:
			attestations[short.kind] = ""
		case err == nil:
			delete(attestations, short.kind)
		case !strings.Contains(short.value, "="):
			return Errorf(short.kind, short.value, "must be true, false or attributes, for example %s", short.example)
		default:
			attestations[short.kind] = short.value
		}
	}
	spec.Request.Attestations = attestations
	return nil
}

// provenance returns the input provenance, or its default, which depends on where the image goes.
func provenance(in Build) string {
	inAttests := slices.ContainsFunc(in.Attests, func(item Item) bool { return strings.Contains(item.Text, "provenance") })
	if in.Provenance == "" && !inAttests && (len(in.Push) > 0 || in.Save) {
		return defaultProvenance
	}
	return in.Provenance
}

// parseAttestation parses type=KIND,ATTRIBUTE=VALUE,… like docker buildx.
func parseAttestation(item Item) (kind, attributes string, disabled bool, err error) {
	fields, err := csvvalue.Fields(item.Text, nil)
	if err != nil {
		return "", "", false, wrapItem("attests", item, err)
	}
	var rest []string
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
		return "", "", false, itemErrorf("attests", item, "has no supported type; write type=sbom or type=provenance")
	}
	return kind, strings.Join(rest, ","), disabled, nil
}

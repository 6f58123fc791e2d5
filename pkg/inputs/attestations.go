package inputs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// defaultProvenance is the default of the input provenance for an image that is pushed or saved. It is the default of
// docker/build-push-action in a private repository (v7.3.0, src/context.ts).
const defaultProvenance = "mode=min,inline-only=true"

// validateAttestations merges the inputs attests, provenance and sbom. The latter two take precedence.
func validateAttestations(spec *BuildSpec, in Build, env Env) error {
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
		{"provenance", provenance(in, env), "mode=max"},
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
	if attributes, ok := attestations["provenance"]; ok {
		attestations["provenance"] = withBuilderID(attributes, env)
	}
	spec.Request.Attestations = attestations
	return nil
}

// withBuilderID adds the URL of the workflow run to the attributes of a provenance attestation, unless they set a
// builder ID. Outside GitHub Actions it adds nothing. docker/build-push-action writes the same URL
// (docker/actions-toolkit 3d440be, src/github/github.ts, workflowRunURL).
func withBuilderID(attributes string, env Env) string {
	fields, err := csvvalue.Fields(attributes, nil)
	isID := func(field string) bool { return strings.HasPrefix(strings.TrimSpace(field), "builder-id=") }
	repository, run := env.Getenv("GITHUB_REPOSITORY"), env.Getenv("GITHUB_RUN_ID")
	if repository == "" || run == "" || err == nil && slices.ContainsFunc(fields, isID) {
		return attributes
	}
	id := fmt.Sprintf("builder-id=%s/%s/actions/runs/%s/attempts/%s",
		cmp.Or(env.Getenv("GITHUB_SERVER_URL"), "https://github.com"), repository, run,
		cmp.Or(env.Getenv("GITHUB_RUN_ATTEMPT"), "1"))
	return strings.TrimPrefix(attributes+","+id, ",")
}

// provenance returns the input provenance, or its default, which depends on where the image goes.
// BUILDX_NO_DEFAULT_ATTESTATIONS turns the default off, as in docker buildx.
func provenance(in Build, env Env) string {
	if off, err := strconv.ParseBool(env.Getenv("BUILDX_NO_DEFAULT_ATTESTATIONS")); off && err == nil {
		return in.Provenance
	}
	inAttests := slices.ContainsFunc(in.Attests, func(item Item) bool { return strings.Contains(item.Text, "provenance") })
	if in.Provenance == "" && !inAttests && (len(in.Push) > 0 || in.Save) {
		return defaultProvenance
	}
	return in.Provenance
}

// quoteField returns an element of a CSV record.
func quoteField(field string) string {
	if !strings.ContainsAny(field, `",`) {
		return field
	}
	return `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
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
		switch key := strings.ToLower(strings.TrimSpace(name)); {
		case key == "type":
			kind = value
		case !ok && i == 0:
			kind = name
		case !ok:
			return "", "", false, itemErrorf("attests", item, "has the attribute %q without a value", field)
		case key == "disabled":
			if disabled, err = strconv.ParseBool(value); err != nil {
				return "", "", false, itemErrorf("attests", item, "has a value of disabled that is not true or false")
			}
		default:
			rest = append(rest, quoteField(field))
		}
	}
	if kind != "sbom" && kind != "provenance" {
		return "", "", false, itemErrorf("attests", item, "has no supported type; write type=sbom or type=provenance")
	}
	return kind, strings.Join(rest, ","), disabled, nil
}

package inputs

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/org/sandbox-actions/pkg/daytona"
)

// variantSettings are the settings of a variant. All but the last are those of the inputs with the same name.
var variantSettings = []string{"cpu", "memory", "disk", "gpu", "sandbox_class", "region", "doppler_secret"}

const variantExample = "write for example large: cpu=4,memory=8,disk=20"

// maxVariants bounds the requests of one run.
const maxVariants = 50

// maxVariantPrefix is the length at which the prefix of a generated name is not cut, which would remove the variant.
const maxVariantPrefix = 58

var variantPattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// validateVariants sets spec.Variants to the snapshots that the input variants requests. Each is spec with the settings
// of its line, and its name at the end of the snapshot's name, of the prefix and of the secrets.
func validateVariants(spec *SnapshotSpec, in Snapshot) error {
	if len(in.Variants) > maxVariants {
		return Errorf("variants", "", "has %d lines; write at most %d", len(in.Variants), maxVariants)
	}
	for _, item := range in.Variants {
		v, err := in.variant(*spec, item)
		if err != nil {
			return err
		}
		for _, earlier := range spec.Variants {
			if earlier.Variant == v.Variant {
				return itemErrorf("variants", item, "has the name of an earlier line; write another name")
			}
			isTaken := func(name string) bool { return slices.Contains(earlier.Record.names(), name) }
			if slices.ContainsFunc(v.Record.names(), isTaken) {
				return itemErrorf("variants", item, "has the secret %s of an earlier line; write another doppler_secret",
					v.Record.Secret)
			}
		}
		spec.Variants = append(spec.Variants, v)
	}
	for _, v := range spec.Variants {
		spec.Doppler.Public = append(spec.Doppler.Public, v.Record.names()...)
	}
	run := *spec
	for i := range spec.Variants {
		spec.Variants[i].run = &run
	}
	return nil
}

// variant returns the snapshot that a line requests: NAME: SETTING=VALUE,…. A setting that the line omits is that of
// the input.
func (in Snapshot) variant(spec SnapshotSpec, item Item) (SnapshotSpec, error) {
	name, settings, _ := strings.Cut(item.Text, ":")
	if name = strings.TrimSpace(name); !IsVariant(name) {
		return SnapshotSpec{}, itemErrorf("variants", item, "has no name of lower-case letters, digits and hyphens; %s",
			variantExample)
	}
	fail := func(err error) (SnapshotSpec, error) {
		invalid, ok := err.(*Error)
		if !ok {
			return SnapshotSpec{}, wrapItem("variants", item, err)
		}
		return SnapshotSpec{}, itemErrorf("variants", item, "%s", variantReason(invalid))
	}
	spec.Variant, spec.Variants, in.DopplerSecret = name, nil, VariantSecret(in.DopplerSecret, name)
	if in.DopplerMirror != "" {
		in.DopplerMirror = VariantSecret(in.DopplerMirror, name)
	}
	values := map[string]*string{
		"cpu": &in.CPU, "memory": &in.Memory, "disk": &in.Disk, "gpu": &in.GPU, "sandbox_class": &in.SandboxClass,
		"region": &in.Region, "doppler_secret": &in.DopplerSecret,
	}
	set := map[string]bool{}
	for setting := range strings.SplitSeq(settings, ",") {
		if setting = strings.TrimSpace(setting); setting == "" {
			continue
		}
		key, value, _ := strings.Cut(setting, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case values[key] == nil:
			return SnapshotSpec{}, itemErrorf("variants", item, "has the unknown setting %q; use %s", key,
				strings.Join(variantSettings, ", "))
		case value == "":
			return SnapshotSpec{}, itemErrorf("variants", item, "has no value for %s; %s", key, variantExample)
		case set[key]:
			return SnapshotSpec{}, itemErrorf("variants", item, "has the setting %s twice; write it once", key)
		}
		*values[key], set[key] = value, true
	}
	if len(set) == 0 {
		return SnapshotSpec{}, itemErrorf("variants", item, "has no settings; %s", variantExample)
	}
	var err error
	if spec.Record, err = in.record(); err != nil {
		return fail(err)
	}
	if err := in.sandbox(&spec); err != nil {
		return fail(err)
	}
	if spec.Name != "" {
		spec.Name += "-" + name
		if err := daytona.CheckName(spec.Name); err != nil {
			return fail(err)
		}
	}
	if spec.NamePrefix += "-" + name; len(spec.NamePrefix) > maxVariantPrefix {
		return SnapshotSpec{}, itemErrorf("variants", item, "makes the prefix %s of more than %d characters; shorten the "+
			"name or name_prefix", spec.NamePrefix, maxVariantPrefix)
	}
	return spec, nil
}

// variantReason describes an error about a setting in a line.
func variantReason(invalid *Error) string {
	return fmt.Sprintf("%s=%s %s", invalid.Input, invalid.Value, invalid.Reason)
}

// IsVariant reports whether name is a valid name of a variant.
func IsVariant(name string) bool { return variantPattern.MatchString(name) }

// VariantSecret returns the Doppler secret of a variant that sets no other: NAME_LARGE for NAME and large.
func VariantSecret(secret, variant string) string {
	return secret + "_" + strings.ToUpper(strings.ReplaceAll(variant, "-", "_"))
}

// Each returns what the run creates: the snapshot of each variant, or one without the input variants.
func (s SnapshotSpec) Each() []SnapshotSpec {
	if len(s.Variants) == 0 {
		return []SnapshotSpec{s}
	}
	return s.Variants
}

// Secrets returns the Doppler secrets that name a snapshot of this run, or of a run without variants.
func (s SnapshotSpec) Secrets() []string {
	return s.ofRun(func(s SnapshotSpec) string { return s.Record.Secret })
}

// NamePrefixes returns the prefixes of the snapshots of this run, and of a run without variants.
func (s SnapshotSpec) NamePrefixes() []string {
	return s.ofRun(func(s SnapshotSpec) string { return s.NamePrefix })
}

func (s SnapshotSpec) ofRun(get func(SnapshotSpec) string) []string {
	if s.run != nil {
		s = *s.run
	}
	values := []string{get(s)}
	for _, v := range s.Variants {
		values = append(values, get(v))
	}
	return values
}

// validateAttempts validates the inputs attempts and make_room.
func validateAttempts(in Snapshot) error {
	switch {
	case in.Attempts < 1:
		return Errorf("attempts", strconv.Itoa(in.Attempts), "must be at least 1, for example 3")
	case in.DryRun && in.MakeRoom:
		return Errorf("make_room", "true", "deletes snapshots before the new one is created; remove --dry-run or "+
			"make_room")
	}
	return nil
}

package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/go-csvvalue"
)

// CacheOnly is the type of an output that writes nothing.
const CacheOnly = "cacheonly"

// ParseOutput parses one output in BuildKit's syntax: CSV fields such as type=local,dest=out, or only a directory, as
// in docker build. Relative destinations are below dir. Nothing is written until the builder sends the output.
//
// With several platforms, which are built on separate machines, a directory gets a subdirectory for each platform, and
// a single file is an error.
func ParseOutput(value, dir string, severalPlatforms bool) (client.ExportEntry, error) {
	entry, err := parseOutput(value, dir, severalPlatforms)
	if err != nil {
		return client.ExportEntry{}, fmt.Errorf("invalid output %q: %w", value, err)
	}
	return entry, nil
}

func parseOutput(value, dir string, severalPlatforms bool) (entry client.ExportEntry, err error) {
	kind, attrs, err := parseFields(value)
	if err != nil {
		return entry, err
	}
	dest := attrs["dest"]
	delete(attrs, "dest")
	if dest != "" && dest != "-" && !filepath.IsAbs(dest) {
		dest = filepath.Join(dir, dest)
	}
	entry = client.ExportEntry{Type: kind, Attrs: attrs}
	switch kind {
	case client.ExporterImage, "registry":
		return imageOutput(entry, dest, severalPlatforms)
	case client.ExporterLocal, client.ExporterTar:
		if mode := attrs["mode"]; mode != "" && mode != string(client.LocalExporterModeCopy) {
			return entry, fmt.Errorf("mode=%s would delete other files in the directory (write to an empty directory)", mode)
		}
		delete(attrs, "mode")
	case client.ExporterOCI, client.ExporterDocker:
		if err := checkNames(attrs["name"]); err != nil {
			return entry, err
		}
	case CacheOnly:
		return entry, nil
	case "":
		return entry, errors.New("no type (use type=local, tar, oci, docker, image or registry)")
	default:
		return entry, fmt.Errorf("unknown type %q (use local, tar, oci, docker, image or registry)", kind)
	}
	if kind == client.ExporterDocker && dest == "" {
		return entry, nil // see IsLoad
	}
	if dest == "" || dest == "-" {
		return entry, errors.New("no destination (use dest=PATH; standard output is reserved for results)")
	}
	directory, err := isDirectory(entry)
	if err != nil {
		return entry, err
	}
	switch info, err := os.Stat(dest); {
	case err == nil && directory && !info.IsDir():
		return entry, fmt.Errorf("%s is a file (use the path of a directory)", dest)
	case err == nil && !directory && info.IsDir():
		return entry, fmt.Errorf("%s is a directory (use the path of a file)", dest)
	case directory && severalPlatforms && kind != client.ExporterLocal:
		return entry, errors.New("one layout for several platforms (build one platform, or use the input push)")
	case directory:
		if severalPlatforms {
			attrs["platform-split"] = "true"
		}
		entry.OutputDir = dest
	case severalPlatforms:
		return entry, errors.New("one file for several platforms (build one platform, or use type=local)")
	default:
		entry.Output = func(map[string]string) (io.WriteCloser, error) { return createFile(dir, dest) }
	}
	return entry, nil
}

// IsLoad reports whether an output loads the image into the Docker Engine: type=docker without dest.
func IsLoad(entry client.ExportEntry) bool {
	return entry.Type == client.ExporterDocker && entry.Output == nil && entry.OutputDir == ""
}

// NameOutput returns the text of an archive or OCI layout without a name, with the given names: docker buildx gives it
// those of the tags (docker/buildx 461836b, build/opt.go). It returns other outputs unchanged. entry is the parsed
// text.
func NameOutput(text string, entry client.ExportEntry, names []string) string {
	isArchive := entry.Type == client.ExporterDocker || entry.Type == client.ExporterOCI
	if !isArchive || entry.Attrs["name"] != "" || len(names) == 0 {
		return text
	}
	return text + `,"name=` + strings.Join(names, ",") + `"`
}

func parseFields(value string) (kind string, attrs map[string]string, err error) {
	if value == "" {
		return "", nil, errors.New("empty (use for example type=local,dest=DIR)")
	}
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return "", nil, fmt.Errorf("not CSV: %w", err)
	}
	if len(fields) == 1 && !strings.Contains(value, "=") {
		fields = []string{"type=local", "dest=" + value}
	}
	attrs = map[string]string{}
	for _, field := range fields {
		key, content, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok {
			return "", nil, fmt.Errorf("field %q has no value (use name=value)", field)
		}
		if key = strings.ToLower(key); key == "type" {
			kind = content
		} else {
			attrs[key] = content
		}
	}
	return kind, attrs, nil
}

// imageOutput returns an output of type image or registry, which the builder keeps or pushes.
func imageOutput(entry client.ExportEntry, dest string, severalPlatforms bool) (client.ExportEntry, error) {
	if entry.Type == "registry" {
		entry.Type = client.ExporterImage
		entry.Attrs["push"] = "true"
	}
	if dest != "" {
		return entry, errors.New("type image has no dest (use name=)")
	}
	if err := checkNames(entry.Attrs["name"]); err != nil {
		return entry, err
	}
	for _, attribute := range []exptypes.ImageExporterOptKey{exptypes.OptKeyPush, exptypes.OptKeyPushByDigest} {
		if err := normalizeBool(entry.Attrs, string(attribute)); err != nil {
			return entry, err
		}
	}
	if entry.Attrs["push"] == "true" && entry.Attrs["name"] == "" { // BuildKit would push nothing, without an error
		return entry, errors.New("no name to push (use name=REFERENCE, or the input push)")
	}
	if severalPlatforms && entry.Attrs["push"] == "true" && entry.Attrs["push-by-digest"] != "true" {
		return entry, errors.New("each platform would overwrite the name (use the input push, which pushes an index)")
	}
	return entry, nil
}

// isDirectory reports whether the output is a directory, not a file.
func isDirectory(entry client.ExportEntry) (bool, error) {
	if entry.Type == client.ExporterLocal || entry.Type == client.ExporterTar {
		return entry.Type == client.ExporterLocal, nil
	}
	err := normalizeBool(entry.Attrs, "tar")
	return entry.Attrs["tar"] == "false", err
}

// normalizeBool writes a boolean attribute, if it is set, as true or false. BuildKit accepts the forms of
// [strconv.ParseBool].
func normalizeBool(attrs map[string]string, attribute string) error {
	text, ok := attrs[attribute]
	if !ok {
		return nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return fmt.Errorf("%s=%s is not a boolean (use true or false)", attribute, text)
	}
	attrs[attribute] = strconv.FormatBool(value)
	return nil
}

// checkNames checks the attribute name, a list of references. The frontend replaces the name *.
func checkNames(names string) error {
	for name := range strings.SplitSeq(names, ",") {
		if _, err := reference.ParseNormalizedNamed(name); err != nil && name != "" && name != "*" {
			return fmt.Errorf("name %q: %w", name, err)
		}
	}
	return nil
}

// createFile creates a file and its parent directories. If the file is below dir, it follows no symbolic link that
// leads out of dir: a link in the repository must not make a build overwrite other files of the machine.
func createFile(dir, file string) (io.WriteCloser, error) {
	below, err := filepath.Rel(dir, file)
	if err != nil || !filepath.IsLocal(below) {
		dir, below = filepath.Dir(file), filepath.Base(file)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(below), 0o755); err != nil {
		return nil, err
	}
	return root.Create(below)
}

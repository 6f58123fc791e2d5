package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
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
	case client.ExporterLocal, client.ExporterTar, client.ExporterOCI, client.ExporterDocker:
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
	switch {
	case err != nil:
		return entry, err
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
	text, ok := entry.Attrs["tar"]
	if entry.Type == client.ExporterLocal || entry.Type == client.ExporterTar || !ok {
		return entry.Type == client.ExporterLocal, nil
	}
	tar, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("tar=%s is not a boolean (use true or false)", text)
	}
	return !tar, nil
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

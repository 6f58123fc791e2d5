package image

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/go-csvvalue"
)

// ParseOutput reads one output in BuildKit's syntax: CSV fields such as type=local,dest=out. A value without "=" is a folder, as
// in docker. The builder's answer is written when it comes, so no file is made before. Relative destinations are below dir.
//
// With several platforms each has its own machine: folders get one folder a platform, and a single file is refused.
func ParseOutput(value, dir string, several bool) (client.ExportEntry, error) {
	entry := client.ExportEntry{Attrs: map[string]string{}}
	refuse := func(why string) (client.ExportEntry, error) {
		return client.ExportEntry{}, fmt.Errorf("%q %s", value, why)
	}
	if value == "" {
		return refuse("is empty: write type=local,dest=FOLDER, or another type")
	}
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return refuse("is not CSV: " + err.Error())
	}
	if len(fields) == 1 && !strings.Contains(value, "=") {
		fields = []string{"type=local", "dest=" + value}
	}
	for _, field := range fields {
		key, content, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok {
			return refuse(fmt.Sprintf("has a field %q without a value: write it as name=value", field))
		}
		if key = strings.ToLower(key); key == "type" {
			entry.Type = content
		} else {
			entry.Attrs[key] = content
		}
	}
	destination := entry.Attrs["dest"]
	delete(entry.Attrs, "dest")
	if destination != "" && destination != "-" && !filepath.IsAbs(destination) {
		destination = filepath.Join(dir, destination)
	}
	isFolder := entry.Type == client.ExporterLocal
	switch entry.Type {
	case client.ExporterLocal:
	case client.ExporterTar:
	case client.ExporterOCI, client.ExporterDocker:
		if text, ok := entry.Attrs["tar"]; ok {
			tar, err := strconv.ParseBool(text)
			if err != nil {
				return refuse("has tar=" + text + ": write true or false")
			}
			isFolder = !tar
		}
	case "registry":
		entry.Type = client.ExporterImage
		entry.Attrs["push"] = "true"
		fallthrough
	case client.ExporterImage:
		if destination != "" {
			return refuse("has a dest, but an image has none: name it with name=")
		}
		if several && entry.Attrs["push"] == "true" && entry.Attrs["push-by-digest"] != "true" {
			return refuse("pushes one name from several machines: use the input push, which makes one index of them")
		}
		return entry, nil
	case "cacheonly":
		return refuse("keeps nothing: the image stays in the builder's cache without it")
	case "":
		return refuse("has no type: write type=local, tar, oci, docker, image or registry")
	default:
		return refuse(fmt.Sprintf("has the unknown type %q: write local, tar, oci, docker, image or registry", entry.Type))
	}
	switch {
	case destination == "" || destination == "-":
		return refuse("needs dest=PATH: standard output is kept for results")
	case isFolder:
		if several && entry.Type != client.ExporterLocal {
			return refuse("is one folder for several platforms: build one platform, or use the input push")
		}
		if several {
			entry.Attrs["platform-split"] = "true"
		}
		entry.OutputDir = destination
	case several:
		return refuse("is one file for several platforms: build one platform, or use type=local")
	default:
		entry.Output = func(map[string]string) (io.WriteCloser, error) {
			return create(dir, destination)
		}
	}
	return entry, nil
}

// create makes a file and the folders that it needs. Below dir it follows no link that leads out: the repository that is built may have it, to
// have us write over another file of the machine.
func create(dir, file string) (io.WriteCloser, error) {
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

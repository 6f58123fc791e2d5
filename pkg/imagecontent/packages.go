package imagecontent

import (
	"bytes"
	"encoding/json"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/org/sandbox-actions/pkg/runrecord"
)

// Paths of package databases. Databases of rpm are not read: they are SQLite files since Fedora 33, and a reader for
// them would make the programs a third larger.
var (
	// dpkg(1), and https://github.com/GoogleContainerTools/distroless for status.d
	dpkgStatus = regexp.MustCompile(`^var/lib/dpkg/(status|status\.d/[^/]+)$`)
	// https://wiki.alpinelinux.org/wiki/Apk_spec; apk 3 can have it below usr
	apkInstalled = regexp.MustCompile(`^(usr/)?lib/apk/db/installed$`)
	// https://packaging.python.org/en/latest/specifications/recording-installed-packages/
	pythonMetadata = regexp.MustCompile(`\.(dist-info/METADATA|egg-info/PKG-INFO)$`)
	npmPackage     = regexp.MustCompile(`(^|/)node_modules/(@[^/]+/)?[^/]+/package\.json$`)
)

// databaseParser returns the function that reads the packages of a file, or nil if it is not a package database.
// The functions ignore what they cannot read: images contain other files with the same names.
func databaseParser(file string) func([]byte) []runrecord.Package {
	switch {
	case dpkgStatus.MatchString(file) && path.Ext(file) != ".md5sums":
		return parseDpkg
	case apkInstalled.MatchString(file):
		return parseApk
	case pythonMetadata.MatchString(file):
		return parsePython
	case npmPackage.MatchString(file):
		return parseNpm
	}
	return nil
}

// stanzas returns the fields of each stanza of a file with lines such as "Name: value". Stanzas are separated by empty
// lines. It ignores continuation lines.
func stanzas(data []byte) (list []map[string]string) {
	var current map[string]string
	for line := range bytes.Lines(data) {
		text := strings.TrimRight(string(line), "\r\n")
		name, value, ok := strings.Cut(text, ":")
		switch {
		case strings.TrimSpace(text) == "":
			current = nil
		case !ok || strings.HasPrefix(text, " ") || strings.HasPrefix(text, "\t"):
		case current == nil:
			current = map[string]string{}
			list = append(list, current)
			fallthrough
		default:
			if _, exists := current[name]; !exists {
				current[name] = strings.TrimSpace(value)
			}
		}
	}
	return list
}

// parseDpkg reads the packages that are installed. Distroless images have no status field.
func parseDpkg(data []byte) (packages []runrecord.Package) {
	for _, fields := range stanzas(data) {
		status, hasStatus := fields["Status"]
		if hasStatus && !strings.HasSuffix(status, " installed") {
			continue
		}
		kibibytes, _ := strconv.ParseInt(fields["Installed-Size"], 10, 32) // 0 if unknown
		packages = appendPackage(packages, "dpkg", fields["Package"], fields["Version"], kibibytes<<10)
	}
	return packages
}

func parseApk(data []byte) (packages []runrecord.Package) {
	for _, fields := range stanzas(data) {
		size, _ := strconv.ParseInt(fields["I"], 10, 64) // 0 if unknown
		packages = appendPackage(packages, "apk", fields["P"], fields["V"], size)
	}
	return packages
}

func parsePython(data []byte) []runrecord.Package {
	header := stanzas(data) // of which the description is not part
	if len(header) == 0 {
		return nil
	}
	return appendPackage(nil, "pip", header[0]["Name"], header[0]["Version"], 0)
}

func parseNpm(data []byte) []runrecord.Package {
	var manifest struct{ Name, Version string }
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil
	}
	return appendPackage(nil, "npm", manifest.Name, manifest.Version, 0)
}

// maxPackageText is the maximum length of a name or a version, in bytes. Packages with longer ones are ignored.
const maxPackageText = 256

func appendPackage(list []runrecord.Package, manager, name, version string, size int64) []runrecord.Package {
	if name == "" || version == "" || max(len(name), len(version)) > maxPackageText {
		return list
	}
	return append(list, runrecord.Package{Manager: manager, Name: name, Version: version, Size: max(0, size)})
}

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

// folder is a release as scripts/release.sh made it.
type folder struct {
	path        string
	home        string // https://github.com/OWNER/NAME
	server      string // https://github.com
	owner, name string
	version     string // v1.2.3
	checksums   []byte // checksums.txt
	changelog   string
	sums        map[string]string // of each asset, by its name: SHA-256 in hexadecimal
}

var (
	firstLine = regexp.MustCompile(`^# (https?://[A-Za-z0-9.:-]+)/([A-Za-z0-9-]+)/([A-Za-z0-9._-]+) (v[0-9]+\.[0-9]+\.[0-9]+(?:-rc\.[0-9]+)?) go[0-9.]+$`)
	sumLine   = regexp.MustCompile(`^([0-9a-f]{64})  (action-(?:build|snapshot|test)-(?:linux|darwin)-(?:amd64|arm64))$`)
)

// open reads a folder, and refuses one whose programs are not what its checksums.txt says.
func open(path string) (folder, error) {
	refuse := func(format string, args ...any) (folder, error) {
		return folder{}, fmt.Errorf("%s is not what `make release` makes: %s: make it again", path, fmt.Sprintf(format, args...))
	}
	f := folder{path: path, sums: map[string]string{}}
	var err error
	if f.checksums, err = os.ReadFile(filepath.Join(path, "checksums.txt")); err != nil {
		return refuse("%v", err)
	}
	changelog, err := os.ReadFile(filepath.Join(path, "changelog.md"))
	if err != nil {
		return refuse("%v", err)
	}
	f.changelog = string(changelog)
	entries, err := os.ReadDir(path)
	if err != nil {
		return refuse("%v", err)
	}
	for _, entry := range entries {
		if entry.Name() == "changelog.md" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(path, entry.Name()))
		if err != nil {
			return refuse("%v", err)
		}
		sum := sha256.Sum256(content)
		f.sums[entry.Name()] = hex.EncodeToString(sum[:])
	}
	expected := map[string]bool{"checksums.txt": true, "sbom.cdx.json": true, "licenses.tar.gz": true}
	lines := bufio.NewScanner(bytes.NewReader(f.checksums))
	lines.Scan()
	head := firstLine.FindStringSubmatch(lines.Text())
	if head == nil || !semver.IsValid(head[4]) {
		return refuse("checksums.txt begins with %q", lines.Text())
	}
	f.server, f.owner, f.name, f.version = head[1], head[2], head[3], head[4]
	f.home = f.server + "/" + f.owner + "/" + f.name
	for lines.Scan() {
		line := sumLine.FindStringSubmatch(lines.Text())
		if line == nil {
			return refuse("checksums.txt holds the line %q", lines.Text())
		}
		if f.sums[line[2]] != line[1] {
			return refuse("%s is not the program that checksums.txt names", line[2])
		}
		expected[line[2]] = true
	}
	if got, want := slices.Sorted(maps.Keys(f.sums)), slices.Sorted(maps.Keys(expected)); !slices.Equal(got, want) {
		return refuse("it holds %s, and not %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	if len(expected) == 3 {
		return refuse("there is no program")
	}
	return f, nil
}

// candidate says that a version is not meant for everybody yet.
func candidate(version string) bool { return semver.Prerelease(version) != "" }

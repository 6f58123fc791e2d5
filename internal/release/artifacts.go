package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

// artifacts describes the directory that scripts/release.sh creates for a release.
type artifacts struct {
	path        string
	server      string // https://github.com
	owner, name string // repository
	version     string // v1.2.3
	checksums   []byte // checksums.txt
	changelog   string
	sums        map[string]string // SHA-256 of each asset in hexadecimal, by file name
}

// repositoryURL returns https://github.com/OWNER/NAME.
func (a artifacts) repositoryURL() string { return a.server + "/" + a.owner + "/" + a.name }

// maxProgramSize is the maximum size of an unpacked program in bytes, which is the limit in actions/run.sh.
const maxProgramSize = 400000 * 512

var (
	checksumsHeader = regexp.MustCompile(`^# (https?://[A-Za-z0-9.:-]+)/([A-Za-z0-9-]+)/([A-Za-z0-9._-]+) ` +
		`(v[0-9]+\.[0-9]+\.[0-9]+(?:-rc\.[0-9]+)?) go[0-9.]+$`)
	checksumsLine = regexp.MustCompile(
		`^([0-9a-f]{64})  (action-(?:build|snapshot|test)-(?:linux|darwin)-(?:amd64|arm64))$`,
	)
)

// readArtifacts reads the directory of a release. It returns an error unless the directory contains exactly the files
// of a release, and each unpacked program matches its checksum in checksums.txt.
func readArtifacts(path string) (artifacts, error) {
	a := artifacts{path: path, sums: map[string]string{}}
	if err := a.read(); err != nil {
		return artifacts{}, fmt.Errorf("read release %s: %w (run `make release` again)", path, err)
	}
	return a, nil
}

func (a *artifacts) read() error {
	if err := a.readChangelog(); err != nil {
		return err
	}
	programs, err := a.readChecksums()
	if err != nil {
		return err
	}
	if err := a.sumFiles(); err != nil {
		return err
	}
	expected := []string{"checksums.txt", "licenses.tar.gz", "sbom.cdx.json"}
	for name := range programs {
		expected = append(expected, name+".gz")
	}
	slices.Sort(expected)
	if got := slices.Sorted(maps.Keys(a.sums)); !slices.Equal(got, expected) {
		return fmt.Errorf("unexpected files: got %s instead of %s", strings.Join(got, ", "), strings.Join(expected, ", "))
	}
	for name, want := range programs {
		got, err := sumUnpacked(filepath.Join(a.path, name+".gz"))
		if err != nil {
			return fmt.Errorf("unpack %s.gz: %w", name, err)
		}
		if got != want {
			return fmt.Errorf("checksum mismatch for %s: got %s, want %s from checksums.txt", name, got, want)
		}
	}
	return nil
}

func (a *artifacts) readChangelog() error {
	changelog, err := os.ReadFile(filepath.Join(a.path, "changelog.md"))
	a.changelog = string(changelog)
	return err
}

// readChecksums reads checksums.txt and returns the SHA-256 of each unpacked program.
func (a *artifacts) readChecksums() (programs map[string]string, err error) {
	if a.checksums, err = os.ReadFile(filepath.Join(a.path, "checksums.txt")); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(a.checksums))
	lines.Scan()
	header := checksumsHeader.FindStringSubmatch(lines.Text())
	if header == nil || !semver.IsValid(header[4]) {
		return nil, fmt.Errorf("invalid header in checksums.txt: %q", lines.Text())
	}
	a.server, a.owner, a.name, a.version = header[1], header[2], header[3], header[4]
	programs = map[string]string{}
	for lines.Scan() {
		line := checksumsLine.FindStringSubmatch(lines.Text())
		if line == nil {
			return nil, fmt.Errorf("invalid line in checksums.txt: %q", lines.Text())
		}
		programs[line[2]] = line[1]
	}
	if len(programs) == 0 {
		return nil, errors.New("checksums.txt lists no programs")
	}
	return programs, lines.Err()
}

// sumFiles sets a.sums. It skips the changelog, which is the text of the release and not an asset.
func (a *artifacts) sumFiles() error {
	entries, err := os.ReadDir(a.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "changelog.md" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(a.path, entry.Name()))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		a.sums[entry.Name()] = hex.EncodeToString(sum[:])
	}
	return nil
}

// sumUnpacked returns the SHA-256 of the content of a gzip file.
func sumUnpacked(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(unpacked, maxProgramSize+1))
	if err == nil && n > maxProgramSize {
		err = fmt.Errorf("program is larger than %d bytes", maxProgramSize)
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}

// isCandidate reports whether a version is a release candidate, such as v1.2.3-rc.1.
func isCandidate(version string) bool { return semver.Prerelease(version) != "" }

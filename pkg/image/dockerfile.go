package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil/types"

	"github.com/org/sandbox-actions/pkg/safefile"
)

// maxDockerfile is the maximum size of a Dockerfile and of an ignore file, which are read into memory. BuildKit has the
// same limit (moby/buildkit v0.34.2, frontend/dockerui/readfile.go).
const maxDockerfile = 16 << 20

// Dockerfile is the content of a Dockerfile on this machine.
type Dockerfile struct {
	name   string // of the file, without its directory
	data   []byte
	ignore []byte         // of the file NAME.dockerignore; nil without that file
	parsed *parser.Result // nil if it is invalid; BuildKit then reports the error
	stages []instructions.Stage
	args   []instructions.ArgCommand // before the first stage
}

// ReadDockerfile reads a Dockerfile and the ignore file next to it. It follows symbolic links; the caller decides where
// they may lead. An error does not name the file.
func ReadDockerfile(path string) (*Dockerfile, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	d := &Dockerfile{name: filepath.Base(path), data: data}
	if d.ignore, err = readFile(path + ignoreFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s%s: %w", d.name, ignoreFile, err)
	}
	if d.parsed, err = parser.Parse(bytes.NewReader(data)); err != nil {
		return d, nil
	}
	if d.stages, d.args, err = instructions.Parse(d.parsed.AST, nil); err != nil {
		d.stages, d.args = nil, nil
	}
	return d, nil
}

// Content returns the content of the Dockerfile.
func (d *Dockerfile) Content() []byte { return d.data }

// Ignore returns the content of the ignore file next to the Dockerfile, or nil without one.
func (d *Dockerfile) Ignore() []byte { return d.ignore }

// IsEmpty reports whether the Dockerfile contains only white space.
func (d *Dockerfile) IsEmpty() bool { return len(bytes.TrimSpace(d.data)) == 0 }

// files returns the Dockerfile and its ignore file as the directory that BuildKit reads.
func (d *Dockerfile) files() *staticfs.FS {
	files := staticfs.NewFS()
	files.Add(d.name, fixedStat(d.data), d.data)
	if d.ignore != nil {
		files.Add(d.name+ignoreFile, fixedStat(d.ignore), d.ignore)
	}
	return files
}

// fixedStat returns the metadata of a file that is sent from memory. As in [contentTimes], the time depends on the
// content.
func fixedStat(data []byte) *types.Stat {
	sum := sha256.Sum256(data)
	return &types.Stat{Mode: 0o644, ModTime: withFraction(0, sum[:])}
}

// Labels returns the names in the LABEL instructions.
func (d *Dockerfile) Labels() (names []string) {
	if d.parsed == nil {
		return nil
	}
	for _, instruction := range d.parsed.AST.Children {
		if !strings.EqualFold(instruction.Value, "label") {
			continue
		}
		for node := instruction.Next; node != nil; node = node.Next.Next.Next { // name, value, separator
			names = append(names, strings.Trim(node.Value, `"'`))
		}
	}
	return names
}

// readFile reads a Dockerfile or an ignore file. An error does not name the file.
func readFile(path string) ([]byte, error) {
	data, err := safefile.Read(path, maxDockerfile)
	return data, causeOf(err)
}

// causeOf returns an error of the file system without the operation and the path.
func causeOf(err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		return failed.Err
	}
	return err
}

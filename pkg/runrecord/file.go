package runrecord

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// maxRecord is the maximum size of a record in bytes. Larger ones are not read.
const maxRecord = 64 << 20

// Write writes the record as indented JSON.
func (r *Record) Write(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Read reads a record that [Record.Write] wrote. It refuses another version of the format.
func Read(r io.Reader) (*Record, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("the record is larger than %d MiB", maxRecord>>20)
	}
	var record Record
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("parse the record: %w", err)
	}
	if record.Format != Version {
		return nil, fmt.Errorf("format %d of the record is unsupported, want %d", record.Format, Version)
	}
	return &record, nil
}

// ReadArchive reads the record in the file of a zip archive that has the name. Of several files, it reads the one
// nearest to the root.
func ReadArchive(archive []byte, name string) (*Record, error) {
	reader, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // paths are not used
		return nil, err
	}
	files := slices.DeleteFunc(reader.File, func(f *zip.File) bool {
		return path.Base(f.Name) != name || !f.Mode().IsRegular()
	})
	if len(files) == 0 {
		return nil, fmt.Errorf("the archive has no %s", name)
	}
	depth := func(f *zip.File) int { return strings.Count(f.Name, "/") }
	file, err := slices.MinFunc(files, func(a, b *zip.File) int { return depth(a) - depth(b) }).Open()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return Read(file)
}

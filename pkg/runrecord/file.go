package runrecord

import (
	"encoding/json"
	"fmt"
	"io"
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

package runrecord

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"strings"
	"testing"
)

// entry is a file of an archive.
type entry struct {
	name, content string
	mode          fs.FileMode
}

func archiveOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var data bytes.Buffer
	writer := zip.NewWriter(&data)
	for _, e := range entries {
		header := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		header.SetMode(e.mode)
		file, err := writer.CreateHeader(header)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func TestReadArchive(t *testing.T) {
	const name = "record.json"
	record := func(program string) string { return `{"format": 1, "program": "` + program + `"}` }
	valid := archiveOf(t, entry{name: name, content: record("root")})
	damaged := bytes.Replace(valid, []byte("PK\x01\x02"), []byte("PK\x01\x03"), 1)
	huge := archiveOf(t, entry{name: name, content: `{"format": 1, "program": "` + strings.Repeat("x", maxRecord) + `"}`})
	for _, test := range []struct {
		name    string
		archive []byte
		want    string // program of the record; "" for an error
	}{
		{"at the root", valid, "root"},
		{"nearest to the root", archiveOf(t, entry{name: "a/b/" + name, content: record("b")},
			entry{name: "a/" + name, content: record("a")}, entry{name: "report.html"}), "a"},
		{"path out of the archive", archiveOf(t, entry{name: "../../" + name, content: record("a")}), "a"},
		{"symbolic link", archiveOf(t, entry{name: name, content: "/etc/passwd", mode: fs.ModeSymlink | 0o777}), ""},
		{"directory", archiveOf(t, entry{name: name + "/", mode: fs.ModeDir | 0o755}), ""},
		{"other files", archiveOf(t, entry{name: "x" + name, content: record("a")}), ""},
		{"no files", archiveOf(t), ""},
		{"empty", nil, ""},
		{"not an archive", []byte(record("a")), ""},
		{"truncated", valid[:len(valid)-10], ""},
		{"damaged directory", damaged, ""},
		{"damaged content", bytes.Replace(valid, valid[50:60], []byte("0123456789"), 1), ""},
		{"not a record", archiveOf(t, entry{name: name, content: "[]"}), ""},
		{"truncated record", archiveOf(t, entry{name: name, content: `{"format": 1,`}), ""},
		{"another format", archiveOf(t, entry{name: name, content: `{"format": 99}`}), ""},
		{"zip bomb", huge, ""},
	} {
		got, err := ReadArchive(test.archive, name)
		if (err == nil) != (test.want != "") || err == nil && got.Program != test.want {
			t.Errorf("%s: got %+v, %v", test.name, got, err)
		}
	}
}

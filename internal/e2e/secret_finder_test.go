package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// finder searches data for secrets in the encodings that programs and protocols use.
type finder struct {
	first   [1 << 16]bool // first two bytes of every needle, to skip most positions
	needles map[[4]byte][]needle
}

type needle struct {
	secret, form string
	text         []byte
}

// found is an occurrence of a secret.
type found struct {
	secret, form string
	context      string // the occurrence with some text on both sides
}

// Minimum lengths of needles. In text, it is the minimum length that Mask masks. In megabytes of binary data, shorter
// needles would occur by chance.
const (
	minTextLength   = 4
	minBinaryLength = 6
)

// add adds the value of a secret and each line of it. It skips those that are too short for Mask.
func (f *finder) add(secret, value string) {
	lines := strings.FieldsFunc(value, func(c rune) bool { return c == '\n' || c == '\r' })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	for _, part := range append(lines, value) {
		for form, text := range encodings(part) {
			f.put(needle{secret, form, []byte(text)})
			f.put(needle{secret, form + ", split", withoutSpace([]byte(text))})
		}
	}
}

func (f *finder) put(n needle) {
	if len(n.text) < minTextLength {
		return
	}
	if f.needles == nil {
		f.needles = map[[4]byte][]needle{}
	}
	prefix := [4]byte(n.text)
	for _, other := range f.needles[prefix] {
		if bytes.Equal(other.text, n.text) {
			return
		}
	}
	f.first[int(prefix[0])<<8|int(prefix[1])] = true
	f.needles[prefix] = append(f.needles[prefix], n)
}

// encodings returns a text in each encoding, by the name of the encoding.
func encodings(text string) map[string]string {
	all := map[string]string{"plain": text}
	if len(text) < 8 {
		return all
	}
	variants := map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding}
	for name, encoding := range variants {
		for shift := range 3 { // the number of preceding bytes determines the alignment
			encoded := encoding.EncodeToString(append(make([]byte, shift), text...))
			all[fmt.Sprintf("%s after %d bytes", name, shift)] = encoded[(shift*8+5)/6 : (shift+len(text))*8/6]
		}
	}
	all["hex"] = hex.EncodeToString([]byte(text))
	all["HEX"] = strings.ToUpper(all["hex"])
	all["query"], all["path"] = url.QueryEscape(text), url.PathEscape(text)
	all["Go"] = strings.Trim(strconv.Quote(text), `"`)
	all["HTML"] = html.EscapeString(text)
	var escaped bytes.Buffer
	_ = xml.EscapeText(&escaped, []byte(text)) // writes to memory
	all["XML"] = escaped.String()
	for name, escape := range map[string]bool{"JSON": false, "JSON in HTML": true} {
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(escape)
		_ = encoder.Encode(text) // writes to memory
		all[name] = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(out.String()), `"`), `"`)
	}
	return all
}

// withoutSpace returns data without white space.
//
//go:norace
func withoutSpace(data []byte) []byte {
	if !bytes.ContainsAny(data, " \t\r\n") {
		return data
	}
	kept := make([]byte, 0, len(data))
	for _, c := range data {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			kept = append(kept, c)
		}
	}
	return kept
}

// find searches data, which it decompresses first, both unchanged and without white space, because encoders may wrap
// lines. It skips needles of fewer than minLength bytes. It excludes itself from the race detector, which would make it
// many times slower.
//
//go:norace
func (f *finder) find(data []byte, minLength int) []found {
	var all []found
	data = decompress(data)
	for _, searched := range [][]byte{data, withoutSpace(data)} {
		for i := 0; i+4 <= len(searched); i++ {
			if !f.first[int(searched[i])<<8|int(searched[i+1])] {
				continue
			}
			for _, n := range f.needles[[4]byte(searched[i:])] {
				if len(n.text) < minLength || !bytes.HasPrefix(searched[i:], n.text) {
					continue
				}
				if len(all) == 0 || all[len(all)-1].secret != n.secret {
					all = append(all, found{n.secret, n.form, string(searched[max(0, i-60):min(len(searched), i+len(n.text)+60)])})
				}
			}
		}
	}
	return all
}

// decompress returns the content of gzip or zstd data, and other data unchanged.
func decompress(data []byte) []byte {
	var reader io.Reader
	var err error
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		reader, err = gzip.NewReader(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var decoder *zstd.Decoder
		if decoder, err = zstd.NewReader(bytes.NewReader(data)); err == nil {
			defer decoder.Close()
			reader = decoder
		}
	default:
		return data
	}
	if err != nil {
		return data
	}
	plain, _ := io.ReadAll(reader) // for truncated data, this is the part that can be decompressed
	return plain
}

// The finder finds secrets in each encoding, and nothing in other data.
func TestSecretFinder(t *testing.T) {
	values := map[string]string{
		"plain": "canary-" + rand.Text(), "quotes": `canary "` + rand.Text() + `' \back`,
		"percent": "canary%0A%25&<" + rand.Text(), "control": "canary\x1b[31m" + rand.Text(),
		"lines": "canary " + rand.Text() + "\nsecond-" + rand.Text() + "\r\nthird-" + rand.Text(),
		"short": "~" + rand.Text()[:3],
	}
	f := &finder{}
	for name, value := range values {
		f.add(name, value)
	}
	noise := strings.Repeat("nothing of interest\n", 1000)
	if got := f.find([]byte(noise), minTextLength); len(got) > 0 {
		t.Errorf("found %v", got)
	}
	wrapped := func(s string) string {
		var lines strings.Builder
		for len(s) > 7 {
			lines.WriteString(s[:7] + "\r\n  ")
			s = s[7:]
		}
		return lines.String() + s
	}
	packed := func(s string) string {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, _ = w.Write([]byte(s))
		_ = w.Close()
		return out.String()
	}
	zpacked := func(s string) string {
		encoder, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer encoder.Close()
		return string(encoder.EncodeAll([]byte(s), nil))
	}
	std := base64.StdEncoding
	plants := map[string]func(string) string{
		"unchanged": func(s string) string { return s },
		"base64":    func(s string) string { return std.EncodeToString([]byte(s)) },
		"base64 after one byte, with a suffix": func(s string) string {
			return std.EncodeToString([]byte("x" + s + "more"))
		},
		"base64url after two bytes": func(s string) string { return base64.URLEncoding.EncodeToString([]byte("xy" + s)) },
		"base64 in lines":           func(s string) string { return wrapped(std.EncodeToString([]byte("user:" + s))) },
		"hex":                       func(s string) string { return fmt.Sprintf("%x", s) },
		"HEX in lines":              func(s string) string { return wrapped(fmt.Sprintf("%X", s)) },
		"query":                     func(s string) string { return url.Values{"k": {s}}.Encode() },
		"path":                      url.PathEscape,
		"%q":                        func(s string) string { return fmt.Sprintf("%q", s) },
		"JSON": func(s string) string {
			b, _ := json.Marshal(map[string]string{"k": s})
			return string(b)
		},
		"XML": func(s string) string {
			var b bytes.Buffer
			_ = xml.EscapeText(&b, []byte(s))
			return b.String()
		},
		"HTML":     html.EscapeString,
		"gzip":     packed,
		"zstd":     zpacked,
		"in lines": wrapped,
		"only its last line": func(s string) string {
			lines := strings.Fields(s)
			return "x" + lines[len(lines)-1] + "x"
		},
	}
	for how, plant := range plants {
		for name, value := range values {
			encoded := how != "unchanged" && how != "gzip" && how != "zstd"
			if name == "short" && encoded || strings.HasPrefix(how, "only") && name != "lines" {
				continue
			}
			data := noise + plant(value) + noise
			if strings.HasSuffix(how, "gzip") || strings.HasSuffix(how, "zstd") {
				data = plant(noise + value + noise)
			}
			got := f.find([]byte(data), minTextLength)
			if len(got) == 0 || got[0].secret != name {
				t.Errorf("%s, %s: found %v", name, how, got)
			}
			if got := f.find([]byte(data), minBinaryLength); (len(got) > 0) != (name != "short") {
				t.Errorf("%s, %s, in binary data: found %v", name, how, got)
			}
		}
	}
}

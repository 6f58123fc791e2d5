package daytona

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzRefusal: whatever comes with a status, the error is one sentence that can be shown, and quotes nothing but Daytona's message.
func FuzzRefusal(f *testing.F) {
	for _, seed := range []string{
		`{"path":"/api/snapshots","statusCode":400,"error":"Bad Request","message":"CPU request 8 exceeds maximum allowed per sandbox (4).\nhint"}`,
		`{"message":""}`, `{"message":7}`, `{"message":"\u001b[31m::error::x\u2028"}`, "<html>", "", "null", `{"message":"` + strings.Repeat("ä", 400) + `"}`, "{\"message\":\"\xff\"}",
	} {
		f.Add([]byte(seed), uint16(400))
		f.Add([]byte(seed), uint16(503))
	}
	c := &Client{}
	f.Fuzz(func(t *testing.T, body []byte, status uint16) {
		response := &http.Response{StatusCode: int(status), Body: io.NopCloser(bytes.NewReader(body))}
		e := refusal(c, call{doing: "make the snapshot x", permission: WriteSnapshots}, response, nil)
		text := e.Error()
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }) {
			t.Errorf("%q can not be shown", text)
		}
		if e.Status != int(status) || e.Message == "" || e.Cure == "" || len(text) > 1000 {
			t.Errorf("%+v", e)
		}
	})
}

package doppler

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzStatusError: whatever Doppler, or who stands between, says with a status, it is one line without what must not be shown.
func FuzzStatusError(f *testing.F) {
	for _, seed := range []string{
		`{"messages":["Invalid Auth token"],"success":false}`, `{"messages":["hunter2 is wrong","\u001b[2J\n::error::x"]}`, `{"messages":[]}`, `{"messages":null}`, `{"messages":"x"}`, "<html>", "",
		`{"messages":["` + strings.Repeat("ä", 400) + `"]}`, `{"messages":["` + strings.Repeat("x", 296) + `hunter2"]}`, `{"messages":["hunter\u00002"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e := &statusError{status: 400}
		e.read(data, "hunter2", "")
		text := e.Error()
		if strings.Contains(text, "hunter2") {
			t.Errorf("a secret is readable in %q", text)
		}
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' }) || utf8.RuneCountInString(text) > 350 {
			t.Errorf("%q can not be shown", text)
		}
		var object map[string]json.RawMessage
		if e.isDoppler && json.Unmarshal(data, &object) != nil {
			t.Errorf("%q is taken for Doppler's", data)
		}
	})
}

// FuzzSubject: of a token only its claims are shown, in one line, and never its signature.
func FuzzSubject(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	for _, seed := range []string{`{"sub":"repo:org/x:ref:refs/heads/main","aud":"https://github.com/org"}`, `{"sub":"a","aud":["b","c"]}`, `{"sub":""}`, `{"sub":"\n::error::x","aud":"\u001b"}`, "[]", ""} {
		f.Add(encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(seed)) + "." + encode([]byte("signature-of-it")))
	}
	f.Add("..")
	f.Add("a.b")
	f.Fuzz(func(t *testing.T, token string) {
		text := subject(token)
		if strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q is not one line", text)
		}
		signature := token[strings.LastIndex(token, ".")+1:]
		payload, _, _ := strings.Cut(token, "."+signature)
		claims, _ := base64.RawURLEncoding.DecodeString(payload[strings.LastIndex(payload, ".")+1:])
		if len(signature) > 12 && strings.Contains(text, signature) && !strings.Contains(string(claims), signature) {
			t.Errorf("%q has the signature of %q", text, token)
		}
	})
}

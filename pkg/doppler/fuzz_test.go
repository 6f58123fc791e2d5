package doppler

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// FuzzErrorResponse checks that an error is one printable line without the token for any response.
func FuzzErrorResponse(f *testing.F) {
	for _, seed := range []string{
		`{"messages":["Invalid Auth token"],"success":false}`, `{"messages":["hunter2 is wrong","\u001b[2J\n::error::x"]}`,
		`{"messages":[]}`, `{"messages":null}`, `{"messages":"x"}`, "<html>", "", `{"messages":["hunter\u00002"]}`,
		`{"messages":["` + strings.Repeat("ä", 400) + `"]}`, `{"messages":["` + strings.Repeat("x", 296) + `hunter2"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		client := Client{Token: "hunter2", HTTP: httpclient.Config{
			Base: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 409, Body: io.NopCloser(bytes.NewReader(data))}, nil
			}),
		}}
		_, err := client.Secrets(t.Context())
		failed, ok := errors.AsType[*httpclient.APIError](err)
		if !ok || failed.Status != 409 {
			t.Fatalf("got %#v", err)
		}
		text := err.Error()
		if strings.Contains(text, "hunter2") {
			t.Errorf("the token is in %q", text)
		}
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsGraphic(c) }) ||
			utf8.RuneCountInString(text) > 600 {
			t.Errorf("unsafe: %q", text)
		}
		var object map[string]json.RawMessage
		if !errors.Is(err, httpclient.ErrFormat) && json.Unmarshal(data, &object) != nil {
			t.Errorf("%q is accepted as an error from Doppler", data)
		}
	})
}

// FuzzDescribeSubject checks that the description is one line and does not contain the token's signature.
func FuzzDescribeSubject(f *testing.F) {
	encode := base64.RawURLEncoding.EncodeToString
	for _, seed := range []string{
		`{"sub":"repo:org/x:ref:refs/heads/main","aud":"https://github.com/org"}`, `{"sub":"a","aud":["b","c"]}`,
		`{"sub":""}`, `{"sub":"\n::error::x","aud":"\u001b"}`, "[]", "",
	} {
		f.Add(encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(seed)) + "." + encode([]byte("the signature")))
	}
	f.Add("..")
	f.Add("a.b")
	f.Fuzz(func(t *testing.T, token string) {
		text := describeSubject(token)
		if strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q is not one line", text)
		}
		signature := token[strings.LastIndex(token, ".")+1:]
		payload, _, _ := strings.Cut(token, "."+signature)
		claims, _ := base64.RawURLEncoding.DecodeString(payload[strings.LastIndex(payload, ".")+1:])
		if len(signature) > 12 && strings.Contains(text, signature) && !strings.Contains(string(claims), signature) {
			t.Errorf("%q contains the signature of %q", text, token)
		}
	})
}

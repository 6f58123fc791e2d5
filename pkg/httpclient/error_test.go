package httpclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/org/sandbox-actions/internal/fakeclock"
)

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		name   string
		header http.Header
		want   time.Duration
	}{
		{"none", http.Header{"Retry": {"5"}}, 0},
		{"seconds", http.Header{"Retry-After": {"5"}}, 5 * time.Second},
		{"white space", http.Header{"Retry-After": {" 5 "}}, 5 * time.Second},
		{"fraction", http.Header{"Retry-After": {"0.5"}}, 500 * time.Millisecond},
		{"date", http.Header{"Retry-After": {"Fri, 02 Jan 2026 03:05:05 GMT"}}, time.Minute},
		{"date in the past", http.Header{"Retry-After": {"Fri, 02 Jan 2026 03:00:05 GMT"}}, 0},
		{"negative", http.Header{"Retry-After": {"-5"}}, 0},
		{"not a number", http.Header{"Retry-After": {"NaN"}}, 0},
		{"text", http.Header{"Retry-After": {"soon"}}, 0},
		{"huge", http.Header{"Retry-After": {"99999999999999999999"}}, 1e9 * time.Second},
		{
			"longest of several",
			http.Header{"Retry-After": {"5"}, "Retry-After-Anonymous": {"7"}, "Retry-After-Authenticated": {"6"}},
			7 * time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := RetryAfter(test.header, fakeclock.Start); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestGitHubRateLimit(t *testing.T) {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	const reset = "1767323075" // fakeclock.Start + 30 s
	for _, test := range []struct {
		name    string
		status  int
		header  http.Header
		body    string
		wait    time.Duration
		limited bool
	}{
		{"primary", 403, header("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset), "", 31 * time.Second, true},
		{
			"primary with 429", 429, header("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset), "", 31 * time.Second,
			true,
		},
		{
			"primary, reset in the past", 403, header("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1"), "", time.Second,
			true,
		},
		{"requests remain", 403, header("X-RateLimit-Remaining", "1", "X-RateLimit-Reset", reset), "{}", 0, false},
		{"secondary", 403, header("Retry-After", "4"), "", 4 * time.Second, true},
		{"secondary without a header", 403, nil, `{"message":"You have exceeded a secondary rate limit."}`, 0, true},
		{"429 without headers", 429, nil, "", 0, true},
		{"forbidden", 403, nil, `{"message":"Resource not accessible by integration"}`, 0, false},
		{"web page of a proxy", 403, nil, "<html>rate limit", 0, false},
		{"success", 200, header("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset), "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			response := &http.Response{
				StatusCode: test.status,
				Header:     test.header,
				Body:       io.NopCloser(strings.NewReader(test.body)),
			}
			if test.header == nil {
				response.Header = http.Header{}
			}
			wait, limited := GitHubRateLimit(response, fakeclock.Start)
			if wait != test.wait || limited != test.limited {
				t.Errorf("got %s, %v; want %s, %v", wait, limited, test.wait, test.limited)
			}
			if data, err := io.ReadAll(response.Body); string(data) != test.body || err != nil {
				t.Errorf("the body afterwards is %q, %v", data, err)
			}
		})
	}
}

func TestAPIErrorText(t *testing.T) {
	for _, test := range []struct {
		err  APIError
		want string
	}{
		{
			APIError{Service: "Daytona", Op: "list regions", Status: 403, Message: "Access denied", Hint: "use another key"},
			"list regions: Daytona returned 403 Forbidden: Access denied (use another key)",
		},
		{
			APIError{Service: "Daytona", Op: "list regions", Status: 429, Hint: "slow down", RetryAfter: 90 * time.Second},
			"list regions: Daytona returned 429 Too Many Requests (slow down; retry after 1m30s)",
		},
		{
			APIError{Service: "Daytona", Op: "list regions", Status: 599, RetryAfter: time.Second},
			"list regions: Daytona returned 599 (retry after 1s)",
		},
		{
			APIError{Service: "Daytona", Op: "list regions", Message: "cannot reach https://x: EOF"},
			"list regions: cannot reach https://x: EOF",
		},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestStatus(t *testing.T) {
	failed := &APIError{Status: 404}
	for _, test := range []struct {
		err  error
		want int
	}{{nil, 0}, {errors.New("x"), 0}, {failed, 404}, {errors.Join(errors.New("x"), failed), 404}} {
		if got := Status(test.err); got != test.want {
			t.Errorf("%v: got %d, want %d", test.err, got, test.want)
		}
	}
}

func TestFailure(t *testing.T) {
	service := Service{Name: "Depot", URL: "https://api.example", Hints: []Hint{
		{NoResponse, "", "no response"},
		{BadFormat, "", "bad format"},
		{401, "", "unauthorized"},
		{403, "scope", "scope"},
		{403, "", "forbidden"},
		{ServerErrors, "", "server"},
		{ClientErrors, "", "client"},
		{Any, "", "any"},
	}}
	for _, test := range []struct {
		name    string
		status  int // 0: no response
		body    string
		err     error
		hints   []Hint
		message string
		hint    string
		format  bool
	}{
		{
			name: "no response", err: io.ErrUnexpectedEOF, message: "cannot reach Depot at https://api.example: unexpected EOF",
			hint: "no response",
		},
		{
			name: "response too large", err: &BodyTooLargeError{Limit: 7},
			message: "no usable response from Depot at https://api.example: the response is larger than 7 bytes",
			hint:    "bad format", format: true,
		},
		{
			name: "message", status: 401, body: `{"message":"no such\n token."}`, message: "no such token",
			hint: "unauthorized",
		},
		{
			name: "hint for a message", status: 403, body: `{"message":"Insufficient Scope"}`, message: "Insufficient Scope",
			hint: "scope",
		},
		{name: "next hint for a status", status: 403, body: `{"message":"no"}`, message: "no", hint: "forbidden"},
		{name: "server error", status: 502, body: `{"message":"no"}`, message: "no", hint: "server"},
		{name: "client error", status: 422, body: `{"message":"no"}`, message: "no", hint: "client"},
		{
			name: "hint of the call first", status: 401, body: `{"message":"no"}`, hints: []Hint{{401, "", "this call"}},
			message: "no", hint: "this call",
		},
		{
			name: "web page", status: 403, body: "\n<html>", message: "the response is a web page, not JSON", hint: "bad format",
			format: true,
		},
		{
			name: "web page of a proxy", status: 500, body: "<html>",
			message: "the response is a web page, not JSON", hint: "server",
			format: true,
		},
		{
			name: "429 of a proxy", status: 429, body: "slow down", message: "the response is not JSON", hint: "client",
			format: true,
		},
		{name: "text", status: 404, body: "nope", message: "the response is not JSON", hint: "bad format", format: true},
		{name: "empty body", status: 404, message: "the response is empty", hint: "bad format", format: true},
		{
			name: "unexpected JSON", status: 404, body: "[]", message: "the response is not in the API's format",
			hint: "bad format", format: true,
		},
		{
			name: "unexpected success", status: 200, body: `{"message":"hello"}`,
			message: "the response is not in the API's format", hint: "bad format", format: true,
		},
		{name: "redirect", status: 302, body: "x", message: "the response is not JSON", hint: "bad format", format: true},
		{
			name: "secrets", status: 401, body: `{"message":"token-1 and token-12 are bad"}`,
			message: "*** and *** are bad", hint: "unauthorized",
		},
		{
			name: "secret at the truncation point", status: 401,
			body:    `{"message":"` + strings.Repeat("x", maxMessage-5) + `token-12"}`,
			message: strings.Repeat("x", maxMessage-5) + "***", hint: "unauthorized",
		},
		{
			name: "long message", status: 401, body: `{"message":"` + strings.Repeat("x", maxMessage+1) + `"}`,
			message: strings.Repeat("x", maxMessage-1) + "…", hint: "unauthorized",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var response *http.Response
			if test.status != 0 {
				response = &http.Response{
					StatusCode: test.status, Header: http.Header{"Retry-After": {"3"}},
					Body: io.NopCloser(strings.NewReader(test.body)),
				}
			}
			err := service.Failure(t.Context(), "op", response, test.err, []string{"", "token-1", "token-12"}, test.hints...)
			got, ok := errors.AsType[*APIError](err)
			if !ok {
				t.Fatalf("got %T", err)
			}
			var after time.Duration
			if response != nil {
				after = 3 * time.Second
			}
			if got.Service != "Depot" || got.Op != "op" || got.Status != test.status || got.RetryAfter != after {
				t.Errorf("got %+v", got)
			}
			if got.Message != test.message || got.Hint != test.hint {
				t.Errorf("got %q (%q), want %q (%q)", got.Message, got.Hint, test.message, test.hint)
			}
			if errors.Is(err, ErrFormat) != test.format || test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("cause %v", got.Err)
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		interrupted := errors.New("interrupted")
		cancel(interrupted)
		if err := service.Failure(ctx, "op", nil, io.EOF, nil); err != interrupted {
			t.Error(err)
		}
	})
}

func TestJSONClient(t *testing.T) {
	type seen struct {
		method, uri, body string
		header            map[string]string
	}
	for _, test := range []struct {
		name    string
		call    JSONCall
		replies []int // statuses; the last one repeats
		answer  string
		seen    seen
		want    string // the decoded field
		err     string
		n       int
	}{
		{
			name: "read", call: JSONCall{Path: "/v1/x?y=z", Token: "secret"}, answer: `{"name":"n"}`, want: "n", n: 1,
			seen: seen{"GET", "/base/v1/x?y=z", "", map[string]string{
				"Authorization": "Bearer secret", "Content-Type": "", "Accept": "application/json",
			}},
		},
		{
			name: "write", call: JSONCall{Method: "POST", Path: "/v1", Body: map[string]int{"a": 1}}, replies: []int{201},
			answer: `{"name":"n"}`, want: "n", n: 1,
			seen: seen{"POST", "/base/v1", `{"a":1}`, map[string]string{
				"Authorization": "", "Content-Type": "application/json",
			}},
		},
		{
			name: "idempotent write", call: JSONCall{Method: "POST", Idempotent: true}, replies: []int{500, 200},
			answer: `{"name":"n"}`, want: "n", n: 2,
			seen: seen{method: "POST", uri: "/base"},
		},
		{
			name: "write that is not idempotent", call: JSONCall{Op: "save", Method: "POST", Token: "secret"},
			replies: []int{500},
			answer:  `{"message":"secret is bad"}`, n: 1,
			seen: seen{method: "POST", uri: "/base"},
			err:  "save: Service returned 500 Internal Server Error: *** is bad (service)",
		},
		{
			name: "hint and secrets of the call",
			call: JSONCall{Op: "read", Secrets: []string{"hidden"}, Hints: []Hint{{404, "", "call"}}}, replies: []int{404},
			answer: `{"message":"hidden"}`, n: 1,
			seen: seen{method: "GET", uri: "/base"}, err: "read: Service returned 404 Not Found: *** (call)",
		},
		{
			name: "not JSON", call: JSONCall{Op: "read"}, answer: `<html>`, n: 1,
			seen: seen{method: "GET", uri: "/base"},
			err:  "read: Service returned 200 OK: the response is a web page, not JSON (service)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got seen
			n := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = seen{r.Method, r.URL.RequestURI(), string(body), map[string]string{}}
				for name := range test.seen.header {
					got.header[name] = r.Header.Get(name)
				}
				if len(test.replies) > 0 {
					w.WriteHeader(test.replies[min(n, len(test.replies)-1)])
				}
				n++
				_, _ = io.WriteString(w, test.answer)
			}))
			defer s.Close()
			client := JSONClient{
				Service: Service{Name: "Service", URL: s.URL + "/base/", Hints: []Hint{{Any, "", "service"}}},
				HTTP:    Config{Clock: &fakeclock.Clock{}}.Client(),
			}
			var answer struct{ Name string }
			err := client.Do(t.Context(), test.call, &answer)
			if (err != nil) != (test.err != "") || err != nil && err.Error() != test.err {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if answer.Name != test.want || n != test.n {
				t.Errorf("answer %q after %d requests, want %q after %d", answer.Name, n, test.want, test.n)
			}
			if got.method != test.seen.method || got.uri != test.seen.uri || got.body != test.seen.body ||
				!maps.Equal(got.header, test.seen.header) {
				t.Errorf("sent %v, want %v", got, test.seen)
			}
		})
	}
	t.Run("host without a name", func(t *testing.T) {
		err := Service{Name: "x.example", URL: "x.example"}.Failure(t.Context(), "read", nil, io.ErrUnexpectedEOF, nil)
		if want := "read: cannot reach x.example: unexpected EOF"; err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		client := JSONClient{
			Service: Service{Name: "S", URL: "http://127.0.0.1:1/base"},
			HTTP:    Config{Policy: Policy{Attempts: 1}}.Client(),
		}
		err := client.Do(t.Context(), JSONCall{Op: "read", Path: "/v1/x"}, nil)
		if failed, ok := errors.AsType[*APIError](err); !ok || failed.Status != 0 ||
			!strings.HasPrefix(failed.Message, "cannot reach S at http://127.0.0.1:1/base: dial tcp") {
			t.Error(err)
		}
	})
}

func FuzzFailure(f *testing.F) {
	for _, seed := range []string{
		`{"message":"bad\nthing"}`, `{"message":"hunter2 \u001b[31m::error::x\u2028"}`, "<html>", "", "null",
		`{"message":"hunter\u00002"}`, `{"message":"` + strings.Repeat("ä", 398) + `hunter2"}`, "{\"message\":\"\xff\"}",
	} {
		f.Add([]byte(seed), uint16(400))
		f.Add([]byte(seed), uint16(503))
	}
	service := Service{Name: "Service", Hints: []Hint{{Any, "", "hint"}}}
	f.Fuzz(func(t *testing.T, body []byte, status uint16) {
		response := &http.Response{StatusCode: int(status), Body: io.NopCloser(bytes.NewReader(body))}
		err := service.Failure(t.Context(), "op", response, nil, []string{"hunter2"})
		text := err.Error()
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsGraphic(c) }) {
			t.Errorf("unsafe: %q", text)
		}
		if strings.Contains(text, "hunter2") || utf8.RuneCountInString(text) > maxMessage+100 {
			t.Errorf("got %q", text)
		}
		if Status(err) != int(status) || !json.Valid(body) && !errors.Is(err, ErrFormat) {
			t.Errorf("got %#v", err)
		}
	})
}

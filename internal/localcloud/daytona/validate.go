package daytona

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// violations collects the messages of class-validator. The server joins those of a request with ", "
// (daytonaio/daytona v0.190.0, apps/api/src/filters/all-exceptions.filter.ts). Decorators run from the last to the
// first, so the checks of a field come in that order.
type violations []string

func (v *violations) check(ok bool, format string, args ...any) {
	if !ok {
		*v = append(*v, fmt.Sprintf(format, args...))
	}
}

func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	return badRequest("%s", strings.Join(v, ", "))
}

// unsafe matches what the server does not allow in names (daytonaio/daytona v0.190.0,
// apps/api/src/common/validators/is-safe-string.validator.ts).
var unsafe = regexp.MustCompile(`<[a-zA-Z/]|(?i:https?://|ftps?://|sftp://|ssh://|wss?://|file://|ldaps?://|` +
	`javascript:|data:|mailto:|tel:|www\.)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]`)

func (v *violations) name(field string, value any) {
	text, isText := value.(string)
	safe := value == nil || isText && !unsafe.MatchString(text)
	v.check(safe, "%s must not contain HTML tags, URLs, or control characters", field)
}

func (v *violations) text(field string, value any) {
	_, ok := value.(string)
	v.check(ok, "%s must be a string", field)
}

// optional checks the type of a value that may be missing.
func (v *violations) optional(field string, value any, kind string) {
	ok := value == nil
	switch value.(type) {
	case string:
		ok = kind == "a string"
	case map[string]any:
		ok = kind == "an object"
	case bool:
		ok = kind == "a boolean value"
	case float64:
		ok = kind == "a number conforming to the specified constraints"
	}
	v.check(ok, "%s must be %s", field, kind)
}

// number checks a number of at least 0 and, unless most is negative, at most most.
func (v *violations) number(field string, value any, most float64) {
	if value == nil {
		return
	}
	number, ok := value.(float64)
	v.check(most < 0 || ok && number <= most, "%s must not be greater than %v", field, most)
	v.check(ok && number >= 0, "%s must not be less than 0", field)
	v.check(ok, "%s must be a number conforming to the specified constraints", field)
}

func (v *violations) oneOf(field string, value any, known []string) {
	text, ok := value.(string)
	ok = ok && slices.Contains(known, text)
	v.check(ok, "%s must be one of the following values: %s", field, strings.Join(known, ", "))
}

func (v *violations) texts(field string, value any) {
	if value == nil {
		return
	}
	list, isList := value.([]any)
	v.check(isList, "%s must be an array", field)
	if !isList {
		list = []any{value} // class-validator checks a single value like an element
	}
	isOther := func(element any) bool { _, ok := element.(string); return !ok }
	v.check(!slices.ContainsFunc(list, isOther), "each value in %s must be a string", field)
}

// integer returns a query parameter and checks it as PageNumber and PageLimit do (daytonaio/daytona v0.190.0,
// apps/api/src/common/decorators). Decorators that applyDecorators combines run from the first to the last. A most of 0
// means no maximum.
func (v *violations) integer(query url.Values, field string, fallback, most int) int {
	if !query.Has(field) {
		return fallback
	}
	text := cmp.Or(strings.TrimSpace(query.Get(field)), "0") // as JavaScript converts it
	n, err := strconv.ParseFloat(text, 64)
	v.check(err == nil && n == math.Trunc(n), "%s must be an integer number", field)
	v.check(err == nil && n >= 1, "%s must not be less than 1", field)
	v.check(most == 0 || err == nil && n <= float64(most), "%s must not be greater than %d", field, most)
	return int(min(n, math.MaxInt32))
}

// choice returns a query parameter and checks that it has a known value.
func (v *violations) choice(query url.Values, field, fallback string, known []string) string {
	if !query.Has(field) {
		return fallback
	}
	v.oneOf(field, query.Get(field), known)
	return query.Get(field)
}

// decode returns the body of a request as a JSON object.
func decode(r *http.Request) map[string]any {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body) // parseBody has checked it; the server ignores other content
	return body
}

// parseBody rejects a malformed JSON body before anything else, also without a token, as the server's body parser does.
// This response does not have the format of other errors (daytonaio/daytona v0.190.0,
// apps/api/src/common/modules/body-parser-error.module.ts).
func parseBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		format, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if format != "application/json" {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has disconnected
		}
		start := strings.TrimSpace(string(body))
		isObject := strings.HasPrefix(start, "{") || strings.HasPrefix(start, "[")
		if len(body) > 0 && (!isObject || !json.Valid(body)) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"message":"Invalid JSON in request body","error":"Bad Request","statusCode":400}`)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

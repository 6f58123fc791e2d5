package faultproxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is what a client receives instead of the service's response.
type Fault struct {
	Name    string
	Refuses bool // the response says that the request has no effect

	needsResponse bool // serve receives the service's response even if the rule is not Late
	serve         func(http.ResponseWriter, *http.Request, *response)
}

// Reset closes the connection without a response. For a connection that is refused, see [Proxy.Down].
func Reset() Fault {
	return Fault{Name: "reset", serve: func(w http.ResponseWriter, _ *http.Request, _ *response) { reset(w) }}
}

// ResetAfterHeaders closes the connection after the headers of the response.
func ResetAfterHeaders() Fault { return cut("reset after headers", 0) }

// CutBody closes the connection in the middle of the response's body.
func CutBody() Fault { return cut("cut in the body", 0.5) }

// cut sends a part of the body under the headers of the whole.
func cut(name string, part float64) Fault {
	return modify(name, func(w http.ResponseWriter, _ *http.Request, answer *response) {
		w.Header().Set("Content-Length", strconv.Itoa(max(len(answer.body), 2)))
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body[:int(part*float64(len(answer.body)))])
		_ = http.NewResponseController(w).Flush()
		reset(w)
	})
}

// Truncated sends the first half of the body as a complete response, such as from a proxy.
func Truncated() Fault {
	return modify("truncated body", func(w http.ResponseWriter, _ *http.Request, answer *response) {
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body[:len(answer.body)/2])
	})
}

// WrongTypes replaces strings by numbers, numbers and booleans by strings, and lists by objects in a JSON body.
func WrongTypes() Fault { return edit("wrong types", wrongType) }

// UnknownState replaces the fields state and status by values of a later version in a JSON body.
func UnknownState() Fault {
	return edit("unknown state", func(value any) any { return replaceFields(value, "from-the-future", "state", "status") })
}

// Status responds with a status. headers are pairs of a name and a value. The body has the format of Daytona's and
// GitHub's errors, and that of Doppler's.
func Status(status int, headers ...string) Fault {
	name := strings.TrimSpace(strconv.Itoa(status) + " " + strings.Join(headers, " "))
	body := fmt.Sprintf(`{"statusCode":%d,"message":"injected","messages":["injected"],"success":false}`, status)
	fault := Respond(name, status, body, append([]string{"Content-Type", "application/json"}, headers...)...)
	fault.Refuses = status/100 == 4
	return fault
}

// WebPage responds with a page in HTML, such as that of a proxy or a login.
func WebPage(status int) Fault {
	return Respond(fmt.Sprintf("web page with status %d", status), status, "<!DOCTYPE html><title>Proxy</title>",
		"Content-Type", "text/html")
}

// Empty responds without a body.
func Empty(status int, headers ...string) Fault {
	name := fmt.Sprintf("empty response with status %d", status)
	return Respond(strings.TrimSpace(name+" "+strings.Join(headers, " ")), status, "", headers...)
}

// Respond responds with a status, a body and headers, which are pairs of a name and a value.
func Respond(name string, status int, body string, headers ...string) Fault {
	return Fault{Name: name, serve: func(w http.ResponseWriter, _ *http.Request, _ *response) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}}
}

// Silence does not respond until the client disconnects.
func Silence() Fault {
	return Fault{Name: "silence", serve: func(_ http.ResponseWriter, r *http.Request, _ *response) {
		<-r.Context().Done()
	}}
}

// Skew moves the times of the service by d, as if its clock were wrong: in the header Date, and in a JSON body.
func Skew(d time.Duration) Fault {
	shift := func(value any) any { return shiftTimes(value, d) }
	fault := edit(fmt.Sprintf("clock wrong by %s", d), shift)
	serve := fault.serve
	fault.serve = func(w http.ResponseWriter, r *http.Request, answer *response) {
		answer.header.Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat))
		serve(w, r, answer)
	}
	return fault
}

// Slow sends the service's response one byte per interval, until the client disconnects.
func Slow(interval time.Duration) Fault {
	return modify("slow body", func(w http.ResponseWriter, r *http.Request, answer *response) {
		w.WriteHeader(answer.status)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for i := range answer.body {
			_, _ = w.Write(answer.body[i : i+1])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-ticker.C:
			case <-r.Context().Done():
				return
			}
		}
	})
}

// Huge sends size bytes of JSON with the status of a success. sent, if it is not nil, receives how many the proxy has
// sent until the client disconnected, which includes what the sockets buffer.
func Huge(size int64, sent func(int64)) Fault {
	return Fault{Name: "huge body", serve: func(w http.ResponseWriter, _ *http.Request, _ *response) {
		w.Header().Set("Content-Type", "application/json")
		chunk := []byte(strings.Repeat(" ", 64<<10))
		_, err := io.WriteString(w, `{"message":"`)
		n := int64(0)
		for err == nil && n < size {
			_, err = w.Write(chunk)
			n += int64(len(chunk))
		}
		_, _ = io.WriteString(w, `"}`)
		if sent != nil {
			sent(n)
		}
	}}
}

// All returns one or more faults of each kind, without those that wait for the client: [Silence] and [Slow].
func All() []Fault {
	return []Fault{
		Reset(), ResetAfterHeaders(), CutBody(), Truncated(), WrongTypes(), UnknownState(), Empty(http.StatusOK),
		WebPage(http.StatusOK), WebPage(http.StatusServiceUnavailable), Status(http.StatusUnauthorized),
		Status(http.StatusForbidden), Status(http.StatusNotFound), Status(http.StatusConflict),
		Status(http.StatusTooManyRequests), Status(http.StatusTooManyRequests, "Retry-After", "1"),
		Empty(http.StatusTooManyRequests), Status(http.StatusInternalServerError), Status(http.StatusBadGateway),
		Huge(100<<20, nil),
	}
}

// modify returns a fault that changes the service's response.
func modify(name string, serve func(http.ResponseWriter, *http.Request, *response)) Fault {
	return Fault{Name: name, needsResponse: true, serve: func(w http.ResponseWriter, r *http.Request, answer *response) {
		for key, values := range answer.header {
			w.Header()[key] = values
		}
		serve(w, r, answer)
	}}
}

// edit returns a fault that changes a JSON body. Other bodies remain.
func edit(name string, change func(any) any) Fault {
	return modify(name, func(w http.ResponseWriter, _ *http.Request, answer *response) {
		var value any
		body := answer.body
		if json.Unmarshal(body, &value) == nil {
			if changed, err := json.Marshal(change(value)); err == nil {
				body = changed
			}
		}
		w.WriteHeader(answer.status)
		_, _ = w.Write(body)
	})
}

func wrongType(value any) any {
	switch v := value.(type) {
	case string:
		return 7
	case float64, bool:
		return "seven"
	case []any:
		return map[string]any{}
	case map[string]any:
		for name, field := range v {
			v[name] = wrongType(field)
		}
		return v
	}
	return value
}

func shiftTimes(value any, d time.Duration) any {
	switch v := value.(type) {
	case string:
		if at, err := time.Parse(time.RFC3339Nano, v); err == nil {
			return at.Add(d).Format(time.RFC3339Nano)
		}
	case []any:
		for i := range v {
			v[i] = shiftTimes(v[i], d)
		}
	case map[string]any:
		for name, field := range v {
			v[name] = shiftTimes(field, d)
		}
	}
	return value
}

func replaceFields(value any, with string, names ...string) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = replaceFields(v[i], with, names...)
		}
	case map[string]any:
		for name, field := range v {
			v[name] = replaceFields(field, with, names...)
		}
		for _, name := range names {
			if _, isText := v[name].(string); isText {
				v[name] = with
			}
		}
	}
	return value
}

// reset closes the connection so that the client receives a reset, or a reset of the stream in HTTP/2.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

package lfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/sandbox-actions/internal/fakeclock"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

const (
	version = "version https://git-lfs.github.com/spec/v1\n"
	oid     = "oid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\n"
)

func TestParsePointer(t *testing.T) {
	long := strings.Repeat(" ", MaxPointer-len(version+oid+"size 5\n"))
	for _, test := range []struct {
		name, data string
		size       int64 // -1: not a pointer
		extensions []string
	}{
		{"pointer", version + oid + "size 12345\n", 12345, nil},
		{"empty object", version + oid + "size 0\n", 0, nil},
		{"without a final newline", version + oid + "size 5", 5, nil},
		{"with CRLF", strings.ReplaceAll(version+oid+"size 5\n", "\n", "\r\n"), 5, nil},
		{"with empty lines", "\n" + version + "\n" + oid + "size 5\n\n", 5, nil},
		{"older version", strings.Replace(version, "git-lfs", "hawser", 1) + oid + "size 5\n", 5, nil},
		{"extensions", version + "ext-0-foo sha256:" + strings.Repeat("1", 64) + "\n" + oid + "size 5\n", 5, []string{"foo"}},
		{"longest", version + oid + "size 5\n" + long, 5, nil},
		{"too long", version + oid + "size 5\n" + long + " ", -1, nil},
		{"empty file", "", -1, nil},
		{"another version", strings.Replace(version, "v1", "v2", 1) + oid + "size 5\n", -1, nil},
		{"no size", version + oid, -1, nil},
		{"no ID", version + "size 5\n", -1, nil},
		{"another order", version + "size 5\n" + oid, -1, nil},
		{"extra key", version + oid + "size 5\nx y\n", -1, nil},
		{"negative size", version + oid + "size -5\n", -1, nil},
		{"size that is not a number", version + oid + "size 5k\n", -1, nil},
		{"short ID", version + "oid sha256:4665\nsize 5\n", -1, nil},
		{"ID in upper case", version + strings.ToUpper(oid[:10]) + oid[10:] + "size 5\n", -1, nil},
		{"another hash", version + strings.Replace(oid, "sha256", "sha512", 1) + "size 5\n", -1, nil},
		{"path as the ID", version + "oid sha256:../../../etc/passwd\nsize 5\n", -1, nil},
		{"text", "hello\n", -1, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, ok := ParsePointer([]byte(test.data))
			if ok != (test.size >= 0) || ok && (p.Size != test.size || !strings.Contains(oid, p.OID) || len(p.OID) != 64 ||
				!slices.Equal(p.Extensions, test.extensions)) {
				t.Errorf("%+v, %t", p, ok)
			}
		})
	}
}

// server is a Git LFS server whose handlers can be replaced.
type server struct {
	*httptest.Server
	objects map[string][]byte
	batch   func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc)
	object  func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc)

	mu       sync.Mutex
	requests []string // method, path and range
}

func startServer(t *testing.T, contents ...string) (*server, []Object) {
	t.Helper()
	s := &server{objects: map[string][]byte{}}
	var objects []Object
	for i, content := range contents {
		id := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
		s.objects[id] = []byte(content)
		objects = append(objects, Object{Pointer{OID: id, Size: int64(len(content))}, "file" + strconv.Itoa(i)})
	}
	type replacement = func(http.ResponseWriter, *http.Request, http.HandlerFunc)
	call := func(replace func() replacement, next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.requests = append(s.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
			s.mu.Unlock()
			if handler := replace(); handler != nil {
				handler(w, r, next)
				return
			}
			next(w, r)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /lfs/objects/batch", call(func() replacement { return s.batch }, s.serveBatch))
	mux.HandleFunc("GET /objects/{id}", call(func() replacement { return s.object }, s.serveObject))
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s, objects
}

func (s *server) serveBatch(w http.ResponseWriter, r *http.Request) {
	var message batchRequest
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil || r.Header.Get("Accept") != mediaType {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	var answer batchResponse
	for _, object := range message.Objects {
		if _, ok := s.objects[object.OID]; ok {
			object.Actions.Download = &action{s.URL + "/objects/" + object.OID, map[string]string{"X-Key": "value"}}
		}
		answer.Objects = append(answer.Objects, object)
	}
	w.Header().Set("Content-Type", mediaType)
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) serveObject(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Key") != "value" {
		http.Error(w, "no key", http.StatusForbidden)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.objects[r.PathValue("id")]))
}

// times returns a handler that calls fault for the first n requests.
func times(n int, fault http.HandlerFunc) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		mu.Lock()
		n--
		failing := n >= 0
		mu.Unlock()
		if failing {
			fault(w, r)
			return
		}
		next(w, r)
	}
}

func (s *server) client(token string) Server {
	return Server{
		URL: s.URL + "/lfs", Token: token, HTTP: httpclient.Config{Clock: &fakeclock.Clock{}},
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// cut sends the first bytes of an object and closes the connection.
func cut(content string, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = io.WriteString(w, content[:n])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

const always = 1000

func TestDownload(t *testing.T) {
	content := strings.Repeat("0123456789", 10)
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, content[:30])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	const forbidden = `{"message":"This repository exceeded its LFS budget."}`
	for _, test := range []struct {
		name          string
		token         string
		batch, object func(http.ResponseWriter, *http.Request, http.HandlerFunc)
		requests      string // kinds of the requests, in order; "": not checked
		phrases       []string
	}{
		{"success", "", nil, nil, "batch object", nil},
		{"500 once", "", times(1, status(500, "")), nil, "batch batch object", nil},
		{"502", "", times(always, status(502, "<html>")), nil, "batch batch batch batch", []string{"502", "try again later"}},
		{"429 once", "", times(1, status(429, `{"message":"slow"}`)), nil, "batch batch object", nil},
		{"401 without a token", "", times(always, status(401, `{"message":"Credentials needed"}`)), nil, "batch",
			[]string{"401 Unauthorized: Credentials needed", "set github_token"}},
		{"401 with a token", "secret", times(always, status(401, `{"message":"bad secret"}`)), nil, "batch",
			[]string{"bad ***", "contents: read"}},
		{"403", "secret", times(always, status(403, `{"message":"no"}`)), nil, "batch", []string{"contents: read"}},
		{"quota", "", times(always, status(403, forbidden)), nil, "batch",
			[]string{"exceeded its LFS budget", "raise the Git LFS budget", "lfs: false"}},
		{"404", "", times(always, status(404, `{"message":"Not Found"}`)), nil, "batch", []string{"no Git LFS"}},
		{"413", "", times(always, status(413, `{"message":"too many"}`)), nil, "batch", []string{"refuses a request"}},
		{"web page", "", times(always, status(200, "<html>")), nil, "batch", []string{"not from a Git LFS server"}},
		{"another transfer", "", times(always, status(200, `{"transfer":"tus","objects":[]}`)), nil, "batch",
			[]string{"not from a Git LFS server"}},
		{"missing object", "", times(always, status(200,
			`{"objects":[{"oid":"OID","error":{"code":404,"message":"Object does not exist"}}]}`)), nil, "batch",
			[]string{"/lfs does not provide file0: 404 Object does not exist", "git lfs push --all"}},
		{"no answer for an object", "", times(always, status(200, `{"objects":[]}`)), nil, "batch",
			[]string{"does not provide file0: the server names no URL"}},
		{"object: 500 once", "", nil, times(1, status(500, "")), "batch object object", nil},
		{"object: 503", "", nil, times(always, status(503, "<Error><Message>Slow Down</Message></Error>")),
			"batch object object object object", []string{"download file0", "503 Service Unavailable: Slow Down"}},
		{"object: expired URL", "", nil, times(1, status(403, "")), "batch object batch object", nil},
		{"object: 403", "", nil, times(always, status(403, "<Error><Message>Denied</Message></Error>")),
			"batch object batch object batch object batch object", []string{"403 Forbidden: Denied"}},
		{"object: cut", "", nil, times(1, cut(content, 30)), "batch object batch object 30-", nil},
		{"object: cut twice", "", nil, times(2, cut(content, 30)), "batch object batch object 30- batch object 30-", nil},
		{"object: always cut", "", nil, times(always, cut(content, 30)), "", []string{"download file0", "unexpected EOF"}},
		{"object: silence", "", nil, times(always, stall), "", []string{"received less than 1000 bytes/s for 50ms"}},
		{"object: wrong bytes once", "", nil, times(1, status(200, strings.Repeat("x", 100))),
			"batch object batch object", nil},
		{"object: wrong bytes", "", nil, times(always, status(200, strings.Repeat("x", 100))), "",
			[]string{"download file0: checksum mismatch: got ", "want OID"}},
		{"object: too short", "", nil, times(always, status(200, content[:50])), "", []string{"received 50 of 100 bytes"}},
		{"object: too long", "", nil, times(always, status(200, content+"x")), "", []string{"got more than 100 bytes"}},
		{"object: another range", "", nil, times(1, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 50-99/100")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, content[50:])
		}), "batch object batch object", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, objects := startServer(t, content)
			object := objects[0]
			id := strings.NewReplacer("OID", object.OID)
			s.object = test.object
			if batch := test.batch; batch != nil {
				s.batch = func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
					recorder := httptest.NewRecorder()
					batch(recorder, r, next)
					w.WriteHeader(recorder.Code)
					_, _ = id.WriteString(w, recorder.Body.String())
				}
			}
			dir := t.TempDir()
			received := int64(0)
			client := s.client(test.token)
			if strings.Contains(test.name, "silence") {
				client.IdleTimeout = 50 * time.Millisecond
			}
			err := client.Download(t.Context(), "refs/heads/main", objects, dir, func(n int64) { received += n })
			got := strings.NewReplacer("POST /lfs/objects/batch", "batch", "GET /objects/"+object.OID, "object", "bytes=", "").
				Replace(strings.Join(s.requests, " "))
			if test.requests != "" && got != test.requests {
				t.Errorf("requests: %s, want %s", got, test.requests)
			}
			if test.phrases == nil {
				data, readErr := os.ReadFile(filepath.Join(dir, object.OID))
				if err != nil || string(data) != content || received != object.Size {
					t.Errorf("%v; %q (%v), %d bytes", err, data, readErr, received)
				}
				return
			}
			for _, phrase := range test.phrases {
				if err == nil || !strings.Contains(err.Error(), id.Replace(phrase)) {
					t.Errorf("error = %v, want %q", err, id.Replace(phrase))
				}
			}
			if _, err := os.Stat(filepath.Join(dir, object.OID)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file of the object exists: %v", err)
			}
		})
	}
}

// Objects are requested in batches and downloaded once, even if several files have the same one.
func TestDownloadBatches(t *testing.T) {
	var contents []string
	for i := range 2*batchSize + 1 {
		contents = append(contents, strconv.Itoa(i))
	}
	s, objects := startServer(t, contents...)
	dir := t.TempDir()
	if err := s.client("").Download(t.Context(), "", slices.Concat(objects, objects), dir, nil); err != nil {
		t.Fatal(err)
	}
	for i, object := range objects {
		if data, err := os.ReadFile(filepath.Join(dir, object.OID)); err != nil || string(data) != contents[i] {
			t.Errorf("%s: %q, %v", object.Path, data, err)
		}
	}
	count := func(prefix string) (n int) {
		for _, request := range s.requests {
			if strings.HasPrefix(request, prefix) {
				n++
			}
		}
		return n
	}
	if count("POST") != 3 || count("GET") != len(objects) {
		t.Errorf("%d batches, %d downloads", count("POST"), count("GET"))
	}
}

// The failure of one batch cancels the downloads of the others.
func TestDownloadFailsFast(t *testing.T) {
	var contents []string
	for i := range batchSize + 1 {
		contents = append(contents, strconv.Itoa(i))
	}
	s, objects := startServer(t, contents...)
	silent := slices.MinFunc(objects, func(a, b Object) int { return strings.Compare(a.OID, b.OID) })
	s.object = func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		if r.PathValue("id") == silent.OID {
			<-r.Context().Done()
			return
		}
		next(w, r)
	}
	first := true
	s.batch = func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		if !first {
			status(404, `{"message":"gone"}`)(w, r)
			return
		}
		first = false
		next(w, r)
	}
	err := s.client("").Download(t.Context(), "", objects, t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("error = %v", err)
	}
}

// The token goes to the Git LFS server and to no other.
func TestDownloadToken(t *testing.T) {
	s, objects := startServer(t, "content")
	var mu sync.Mutex
	tokens := map[string]string{}
	storage := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, tokens["storage"], _ = r.BasicAuth()
		tokens["header"] = r.Header.Get("X-Key")
		_, _ = io.WriteString(w, "content")
	}))
	t.Cleanup(storage.Close)
	s.batch = func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		mu.Lock()
		defer mu.Unlock()
		_, tokens["batch"], _ = r.BasicAuth()
		_, _ = fmt.Fprintf(w, `{"objects":[{"oid":%q,"actions":{"download":{"href":%q,"header":{"X-Key":"value"}}}}]}`,
			objects[0].OID, storage.URL)
	}
	client := s.client("secret")
	client.HTTP.Base = storage.Client().Transport
	if err := client.Download(t.Context(), "", objects, t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	if tokens["batch"] != "secret" || tokens["storage"] != "" || tokens["header"] != "value" {
		t.Errorf("tokens = %v", tokens)
	}
	s.batch = nil // the server itself has the object
	s.object = func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
		_, tokens["object"], _ = r.BasicAuth()
		next(w, r)
	}
	if err := client.Download(t.Context(), "", objects, t.TempDir(), nil); err != nil || tokens["object"] != "secret" {
		t.Errorf("%v, tokens = %v", err, tokens)
	}
}

// A server cannot make a client with credentials use plaintext.
func TestDownloadWithoutTLS(t *testing.T) {
	s, objects := startServer(t, "content")
	secure := httptest.NewTLSServer(s.Config.Handler)
	t.Cleanup(secure.Close)
	client := s.client("")
	client.URL, client.HTTP.Base = secure.URL+"/lfs", secure.Client().Transport
	err := client.Download(t.Context(), "", objects, t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "without TLS") || len(s.requests) != 1 {
		t.Errorf("%v; requests %q", err, s.requests)
	}
}

func TestDownloadIsCanceled(t *testing.T) {
	s, objects := startServer(t, "content")
	cause := errors.New("timed out")
	ctx, cancel := context.WithCancelCause(t.Context())
	s.object = func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		cancel(cause)
		<-r.Context().Done()
	}
	if err := s.client("").Download(ctx, "", objects, t.TempDir(), nil); !errors.Is(err, cause) {
		t.Errorf("error = %v, want the cause", err)
	}
}

package github

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/google/go-github/v62/github"
)

// publish creates a release of the default branch with one asset.
func publish(t *testing.T, s *Server, repository, tag, asset, content string, draft bool) *api.RepositoryRelease {
	t.Helper()
	releases := publisher(t, s, "writes").Repositories
	x, _, err := releases.CreateRelease(t.Context(), "octo", repository,
		&api.RepositoryRelease{TagName: &tag, Draft: &draft})
	if err != nil {
		t.Fatal(err)
	}
	address := strings.Replace(x.GetUploadURL(), "{?name,label}", "?name="+url.QueryEscape(asset), 1)
	if status, body := send(t, "POST", address, "writes", content); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	if x, _, err = releases.GetRelease(t.Context(), "octo", repository, x.GetID()); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestDownloads(t *testing.T) {
	s, dir, _, _, _ := startPublisher(t)
	publish(t, s, "lib", "v1.0.0", "program", "one", false)
	publish(t, s, "lib", "a/v2", "program", "two", false)
	draft := publish(t, s, "lib", "v3", "program", "three", true)
	private := publish(t, s, "app", "v1.0.0", "program", "private", false)
	api := private.Assets[0].GetURL()
	const octets = "-H 'Accept: application/octet-stream' "
	const token = "-H 'Authorization: Bearer writes' "
	for _, test := range []struct{ name, curl, want string }{
		{"by tag", "-L URL/octo/lib/releases/download/v1.0.0/program", "one 200 1"},
		{"headers",
			"-IL URL/octo/lib/releases/download/v1.0.0/program | " +
				"grep -c -e '^Content-Length: 3' -e '^Content-Disposition: attachment; filename=program'", "2"},
		{"range", "-r 1-2 -L URL/octo/lib/releases/download/v1.0.0/program", "ne 206 1"},
		{"by a tag with a slash", "-L URL/octo/lib/releases/download/a/v2/program", "two 200 1"},
		{"by a tag with a slash, escaped", "-L URL/octo/lib/releases/download/a%2Fv2/program", "two 200 1"},
		{"latest", "-L URL/octo/lib/releases/latest/download/program", "two 200 2"},
		{"without redirects", "URL/octo/lib/releases/download/v1.0.0/program | grep -o '^<a href=\"http://localhost:'",
			`<a href="http://localhost:`},
		{"unknown asset", "-L URL/octo/lib/releases/download/v1.0.0/nothing", "Not Found 404 0"},
		{"unknown tag", "-L URL/octo/lib/releases/download/v9/program", "Not Found 404 0"},
		{"no tag", "-L URL/octo/lib/releases/download/program", "Not Found 404 0"},
		{"latest, unknown asset", "-L URL/octo/lib/releases/latest/download/nothing", "Not Found 404 1"},
		{"latest without a release", "-L URL/octo/empty/releases/latest/download/program", "Not Found 404 0"},
		{"draft", "-L " + draft.Assets[0].GetBrowserDownloadURL(), "Not Found 404 0"},
		{"draft, with a token", "-L " + token + draft.Assets[0].GetBrowserDownloadURL(), "Not Found 404 0"},
		{"draft by its tag", "-L URL/octo/lib/releases/download/v3/program", "Not Found 404 0"},
		{"private", "-L URL/octo/app/releases/download/v1.0.0/program", "Not Found 404 0"},
		{"private, with a token", "-L " + token + "URL/octo/app/releases/download/v1.0.0/program", "Not Found 404 0"},
		{"private, with a password", "-L -u x:writes URL/octo/app/releases/download/v1.0.0/program",
			"Not Found 404 0"},
		{"public, with an invalid token",
			"-L -H 'Authorization: Bearer bad' URL/octo/lib/releases/download/v1.0.0/program", "one 200 1"},
		{"private, through the API", "-L " + token + octets + api, "private 200 1"},
		{"private, through the API without a token", "-L " + octets + api + " | grep -o Not.Found", "Not Found"},
		{"metadata of a private asset", "-L " + token + api + ` | grep '^  "name": '`, `"name": "program",`},
		{"private, through the API with the token sent to the asset host", "-L --location-trusted " + token + octets + api,
			"Only one auth mechanism allowed; only the signature or the Authorization header should be specified 400 1"},
		{"public, with the token sent to the asset host",
			"-L --location-trusted " + token + "URL/octo/lib/releases/download/v1.0.0/program", "400 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			command := strings.ReplaceAll(test.curl, "URL", s.ServerURL())
			if !strings.Contains(command, "|") {
				command = "-w ' %{response_code} %{num_redirects}' " + command
			}
			got := must(t, dir, "curl -s "+command)
			got = strings.NewReplacer("\n", "", "</Message></Error>", "").Replace(got)
			if got != test.want && !(strings.HasPrefix(got, "<?xml") && strings.HasSuffix(got, test.want)) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
	// Go's client does not send the token to the asset host, because the host name differs.
	if _, body := get(t, s.ServerURL()+"/octo/lib/releases/download/v1.0.0/program", "Bearer writes"); body != "one" {
		t.Error(body)
	}
	x, _, err := publisher(t, s, "").Repositories.GetReleaseByTag(t.Context(), "octo", "lib", "v1.0.0")
	if err != nil || x.Assets[0].GetDownloadCount() < 4 {
		t.Errorf("%v %v", x, err)
	}
}

func TestSignedURLs(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	x := publish(t, s, "lib", "v1.0.0", "program", "one", false)
	signed := func() *url.URL {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, x.Assets[0].GetBrowserDownloadURL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		address, err := response.Location()
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	valid := signed()
	change := func(name, value string) string {
		query := valid.Query()
		query.Set(name, value)
		changed := *valid
		changed.RawQuery = query.Encode()
		return changed.String()
	}
	s.Change(func(o *Options) { o.DownloadURLLifetime = time.Nanosecond })
	expired := signed().String()
	s.Change(func(o *Options) { o.DownloadURLLifetime = 0 })
	for _, test := range []struct {
		name, method, address string
		status                int
		want                  string
	}{
		{"valid", "GET", valid.String(), 200, "one"},
		{"valid, second request", "GET", valid.String(), 200, "one"},
		{"expired", "GET", expired, 403, "Signature not valid in the specified time frame."},
		{"another expiry", "GET", change("se", time.Now().Add(time.Hour).Format(time.RFC3339Nano)), 403,
			"Signature did not match."},
		{"another type", "GET", change("rsct", "text/html"), 403, "Signature did not match."},
		{"another signature", "GET", change("sig", "00"), 403, "Signature did not match."},
		{"no signature", "GET", "http://" + valid.Host + valid.Path, 403, "AuthenticationFailed"},
		{"upload", "PUT", valid.String(), 403, "AuthorizationPermissionMismatch"},
		{"with a token", "GET", strings.Replace(valid.String(), "//", "//x:writes@", 1), 400,
			"Only one auth mechanism allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkResponse(t, test.status, test.want, test.method, test.address, "", "")
		})
	}
	if _, err := publisher(t, s, "writes").Repositories.DeleteRelease(t.Context(), "octo", "lib", x.GetID()); err != nil {
		t.Fatal(err)
	}
	if status, body := send(t, "GET", valid.String(), "", ""); status != 404 || !strings.Contains(body, "BlobNotFound") {
		t.Errorf("asset of a deleted release: %d %s", status, body)
	}
	publish(t, s, "lib", "v2.0.0", "program", "two", false)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	store, unlock := s.lockStore(canceled, s.currentOptions().Repositories[1])
	unlock()
	if store.byTag("v2.0.0") == nil {
		t.Error("the release became a draft when the client disconnected")
	}
}

func TestDownloadRequests(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	x := publish(t, s, "lib", "v1.0.0", "program", "one", false)
	get(t, x.Assets[0].GetBrowserDownloadURL(), "Bearer writes")
	list := s.Requests()
	first, last := list[len(list)-2], list[len(list)-1]
	if first != (Request{"GET", "/octo/lib/releases/download/v1.0.0/program", 302, true}) {
		t.Errorf("%+v", first)
	}
	if last.Status != 200 || last.HasToken || !strings.HasPrefix(last.Path, Objects) {
		t.Errorf("%+v", last)
	}
}

func TestDownloadFaults(t *testing.T) {
	s, dir, _, _, _ := startPublisher(t)
	content := strings.Repeat("0123456789", 1000)
	x := publish(t, s, "lib", "v1.0.0", "program", content, false)
	address := x.Assets[0].GetBrowserDownloadURL()
	for _, test := range []struct {
		name  string
		fault Fault
		curl  string // additional arguments
		want  string
	}{
		// Without a response, curl reports the status of the redirect.
		{"status from the server", Fault{Path: "/releases/download/", Status: 502}, "", "0 502 0"},
		{"status from the asset host", Fault{Path: Objects, Status: 503}, "", "0 503 0"},
		{"once", Fault{Path: Objects, Status: 503, Times: 1}, "--retry 1 --retry-delay 0", "10000 200 0"},
		{"closed connection", Fault{Path: Objects, Hangup: true}, "", "0 302 52"},
		{"truncated body", Fault{Path: Objects, Truncate: 4000}, "", "4000 200 18"},
		{"another method", Fault{Path: Objects, Method: "HEAD", Hangup: true}, "", "10000 200 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.Fail(test.fault)
			defer s.ClearFaults()
			const curl = "curl -sL -o /dev/null -w '%{size_download} %{response_code} %{exitcode}' "
			if got := must(t, dir, curl+test.curl+" "+address+" || true"); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
	s.Fail(Fault{Path: Objects, NoResponse: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := len(s.Requests())
	go func() { // cancels the request when it has arrived at the asset host
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			list := s.Requests()
			if slices.ContainsFunc(list[before:], func(r Request) bool { return strings.HasPrefix(r.Path, Objects) }) {
				cancel()
			}
		}
	}()
	silent, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(silent); !errors.Is(err, context.Canceled) {
		t.Errorf("no response: %v, %v", response, err)
	}
	s.Fail(Fault{Path: Objects, CorruptLastByte: true, Times: 1})
	if _, body := get(t, address, ""); body != content[:len(content)-1]+"8" {
		t.Errorf("corrupt last byte: got %d bytes that end in %q", len(body), body[max(0, len(body)-3):])
	}
	if _, body := get(t, address, ""); body != content {
		t.Error("the second response is corrupt, too")
	}
	// The server handles a request even if it truncates the response.
	upload := strings.Replace(x.GetUploadURL(), "{?name,label}", "?name=late", 1)
	s.Fail(Fault{Method: "POST", Path: "/assets", Truncate: 10, Times: 1})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, upload, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer writes")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != 10 {
		t.Errorf("%q %v", body, err)
	}
	if status, body := send(t, "POST", upload, "writes", "x"); status != 422 || !strings.Contains(body, "already_exists") {
		t.Errorf("%d %s", status, body)
	}
}

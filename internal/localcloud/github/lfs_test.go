package github

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestLFS(t *testing.T) {
	s, dir := startOctocat(t)
	oid := must(t, dir, `printf large > large; oid=$(sha256sum large | cut -d' ' -f1)
		for repository in .git ../private; do
			folder=$repository/lfs/objects/${oid:0:2}/${oid:2:2}; mkdir -p $folder; cp large $folder/$oid
		done; rm large; echo $oid`)
	object := func(oid string) string {
		return fmt.Sprintf(`{"operation":"download","objects":[{"oid":%q,"size":5}]}`, oid)
	}
	for _, test := range []struct {
		name, repository, token, accept, body string
		status                                int
		want                                  string // part of the body; "large": that the object can be downloaded
	}{
		{"public", "public.git", "", lfsType, object(oid), 200, "large"},
		{"without .git", "public", "", lfsType, object(oid), 200, "large"},
		{"private", "private.git", "good", lfsType, object(oid), 200, "large"},
		{"private, without a token", "private.git", "", lfsType, object(oid), 401, "Credentials needed"},
		{"invalid token", "public.git", "bad", lfsType, object(oid), 401, "Credentials needed"},
		{"unknown repository", "nothing.git", "good", lfsType, object(oid), 404, "Not Found"},
		{"missing object", "public.git", "", lfsType, object(strings.Repeat("a", 64)), 200, `"code":404`},
		{"invalid ID", "public.git", "", lfsType, object("../../config"), 200, `"code":422`},
		{"another media type", "public.git", "", "application/json", object(oid), 406, "Accept header"},
		{"no objects", "public.git", "", lfsType, `{"operation":"download"}`, 422, "Invalid request"},
		{"another hash", "public.git", "", lfsType, strings.Replace(object(oid), "{", `{"hash_algo":"sha1",`, 1), 422,
			"Invalid request"},
		{"upload", "public.git", "good", lfsType, strings.Replace(object(oid), "download", "upload", 1), 403, "push access"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := s.ServerURL() + "/octo/" + test.repository + "/info/lfs/objects/batch"
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", test.accept)
			r.Header.Set("Content-Type", lfsType+"; charset=utf-8")
			if test.token != "" {
				r.SetBasicAuth("x-access-token", test.token)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != test.status ||
				!bytes.Contains(body, []byte(test.want)) && test.want != "large" {
				t.Fatalf("%d %s (%v), want %d %s", response.StatusCode, body, err, test.status, test.want)
			}
			if test.want != "large" {
				return
			}
			var answer struct{ Objects []lfsObject }
			if err := json.Unmarshal(body, &answer); err != nil {
				t.Fatal(err)
			}
			href := answer.Objects[0].Actions["download"].Href
			if _, content := get(t, href, ""); content != "large" {
				t.Errorf("content = %q", content)
			}
			if response, _ := get(t, href, "Bearer good"); response.StatusCode != http.StatusBadRequest {
				t.Errorf("with a token: status %d", response.StatusCode)
			}
			unsigned, err := url.Parse(href)
			if err != nil {
				t.Fatal(err)
			}
			unsigned.RawQuery = ""
			if response, _ := get(t, unsigned.String(), ""); response.StatusCode != http.StatusForbidden {
				t.Errorf("without a signature: status %d", response.StatusCode)
			}
		})
	}
}

package github

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// web serves what people and git see: downloads of releases, and repositories.
func (s *Server) web(w http.ResponseWriter, r *http.Request) {
	if parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 4); len(parts) == 4 && parts[2] == "releases" {
		s.download(w, r, parts[0], parts[1], parts[3])
		return
	}
	s.git(w, r)
}

// download sends to an asset by the address that people see: releases/download/TAG/NAME, releases/latest/download/NAME. Here a token says
// nothing, right or wrong: private repositories and drafts are for the API.
func (s *Server) download(w http.ResponseWriter, r *http.Request, owner, name, path string) {
	repository, status := s.entry(&http.Request{}, owner, name, readContents)
	if status != http.StatusOK || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "Not Found", http.StatusNotFound)
		return
	}
	m, done := s.open(r.Context(), repository)
	defer done()
	if file, ok := strings.CutPrefix(path, "latest/download/"); ok {
		if x := m.latestRelease(); x != nil {
			http.Redirect(w, r, s.url+"/"+owner+"/"+name+"/releases/download/"+x.address()+"/"+url.PathEscape(file), http.StatusFound)
			return
		}
	}
	if rest, ok := strings.CutPrefix(path, "download/"); ok {
		i := strings.LastIndex(rest, "/") // a tag may have slashes
		if x := m.byTag(rest[:max(i, 0)]); x != nil {
			for _, a := range x.assets {
				if a.name == rest[i+1:] && a.content != nil {
					a.downloads++
					http.Redirect(w, r, s.sign(a), http.StatusFound)
					return
				}
			}
		}
	}
	http.Error(w, "Not Found", http.StatusNotFound)
}

// Objects is what the paths of all assets begin with at the host that has them.
const Objects = "/github-production-release-asset/"

// sign makes an address that everybody may read from, for a while.
func (s *Server) sign(a *asset) string {
	query := url.Values{
		"se": {time.Now().Add(cmp.Or(s.now().DownloadFor, 5*time.Minute)).UTC().Format(time.RFC3339Nano)},
		"sp": {"r"}, "rscd": {"attachment; filename=" + a.name}, "rsct": {a.contentType},
	}
	query.Set("sig", s.signature(a.object, query))
	return s.objects + a.object + "?" + query.Encode()
}

// signature is that of all an address says besides.
func (s *Server) signature(object string, query url.Values) string {
	query = maps.Clone(query)
	query.Del("sig")
	sum := hmac.New(sha256.New, s.signer)
	_, _ = fmt.Fprintf(sum, "%s?%s", object, query.Encode()) // a hash takes all
	return hex.EncodeToString(sum.Sum(nil))
}

// object serves the host that has the assets, to whom a signed address is all: it refuses who shows a token as well.
func (s *Server) object(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	end, err := time.Parse(time.RFC3339Nano, query.Get("se"))
	a := s.stored(r.URL.Path)
	switch {
	case r.Header.Get("Authorization") != "":
		storageError(w, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed; only the signature or the Authorization header should be specified")
	case err != nil || !hmac.Equal([]byte(query.Get("sig")), []byte(s.signature(r.URL.Path, query))):
		storageError(w, http.StatusForbidden, "AuthenticationFailed", "Signature did not match.")
	case time.Now().After(end):
		storageError(w, http.StatusForbidden, "AuthenticationFailed", "Signature not valid in the specified time frame.")
	case a == nil:
		storageError(w, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		storageError(w, http.StatusForbidden, "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation using this permission.")
	default:
		w.Header().Set("Content-Type", query.Get("rsct"))
		w.Header().Set("Content-Disposition", query.Get("rscd"))
		w.Header().Set("ETag", `"`+a.digest+`"`)
		http.ServeContent(w, r, "", a.uploaded, bytes.NewReader(a.content))
	}
}

// stored is the asset of that path, as long as its release is there.
func (s *Server) stored(path string) *asset {
	s.making.Lock()
	defer s.making.Unlock()
	for _, m := range s.made {
		for _, x := range m.releases {
			for _, a := range x.assets {
				if a.object == path {
					return a
				}
			}
		}
	}
	return nil
}

func storageError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

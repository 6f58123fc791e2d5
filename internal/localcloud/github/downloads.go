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

// serveWeb serves release downloads, Git LFS and git.
func (s *Server) serveWeb(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 4)
	switch {
	case len(parts) == 4 && parts[2] == "releases":
		s.serveDownload(w, r, parts[0], parts[1], parts[3])
	case len(parts) == 4 && parts[2]+"/"+parts[3] == "info/lfs/objects/batch":
		s.serveLFSBatch(w, r, parts[0], strings.TrimSuffix(parts[1], ".git"))
	default:
		s.serveGit(w, r)
	}
}

// serveDownload redirects the public URL of an asset, releases/download/TAG/NAME or releases/latest/download/NAME. It
// ignores tokens, so drafts and private repositories are not found.
func (s *Server) serveDownload(w http.ResponseWriter, r *http.Request, owner, name, path string) {
	repository, status := s.authorize(&http.Request{}, owner, name, readContents)
	if status != http.StatusOK || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "Not Found", http.StatusNotFound)
		return
	}
	store, unlock := s.lockStore(r.Context(), repository)
	defer unlock()
	if file, ok := strings.CutPrefix(path, "latest/download/"); ok {
		if latest := store.latest(); latest != nil {
			address := s.url + "/" + owner + "/" + name + "/releases/download/" + latest.urlTag() + "/" + url.PathEscape(file)
			http.Redirect(w, r, address, http.StatusFound)
			return
		}
	}
	if a := store.download(path); a != nil {
		a.downloads++
		http.Redirect(w, r, s.assetURL(a), http.StatusFound)
		return
	}
	http.Error(w, "Not Found", http.StatusNotFound)
}

// download returns the asset at download/TAG/NAME, or nil if it does not exist.
func (s *store) download(path string) *asset {
	path, ok := strings.CutPrefix(path, "download/")
	i := strings.LastIndex(path, "/") // a tag can contain slashes
	if !ok || i < 0 {
		return nil
	}
	release := s.byTag(path[:i])
	if release == nil {
		return nil
	}
	for _, a := range release.assets {
		if a.name == path[i+1:] && a.content != nil {
			return a
		}
	}
	return nil
}

// Objects is the prefix of paths on the asset host.
const Objects = "/github-production-release-asset/"

func (s *Server) assetURL(a *asset) string {
	return s.signedURL(a.object, a.name, a.contentType, 5*time.Minute)
}

// signedURL returns a URL that serves an object of the asset host without credentials until it expires.
func (s *Server) signedURL(object, name, contentType string, lifetime time.Duration) string {
	expiry := time.Now().Add(cmp.Or(s.currentOptions().DownloadURLLifetime, lifetime))
	query := url.Values{
		"se": {expiry.UTC().Format(time.RFC3339Nano)}, "sp": {"r"},
		"rscd": {"attachment; filename=" + name}, "rsct": {contentType},
	}
	query.Set("sig", s.signature(object, query))
	return s.assetsURL + object + "?" + query.Encode()
}

// signature returns the signature of an object's path and the other parameters of its URL.
func (s *Server) signature(object string, query url.Values) string {
	query = maps.Clone(query)
	query.Del("sig")
	sum := hmac.New(sha256.New, s.urlKey)
	_, _ = fmt.Fprintf(sum, "%s?%s", object, query.Encode()) // a hash never returns an error
	return hex.EncodeToString(sum.Sum(nil))
}

// serveObject serves the asset host. It accepts signed URLs and rejects requests with an Authorization header.
func (s *Server) serveObject(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	expiry, err := time.Parse(time.RFC3339Nano, query.Get("se"))
	a := s.findObject(r.URL.Path)
	switch {
	case r.Header.Get("Authorization") != "":
		sendStorageError(w, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed; "+
			"only the signature or the Authorization header should be specified")
	case err != nil || !hmac.Equal([]byte(query.Get("sig")), []byte(s.signature(r.URL.Path, query))):
		sendStorageError(w, http.StatusForbidden, "AuthenticationFailed", "Signature did not match.")
	case time.Now().After(expiry):
		sendStorageError(w, http.StatusForbidden, "AuthenticationFailed", "Signature not valid in the specified time frame.")
	case strings.HasPrefix(r.URL.Path, LFSObjects):
		s.serveLFSObject(w, r)
	case a == nil:
		sendStorageError(w, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		sendStorageError(w, http.StatusForbidden, "AuthorizationPermissionMismatch",
			"This request is not authorized to perform this operation using this permission.")
	default:
		w.Header().Set("Content-Type", query.Get("rsct"))
		w.Header().Set("Content-Disposition", query.Get("rscd"))
		w.Header().Set("ETag", `"`+a.digest+`"`)
		http.ServeContent(w, r, "", a.uploaded, bytes.NewReader(a.content))
	}
}

// findObject returns the asset or artifact at a path, or nil if it does not exist.
func (s *Server) findObject(path string) *asset {
	s.storeMu.Lock()
	defer s.storeMu.Unlock()
	for _, store := range s.stores {
		for _, release := range store.releases {
			for _, a := range release.assets {
				if a.object == path {
					return a
				}
			}
		}
		for _, run := range store.runs {
			for _, a := range run.artifacts {
				if a.object == path {
					return &a.asset
				}
			}
		}
	}
	return nil
}

func sendStorageError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"utf-8\"?>"+
		"<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

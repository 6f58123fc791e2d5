package github

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Server) assetEndpoints() []endpoint {
	return []endpoint{
		// That is releases/{id}/assets: releases/assets/{id} and releases/tags/{tag} forbid to write it so.
		{"GET /releases/{path...}", readContents, s.listAssets, "releases/assets#list-release-assets"},
		{"GET /releases/assets/{id}", readContents, s.asset, "releases/assets#get-a-release-asset"},
		{"DELETE /releases/assets/{id}", writeContents, s.deleteAsset, "releases/assets#delete-a-release-asset"},
	}
}

type asset struct {
	id                       int64
	name, label, contentType string
	content                  []byte
	digest                   string
	uploaded                 time.Time
	downloads                int
	object                   string // its path at the host that has the assets
}

// unusual is what GitHub puts a dot for in the name of an asset.
var unusual = regexp.MustCompile(`\.*[^A-Za-z0-9._+@~-]+[^A-Za-z0-9_+@~-]*`)

func (s *Server) upload(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	if request.ContentLength < 0 {
		return nil, &refusal{status: http.StatusBadRequest, message: "Bad Content-Length: "}
	}
	content, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, message: "Bad Content-Length: " + strconv.FormatInt(request.ContentLength, 10)}
	}
	m, done := s.open(ctx, r)
	defer done()
	x, refused := s.find(m, r, request, request.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	query := request.URL.Query()
	name := unusual.ReplaceAllString(query.Get("name"), ".")
	switch {
	case name == "":
		return nil, missing("name")
	case len(content) == 0:
		return nil, invalid(fieldError{"ReleaseAsset", "custom", "size", "size must be greater than or equal to 1"})
	case slices.ContainsFunc(x.assets, func(a *asset) bool { return a.name == name }):
		return nil, invalid(fieldError{Resource: "ReleaseAsset", Code: "already_exists", Field: "name"})
	}
	sum := sha256.Sum256(content)
	a := &asset{
		id: s.nextID(), name: name, label: query.Get("label"), contentType: request.Header.Get("Content-Type"), content: content,
		digest: "sha256:" + hex.EncodeToString(sum[:]), uploaded: time.Now(), object: Objects + strconv.FormatInt(x.id, 10) + "/" + rand.Text(),
	}
	if a.contentType == "" {
		a.contentType = octets
	}
	x.assets = append(x.assets, a)
	return s.assetBody(r, x, a), nil
}

const octets = "application/octet-stream"

// findAsset finds an asset where its release is found.
func (s *Server) findAsset(m *made, r Repository, request *http.Request) (*release, *asset, *refusal) {
	for _, x := range m.releases {
		for _, a := range x.assets {
			if strconv.FormatInt(a.id, 10) == request.PathValue("id") && (!x.draft || s.mayWrite(request, r)) {
				return x, a, nil
			}
		}
	}
	return nil, nil, notFound
}

// asset describes an asset, or sends to its bytes who accepts those.
func (s *Server) asset(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	x, a, refused := s.findAsset(m, r, request)
	if refused != nil {
		return nil, refused
	}
	if request.Header.Get("Accept") == octets {
		return redirect(s.sign(a)), nil
	}
	return s.assetBody(r, x, a), nil
}

func (s *Server) deleteAsset(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	x, a, refused := s.findAsset(m, r, request)
	if refused != nil {
		return nil, refused
	}
	x.assets = slices.DeleteFunc(x.assets, func(one *asset) bool { return one == a })
	return nil, nil
}

func (s *Server) listAssets(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	id, ok := strings.CutSuffix(request.PathValue("path"), "/assets")
	if !ok {
		return nil, notFound
	}
	m, done := s.open(ctx, r)
	defer done()
	x, refused := s.find(m, r, request, id)
	if refused != nil {
		return nil, refused
	}
	list := page{}
	for _, a := range x.assets {
		list = append(list, s.assetBody(r, x, a))
	}
	return list, nil
}

func (s *Server) assetBody(r Repository, x *release, a *asset) map[string]any {
	id, repository := strconv.FormatInt(a.id, 10), r.Owner+"/"+r.Name
	return map[string]any{
		"id": a.id, "node_id": "RA_" + id, "url": s.APIURL() + "/repos/" + repository + "/releases/assets/" + id,
		"browser_download_url": s.url + "/" + repository + "/releases/download/" + x.address() + "/" + url.PathEscape(a.name),
		"name":                 a.name, "label": a.label, "state": "uploaded", "content_type": a.contentType, "size": len(a.content), "digest": a.digest,
		"download_count": a.downloads, "uploader": map[string]any{"login": "github-actions[bot]", "type": "Bot"},
		"created_at": a.uploaded.UTC().Format(time.RFC3339), "updated_at": a.uploaded.UTC().Format(time.RFC3339),
	}
}

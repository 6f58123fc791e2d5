package github

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
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
	content                  []byte // nil for what was cut off
	digest                   string
	uploaded                 time.Time
	downloads                int
	object                   string // its path at the host that has the assets
}

// unusual is what GitHub puts a dot for in the name of an asset.
var unusual = regexp.MustCompile(`\.*[^A-Za-z0-9._+@~-]+[^A-Za-z0-9_+@~-]*`)

// upload takes an asset. One that is cut off leaves its name taken, until it is deleted.
func (s *Server) upload(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	if request.ContentLength < 0 {
		return nil, &refusal{status: http.StatusBadRequest, message: "Bad Content-Length: "}
	}
	content, err := io.ReadAll(request.Body)
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
	case slices.ContainsFunc(x.assets, func(a *asset) bool { return a.name == name }):
		return nil, invalid(fieldError{Resource: "ReleaseAsset", Code: "already_exists", Field: "name"})
	case request.ContentLength == 0:
		return nil, invalid(fieldError{"ReleaseAsset", "custom", "size", "size must be greater than or equal to 1"})
	}
	a := &asset{
		id: s.nextID(), name: name, label: query.Get("label"), contentType: cmp.Or(request.Header.Get("Content-Type"), octets),
		uploaded: time.Now().UTC().Truncate(time.Second), object: Objects + strconv.FormatInt(x.id, 10) + "/" + rand.Text(),
	}
	x.assets = append(x.assets, a)
	if err != nil {
		return nil, &refusal{status: http.StatusBadGateway, message: "Error saving asset"} // to nobody
	}
	a.content, a.digest = content, fmt.Sprintf("sha256:%x", sha256.Sum256(content))
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
		if a.content == nil {
			return nil, notFound
		}
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

type assetBody struct {
	URL         string    `json:"url"`
	ID          int64     `json:"id"`
	NodeID      string    `json:"node_id"`
	Name        string    `json:"name"`
	Label       string    `json:"label"`
	Uploader    user      `json:"uploader"`
	ContentType string    `json:"content_type"`
	State       string    `json:"state"`
	Size        int       `json:"size"`
	Digest      *string   `json:"digest"`
	Downloads   int       `json:"download_count"`
	Created     time.Time `json:"created_at"`
	Updated     time.Time `json:"updated_at"`
	Download    string    `json:"browser_download_url"`
}

func (s *Server) assetBody(r Repository, x *release, a *asset) assetBody {
	id, repository := strconv.FormatInt(a.id, 10), r.Owner+"/"+r.Name
	body := assetBody{
		URL: s.APIURL() + "/repos/" + repository + "/releases/assets/" + id, ID: a.id, NodeID: "RA_" + id, Name: a.name, Label: a.label,
		Uploader: s.bot(), ContentType: a.contentType, State: "starter", Size: len(a.content), Downloads: a.downloads, Created: a.uploaded, Updated: a.uploaded,
		Download: s.url + "/" + repository + "/releases/download/" + x.address() + "/" + url.PathEscape(a.name),
	}
	if a.content != nil {
		body.State, body.Digest = "uploaded", &a.digest
	}
	return body
}

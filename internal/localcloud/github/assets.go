package github

import (
	"cmp"
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

var assetEndpoints = []endpoint{
	// Serves releases/{id}/assets. That pattern conflicts with releases/assets/{id} and releases/tags/{tag}.
	{"GET /releases/{path...}", readContents, (*call).listAssets, "releases/assets#list-release-assets"},
	{"GET /releases/assets/{id}", readContents, withAsset((*call).getAsset), "releases/assets#get-a-release-asset"},
	{"DELETE /releases/assets/{id}", writeContents, withAsset((*call).deleteAsset),
		"releases/assets#delete-a-release-asset"},
}

var uploadEndpoint = endpoint{"POST", writeContents, (*call).uploadAsset, "releases/assets#upload-a-release-asset"}

const octetStream = "application/octet-stream"

type asset struct {
	id                       int64
	name, label, contentType string
	content                  []byte // nil: the upload was interrupted
	digest                   string
	uploaded                 time.Time
	downloads                int
	object                   string // path on the asset host
}

// unusualCharacters matches the characters that GitHub replaces with a dot in asset names.
var unusualCharacters = regexp.MustCompile(`\.*[^A-Za-z0-9._+@~-]+[^A-Za-z0-9_+@~-]*`)

// uploadAsset adds an asset to a release. An interrupted upload reserves the name until the asset is deleted.
func (c *call) uploadAsset() (any, error) {
	if c.request.ContentLength < 0 {
		return nil, &apiError{status: http.StatusBadRequest, message: "Bad Content-Length: "}
	}
	content, readErr := io.ReadAll(c.request.Body) // before c.release locks the store
	_, release, err := c.release(c.request.PathValue("id"))
	if err != nil {
		return nil, err
	}
	query := c.request.URL.Query()
	name := unusualCharacters.ReplaceAllString(query.Get("name"), ".")
	switch {
	case name == "":
		return nil, missingField("name")
	case slices.ContainsFunc(release.assets, func(a *asset) bool { return a.name == name }):
		return nil, invalidFields(fieldError{Resource: "ReleaseAsset", Code: "already_exists", Field: "name"})
	case c.request.ContentLength == 0:
		return nil, invalidFields(fieldError{"ReleaseAsset", "custom", "size", "size must be greater than or equal to 1"})
	}
	a := &asset{
		id: c.newID(), name: name, label: query.Get("label"),
		contentType: cmp.Or(c.request.Header.Get("Content-Type"), octetStream),
		uploaded:    time.Now().UTC().Truncate(time.Second),
		object:      Objects + strconv.FormatInt(release.id, 10) + "/" + rand.Text(),
	}
	release.assets = append(release.assets, a)
	if readErr != nil {
		return nil, &apiError{status: http.StatusBadGateway, message: "Error saving asset"} // the client has disconnected
	}
	a.content, a.digest = content, fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	return c.assetBody(release, a), nil
}

// getAsset returns an asset's metadata, or redirects to its content if the client accepts application/octet-stream.
func (c *call) getAsset(release *release, a *asset) (any, error) {
	if c.request.Header.Get("Accept") != octetStream {
		return c.assetBody(release, a), nil
	}
	if a.content == nil {
		return nil, errNotFound
	}
	return redirect(c.assetURL(a)), nil
}

func (c *call) deleteAsset(release *release, deleted *asset) (any, error) {
	release.assets = slices.DeleteFunc(release.assets, func(a *asset) bool { return a == deleted })
	return nil, nil
}

func (c *call) listAssets() (any, error) {
	id, ok := strings.CutSuffix(c.request.PathValue("path"), "/assets")
	if !ok {
		return nil, errNotFound
	}
	_, release, err := c.release(id)
	if err != nil {
		return nil, err
	}
	list := page{}
	for _, a := range release.assets {
		list = append(list, c.assetBody(release, a))
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

func (c *call) assetBody(x *release, a *asset) assetBody {
	id := strconv.FormatInt(a.id, 10)
	body := assetBody{
		URL: c.apiURL("/releases/assets/" + id), ID: a.id, NodeID: "RA_" + id, Name: a.name, Label: a.label,
		Uploader: c.bot(), ContentType: a.contentType, State: "starter", Size: len(a.content), Downloads: a.downloads,
		Created: a.uploaded, Updated: a.uploaded,
		Download: c.url + "/" + c.repository.fullName() + "/releases/download/" + x.urlTag() + "/" + url.PathEscape(a.name),
	}
	if a.content != nil {
		body.State, body.Digest = "uploaded", &a.digest
	}
	return body
}

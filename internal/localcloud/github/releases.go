package github

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

var releaseEndpoints = []endpoint{
	{"GET /releases", readContents, (*call).listReleases, "releases/releases#list-releases"},
	{"POST /releases", writeContents, withBody((*call).createRelease), "releases/releases#create-a-release"},
	{"GET /releases/latest", readContents, (*call).getLatestRelease, "releases/releases#get-the-latest-release"},
	{"GET /releases/tags/{tag...}", readContents, (*call).getReleaseByTag, "releases/releases#get-a-release-by-tag-name"},
	{"GET /releases/{id}", readContents, withRelease((*call).getRelease), "releases/releases#get-a-release"},
	{"PATCH /releases/{id}", writeContents, withBody((*call).updateRelease), "releases/releases#update-a-release"},
	{"DELETE /releases/{id}", writeContents, withRelease((*call).deleteRelease), "releases/releases#delete-a-release"},
}

// store holds the data of a repository that is not in git.
type store struct {
	releases     []*release // in order of creation
	latestID     int64      // ID of the release that was explicitly marked as latest; 0: none
	attestations []attestation
	deployments  []*Deployment
	comments     []*Comment
	runs         []*Run // in order of creation
}

type release struct {
	id                int64
	tag, target       string
	name, body        *string
	draft, prerelease bool
	untagged          string    // replaces the tag in URLs of a draft
	created           time.Time // time of the commit
	published         time.Time // zero: not published
	assets            []*asset
}

// lockStore locks the stores and returns that of a repository. It turns releases into drafts if their tag was deleted.
func (s *Server) lockStore(ctx context.Context, r Repository) (_ *store, unlock func()) {
	s.storeMu.Lock()
	ctx = context.WithoutCancel(ctx) // if git is canceled, existing tags appear to be missing
	found := s.storeOf(r)
	for _, release := range found.releases {
		if !release.draft && !r.hasRef(ctx, "refs/tags/"+release.tag) {
			release.draft = true
		}
	}
	return found, s.storeMu.Unlock
}

// storeOf returns the store of a repository, and creates it if it does not exist. The caller holds storeMu.
func (s *Server) storeOf(r Repository) *store {
	name := storeKey(r.fullName())
	if s.stores[name] == nil {
		s.stores[name] = &store{}
	}
	return s.stores[name]
}

// storeKey returns the key of a repository in Server.stores. GitHub ignores the case of OWNER/NAME.
func storeKey(fullName string) string { return strings.ToLower(fullName) }

// newID returns an ID that is unique on the server. The caller must hold s.storeMu.
func (s *Server) newID() int64 {
	s.lastID++
	return s.lastID
}

// byTag returns the published release of a tag, or nil.
func (s *store) byTag(tag string) *release {
	for _, release := range s.releases {
		if release.tag == tag && !release.draft {
			return release
		}
	}
	return nil
}

// latest returns the release that was marked as latest, or else the release of the newest commit. It returns nil if all
// releases are drafts or pre-releases.
func (s *store) latest() *release {
	var newest *release
	for _, x := range s.releases {
		if x.draft || x.prerelease {
			continue
		}
		if x.id == s.latestID {
			return x
		}
		if newest == nil || cmp.Or(x.created.Compare(newest.created), x.published.Compare(newest.published)) >= 0 {
			newest = x
		}
	}
	return newest
}

func (c *call) listReleases() (any, error) {
	list := page{}
	canWrite := c.canWrite(c.request, c.repository)
	for _, release := range slices.Backward(c.store().releases) {
		if !release.draft || canWrite {
			list = append(list, c.releaseBody(release))
		}
	}
	return list, nil
}

func (c *call) getLatestRelease() (any, error) {
	return c.foundRelease(c.store().latest())
}

func (c *call) getReleaseByTag() (any, error) {
	return c.foundRelease(c.store().byTag(c.request.PathValue("tag")))
}

// foundRelease returns the response for a release, or a 404 error if release is nil.
func (c *call) foundRelease(release *release) (any, error) {
	if release == nil {
		return nil, errNotFound
	}
	return c.releaseBody(release), nil
}

func (c *call) getRelease(_ *store, release *release) (any, error) {
	return c.releaseBody(release), nil
}

func (c *call) createRelease(body updateReleaseBody) (any, error) {
	store := c.store()
	x := &release{
		draft: true, target: c.repository.defaultBranch(c.ctx()),
		untagged: "untagged-" + strings.ToLower(rand.Text()[:20]),
	}
	if err := c.apply(store, x, body, body.Draft != nil && *body.Draft); err != nil {
		return nil, err
	}
	x.id = c.newID()
	store.releases = append(store.releases, x)
	store.updateLatest(x, body.MakeLatest, true)
	return c.releaseBody(x), nil
}

func (c *call) updateRelease(body updateReleaseBody) (any, error) {
	store, x, err := c.release(c.request.PathValue("id"))
	if err != nil {
		return nil, err
	}
	draft := x.draft
	if body.Draft != nil {
		draft = *body.Draft
	}
	if draft && body.MakeLatest == "true" {
		return nil, errLatest
	}
	updated := *x
	if err := c.apply(store, &updated, body, draft); err != nil {
		return nil, err
	}
	newlyPublished := x.draft && !draft
	*x = updated
	store.updateLatest(x, body.MakeLatest, newlyPublished)
	return c.releaseBody(x), nil
}

// deleteRelease deletes a release but not its tag.
func (c *call) deleteRelease(store *store, deleted *release) (any, error) {
	store.releases = slices.DeleteFunc(store.releases, func(x *release) bool { return x == deleted })
	return nil, nil
}

// releaseBody is a release in the API's format. The order of the fields matters to shell scripts that read the response
// line by line.
type releaseBody struct {
	URL        string      `json:"url"`
	AssetsURL  string      `json:"assets_url"`
	UploadURL  string      `json:"upload_url"`
	HTMLURL    string      `json:"html_url"`
	ID         int64       `json:"id"`
	Author     user        `json:"author"`
	NodeID     string      `json:"node_id"`
	Tag        string      `json:"tag_name"`
	Target     string      `json:"target_commitish"`
	Name       *string     `json:"name"`
	Draft      bool        `json:"draft"`
	Immutable  bool        `json:"immutable"`
	Prerelease bool        `json:"prerelease"`
	Created    time.Time   `json:"created_at"`
	Published  *time.Time  `json:"published_at"`
	Assets     []assetBody `json:"assets"`
	Tarball    *string     `json:"tarball_url"`
	Zipball    *string     `json:"zipball_url"`
	Body       *string     `json:"body"`
}

type user struct {
	Login string `json:"login"`
	ID    int64  `json:"id"`
	URL   string `json:"url"`
	Type  string `json:"type"`
}

// bot returns the user of a job's token.
func (s *Server) bot() user {
	return user{"github-actions[bot]", 41898282, s.APIURL() + "/users/github-actions%5Bbot%5D", "Bot"}
}

func (c *call) releaseBody(x *release) releaseBody {
	id := strconv.FormatInt(x.id, 10)
	address := c.apiURL("/releases/" + id)
	body := releaseBody{
		URL: address, AssetsURL: address + "/assets",
		UploadURL: c.UploadURL() + "/repos/" + c.repository.fullName() + "/releases/" + id + "/assets{?name,label}",
		HTMLURL:   c.url + "/" + c.repository.fullName() + "/releases/tag/" + x.urlTag(),
		ID:        x.id, Author: c.bot(), NodeID: "RE_" + id, Tag: x.tag, Target: x.target, Name: x.name, Draft: x.draft,
		Prerelease: x.prerelease, Created: x.created.UTC(), Assets: []assetBody{}, Body: x.body,
	}
	if !x.draft {
		published := x.published.UTC().Truncate(time.Second)
		tarball, zipball := c.apiURL("/tarball/"+x.tag), c.apiURL("/zipball/"+x.tag)
		body.Published, body.Tarball, body.Zipball = &published, &tarball, &zipball
	}
	for _, a := range x.assets {
		body.Assets = append(body.Assets, c.assetBody(x, a))
	}
	return body
}

// urlTag returns the part of web URLs that identifies the release.
func (x *release) urlTag() string {
	if x.draft {
		return x.untagged
	}
	return strings.ReplaceAll(url.PathEscape(x.tag), "%2F", "/")
}

package github

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Server) releaseEndpoints() []endpoint {
	return []endpoint{
		{"GET /releases", readContents, s.listReleases, "releases/releases#list-releases"},
		{"POST /releases", writeContents, s.createRelease, "releases/releases#create-a-release"},
		{"GET /releases/latest", readContents, s.latestRelease, "releases/releases#get-the-latest-release"},
		{"GET /releases/tags/{tag...}", readContents, s.releaseByTag, "releases/releases#get-a-release-by-tag-name"},
		{"GET /releases/{id}", readContents, s.releaseByID, "releases/releases#get-a-release"},
		{"PATCH /releases/{id}", writeContents, s.editRelease, "releases/releases#update-a-release"},
		{"DELETE /releases/{id}", writeContents, s.deleteRelease, "releases/releases#delete-a-release"},
	}
}

// made is what was made of a repository here.
type made struct {
	releases     []*release // as they were made
	latest       int64      // the release that was said to be the latest; 0 for none
	attestations []attestation
}

type release struct {
	id                int64
	tag, target       string
	name, body        *string
	draft, prerelease bool
	untagged          string    // what a draft's addresses have instead of the tag
	created           time.Time // the commit
	published         time.Time // zero for what never was
	assets            []*asset
}

// open gives what was made of a repository, to one request at a time. A release whose tag is gone is a draft again.
func (s *Server) open(ctx context.Context, r Repository) (m *made, done func()) {
	s.making.Lock()
	ctx = context.WithoutCancel(ctx) // a client that leaves takes no tag away
	name := strings.ToLower(r.Owner + "/" + r.Name)
	m = s.made[name]
	if m == nil {
		m = &made{}
		s.made[name] = m
	}
	for _, x := range m.releases {
		if !x.draft && !r.has(ctx, "refs/tags/"+x.tag) {
			x.draft = true
		}
	}
	return m, s.making.Unlock
}

// nextID numbers what is made, all of GitHub through.
func (s *Server) nextID() int64 {
	s.lastID++
	return s.lastID
}

// has says whether a repository has a ref.
func (r Repository) has(ctx context.Context, ref string) bool {
	_, err := r.run(ctx, "show-ref", "--verify", "--quiet", "--", ref)
	return err == nil
}

// find is the release of that ID, a draft only for who may write.
func (s *Server) find(m *made, r Repository, request *http.Request, id string) (*release, *refusal) {
	for _, x := range m.releases {
		if strconv.FormatInt(x.id, 10) == id && (!x.draft || s.mayWrite(request, r)) {
			return x, nil
		}
	}
	return nil, notFound
}

// byTag is the published release of a tag.
func (m *made) byTag(tag string) *release {
	for _, x := range m.releases {
		if x.tag == tag && !x.draft {
			return x
		}
	}
	return nil
}

// latestRelease is the one that was said to be, else the one of the newest commit; never a draft or a pre-release.
func (m *made) latestRelease() *release {
	var best *release
	for _, x := range m.releases {
		if x.draft || x.prerelease {
			continue
		}
		if x.id == m.latest {
			return x
		}
		if best == nil || cmp.Or(x.created.Compare(best.created), x.published.Compare(best.published)) >= 0 {
			best = x
		}
	}
	return best
}

func (s *Server) listReleases(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	list := page{}
	all := s.mayWrite(request, r)
	for _, x := range slices.Backward(m.releases) {
		if !x.draft || all {
			list = append(list, s.releaseBody(r, x))
		}
	}
	return list, nil
}

func (s *Server) latestRelease(ctx context.Context, r Repository, _ *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	if x := m.latestRelease(); x != nil {
		return s.releaseBody(r, x), nil
	}
	return nil, notFound
}

func (s *Server) releaseByTag(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	if x := m.byTag(request.PathValue("tag")); x != nil {
		return s.releaseBody(r, x), nil
	}
	return nil, notFound
}

func (s *Server) releaseByID(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	x, refused := s.find(m, r, request, request.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	return s.releaseBody(r, x), nil
}

func (s *Server) createRelease(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	var wanted releaseWish
	if refused := decode(request, &wanted); refused != nil {
		return nil, refused
	}
	m, done := s.open(ctx, r)
	defer done()
	x := &release{draft: true, target: r.defaultBranch(ctx), untagged: "untagged-" + strings.ToLower(rand.Text()[:20])}
	if refused := m.grant(ctx, r, x, wanted, wanted.Draft != nil && *wanted.Draft); refused != nil {
		return nil, refused
	}
	x.id = s.nextID()
	m.releases = append(m.releases, x)
	m.remember(x, wanted.MakeLatest, true)
	return s.releaseBody(r, x), nil
}

func (s *Server) editRelease(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	var wanted releaseWish
	if refused := decode(request, &wanted); refused != nil {
		return nil, refused
	}
	m, done := s.open(ctx, r)
	defer done()
	x, refused := s.find(m, r, request, request.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	edited, draft := *x, x.draft
	if wanted.Draft != nil {
		draft = *wanted.Draft
	}
	if draft && wanted.MakeLatest == "true" {
		return nil, latestCanNotBe
	}
	if refused := m.grant(ctx, r, &edited, wanted, draft); refused != nil {
		return nil, refused
	}
	newly := x.draft && !draft
	*x = edited
	m.remember(x, wanted.MakeLatest, newly)
	return s.releaseBody(r, x), nil
}

// deleteRelease leaves the tag.
func (s *Server) deleteRelease(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	x, refused := s.find(m, r, request, request.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	m.releases = slices.DeleteFunc(m.releases, func(one *release) bool { return one == x })
	return nil, nil
}

// releaseBody is a release in the API's words, and in its order: not every program that reads it is one that parses.
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

// bot is who a job's token is.
func (s *Server) bot() user {
	return user{"github-actions[bot]", 41898282, s.APIURL() + "/users/github-actions%5Bbot%5D", "Bot"}
}

func (s *Server) releaseBody(r Repository, x *release) releaseBody {
	id, repository := strconv.FormatInt(x.id, 10), "/repos/"+r.Owner+"/"+r.Name
	path := repository + "/releases/" + id
	body := releaseBody{
		URL: s.APIURL() + path, AssetsURL: s.APIURL() + path + "/assets", UploadURL: s.UploadURL() + path + "/assets{?name,label}",
		HTMLURL: s.url + "/" + r.Owner + "/" + r.Name + "/releases/tag/" + x.address(),
		ID:      x.id, Author: s.bot(), NodeID: "RE_" + id, Tag: x.tag, Target: x.target, Name: x.name, Draft: x.draft, Prerelease: x.prerelease,
		Created: x.created.UTC(), Assets: []assetBody{}, Body: x.body,
	}
	if !x.draft {
		published := x.published.UTC().Truncate(time.Second)
		tarball, zipball := s.APIURL()+repository+"/tarball/"+x.tag, s.APIURL()+repository+"/zipball/"+x.tag
		body.Published, body.Tarball, body.Zipball = &published, &tarball, &zipball
	}
	for _, a := range x.assets {
		body.Assets = append(body.Assets, s.assetBody(r, x, a))
	}
	return body
}

// address names a release on the web: by its tag, which a draft does not have yet.
func (x *release) address() string {
	if x.draft {
		return x.untagged
	}
	return strings.ReplaceAll(url.PathEscape(x.tag), "%2F", "/")
}

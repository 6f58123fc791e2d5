package github

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
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

// releaseWish is what a release shall be. What is not said stays.
type releaseWish struct {
	Tag        string  `json:"tag_name"`
	Target     string  `json:"target_commitish"`
	Name       *string `json:"name"`
	Body       *string `json:"body"`
	Draft      *bool   `json:"draft"`
	Prerelease *bool   `json:"prerelease"`
	MakeLatest string  `json:"make_latest"` // true, false, legacy
}

var latestCanNotBe = invalid(fieldError{Resource: "Release", Code: "custom", Message: "Latest release cannot be draft or prerelease."})

// grant makes x what is wished, or says why not. What is published has a tag: it is made where there is none.
func (m *made) grant(ctx context.Context, r Repository, x *release, wanted releaseWish, draft bool) *refusal {
	x.tag, x.target, x.draft = cmp.Or(wanted.Tag, x.tag), cmp.Or(wanted.Target, x.target), draft
	x.name, x.body = cmp.Or(wanted.Name, x.name), cmp.Or(wanted.Body, x.body)
	if wanted.Prerelease != nil {
		x.prerelease = *wanted.Prerelease
	}
	if out, err := r.run(ctx, "for-each-ref", "--count=1", "refs/heads"); err != nil || out == "" {
		return invalid(fieldError{Resource: "Release", Code: "custom", Message: "Repository is empty."})
	}
	if x.tag == "" {
		return missing("tag_name")
	}
	if x.prerelease && wanted.MakeLatest == "true" {
		return latestCanNotBe
	}
	if published := m.byTag(x.tag); !draft && published != nil && published.id != x.id {
		return invalid(fieldError{Resource: "Release", Code: "already_exists", Field: "tag_name"})
	}
	ref := "refs/tags/" + x.tag
	tagged := r.has(ctx, ref)
	var wrong []fieldError
	target, targetErr := commit{}, errors.New("neither a branch nor a full SHA")
	if branch := "refs/heads/" + x.target; r.has(ctx, branch) {
		target, targetErr = r.commit(ctx, branch)
	} else if fullSHA.MatchString(x.target) {
		target, targetErr = r.commit(ctx, x.target)
	}
	_, formatErr := r.run(ctx, "check-ref-format", ref)
	if formatErr != nil || !draft && !tagged && targetErr != nil {
		wrong = append(wrong, fieldError{Resource: "Release", Code: "custom", Field: "tag_name", Message: "tag_name is not a valid tag"})
		if !draft {
			wrong = append(wrong, fieldError{Resource: "Release", Code: "custom", Message: "Published releases must have a valid tag"})
		}
	}
	if targetErr != nil {
		wrong = append(wrong, fieldError{Resource: "Release", Code: "invalid", Field: "target_commitish"})
	}
	if wrong != nil {
		return invalid(wrong...)
	}
	if tagged {
		if at, err := r.commit(ctx, ref); err == nil {
			target = at
		}
	} else if !draft {
		if _, err := r.run(ctx, "update-ref", ref, target.SHA, strings.Repeat("0", 40)); err != nil {
			return invalid(fieldError{Resource: "Release", Code: "custom", Field: "tag_name", Message: "tag_name is not a valid tag"})
		}
	}
	x.created, _ = time.Parse(time.RFC3339, target.Commit.Committer.Date) // git's own
	if !draft && x.published.IsZero() {
		x.published = time.Now()
	}
	return nil
}

// remember keeps which release is the latest. One that is newly published is, unless it says otherwise.
func (m *made) remember(x *release, makeLatest string, newly bool) {
	switch {
	case x.draft || x.prerelease:
	case makeLatest == "legacy":
		m.latest = 0
	case makeLatest == "true" || makeLatest == "" && newly:
		m.latest = x.id
	case makeLatest == "false" && m.latest == x.id:
		m.latest = 0
	}
}

func (s *Server) releaseBody(r Repository, x *release) map[string]any {
	repository := "/repos/" + r.Owner + "/" + r.Name
	path := repository + "/releases/" + strconv.FormatInt(x.id, 10)
	assets := []any{}
	for _, a := range x.assets {
		assets = append(assets, s.assetBody(r, x, a))
	}
	body := map[string]any{
		"id": x.id, "node_id": "RE_" + strconv.FormatInt(x.id, 10), "author": map[string]any{"login": "github-actions[bot]", "type": "Bot"},
		"url": s.APIURL() + path, "assets_url": s.APIURL() + path + "/assets", "upload_url": s.UploadURL() + path + "/assets{?name,label}",
		"html_url": s.url + "/" + r.Owner + "/" + r.Name + "/releases/tag/" + x.address(),
		"tag_name": x.tag, "target_commitish": x.target, "name": x.name, "body": x.body, "draft": x.draft, "prerelease": x.prerelease,
		"immutable": false, "created_at": x.created.UTC().Format(time.RFC3339), "published_at": nil, "tarball_url": nil, "zipball_url": nil,
		"assets": assets,
	}
	if !x.draft {
		body["published_at"] = x.published.UTC().Format(time.RFC3339)
		body["tarball_url"], body["zipball_url"] = s.APIURL()+repository+"/tarball/"+x.tag, s.APIURL()+repository+"/zipball/"+x.tag
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

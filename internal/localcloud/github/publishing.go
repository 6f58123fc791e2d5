package github

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"
)

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
	target, targetErr := r.target(ctx, x.target)
	at, atErr := target, targetErr
	if tagged {
		at, atErr = r.commit(ctx, ref)
	}
	var wrong []fieldError
	if _, err := r.run(ctx, "check-ref-format", ref); err != nil || atErr != nil && (tagged || !draft) {
		wrong = append(wrong, fieldError{Resource: "Release", Code: "custom", Field: "tag_name", Message: "tag_name is not a valid tag"})
		if !draft {
			wrong = append(wrong, fieldError{Resource: "Release", Code: "custom", Message: "Published releases must have a valid tag"})
		}
	}
	if targetErr != nil && (!tagged || wanted.Target != "") {
		wrong = append(wrong, fieldError{Resource: "Release", Code: "invalid", Field: "target_commitish"})
	}
	if wrong != nil {
		return invalid(wrong...)
	}
	if !draft && !tagged {
		if _, err := r.run(ctx, "update-ref", ref, at.SHA, strings.Repeat("0", 40)); err != nil { // below another tag, say
			return invalid(fieldError{Resource: "Release", Code: "custom", Field: "tag_name", Message: "tag_name is not a valid tag"})
		}
	}
	x.created, _ = time.Parse(time.RFC3339, at.Commit.Committer.Date) // git's own
	if !draft && x.published.IsZero() {
		x.published = time.Now()
	}
	return nil
}

// target is the commit of a branch, or of a full SHA: neither a tag nor a short SHA will do.
func (r Repository) target(ctx context.Context, name string) (commit, error) {
	switch branch := "refs/heads/" + name; {
	case r.has(ctx, branch):
		return r.commit(ctx, branch)
	case fullSHA.MatchString(name):
		return r.commit(ctx, name)
	}
	return commit{}, errors.New("neither a branch nor a full SHA")
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

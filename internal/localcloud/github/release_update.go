package github

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"
)

// updateReleaseBody is the body of a request to create or update a release. Unset fields keep their values.
type updateReleaseBody struct {
	Tag        string  `json:"tag_name"`
	Target     string  `json:"target_commitish"`
	Name       *string `json:"name"`
	Body       *string `json:"body"`
	Draft      *bool   `json:"draft"`
	Prerelease *bool   `json:"prerelease"`
	MakeLatest string  `json:"make_latest"` // true, false, legacy
}

var (
	errLatest  = invalidFields(releaseError("", "Latest release cannot be draft or prerelease."))
	invalidTag = releaseError("tag_name", "tag_name is not a valid tag")
)

func releaseError(field, message string) fieldError {
	return fieldError{Resource: "Release", Code: "custom", Field: field, Message: message}
}

// apply updates x from body. If the release is published, apply creates its tag if it does not exist.
func (c *call) apply(store *store, x *release, body updateReleaseBody, draft bool) error {
	x.tag, x.target, x.draft = cmp.Or(body.Tag, x.tag), cmp.Or(body.Target, x.target), draft
	x.name, x.body = cmp.Or(body.Name, x.name), cmp.Or(body.Body, x.body)
	if body.Prerelease != nil {
		x.prerelease = *body.Prerelease
	}
	branches, err := c.repository.git(c.ctx(), "for-each-ref", "--count=1", "refs/heads")
	published := store.byTag(x.tag)
	switch {
	case err != nil || branches == "":
		return invalidFields(releaseError("", "Repository is empty."))
	case x.tag == "":
		return missingField("tag_name")
	case x.prerelease && body.MakeLatest == "true":
		return errLatest
	case !draft && published != nil && published.id != x.id:
		return invalidFields(fieldError{Resource: "Release", Code: "already_exists", Field: "tag_name"})
	}
	commit, err := c.tagRelease(x, body.Target != "")
	if err != nil {
		return err
	}
	x.created, _ = time.Parse(time.RFC3339, commit.Commit.Committer.Date) // git always writes this format
	if !draft && x.published.IsZero() {
		x.published = time.Now()
	}
	return nil
}

// tagRelease returns the commit of a release: the commit of its tag if the tag exists, otherwise that of its target. It
// creates the tag unless the release is a draft. If the tag exists, it checks the target only if the request has one.
func (c *call) tagRelease(x *release, targetRequested bool) (commit, error) {
	ref := "refs/tags/" + x.tag
	hasTag := c.repository.hasRef(c.ctx(), ref)
	target, targetErr := c.repository.resolveTarget(c.ctx(), x.target)
	tagged, taggedErr := target, targetErr
	if hasTag {
		tagged, taggedErr = c.repository.commit(c.ctx(), ref)
	}
	var invalid []fieldError
	_, formatErr := c.repository.git(c.ctx(), "check-ref-format", ref)
	if formatErr != nil || taggedErr != nil && (hasTag || !x.draft) {
		invalid = append(invalid, invalidTag)
		if !x.draft {
			invalid = append(invalid, releaseError("", "Published releases must have a valid tag"))
		}
	}
	if targetErr != nil && (!hasTag || targetRequested) {
		invalid = append(invalid, fieldError{Resource: "Release", Code: "invalid", Field: "target_commitish"})
	}
	if invalid != nil {
		return commit{}, invalidFields(invalid...)
	}
	if !x.draft && !hasTag {
		// Fails, for example, if the tag is below another tag.
		if _, err := c.repository.git(c.ctx(), "update-ref", ref, tagged.SHA, strings.Repeat("0", 40)); err != nil {
			return commit{}, invalidFields(invalidTag)
		}
	}
	return tagged, nil
}

// resolveTarget returns the commit of a branch or full SHA. GitHub accepts neither tags nor short SHAs.
func (r Repository) resolveTarget(ctx context.Context, target string) (commit, error) {
	switch branch := "refs/heads/" + target; {
	case r.hasRef(ctx, branch):
		return r.commit(ctx, branch)
	case fullSHA.MatchString(target):
		return r.commit(ctx, target)
	}
	return commit{}, errors.New("neither a branch nor a full SHA")
}

// updateLatest updates which release is the latest. A newly published release becomes the latest unless the request
// specifies otherwise.
func (s *store) updateLatest(x *release, makeLatest string, newlyPublished bool) {
	switch {
	case x.draft || x.prerelease:
	case makeLatest == "legacy":
		s.latestID = 0
	case makeLatest == "true" || makeLatest == "" && newlyPublished:
		s.latestID = x.id
	case makeLatest == "false" && s.latestID == x.id:
		s.latestID = 0
	}
}

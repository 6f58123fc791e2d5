package source

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"

	"github.com/org/sandbox-actions/pkg/safetext"
)

const (
	maxSuggestions = 3
	minSimilarity  = 0.6 // from 0 to 1
	suggestTimeout = 20 * time.Second
)

// suggest returns up to three branches and tags with names similar to ref and, if ref may be a short SHA, up to three
// commits with that prefix: heads of branches, tagged commits and the latest commits. Failed requests only shorten the
// lists.
func (r Repository) suggest(ctx context.Context, ref string) (names, commits []string) {
	ctx, cancel := context.WithTimeout(ctx, suggestTimeout)
	defer cancel()
	mayBeSHA := shortPattern.MatchString(ref)
	addCommit := func(sha string) {
		if mayBeSHA && shaPattern.MatchString(sha) && strings.HasPrefix(sha, strings.ToLower(ref)) &&
			!slices.Contains(commits, sha) {
			commits = append(commits, sha)
		}
	}
	var matches []similarName
	for _, kind := range []string{"heads/", "tags/"} {
		references, err := r.listReferences(ctx, "suggest a ref", kind)
		if err != nil {
			continue
		}
		for _, found := range references {
			if found.GetObject().GetType() == "commit" {
				addCommit(found.GetObject().GetSHA())
			}
			name := strings.TrimPrefix(found.GetRef(), "refs/"+kind)
			if score := similarity(ref, name); score >= minSimilarity {
				matches = append(matches, similarName{safetext.Line(name, 200), score})
			}
		}
	}
	slices.SortStableFunc(matches, func(a, b similarName) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.name, b.name))
	})
	for _, m := range matches[:min(maxSuggestions, len(matches))] {
		names = append(names, m.name)
	}
	if mayBeSHA {
		latest, _ := r.listCommits(ctx, "suggest a commit")
		for _, c := range latest {
			addCommit(c.GetSHA())
		}
	}
	return names, commits[:min(maxSuggestions, len(commits))]
}

type similarName struct {
	name  string
	score float64 // from 0 to 1
}

// similarity returns how similar ref is to the short name of a branch or tag, from 0 to 1.
func similarity(ref, name string) float64 {
	for _, prefix := range []string{"refs/", "heads/", "tags/", "remotes/", "origin/"} {
		ref = strings.TrimPrefix(ref, prefix)
	}
	if strings.HasSuffix(name, "/"+ref) || strings.HasSuffix(ref, "/"+name) {
		return 1
	}
	return levenshtein.Match(strings.ToLower(ref), strings.ToLower(name), nil)
}

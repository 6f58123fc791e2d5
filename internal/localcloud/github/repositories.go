package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

var repositoryEndpoints = []endpoint{
	{"GET ", readMetadata, (*call).getRepository, "repos/repos#get-a-repository"},
	{"GET /branches/{branch...}", readContents, (*call).getBranch, "branches/branches#get-a-branch"},
	{"GET /branches", readContents, (*call).listBranches, "branches/branches#list-branches"},
	{"GET /tags", readMetadata, (*call).listTags, "repos/repos#list-repository-tags"},
	{"GET /commits/{sha}/branches-where-head", readContents, (*call).listHeads,
		"commits/commits#list-branches-for-head-commit"},
	{"GET /commits", readContents, (*call).listCommits, "commits/commits#list-commits"},
	{"GET /commits/{ref...}", readContents, (*call).getCommit, "commits/commits#get-a-commit"},
	{"GET /compare/{basehead...}", readContents, (*call).compare, "commits/commits#compare-two-commits"},
	{"GET /git/tags/{sha}", readContents, (*call).getTag, "git/tags#get-a-tag"},
	{"GET /pulls/{number}", readContents, (*call).getPull, "pulls/pulls#get-a-pull-request"},
}

// defaultBranch returns the branch that HEAD points to, or main if HEAD is detached.
func (r Repository) defaultBranch(ctx context.Context) string {
	name, err := r.git(ctx, "symbolic-ref", "--quiet", "HEAD")
	if err != nil {
		return "main"
	}
	return strings.TrimPrefix(name, "refs/heads/")
}

func (c *call) getRepository() (any, error) {
	r := c.repository
	visibility := "public"
	if r.Private {
		visibility = "private"
	}
	return map[string]any{
		"name": r.Name, "full_name": r.fullName(), "owner": map[string]string{"login": r.Owner},
		"private": r.Private, "visibility": visibility, "default_branch": r.defaultBranch(c.ctx()),
		"clone_url": c.url + "/" + r.fullName() + ".git",
	}, nil
}

func (c *call) getBranch() (any, error) {
	name := c.request.PathValue("branch")
	tip, err := c.repository.commit(c.ctx(), "refs/heads/"+name)
	if err != nil {
		return nil, &apiError{status: http.StatusNotFound, message: "Branch not found"}
	}
	return map[string]any{"name": name, "commit": tip, "protected": false}, nil
}

func (c *call) getTag() (any, error) {
	sha := c.request.PathValue("sha")
	if !hexadecimal.MatchString(sha) {
		return nil, errNotFound
	}
	text, err := c.repository.git(c.ctx(), "cat-file", "tag", sha)
	if err != nil {
		return nil, errNotFound
	}
	header, message, _ := strings.Cut(text, "\n\n")
	fields := map[string]string{}
	for line := range strings.Lines(header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields[name] = value
	}
	target := gitObject{fields["type"], fields["object"], c.apiURL("/git/" + fields["type"] + "s/" + fields["object"])}
	return map[string]any{"sha": sha, "tag": fields["tag"], "message": message, "object": target}, nil
}

type commit struct {
	SHA    string `json:"sha"`
	Commit struct {
		Author    person         `json:"author"`
		Committer person         `json:"committer"`
		Message   string         `json:"message"`
		Tree      map[string]any `json:"tree"`
	} `json:"commit"`
	Parents []map[string]string `json:"parents"`
}

type person struct {
	Name  string `json:"name"`
	Email string `json:"email"`
	Date  string `json:"date"`
}

// commit returns the commit of a revision. It returns an error if the commit does not exist.
func (r Repository) commit(ctx context.Context, revision string) (commit, error) {
	list, err := r.log(ctx, 1, revision)
	if err != nil {
		return commit{}, err
	}
	return list[0], nil
}

// log returns up to maxCount commits of the history of a revision, starting with the revision.
func (r Repository) log(ctx context.Context, maxCount int, revision string) ([]commit, error) {
	sha, err := r.git(ctx, "rev-parse", "--verify", "--end-of-options", revision+"^{commit}")
	if err != nil {
		return nil, err
	}
	const format = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B"
	out, err := r.git(ctx, "log", "-z", "--max-count="+strconv.Itoa(maxCount), "--format="+format, sha)
	if err != nil {
		return nil, err
	}
	var list []commit
	for f := strings.Split(out, "\x00"); len(f) >= 10; f = f[10:] {
		c := commit{SHA: f[0], Parents: []map[string]string{}}
		c.Commit.Tree = map[string]any{"sha": f[1]}
		for _, parent := range strings.Fields(f[2]) {
			c.Parents = append(c.Parents, map[string]string{"sha": parent})
		}
		c.Commit.Author, c.Commit.Committer = person{f[3], f[4], f[5]}, person{f[6], f[7], f[8]}
		c.Commit.Message = strings.TrimSuffix(f[9], "\n")
		list = append(list, c)
	}
	return list, nil
}

func (c *call) listCommits() (any, error) {
	if _, err := c.references("refs/"); err != nil {
		return nil, err
	}
	query := c.request.URL.Query()
	maxCount, err := strconv.Atoi(query.Get("per_page"))
	if err != nil || maxCount < 1 {
		maxCount = 30
	}
	revision := query.Get("sha")
	if revision == "" {
		revision = "refs/heads/" + c.repository.defaultBranch(c.ctx())
	}
	list, err := c.repository.log(c.ctx(), min(maxCount, 100), revision)
	if err != nil {
		return nil, errNotFound
	}
	return list, nil
}

var hexadecimal = regexp.MustCompile(`^([0-9a-f]{4,40}|[0-9a-f]{64})$`)

// getCommit resolves a branch, a tag, a ref, or a SHA of at least four digits. Like GitHub, it sends the same error for
// an ambiguous SHA and an unknown SHA.
func (c *call) getCommit() (any, error) {
	if _, err := c.references("refs/"); err != nil {
		return nil, err
	}
	ref := c.request.PathValue("ref")
	revisions := []string{"refs/heads/" + ref, "refs/tags/" + ref, "refs/" + strings.TrimPrefix(ref, "refs/")}
	if sha := strings.ToLower(ref); hexadecimal.MatchString(sha) {
		revisions = append(revisions, sha)
	}
	for _, revision := range revisions {
		if found, err := c.repository.commit(c.ctx(), revision); err == nil {
			return found, nil
		}
	}
	return nil, unprocessable("No commit found for SHA: " + ref)
}

// getPull returns the pull request of refs/pull/N/head. The pull request is merged if the default branch contains it.
func (c *call) getPull() (any, error) {
	number, err := strconv.Atoi(c.request.PathValue("number"))
	if err != nil {
		return nil, errNotFound
	}
	head, err := c.repository.commit(c.ctx(), fmt.Sprintf("refs/pull/%d/head", number))
	if err != nil {
		return nil, errNotFound
	}
	base := c.repository.defaultBranch(c.ctx())
	pull := map[string]any{
		"number": number, "state": "open", "merged": false, "mergeable": false, "merge_commit_sha": nil,
		"head": map[string]any{"sha": head.SHA}, "base": map[string]any{"ref": base},
	}
	if merge, err := c.repository.commit(c.ctx(), fmt.Sprintf("refs/pull/%d/merge", number)); err == nil {
		pull["mergeable"], pull["merge_commit_sha"] = true, merge.SHA
	}
	if _, err := c.repository.git(c.ctx(), "merge-base", "--is-ancestor", head.SHA, "refs/heads/"+base); err == nil {
		pull["state"], pull["merged"], pull["mergeable"] = "closed", true, nil
	}
	return pull, nil
}

// compare describes the relation of two revisions, BASE...HEAD: how many commits each is ahead of the other, and the
// files that changed since their merge base. It leaves out the commits.
func (c *call) compare() (any, error) {
	base, head, ok := strings.Cut(c.request.PathValue("basehead"), "...")
	if !ok {
		return nil, errNotFound
	}
	if _, err := c.repository.git(c.ctx(), "merge-base", base, head); err != nil {
		return nil, errNotFound // No common ancestor between BASE and HEAD.
	}
	counts := []int{}
	for _, pair := range [][2]string{{base, head}, {head, base}} {
		from, fromErr := c.repository.commit(c.ctx(), pair[0])
		to, toErr := c.repository.commit(c.ctx(), pair[1])
		if fromErr != nil || toErr != nil {
			return nil, errNotFound
		}
		out, err := c.repository.git(c.ctx(), "rev-list", "--count", from.SHA+".."+to.SHA)
		count, parseErr := strconv.Atoi(strings.TrimSpace(out))
		if err := errors.Join(err, parseErr); err != nil {
			return nil, err
		}
		counts = append(counts, count)
	}
	ahead, behind := counts[0], counts[1]
	status := "diverged"
	switch {
	case ahead == 0 && behind == 0:
		status = "identical"
	case behind == 0:
		status = "ahead"
	case ahead == 0:
		status = "behind"
	}
	names, err := c.repository.git(c.ctx(), "diff", "--name-only", base+"..."+head)
	if err != nil {
		return nil, err
	}
	files := []map[string]string{}
	for name := range strings.Lines(names) {
		files = append(files, map[string]string{"filename": strings.TrimSpace(name)})
	}
	return map[string]any{
		"status": status, "ahead_by": ahead, "behind_by": behind, "total_commits": ahead, "files": files,
	}, nil
}

func (c *call) listBranches() (any, error) {
	list, err := c.references("refs/heads/")
	if err != nil {
		return nil, err
	}
	branches := page{}
	for _, head := range list {
		branches = append(branches, map[string]any{
			"name": strings.TrimPrefix(head.Ref, "refs/heads/"), "commit": map[string]string{"sha": head.Object.SHA},
			"protected": false,
		})
	}
	return branches, nil
}

// listHeads returns the branches whose head is the commit.
func (c *call) listHeads() (any, error) {
	sha := c.request.PathValue("sha")
	if _, err := c.repository.commit(c.ctx(), sha); err != nil {
		return nil, unprocessable("No commit found for SHA: " + sha)
	}
	list, err := c.references("refs/heads/")
	if err != nil {
		return nil, err
	}
	heads := []map[string]any{}
	for _, head := range list {
		if head.Object.SHA == sha {
			heads = append(heads, map[string]any{
				"name": strings.TrimPrefix(head.Ref, "refs/heads/"), "commit": map[string]string{"sha": sha}, "protected": false,
			})
		}
	}
	return heads, nil
}

// listTags returns the tags of commits.
func (c *call) listTags() (any, error) {
	list, err := c.references("refs/tags/")
	if err != nil {
		return nil, err
	}
	tags := page{}
	for _, tag := range list {
		if target, err := c.repository.commit(c.ctx(), tag.Ref); err == nil {
			tags = append(tags, map[string]any{
				"name": strings.TrimPrefix(tag.Ref, "refs/tags/"), "commit": map[string]string{"sha": target.SHA},
			})
		}
	}
	return tags, nil
}

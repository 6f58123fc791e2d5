package github

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func (s *Server) readEndpoints() []endpoint {
	return []endpoint{
		{"GET ", readMetadata, s.repository, "repos/repos#get-a-repository"},
		{"GET /branches/{branch...}", readContents, s.branch, "branches/branches#get-a-branch"},
		{"GET /commits", readContents, s.commits, "commits/commits#list-commits"},
		{"GET /commits/{ref...}", readContents, s.commit, "commits/commits#get-a-commit"},
		{"GET /git/tags/{sha}", readContents, s.tag, "git/tags#get-a-tag"},
		{"GET /pulls/{number}", readContents, s.pull, "pulls/pulls#get-a-pull-request"},
	}
}

// settings of every git that we run: nobody's own, and repositories of any owner.
var settings = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C"}

// run runs git in the repository.
func (r Repository) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-C", r.Dir}, args...)...)
	// What is set for a git of who started us is not for GitHub's.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") }), settings...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, complaint.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// defaultBranch is the one that HEAD names. A detached checkout names none.
func (r Repository) defaultBranch(ctx context.Context) string {
	name, err := r.run(ctx, "symbolic-ref", "--quiet", "HEAD")
	if err != nil {
		return "main"
	}
	return strings.TrimPrefix(name, "refs/heads/")
}

func (s *Server) repository(ctx context.Context, r Repository, _ *http.Request) (any, *refusal) {
	visibility := "public"
	if r.Private {
		visibility = "private"
	}
	owner := map[string]string{"login": r.Owner}
	return map[string]any{
		"name": r.Name, "full_name": r.Owner + "/" + r.Name, "owner": owner, "private": r.Private, "visibility": visibility,
		"default_branch": r.defaultBranch(ctx), "clone_url": s.url + "/" + r.Owner + "/" + r.Name + ".git",
	}, nil
}

func (s *Server) branch(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	name := request.PathValue("branch")
	tip, err := r.commit(ctx, "refs/heads/"+name)
	if err != nil {
		return nil, &refusal{status: http.StatusNotFound, message: "Branch not found"}
	}
	return map[string]any{"name": name, "commit": tip, "protected": false}, nil
}

func (s *Server) tag(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	sha := request.PathValue("sha")
	if !hexadecimal.MatchString(sha) {
		return nil, notFound
	}
	text, err := r.run(ctx, "cat-file", "tag", sha)
	if err != nil {
		return nil, notFound
	}
	header, message, _ := strings.Cut(text, "\n\n")
	fields := map[string]string{}
	for line := range strings.Lines(header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields[name] = value
	}
	target := s.APIURL() + "/repos/" + r.Owner + "/" + r.Name + "/git/" + fields["type"] + "s/" + fields["object"]
	return map[string]any{"sha": sha, "tag": fields["tag"], "message": message, "object": object{fields["type"], fields["object"], target}}, nil
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

// commit reads what a name means; an error says that there is none.
func (r Repository) commit(ctx context.Context, name string) (commit, error) {
	list, err := r.log(ctx, 1, name)
	if err != nil {
		return commit{}, err
	}
	return list[0], nil
}

func (r Repository) log(ctx context.Context, most int, name string) ([]commit, error) {
	sha, err := r.run(ctx, "rev-parse", "--verify", "--end-of-options", name+"^{commit}")
	if err != nil {
		return nil, err
	}
	const format = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B"
	out, err := r.run(ctx, "log", "-z", "--max-count="+strconv.Itoa(most), "--format="+format, sha)
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

func (s *Server) commits(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	if _, refused := s.references(ctx, r, "refs/"); refused != nil {
		return nil, refused
	}
	most, err := strconv.Atoi(request.URL.Query().Get("per_page"))
	if err != nil || most < 1 {
		most = 30
	}
	name := request.URL.Query().Get("sha")
	if name == "" {
		name = "refs/heads/" + r.defaultBranch(ctx)
	}
	list, err := r.log(ctx, min(most, 100), name)
	if err != nil {
		return nil, notFound
	}
	return list, nil
}

var hexadecimal = regexp.MustCompile(`^([0-9a-f]{4,40}|[0-9a-f]{64})$`)

// commit answers for a branch, a tag, or a SHA of at least four digits. Of one that several commits begin with GitHub says what it says of
// one that there is not.
func (s *Server) commit(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	if _, refused := s.references(ctx, r, "refs/"); refused != nil {
		return nil, refused
	}
	ref := request.PathValue("ref")
	for _, name := range []string{"refs/heads/" + ref, "refs/tags/" + ref, "refs/" + strings.TrimPrefix(ref, "refs/")} {
		if found, err := r.commit(ctx, name); err == nil {
			return found, nil
		}
	}
	if sha := strings.ToLower(ref); hexadecimal.MatchString(sha) {
		if found, err := r.commit(ctx, sha); err == nil {
			return found, nil
		}
	}
	return nil, unprocessable("No commit found for SHA: " + ref)
}

// pull answers for whatever has a refs/pull/N/head. It is merged when the default branch has it.
func (s *Server) pull(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	number, err := strconv.Atoi(request.PathValue("number"))
	if err != nil {
		return nil, notFound
	}
	head, err := r.commit(ctx, fmt.Sprintf("refs/pull/%d/head", number))
	if err != nil {
		return nil, notFound
	}
	base := r.defaultBranch(ctx)
	answer := map[string]any{
		"number": number, "state": "open", "merged": false, "mergeable": false, "merge_commit_sha": nil,
		"head": map[string]any{"sha": head.SHA}, "base": map[string]any{"ref": base},
	}
	if merge, err := r.commit(ctx, fmt.Sprintf("refs/pull/%d/merge", number)); err == nil {
		answer["mergeable"], answer["merge_commit_sha"] = true, merge.SHA
	}
	if _, err := r.run(ctx, "merge-base", "--is-ancestor", head.SHA, "refs/heads/"+base); err == nil {
		answer["state"], answer["merged"], answer["mergeable"] = "closed", true, nil
	}
	return answer, nil
}

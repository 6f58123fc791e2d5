package github

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// handleREST serves what https://docs.github.com/en/rest describes, below /api/v3 as GitHub Enterprise Server does.
func (s *Server) handleREST(mux *http.ServeMux) {
	for pattern, endpoint := range map[string]struct {
		answer        func(context.Context, Repository, *http.Request) (any, *refusal)
		documentation string
	}{
		"":                            {s.repository, "repos/repos#get-a-repository"},
		"/branches/{branch...}":       {s.branch, "branches/branches#get-a-branch"},
		"/commits":                    {s.commits, "commits/commits#list-commits"},
		"/commits/{ref...}":           {s.commit, "commits/commits#get-a-commit"},
		"/git/matching-refs/{ref...}": {s.matching, "git/refs#list-matching-references"},
		"/git/ref/{ref...}":           {s.ref, "git/refs#get-a-reference"},
		"/git/tags/{sha}":             {s.tag, "git/tags#get-a-tag"},
		"/pulls/{number}":             {s.pull, "pulls/pulls#get-a-pull-request"},
	} {
		documentation := "https://docs.github.com/rest/" + endpoint.documentation
		mux.HandleFunc("GET /api/v3/repos/{owner}/{name}"+pattern, s.limited(func(w http.ResponseWriter, r *http.Request) {
			repository, status := s.entry(r, r.PathValue("owner"), r.PathValue("name"))
			switch status {
			case http.StatusUnauthorized:
				refuse(w, status, "Bad credentials", "https://docs.github.com/rest")
				return
			case http.StatusNotFound:
				refuse(w, status, "Not Found", documentation)
				return
			}
			body, refused := endpoint.answer(r.Context(), repository, r)
			if refused != nil {
				refuse(w, refused.status, refused.message, documentation)
				return
			}
			send(w, http.StatusOK, body)
		}))
	}
	mux.HandleFunc("GET /api/v3/rate_limit", func(w http.ResponseWriter, r *http.Request) {
		_, now := s.spend(r, 0)
		core := map[string]any{"limit": now.limit, "used": now.used, "remaining": now.limit - now.used, "reset": now.reset.Unix()}
		send(w, http.StatusOK, map[string]any{"resources": map[string]any{"core": core}, "rate": core})
	})
	mux.HandleFunc("/api/v3/", s.limited(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "Not Found", "https://docs.github.com/rest")
	}))
}

// rate is how often one has asked in an hour.
type rate struct {
	limit, used int
	reset       time.Time
}

// limited counts a request, and answers it when there are some left.
func (s *Server) limited(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "" {
			http.Error(w, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header", http.StatusForbidden)
			return
		}
		ok, now := s.spend(r, 1)
		for name, value := range map[string]int64{
			"Limit": int64(now.limit), "Remaining": int64(now.limit - now.used), "Used": int64(now.used), "Reset": now.reset.Unix(),
		} {
			w.Header().Set("X-RateLimit-"+name, strconv.FormatInt(value, 10))
		}
		w.Header().Set("X-RateLimit-Resource", "core")
		if !ok {
			refuse(w, http.StatusForbidden, "API rate limit exceeded for user ID 1.", rateLimits)
			return
		}
		next(w, r)
	}
}

// spend takes n of the requests that the sender has left, and says how many that are.
func (s *Server) spend(r *http.Request, n int) (bool, rate) {
	token, _ := tokenOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.rates[token]
	if now == nil || time.Now().After(now.reset) {
		now = &rate{reset: time.Now().Add(time.Hour)}
		s.rates[token] = now
	}
	now.limit = s.options.RateLimit
	if now.limit == 0 {
		now.limit = 5000
	}
	if now.used+n > now.limit {
		now.used = now.limit
		return false, *now
	}
	now.used += n
	return true, *now
}

type refusal struct {
	status  int
	message string
}

var (
	notFound = &refusal{http.StatusNotFound, "Not Found"}
	empty    = &refusal{http.StatusConflict, "Git Repository is empty."}
)

func refuse(w http.ResponseWriter, status int, message, documentation string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, errorBody(status, message, documentation)) // the client may be gone
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// settings of every git that we run: nobody's own, and repositories of any owner.
var settings = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C"}

// run runs git in the repository.
func (r Repository) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", r.Dir}, args...)...)
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

type object struct {
	Type string `json:"type"`
	SHA  string `json:"sha"`
	URL  string `json:"url"`
}

type reference struct {
	Ref    string `json:"ref"`
	URL    string `json:"url"`
	Object object `json:"object"`
}

// references lists what begins so, of all that was pushed or that GitHub made: not what a checkout has besides.
func (s *Server) references(ctx context.Context, r Repository, prefix string) ([]reference, *refusal) {
	out, err := r.run(ctx, "for-each-ref", "--format=%(refname) %(objecttype) %(objectname)", "refs/heads", "refs/tags", "refs/pull")
	if err != nil {
		return nil, notFound
	}
	if out == "" {
		return nil, empty
	}
	list := []reference{}
	api := s.APIURL() + "/repos/" + r.Owner + "/" + r.Name + "/git/"
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[0], prefix) {
			list = append(list, reference{f[0], api + f[0], object{f[1], f[2], api + f[1] + "s/" + f[2]}})
		}
	}
	return list, nil
}

func (s *Server) ref(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	full := "refs/" + request.PathValue("ref")
	list, refused := s.references(ctx, r, full)
	if refused != nil {
		return nil, refused
	}
	for _, found := range list {
		if found.Ref == full {
			return found, nil
		}
	}
	return nil, notFound
}

func (s *Server) matching(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	list, refused := s.references(ctx, r, "refs/"+request.PathValue("ref"))
	if refused != nil {
		return nil, refused
	}
	return list, nil
}

func (s *Server) branch(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	name := request.PathValue("branch")
	tip, err := r.commit(ctx, "refs/heads/"+name)
	if err != nil {
		return nil, &refusal{http.StatusNotFound, "Branch not found"}
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
	return nil, &refusal{http.StatusUnprocessableEntity, "No commit found for SHA: " + ref}
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

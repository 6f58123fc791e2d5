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

// endpoint is one of what https://docs.github.com/en/rest describes.
type endpoint struct {
	pattern       string // the method, and the path below a repository
	need          need
	answer        func(context.Context, Repository, *http.Request) (any, *refusal)
	documentation string
}

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

// handleREST serves the API below /api/v3 and its uploads below /api/uploads, as GitHub Enterprise Server does.
func (s *Server) handleREST(mux *http.ServeMux) {
	for _, e := range slices.Concat(s.readEndpoints(), s.refEndpoints(), s.releaseEndpoints(), s.assetEndpoints(), s.attestationEndpoints()) {
		method, path, _ := strings.Cut(e.pattern, " ")
		mux.HandleFunc(method+" /api/v3/repos/{owner}/{name}"+path, s.limited(s.answer(e)))
	}
	upload := endpoint{"POST", writeContents, s.upload, "releases/assets#upload-a-release-asset"}
	mux.HandleFunc("POST /api/uploads/repos/{owner}/{name}/releases/{id}/assets", s.limited(s.answer(upload)))
	mux.HandleFunc("GET /api/v3/rate_limit", func(w http.ResponseWriter, r *http.Request) {
		_, now := s.spend(r, 0)
		core := map[string]any{"limit": now.limit, "used": now.used, "remaining": now.limit - now.used, "reset": now.reset.Unix()}
		send(w, http.StatusOK, map[string]any{"resources": map[string]any{"core": core}, "rate": core})
	})
	mux.HandleFunc("/api/v3/", s.limited(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, *notFound, "https://docs.github.com/rest")
	}))
}

// redirect is an answer that is elsewhere, page one of which a part is sent at a time.
type (
	redirect string
	page     []any
)

// answer lets in who may, and sends what the endpoint says.
func (s *Server) answer(e endpoint) http.HandlerFunc {
	documentation := "https://docs.github.com/rest/" + e.documentation
	return func(w http.ResponseWriter, r *http.Request) {
		repository, status := s.entry(r, r.PathValue("owner"), r.PathValue("name"), e.need)
		var body any
		var refused *refusal
		switch status {
		case http.StatusUnauthorized:
			refused = &refusal{status: status, message: "Requires authentication"}
			if _, given := tokenOf(r); given {
				refused.message = "Bad credentials"
			}
		case http.StatusForbidden:
			refused = &refusal{status: status, message: "Resource not accessible by integration"}
		case http.StatusNotFound:
			refused = notFound
		default:
			body, refused = e.answer(r.Context(), repository, r)
		}
		if refused != nil {
			discard(r)
			refuse(w, *refused, documentation)
			return
		}
		switch answer := body.(type) {
		case redirect:
			http.Redirect(w, r, string(answer), http.StatusFound)
		case page:
			send(w, http.StatusOK, answer.part(w, r))
		case nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			status := http.StatusOK
			if r.Method == http.MethodPost {
				status = http.StatusCreated
			}
			send(w, status, answer)
		}
	}
}

// part is the part that is asked for; the header Link names the next one.
// https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api
func (p page) part(w http.ResponseWriter, r *http.Request) []any {
	query := r.URL.Query()
	size, err := strconv.Atoi(query.Get("per_page"))
	if err != nil || size < 1 {
		size = 30
	}
	size = min(size, 100)
	number, err := strconv.Atoi(query.Get("page"))
	if err != nil || number < 1 {
		number = 1
	}
	from := min((number-1)*size, len(p))
	to := min(from+size, len(p))
	if to < len(p) {
		query.Set("page", strconv.Itoa(number+1))
		w.Header().Set("Link", fmt.Sprintf("<http://%s%s?%s>; rel=\"next\"", r.Host, r.URL.Path, query.Encode()))
	}
	return p[from:to]
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
			refuse(w, refusal{status: http.StatusForbidden, message: "API rate limit exceeded for user ID 1."}, rateLimits)
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
	errors  []fieldError
}

// fieldError says what is wrong with a field of what was sent.
type fieldError struct {
	Resource string `json:"resource"`
	Code     string `json:"code"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message,omitempty"`
}

var (
	notFound = &refusal{status: http.StatusNotFound, message: "Not Found"}
	empty    = &refusal{status: http.StatusConflict, message: "Git Repository is empty."}
)

// unprocessable refuses a request that can not be done.
func unprocessable(message string) *refusal {
	return &refusal{status: http.StatusUnprocessableEntity, message: message}
}

// invalid refuses a request for what its fields hold.
func invalid(errors ...fieldError) *refusal {
	return &refusal{status: http.StatusUnprocessableEntity, message: "Validation Failed", errors: errors}
}

// missing refuses a request without a field that it must have.
func missing(field string) *refusal {
	return unprocessable(fmt.Sprintf("Invalid request.\n\n%q wasn't supplied.", field))
}

// decode reads a request's JSON.
func decode(r *http.Request, into any) *refusal {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		return &refusal{status: http.StatusBadRequest, message: "Problems parsing JSON"}
	}
	return nil
}

func refuse(w http.ResponseWriter, refused refusal, documentation string) {
	if refused.status == http.StatusUnauthorized {
		documentation = "https://docs.github.com/rest"
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(refused.status)
	_, _ = io.WriteString(w, errorBody(refused, documentation)) // the client may be gone
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

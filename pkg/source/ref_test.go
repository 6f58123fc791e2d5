package source

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-github/v62/github"
	standin "github.com/org/sandbox-actions/internal/localcloud/github"
)

func TestResolve(t *testing.T) {
	app := hubDir + "/app"
	first, second, merge := sh(t, app, "git rev-parse trunk"), sh(t, app, "git rev-parse feature/x"), sh(t, app, "git rev-parse refs/pull/1/merge")
	for _, test := range []struct{ name, ref, sha, full string }{
		{"branch", "trunk", first, "refs/heads/trunk"},
		{"branch with a slash", "feature/x", second, "refs/heads/feature/x"},
		{"branch by its ref", "refs/heads/feature/x", second, "refs/heads/feature/x"},
		{"branch by half of its ref", "heads/feature/x", second, "refs/heads/feature/x"},
		{"tag", "light", first, "refs/tags/light"},
		{"annotated tag", "v1.0", first, "refs/tags/v1.0"},
		{"annotated tag by its ref", "refs/tags/v1.0", first, "refs/tags/v1.0"},
		{"tag of a tag", "latest", first, "refs/tags/latest"},
		{"branch and tag of one name", "same", first, "refs/heads/same"},
		{"tag that is also a branch", "tags/same", second, "refs/tags/same"},
		{"branch that looks like a SHA", "deadbeef", second, "refs/heads/deadbeef"},
		{"SHA", second, second, ""},
		{"SHA in capitals", strings.ToUpper(second), second, ""},
		{"short SHA", second[:10], second, ""},
		{"short SHA in capitals", strings.ToUpper(second[:10]), second, ""},
		{"SHA that only a pull request has", merge, merge, ""},
		{"merge of a pull request", "refs/pull/1/merge", merge, "refs/pull/1/merge"},
		{"head of a pull request", "refs/pull/1/head", second, "refs/pull/1/head"},
		{"pull request", "#1", merge, "refs/pull/1/merge"},
		{"head of a pull request with conflicts", "refs/pull/2/head", second, "refs/pull/2/head"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := fromHub(t, "app", goodToken).Resolve(t.Context(), test.ref)
			if want := (Commit{SHA: test.sha, Ref: test.full}); err != nil || got != want {
				t.Errorf("%s: %+v, %v; want %+v", test.ref, got, err, want)
			}
		})
	}
	if got, err := fromHub(t, "public", "").Resolve(t.Context(), "trunk"); err != nil || got.SHA != first {
		t.Errorf("a public repository without a token: %+v, %v", got, err)
	}
}

func TestResolveSaysWhatIsThere(t *testing.T) {
	app := hubDir + "/app"
	ambiguous := sh(t, app, "git rev-list many | cut -c1-4 | sort | uniq -d | grep '[a-f]' | head -1")
	// GitHub lists the latest commits, and these are of another branch: a branch names one of the two.
	sh(t, app, "i=0; for sha in $(git rev-list many | grep ^"+ambiguous+"); do i=$((i+1)); git branch -f ambiguous-$i $sha; done")
	t.Cleanup(func() { sh(t, app, "git branch -q -D $(git branch --list --format='%(refname:short)' 'ambiguous-*')") })
	for _, test := range []struct {
		name, repository, ref string
		says                  []string
	}{
		{"a branch mistyped", "app", "featur/x", []string{"octo/app has no featur/x (tried refs/heads/featur/x, refs/tags/featur/x): did you mean feature/x?"}},
		{"a branch in other letters", "app", "Trunk", []string{"did you mean trunk?"}},
		{"a branch of a remote", "app", "origin/trunk", []string{"did you mean trunk?"}},
		{"the end of a branch", "app", "x", []string{"did you mean feature/x?"}},
		{"a tag mistyped", "app", "v1.1", []string{"did you mean v1.0?"}},
		{"a ref mistyped", "app", "refs/heads/light", []string{"(tried refs/heads/light): did you mean light?"}},
		{"nothing like it", "app", "completely-different", []string{"octo/app has no completely-different (tried refs/heads/completely-different, refs/tags/completely-different): check the name, or push it"}},
		{"an ambiguous SHA", "app", ambiguous, []string{"several commits of octo/app begin with " + ambiguous + ", among them " + ambiguous, "give more digits of the SHA"}},
		{"a short SHA that is not there", "app", "0123456", []string{"the commit 0123456)", "or several commits begin so", "give the full SHA"}},
		{"a SHA that is not there", "app", strings.Repeat("0", 40), []string{"octo/app has no commit " + strings.Repeat("0", 40), "push it"}},
		{"a tag of a tree", "app", "of-a-tree", []string{"resolve of-a-tree in octo/app: refs/tags/of-a-tree names a tree, not a commit: give a ref that names a commit"}},
		{"no such pull request", "app", "#4", []string{"octo/app has no pull request #4 (tried refs/pull/4/merge): check the number"}},
		{"a pull request with conflicts", "app", "#2", []string{"pull request #2 of octo/app has no refs/pull/2/merge: it conflicts", "use refs/pull/2/head"}},
		{"a pull request that is closed", "app", "refs/pull/3/merge", []string{"the pull request is closed; use refs/pull/3/head"}},
		{"an empty repository", "empty", "trunk", []string{"resolve trunk in octo/empty: the repository is empty (", "409 Git Repository is empty.): push a commit first"}},
		{"no such repository", "nothing", "trunk", []string{"there is no such repository, which", "404 Not Found): check the name, and that the github_token has contents: read there"}},
		{"a SHA of no such repository", "nothing", strings.Repeat("0", 40), []string{"there is no such repository, which"}},
		{"no repository's name", "..", "trunk", []string{`"octo/.." is not a repository's name`}},
		{"no ref", "app", "-trunk", []string{`begins with "-"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := fromHub(t, test.repository, goodToken).Resolve(t.Context(), test.ref)
			if got != (Commit{}) {
				t.Errorf("%+v", got)
			}
			oneLine(t, err, test.says...)
		})
	}
	for ref, says := range map[string]string{"trunk": "a private one without a token", strings.Repeat("0", 40): "give a github_token that may read it"} {
		_, err := fromHub(t, "app", "").Resolve(t.Context(), ref)
		oneLine(t, err, "resolve "+ref+" in octo/app: ", "404 Not Found)", says)
	}
	_, err := fromHub(t, "app", "ghs_another").Resolve(t.Context(), "trunk")
	oneLine(t, err, "GitHub refused the token (", "401 Bad credentials): give a github_token that has not expired")
}

func TestResolveWhenTheAPIFails(t *testing.T) {
	page := standin.Fault{Path: "/api/v3/", Status: 502, Body: "<html>\n::error::bad gateway</html>"}
	reset := time.Now().Add(time.Hour).Truncate(time.Second)
	until := reset.UTC().Format("15:04:05 UTC on 2006-01-02")
	undocumented := standin.SecondaryLimit(403, 0) // as GitHub has begun to send it, without the fragment that go-github looks for
	undocumented.Body = strings.Replace(undocumented.Body, "#about-secondary-rate-limits", "", 1)
	forged := standin.Fault{Path: "/api/v3/", Status: 403, Body: `{"message":"no\n::error::forged\u001b[31m"}`}
	times := func(n int, f standin.Fault) standin.Fault { f.Times = n; return f }
	answer := func(body string) standin.Fault { return standin.Fault{Path: "/git/ref/", Status: 200, Body: body} }
	for _, test := range []struct {
		name     string
		fault    standin.Fault
		requests int      // at least; 1: it is not asked again
		says     []string // none: it goes well in the end
	}{
		{"5xx that ends", times(2, page), 3, nil},
		{"5xx", page, 3, []string{"failed 3 times (", ": 502): try again later"}},
		{"503 in JSON", standin.Fault{Path: "/api/v3/", Status: 503, Body: `{"message":"Service unavailable"}`}, 3, []string{"failed 3 times", "503 Service unavailable"}},
		{"hour's limit", standin.PrimaryLimit(403, reset), 1, []string{"rate limit is used up until " + until, "a github_token with its own limit"}},
		{"hour's limit as 429", standin.PrimaryLimit(429, reset), 1, []string{"rate limit is used up until " + until}},
		{"too fast", standin.SecondaryLimit(403, time.Minute), 1, []string{"GitHub asks to slow down (", "secondary rate limit", ": try again in 1m0s"}},
		{"too fast as 429", standin.SecondaryLimit(429, time.Minute), 1, []string{"GitHub asks to slow down (", ": try again in 1m0s"}},
		{"too fast for a moment", times(1, standin.SecondaryLimit(429, time.Second)), 2, nil},
		{"too fast, and no word of how long", standin.SecondaryLimit(429, 0), 3, []string{"try again in a few minutes"}},
		{"too fast, undocumented", undocumented, 3, []string{"asks to slow down"}},
		{"forbidden", standin.Fault{Path: "/api/v3/", Status: 403, Body: `{"message":"Resource not accessible by integration"}`}, 1, []string{"GitHub forbids it (", "403 Resource not accessible by integration): the github_token needs contents: read"}},
		{"forbidden, with a message that acts", forged, 1, []string{"no ::error::forged"}},
		{"unauthorized", standin.Fault{Path: "/api/v3/", Status: 401, Body: `{"message":"Bad credentials"}`}, 1, []string{"GitHub refused the token"}},
		{"teapot", standin.Fault{Path: "/api/v3/", Status: 418}, 1, []string{"gave an answer that can not be used (", ": 418): check GITHUB_API_URL"}},
		{"a page instead of JSON", answer("<html>"), 1, []string{"gave an answer that can not be used (invalid character", "): check GITHUB_API_URL"}},
		{"JSON of something else", answer("[1, 2]"), 1, []string{"gave an answer that can not be used"}},
		{"JSON without a SHA", answer("{}"), 1, []string{"answered no SHA for refs/heads/trunk: check GITHUB_API_URL"}},
		{"JSON with a SHA that acts", answer(`{"object":{"type":"commit","sha":"--upload-pack=x"}}`), 1, []string{"answered no SHA"}},
		{"JSON with a type that acts", answer(`{"object":{"type":"\n::error::x","sha":"` + strings.Repeat("0", 40) + `"}}`), 1, []string{"names a  ::error::x, not a commit"}},
		{"half of an answer", answer(`{"object":{"type":"com`), 3, []string{"can not be reached"}},
		{"a connection that ends", standin.Fault{Path: "/api/v3/", Hangup: true}, 3, []string{"can not be reached (", "EOF): check the network and GITHUB_API_URL"}},
		{"silence", standin.Fault{Silence: true}, 3, []string{"did not answer within 100ms, 3 times (context deadline exceeded): check the network"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.fault.Silence {
				set(t, &requestTimeout, 100*time.Millisecond)
			}
			fail(t, test.fault)
			before := len(hub.Requests())
			got, err := fromHub(t, "app", goodToken).Resolve(t.Context(), "trunk")
			if test.says == nil {
				if err != nil || got.Ref != "refs/heads/trunk" {
					t.Errorf("%+v, %v", got, err)
				}
			} else {
				oneLine(t, err, append(test.says, "resolve trunk in octo/app")...)
			}
			if n := len(hub.Requests()) - before; n < test.requests || test.requests == 1 && n > 1 {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r := fromHub(t, "app", goodToken)
		r.Client.BaseURL = &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/api/v3/"}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = r.Resolve(t.Context(), "trunk")
		oneLine(t, err, "GitHub's API at "+l.Addr().String()+" can not be reached")
	})
	t.Run("a commit of another SHA", func(t *testing.T) {
		fail(t, standin.Fault{Path: "/commits/", Status: 200, Body: `{"sha":"` + strings.Repeat("1", 40) + `"}`})
		_, err := fromHub(t, "app", goodToken).Resolve(t.Context(), strings.Repeat("0", 40))
		oneLine(t, err, "which is no commit of that SHA: check GITHUB_API_URL")
	})
}

func TestResolveOfPullRequests(t *testing.T) {
	set(t, &mergeWait, time.Millisecond)
	merge := sh(t, hubDir+"/app", "git rev-parse refs/pull/1/merge")
	missing := standin.Fault{Path: "/git/ref/pull/1/", Status: 404, Body: `{"message":"Not Found"}`}
	missingOnce := missing
	missingOnce.Times = 1
	unmerged := standin.Fault{Path: "/pulls/1", Status: 200, Body: `{"number":1,"state":"open","mergeable":null}`}
	unmergedTwice := unmerged
	unmergedTwice.Times = 2
	for _, test := range []struct {
		name, token, ref string
		faults           []standin.Fault
		says             []string // none: it goes well in the end
	}{
		{"merged for trial when asked for", goodToken, "#1", []standin.Fault{missingOnce, unmergedTwice}, nil},
		{"not merged for trial yet", goodToken, "#1", []standin.Fault{missing, unmerged}, []string{"GitHub has not merged it for trial yet; try again in a minute; use refs/pull/1/head"}},
		{"said to be merged for trial", goodToken, "#1", []standin.Fault{missing}, []string{"GitHub has not merged it for trial yet"}},
		{"without a head", goodToken, "refs/pull/1/head", []standin.Fault{missing, unmerged}, []string{"pull request #1 of octo/app has no refs/pull/1/head: its commits are gone"}},
		{"5xx for the ref", goodToken, "#1", []standin.Fault{{Path: "/git/ref/", Status: 500}}, []string{"resolve #1 in octo/app", "failed 3 times"}},
		{"5xx for the pull request", goodToken, "#1", []standin.Fault{missing, {Path: "/pulls/", Status: 500}}, []string{"failed 3 times"}},
		{"private without a token", "", "#1", nil, []string{"resolve #1 in octo/app", "a private one without a token"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fail(t, test.faults...)
			got, err := fromHub(t, "app", test.token).Resolve(t.Context(), test.ref)
			if test.says != nil {
				oneLine(t, err, test.says...)
			} else if want := (Commit{SHA: merge, Ref: "refs/pull/1/merge"}); err != nil || got != want {
				t.Errorf("%+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestResolveOfTags(t *testing.T) {
	app := hubDir + "/app"
	sh(t, app, "to=trunk; for i in $(seq 11); do git tag -m x deep-$i $to; to=deep-$i; done")
	t.Cleanup(func() { sh(t, app, "git tag -d $(git tag -l 'deep-*')") })
	if got, err := fromHub(t, "app", goodToken).Resolve(t.Context(), "deep-9"); err != nil || got.SHA != sh(t, app, "git rev-parse trunk") {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := fromHub(t, "app", goodToken).Resolve(t.Context(), "deep-11")
	oneLine(t, err, "refs/tags/deep-11 is a tag of a tag, more than ten deep: give the commit's SHA")
	fail(t, standin.Fault{Path: "/git/tags/", Status: 503})
	_, err = fromHub(t, "app", goodToken).Resolve(t.Context(), "v1.0")
	oneLine(t, err, "resolve v1.0 in octo/app", "failed 3 times", "read the annotated tag refs/tags/v1.0")
	if answer := new(github.ErrorResponse); !errors.As(err, &answer) {
		t.Errorf("the cause is lost: %T", err)
	}
}

func TestResolveEndsWhenCancelled(t *testing.T) {
	fail(t, standin.Fault{Path: "/api/v3/", Silence: true})
	before := len(hub.Requests())
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the timeout of 30m is over")
	go func() {
		for len(hub.Requests()) == before {
			runtime.Gosched()
		}
		cancel(why)
	}()
	if _, err := fromHub(t, "app", goodToken).Resolve(ctx, "trunk"); !errors.Is(err, why) {
		t.Error(err)
	}
}

// refs are names that may be one of a ref, and why not; "" when it is.
var refs = map[string]string{
	"main": "", "feature/x": "", "v1.0-rc.1+build": "", "a.b/c": "", "ünïcode": "", "refs/heads/main": "", "@": "", "a@b": "", "#12": "", "a#1": "",
	"'; rm -rf x": "holds a space", "$(id)": "", "`id`": "", "a&b|c;d": "", `"quoted"`: "", "%2e%2e": "", "a-b": "",
	"": "is empty", "-": `begins with "-"`, "--upload-pack=touch": `begins with "-"`, "-b": `begins with "-"`,
	"a\nb": "line break", "a\r\nb": "line break", "main\n::error::x": "line break", "a b": "holds a space", "a\u2028b": "line break", "a\tb": "holds a space",
	"a\x00b": "control character", "a\x7fb": "control character", "a\x1b[31mb": "control character", "a\u202eb": "control character",
	"a..b": `holds ".."`, "..": `holds ".."`, "../../etc": `holds ".."`, "main^": `holds '^'`, "main~1": `holds '~'`, "a:b": `holds ':'`, "HEAD@{1}": `holds "@{"`,
	"*": `holds '*'`, "a?": `holds '?'`, "[a]": `holds '['`, `a\b`: `holds '\\'`,
	"/a": "with nothing beside it", "a/": "with nothing beside it", "a//b": "with nothing beside it", ".a": "begins a part with it", "a/.b": "begins a part with it", "a.": `ends with "."`,
	"a.lock": `".lock"`, "a.lock/b": `".lock"`, "#": "not the number", "#0": "not the number", "#-1": "not the number", "#1x": "not the number", "#99999999999": "not the number",
	"a\xff": "is not UTF-8", strings.Repeat("a", 1025): "longer than 1024 bytes", strings.Repeat("a", 1024): "",
}

func TestCheckRef(t *testing.T) {
	for ref, why := range refs {
		err := ValidateRef(ref)
		if why == "" && err != nil || why != "" && (err == nil || !strings.Contains(err.Error(), why)) {
			t.Errorf("%q: %v, want %q", ref, err, why)
		}
		if err != nil {
			oneLine(t, err)
		}
	}
}

// FuzzCheckRef checks that what we take for a ref is one for git too, and can neither be an option nor more than one line.
func FuzzCheckRef(f *testing.F) {
	for ref := range refs {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		if err := ValidateRef(ref); err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("%q: %q", ref, err)
			}
			return
		}
		if strings.HasPrefix(ref, "-") || strings.Contains(ref, "..") || strings.ContainsFunc(ref, unicode.IsSpace) || strings.ContainsFunc(ref, unicode.IsControl) {
			t.Errorf("%q is taken for a ref", ref)
		}
		if err := exec.CommandContext(t.Context(), "git", "check-ref-format", "refs/heads/"+ref).Run(); err != nil {
			t.Errorf("git does not take %q for a ref: %v", ref, err)
		}
	})
}

var ownerAndNameForm = regexp.MustCompile(`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`)

// FuzzOwnerAndName checks that a remote's URL gives a repository's name that can be a path of a URL, or none.
func FuzzOwnerAndName(f *testing.F) {
	for url := range remotes {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		got := ownerAndName(url)
		if got == "" {
			return
		}
		owner, name, _ := strings.Cut(got, "/")
		if !ownerAndNameForm.MatchString(got) || strings.Trim(owner, ".") == "" || strings.Trim(name, ".") == "" || !strings.Contains(url, got) {
			t.Errorf("%q: %q", url, got)
		}
		if err := (Repository{Owner: owner, Name: name}).check(); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	})
}

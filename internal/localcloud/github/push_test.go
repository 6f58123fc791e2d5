package github

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPush(t *testing.T) {
	s, dir, first, _, other := startPublisher(t)
	must(t, dir, `git clone -q -b main app local; cd local; echo 4 > file; git commit -qam fourth; git tag -am annotated v1
		echo hook > ../app/.git/hooks/pre-receive; chmod +x ../app/.git/hooks/pre-receive`)
	fourth := must(t, dir, "git -C local rev-parse HEAD")
	must(t, dir, `head -c 3000000 /dev/urandom > local/big
		cd local; git checkout -q -b big; git add big; git commit -qm big`)
	for _, test := range []struct {
		name, token, repository, refs string
		fails                         string
		ref, want                     string
	}{
		{"no token", "", "octo/lib", "main", "Authentication failed", "", ""},
		{"invalid token", "bad", "octo/lib", "main", "Authentication failed", "", ""},
		{"read access to all repositories", "reads", "octo/app", "main",
			"Permission to octo/app.git denied to github-actions[bot].", "", ""},
		{"read-only token", "app-reads", "octo/app", "main", "The requested URL returned error: 403", "", ""},
		{"token without contents permission", "app-none", "octo/app", "main", "error: 403", "", ""},
		{"token for another repository, to a public one", "app", "octo/lib", "main", "error: 403", "", ""},
		{"token for another repository, to a private one", "lib", "octo/app", "main", "not found", "", ""},
		{"current branch of a checkout", "app", "octo/app", "main", "", "refs/heads/main", fourth},
		{"bare repository", "writes", "octo/lib", "main", "", "refs/heads/main", fourth},
		{"annotated tag and branch", "app", "octo/app", "v1 main:refs/heads/new", "", "refs/tags/v1^{commit}",
			fourth},
		{"larger than git's buffer", "app", "octo/app", "big", "", "refs/heads/big:file",
			must(t, dir, "git -C local rev-parse big:file")},
		{"not a fast-forward", "app", "octo/app", first + ":refs/heads/main", "non-fast-forward", "refs/heads/main", fourth},
		{"not a fast-forward, forced", "app", "octo/app", "+" + first + ":refs/heads/new", "", "refs/heads/new", first},
		{"ref of a pull request", "app", "octo/app", other + ":refs/pull/1/head", "deny updating a hidden ref", "", ""},
		{"deletion of a branch", "app", "octo/app", ":refs/heads/new", "", "", ""},
		{"deletion of the default branch", "app", "octo/app", ":refs/heads/main", "refusing to delete the current branch",
			"refs/heads/main", fourth},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := s.ServerURL()
			if test.token != "" {
				address = strings.Replace(address, "//", "//x-access-token:"+test.token+"@", 1)
			}
			push := "git fetch -q ../app other; git push " + address + "/" + test.repository + " " + test.refs
			out, err := sh(t.Context(), filepath.Join(dir, "local"), push)
			if (err != nil) != (test.fails != "") || !strings.Contains(out, test.fails) {
				t.Errorf("%v\n%s", err, out)
			}
			if test.ref == "" {
				return
			}
			_, name, _ := strings.Cut(test.repository, "/")
			if got := must(t, dir, "git -C "+name+" rev-parse '"+test.ref+"'"); got != test.want {
				t.Errorf("%s is %s, want %s", test.ref, got, test.want)
			}
		})
	}
	out, err := sh(t.Context(), dir, "git ls-remote "+strings.Replace(s.ServerURL(), "//", "//x:app-none@", 1)+"/octo/app")
	if err == nil || !strings.Contains(out, "Write access to repository not granted.") {
		t.Errorf("read without contents permission: %v %s", err, out)
	}
}

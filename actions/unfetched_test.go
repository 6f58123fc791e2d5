package actions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/source"
)

func TestWarnUnfetched(t *testing.T) {
	missing := source.Unfetched{Submodules: []string{"vendor/lib"}, Pointers: []string{"a.bin", "app/b.bin"}}
	const (
		modules   = "has submodules that are not fetched: vendor/lib; set submodules: true"
		pointers  = "has Git LFS files that contain only pointers: "
		inCommit  = "Commit 1 "
		inContext = "The checkout "
	)
	for _, test := range []struct {
		name           string
		commit         bool
		fetch          source.FetchOptions
		context        string // "": no paths
		ignore         string // .dockerignore of the context
		unfetched      source.Unfetched
		warnings, none []string // parts of warnings that are written, and that are not
	}{
		{"nothing", false, source.FetchOptions{}, ".", "", source.Unfetched{}, nil, []string{"has"}},
		{"checkout", false, source.FetchOptions{}, ".", "", missing,
			[]string{inContext + modules + " in the actions/checkout step, or run `git submodule update --init`",
				inContext + pointers + "a.bin, app/b.bin; set lfs: true in the actions/checkout step, or run `git lfs pull`"}, nil},
		{"without paths", false, source.FetchOptions{}, "", "", missing,
			[]string{modules, pointers + "a.bin, app/b.bin;"}, nil},
		{"context", false, source.FetchOptions{}, "app", "", missing,
			[]string{pointers + "app/b.bin;"}, []string{"submodules"}},
		{"context in a submodule", false, source.FetchOptions{}, "vendor/lib/sub", "", missing, []string{modules},
			[]string{"LFS"}},
		{"ignored", false, source.FetchOptions{}, ".", "vendor\n**/*.bin\n!a.bin\n", missing, []string{pointers + "a.bin;"},
			[]string{"submodules"}},
		{"remote context", false, source.FetchOptions{}, "https://github.com/a/b.git", "", missing, nil, []string{"has"}},
		{"commit", true, source.FetchOptions{LFS: true}, ".", "", missing, []string{inCommit + modules + "\n"},
			[]string{"LFS", "checkout"}},
		{"commit, with its submodules", true, source.FetchOptions{Submodules: source.DirectSubmodules}, ".", "", missing,
			[]string{"vendor/lib; set submodules: recursive\n"}, []string{"LFS"}},
		{"many", true, source.FetchOptions{}, ".", "",
			source.Unfetched{Submodules: []string{"a", "b\n::error::x", "c", "d", "e"}},
			[]string{"not fetched: a, b ::error::x, c and 2 more; "}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, _, stderr := testJob(t, nil)
			tree := source.Tree{Dir: job.Dir, SHA: "1", Unfetched: test.unfetched}
			if test.commit {
				tree.Dir = t.TempDir()
			}
			var paths inputs.Paths
			if test.context != "" {
				paths.Context = filepath.Join(tree.Dir, test.context)
				if strings.Contains(test.context, "://") {
					paths.Context = test.context
				}
			}
			if test.ignore != "" {
				if err := os.WriteFile(filepath.Join(paths.Context, ".dockerignore"), []byte(test.ignore), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			warnUnfetched(job, inputs.BuildSpec{Fetch: test.fetch}, tree, paths)
			for _, want := range test.warnings {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("warnings:\n%s\nwant %q", stderr, want)
				}
			}
			for _, unwanted := range test.none {
				if strings.Contains(stderr.String(), unwanted) {
					t.Errorf("warnings:\n%s\nwithout %q", stderr, unwanted)
				}
			}
		})
	}
}

// Package source resolves a git ref to the files to build.
//
// [Repository.Resolve] finds the commit of a ref through GitHub's API, [Repository.Fetch] fetches its files, and
// [OpenCheckout] describes an existing working tree. The latter two return a [Tree]; [Tree.WriteGitDir] writes a
// deterministic .git directory for it. Repositories are not trusted: their hooks, filters and settings cannot run
// commands.
package source

// Package source turns a git ref into files to build.
//
// [Repository.Resolve] finds the commit of a ref through GitHub's API, [Repository.Fetch] fetches its files, and
// [OpenCheckout] describes a working tree that exists. Both give a [Tree], whose [Tree.WriteGitDir] writes a
// deterministic .git. A repository's content and settings are not trusted: no hook, filter or setting of it runs a
// command.
package source

package actions

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/sandbox-actions/pkg/inputs"
	"github.com/org/sandbox-actions/pkg/trust"
)

// sharedKey identifies the builder's copy of the contexts, which later builds update: the builder requests only files
// with another size, time or mode. Therefore builds share a copy only if they trust the same people and use the same
// directories. The times of a commit's files are derived from their content, so all machines can share one copy. Those
// of a checkout's files, and of directories that absolute paths name, can be compared on one machine only.
func sharedKey(job job, spec inputs.BuildSpec, session session, source buildSource, platform string) string {
	if spec.Request.NoCache {
		return rand.Text()
	}
	key := struct {
		Domain, Origin, Context, Platform string
		Contexts                          map[string]string // by name
	}{trustDomain(job, session, source), source.Repository, spec.Context, platform, spec.Request.Contexts}
	host, _ := os.Hostname() // without one, the directory alone names it
	if source.Commit.SHA == "" {
		key.Origin, key.Contexts = host+"\n"+source.Tree.Dir, map[string]string{}
		for name, directory := range source.Paths.Contexts {
			key.Contexts[name] = relativeTo(directory, job.Scratch) // which has another name in each run
		}
	} else if usesMachine(spec) {
		key.Origin = host + "\n" + source.Repository
	}
	encoded, err := json.Marshal(key)
	if err != nil {
		panic(err) // strings and maps of strings can be encoded
	}
	return fmt.Sprintf("%x", sha256.Sum256(encoded))
}

// usesMachine reports whether a context is a directory of this machine outside the source.
func usesMachine(spec inputs.BuildSpec) bool {
	isAbsolute := filepath.IsAbs(spec.Context)
	for _, from := range spec.Request.Contexts {
		isAbsolute = isAbsolute || filepath.IsAbs(from)
	}
	return isAbsolute
}

// trustDomain names the people who may have written the code: those with write access to the repository, or an
// outsider. It is empty for the former. Untrusted files without a commit have a domain of their own.
func trustDomain(job job, session session, source buildSource) string {
	switch {
	case session.Untrusted:
		return "untrusted " + cmp.Or(source.Commit.SHA, rand.Text())
	case job.Event.IsFork():
		return trust.PullRequest(job.Event)
	}
	return ""
}

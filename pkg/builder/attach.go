package builder

import (
	"cmp"
	"context"
	"strings"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// attach makes the lease use the existing build [Depot.BuildID], with the build's own token. An API client that creates
// builds sets both: depot/cli b57f518, pkg/build/build.go, and https://depot.dev/docs/environment-variables.
func (s *session) attach(ctx context.Context, token string, r Request) error {
	s.token = token
	op := "attach to Depot build " + safetext.Line(s.BuildID, 100)
	build, err := call(
		httpclient.Idempotent(ctx), s.api, op, token, &getBuildRequest{s.BuildID}, s.api.getBuild.CallUnary,
	)
	if err != nil {
		return err
	}
	l := s.lease
	l.ID, l.URL, l.ProjectID = s.BuildID, build.BuildURL, cmp.Or(build.ProjectID, s.Project)
	if !r.Save {
		return nil
	}
	info, err := s.pullInfo(ctx, s.api, op, token, s.BuildID)
	if err != nil {
		return err
	}
	host, _, _ := strings.Cut(info.Reference, "/")
	l.Tags = completeTags([]string{info.Reference}, l.ID, r.SaveTags)
	l.Credentials = []Credential{{Host: host, Username: registryUser, Password: token}}
	return nil
}

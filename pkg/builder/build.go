package builder

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/org/sandbox-actions/pkg/grace"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
	"google.golang.org/protobuf/encoding/protowire"
)

// create makes the lease use a new build.
func (s *session) create(ctx context.Context, token string, r Request) error {
	created, err := s.createBuild(ctx, token, r)
	if err != nil {
		return err
	}
	l := s.lease
	l.ID, l.URL, l.ProjectID = created.BuildId, created.BuildUrl, cmp.Or(created.ProjectId, s.Project)
	s.token, s.api.service.Hints = created.BuildToken, buildHints
	if cause := context.Cause(ctx); cause != nil { // canceled while Depot created the build
		s.Policy.ReleaseTimeout /= 2 // CreateBuild took the other half
		l.Release(context.Canceled)
		return cause
	}
	if !r.Save { // Depot may return tags of its registry without save, too
		return nil
	}
	if len(created.AdditionalTags) == 0 {
		err := fmt.Errorf("input save: Depot returned no registry for project %s (check the project's settings on Depot)",
			l.ProjectID)
		l.Release(err)
		return err
	}
	for _, tag := range created.AdditionalTags {
		l.Tags = append(l.Tags, tag.Tag)
	}
	for _, c := range created.AdditionalCredentials {
		l.Credentials = append(l.Credentials, s.decodeCredential(c))
	}
	l.Tags = completeTags(l.Tags, l.ID, r.SaveTags)
	return nil
}

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
	saved, ok := parseReference(info.Reference)
	if !ok {
		return s.api.incomplete(op, "no reference in Depot's registry")
	}
	l.Tags = completeTags([]string{info.Reference}, l.ID, r.SaveTags)
	l.Credentials = []Credential{{Host: saved.host, Username: registryUser, Password: token}}
	return nil
}

// completeTags adds the save tags that references lacks, in the repository of the first reference, and moves the build
// ID's reference to the front.
func completeTags(references []string, id string, saveTags []string) []string {
	repository, _, _ := splitTag(references[0])
	var complete []string
	if named := repository + ":" + id; slices.Contains(references, named) {
		complete = append(complete, named)
	}
	for _, tag := range saveTags {
		references = append(references, repository+":"+tag)
	}
	for _, reference := range references {
		if !slices.Contains(complete, reference) {
			complete = append(complete, reference)
		}
	}
	return complete
}

// saveTagsField is the number of BuildOptions.save_tags in depot/cli b57f518, proto/depot/cli/v1/build.proto. depot-go
// v0.5.1 does not declare the field.
const saveTagsField = 9

func buildOptions(r Request) *cliv1.BuildOptions {
	options := &cliv1.BuildOptions{
		Command: cliv1.Command_COMMAND_BUILD,
		Tags:    r.Tags, Push: r.Push, Load: r.Load, Save: r.Save,
		Outputs: []*cliv1.BuildOutput{{Kind: "image"}},
	}
	var saveTags []byte
	for _, tag := range r.SaveTags {
		saveTags = protowire.AppendTag(saveTags, saveTagsField, protowire.BytesType)
		saveTags = protowire.AppendString(saveTags, tag)
	}
	options.ProtoReflect().SetUnknown(saveTags)
	return options
}

func (s *session) createBuild(ctx context.Context, token string, r Request) (*cliv1.CreateBuildResponse, error) {
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	graced, stop := grace.Extend(ctx, s.Policy.CreateGrace, nil)
	defer stop()
	defer time.AfterFunc(s.Policy.NoticeAfter, func() { s.logf("Waiting for Depot to create the build") }).Stop()
	request := &cliv1.CreateBuildRequest{ProjectId: s.Project, Options: []*cliv1.BuildOptions{buildOptions(r)}}
	op := fmt.Sprintf("create a build in project %q", s.Project)
	created, err := call(graced, s.api, op, token, request, s.api.createBuild)
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case s.Project == "" && connect.CodeOf(err) == connect.CodeInvalidArgument:
		return nil, ErrNoProject
	case err != nil:
		return nil, err
	case created.BuildId == "" || created.BuildToken == "":
		return nil, s.api.incomplete(op, "no build ID or token")
	}
	s.mask(created.BuildToken)
	return created, nil
}

// decodeCredential masks and decodes a registry credential. Its token has the format of "auth" in Docker's
// config.json: user:password in base64.
func (d Depot) decodeCredential(c *cliv1.CreateBuildResponse_Credential) Credential {
	d.mask(c.Token)
	credential := Credential{Host: c.Host, Username: registryUser, Password: c.Token}
	decoded, err := base64.StdEncoding.DecodeString(c.Token)
	if err != nil {
		return credential
	}
	if user, password, ok := strings.Cut(string(decoded), ":"); ok {
		credential.Username, credential.Password = user, password
		d.mask(password)
	}
	return credential
}

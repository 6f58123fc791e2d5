package depotapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"github.com/depot/depot-go/proto/depot/cli/v1/cliv1connect"
	"github.com/org/sandbox-actions/internal/localcloud/builders"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// build is one build, from CreateBuild to FinishBuild.
type build struct {
	id, token, project string
	saved              bool
	finished           bool
	cancelsAt          time.Time // zero: never

	asked map[string]int                  // GetBuildKitConnection calls by platform
	lent  map[string]*builders.Connection // by platform
}

func (b *build) takeBack() []*builders.Connection {
	lent := slices.Collect(maps.Values(b.lent))
	clear(b.lent)
	return lent
}

// buildService answers the calls that depot-go knows. What it leaves out (timings, the build's context, lists of
// builds) is unimplemented, which the CLI takes without a word.
type buildService struct {
	cliv1connect.UnimplementedBuildServiceHandler
	server *Server
}

// CreateBuild begins a build in a project of the caller's.
func (b *buildService) CreateBuild(
	ctx context.Context,
	request *connect.Request[cliv1.CreateBuildRequest],
) (*connect.Response[cliv1.CreateBuildResponse], error) {
	s := b.server
	s.note(ctx, func(c *Call) {
		c.Project = request.Msg.ProjectId
		for _, options := range request.Msg.Options {
			c.Tags = append(c.Tags, options.Tags...)
			c.Push, c.Load, c.Save = c.Push || options.Push, c.Load || options.Load, c.Save || options.Save
		}
	})
	who, err := s.identify(ctx, request.Header())
	if err != nil {
		return nil, err
	}
	if who.kind == BuildToken {
		return nil, refuse(connect.CodePermissionDenied, "a build's token creates no builds")
	}
	project, err := s.authorize(who, request.Msg.ProjectId)
	if err != nil {
		return nil, err
	}

	made := &build{
		id:      strings.ToLower(rand.Text()[:10]),
		token:   "build_" + rand.Text(),
		project: project.ID,
		asked:   map[string]int{},
		lent:    map[string]*builders.Connection{},
	}
	response := &cliv1.CreateBuildResponse{
		BuildId:    made.id,
		BuildToken: made.token,
		BuildUrl:   s.buildURL(made),
		ProjectId:  project.ID,
	}
	tags := []string{made.id}
	for _, options := range request.Msg.Options {
		made.saved = made.saved || options.Save
		for _, tag := range saveTags(options) {
			if tag != "" && !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
	}
	if made.saved {
		password, err := s.credential(ctx, project.ID, true)
		if err != nil {
			return nil, err
		}
		// The CLI reads it as the "auth" of Docker's configuration file.
		response.AdditionalCredentials = []*cliv1.CreateBuildResponse_Credential{{
			Host:  s.options.Registry.Host,
			Token: base64.StdEncoding.EncodeToString([]byte("x-token:" + password)),
		}}
		for _, tag := range tags {
			response.AdditionalTags = append(response.AdditionalTags,
				&cliv1.CreateBuildResponse_Tag{Tag: s.reference(made, tag), Push: true})
		}
	}

	s.mutex.Lock()
	s.builds[made.id] = made
	if s.options.Limit > 0 {
		made.cancelsAt = time.Now().Add(s.options.Limit)
		time.AfterFunc(s.options.Limit, func() { s.end(made) })
	}
	s.mutex.Unlock()
	s.note(ctx, func(c *Call) { c.BuildID, c.Project = made.id, project.ID })
	return connect.NewResponse(response), nil
}

// GetBuildKitConnection lends the machine of a platform: pending at first, then active.
func (b *buildService) GetBuildKitConnection(
	ctx context.Context,
	request *connect.Request[cliv1.GetBuildKitConnectionRequest],
) (*connect.Response[cliv1.GetBuildKitConnectionResponse], error) {
	s := b.server
	build, platform, err := b.running(ctx, request, request.Msg.BuildId, request.Msg.Platform)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	build.asked[platform]++
	trouble := faultOf(ctx).Machine
	if trouble == NeverActive || build.asked[platform] <= s.options.Pending {
		callOf(ctx).State = "pending" // the server is locked already
		return connect.NewResponse(&cliv1.GetBuildKitConnectionResponse{
			Connection: &cliv1.GetBuildKitConnectionResponse_Pending{
				Pending: &cliv1.GetBuildKitConnectionResponse_PendingConnection{WaitMs: int32(s.options.Wait.Milliseconds())},
			},
		}), nil
	}
	c := build.lent[platform]
	if c == nil {
		if build.finished || s.stopped {
			return nil, refuse(connect.CodeFailedPrecondition, "build %s has finished", build.id)
		}
		if c, err = s.options.Machines.Open(platform, s.options.Lifetime); errors.Is(err, builders.ErrNoMachine) {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		} else if err != nil {
			return nil, refuse(connect.CodeInternal, "lend a machine: %w", err)
		}
		build.lent[platform] = c
	}
	active := &cliv1.GetBuildKitConnectionResponse_ActiveConnection{
		Endpoint:   c.Endpoint,
		ServerName: c.ServerName,
		CaCert:     &cliv1.Cert{Cert: c.CACert},
		Cert:       &cliv1.Cert{Cert: c.Cert, Key: c.Key},
	}
	if err := s.spoil(active, trouble, platform); err != nil {
		return nil, err
	}
	callOf(ctx).State = "active"
	return connect.NewResponse(&cliv1.GetBuildKitConnectionResponse{
		Connection: &cliv1.GetBuildKitConnectionResponse_Active{Active: active},
	}), nil
}

// ReportBuildHealth is a client's sign of life.
func (b *buildService) ReportBuildHealth(
	ctx context.Context,
	request *connect.Request[cliv1.ReportBuildHealthRequest],
) (*connect.Response[cliv1.ReportBuildHealthResponse], error) {
	build, _, err := b.running(ctx, request, request.Msg.BuildId, request.Msg.Platform)
	if err != nil {
		return nil, err
	}
	response := &cliv1.ReportBuildHealthResponse{}
	if !build.cancelsAt.IsZero() {
		response.CancelsAt = timestamppb.New(build.cancelsAt)
	}
	return connect.NewResponse(response), nil
}

// FinishBuild takes back the build's machines.
func (b *buildService) FinishBuild(
	ctx context.Context,
	request *connect.Request[cliv1.FinishBuildRequest],
) (*connect.Response[cliv1.FinishBuildResponse], error) {
	s := b.server
	s.note(ctx, func(c *Call) {
		switch result := request.Msg.Result.(type) {
		case *cliv1.FinishBuildRequest_Success:
			c.Result = "success"
		case *cliv1.FinishBuildRequest_Error:
			c.Result, c.ResultError = "error", result.Error.GetError()
		case *cliv1.FinishBuildRequest_Canceled:
			c.Result = "canceled"
		}
	})
	build, err := b.own(ctx, request, request.Msg.BuildId)
	if err != nil {
		return nil, err
	}
	if !s.end(build) {
		return nil, refuse(connect.CodeFailedPrecondition, "build %s has finished", build.id)
	}
	return connect.NewResponse(&cliv1.FinishBuildResponse{}), nil
}

// end takes back a build's machines. It reports whether the build was running.
func (s *Server) end(b *build) bool {
	s.mutex.Lock()
	ended := !b.finished
	b.finished = true
	lent := b.takeBack()
	s.mutex.Unlock()
	for _, c := range lent {
		_ = c.Close() // cutting is all that it does
	}
	return ended
}

// own is the build that a request speaks of, when the request carries that build's token.
func (b *buildService) own(ctx context.Context, request connect.AnyRequest, id string) (*build, error) {
	s := b.server
	s.note(ctx, func(c *Call) { c.BuildID = id })
	who, err := s.identify(ctx, request.Header())
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	build := s.builds[id]
	s.mutex.Unlock()
	if build == nil {
		return nil, refuse(connect.CodeNotFound, "build %s not found", id)
	}
	if who.build != build {
		return nil, refuse(connect.CodePermissionDenied, "this token may not use build %s", id)
	}
	s.note(ctx, func(c *Call) { c.Project = build.project })
	return build, nil
}

// running is own for a build that has not finished, and a platform that has a name.
func (b *buildService) running(
	ctx context.Context,
	request connect.AnyRequest,
	id string,
	p cliv1.BuilderPlatform,
) (*build, string, error) {
	platform := map[cliv1.BuilderPlatform]string{
		cliv1.BuilderPlatform_BUILDER_PLATFORM_AMD64: "linux/amd64",
		cliv1.BuilderPlatform_BUILDER_PLATFORM_ARM64: "linux/arm64",
	}[p]
	b.server.note(ctx, func(c *Call) { c.Platform = platform })
	build, err := b.own(ctx, request, id)
	if err != nil {
		return nil, "", err
	}
	b.server.mutex.Lock()
	defer b.server.mutex.Unlock()
	if build.finished {
		return nil, "", refuse(connect.CodeFailedPrecondition, "build %s has finished", id)
	}
	if platform == "" {
		return nil, "", refuse(connect.CodeInvalidArgument, "unknown platform %s", p)
	}
	return build, platform, nil
}

// buildURL is where a person would look at the build.
func (s *Server) buildURL(b *build) string {
	return s.URL() + "/projects/" + b.project + "/builds/" + b.id
}

// reference of a build's image in Depot's registry.
func (s *Server) reference(b *build, tag string) string {
	return s.options.Registry.Host + "/" + b.project + ":" + tag
}

// saveTags are the further tags for a saved image: BuildOptions' field 9, which the CLI knows, and depot-go does
// not.
func saveTags(options *cliv1.BuildOptions) []string {
	var tags []string
	for unknown := []byte(options.ProtoReflect().GetUnknown()); len(unknown) > 0; {
		number, kind, n := protowire.ConsumeTag(unknown)
		if n < 0 {
			return tags
		}
		if number == 9 && kind == protowire.BytesType {
			tag, _ := protowire.ConsumeString(unknown[n:])
			tags = append(tags, tag)
		}
		size := protowire.ConsumeFieldValue(number, kind, unknown[n:])
		if size < 0 {
			return tags
		}
		unknown = unknown[n+size:]
	}
	return tags
}

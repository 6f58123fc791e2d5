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

// build is a build between CreateBuild and FinishBuild.
type build struct {
	id, token, project string
	options            []*cliv1.BuildOptions
	finished           bool
	cancelsAt          time.Time // zero: never

	skew        time.Duration                   // of the clocks of the machines
	requests    map[string]int                  // GetBuildKitConnection calls by platform
	connections map[string]*builders.Connection // by platform
}

// takeConnections removes and returns the build's connections.
func (b *build) takeConnections() []*builders.Connection {
	connections := slices.Collect(maps.Values(b.connections))
	clear(b.connections)
	return connections
}

// buildService implements the methods that clients call. The CLI ignores errors of the unimplemented ones (timings,
// build context).
type buildService struct {
	cliv1connect.UnimplementedBuildServiceHandler
	server *Server
}

// CreateBuild creates a build in a project that the caller can use.
func (b *buildService) CreateBuild(
	ctx context.Context,
	request *connect.Request[cliv1.CreateBuildRequest],
) (*connect.Response[cliv1.CreateBuildResponse], error) {
	s := b.server
	s.note(ctx, func(c *Call) {
		c.Project = request.Msg.ProjectId
		for _, options := range request.Msg.Options {
			c.Tags, c.SaveTags = append(c.Tags, options.Tags...), append(c.SaveTags, saveTags(options)...)
			c.Push, c.Load, c.Save = c.Push || options.Push, c.Load || options.Load, c.Save || options.Save
		}
	})
	who, err := s.identify(ctx, request.Header())
	if err != nil {
		return nil, err
	}
	if who.kind == BuildToken {
		return nil, apiError(connect.CodePermissionDenied, "a build token cannot create builds")
	}
	project, err := s.authorize(who, request.Msg.ProjectId)
	if err != nil {
		return nil, err
	}

	created := &build{
		id:          strings.ToLower(rand.Text()[:10]),
		token:       "build_" + rand.Text(),
		project:     project.ID,
		options:     request.Msg.Options,
		requests:    map[string]int{},
		connections: map[string]*builders.Connection{},
	}
	response := &cliv1.CreateBuildResponse{
		BuildId:    created.id,
		BuildToken: created.token,
		BuildUrl:   s.buildURL(created),
		ProjectId:  project.ID,
	}
	if created.saved() || s.options.Registry.Host != "" {
		if err := s.addRegistry(created, response); err != nil {
			return nil, err
		}
	}
	s.mutex.Lock()
	s.builds[created.id] = created
	if s.options.Limit > 0 {
		created.cancelsAt = time.Now().Add(s.options.Limit)
	}
	s.mutex.Unlock()
	s.note(ctx, func(c *Call) { c.BuildID, c.Project = created.id, project.ID })
	return connect.NewResponse(response), nil
}

// saved reports whether the client requested to keep the image in Depot's registry.
func (b *build) saved() bool {
	return slices.ContainsFunc(b.options, func(o *cliv1.BuildOptions) bool { return o.Save })
}

// ListBuilds lists the builds of a project that the caller can use, without pages.
func (b *buildService) ListBuilds(
	ctx context.Context,
	request *connect.Request[cliv1.ListBuildsRequest],
) (*connect.Response[cliv1.ListBuildsResponse], error) {
	s := b.server
	s.note(ctx, func(c *Call) { c.Project = request.Msg.ProjectId })
	who, err := s.identify(ctx, request.Header())
	if err != nil {
		return nil, err
	}
	project, err := s.authorize(who, request.Msg.ProjectId)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	response := &cliv1.ListBuildsResponse{}
	for _, build := range s.builds {
		if build.project == project.ID {
			response.Builds = append(response.Builds, &cliv1.Build{Id: build.id})
		}
	}
	return connect.NewResponse(response), nil
}

// addRegistry adds references in Depot's registry to a response, and a credential to push them. A client must ignore
// them without `save`, and push all of them with it, whatever Tag.push is: depot/cli b57f518,
// pkg/buildx/commands/build.go and pkg/registry/cli.go.
func (s *Server) addRegistry(b *build, response *cliv1.CreateBuildResponse) error {
	password, err := s.credential(b.project, true)
	if err != nil {
		return err
	}
	// The token has the format of "auth" in Docker's config.json.
	response.AdditionalCredentials = []*cliv1.CreateBuildResponse_Credential{{
		Host:  s.options.Registry.Host,
		Token: base64.StdEncoding.EncodeToString([]byte("x-token:" + password)),
	}}
	tags, push := []string{b.id}, false
	for _, options := range b.options {
		push = push || options.Push
		for _, tag := range saveTags(options) {
			if tag != "" && !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
		}
	}
	for _, tag := range tags {
		response.AdditionalTags = append(response.AdditionalTags,
			&cliv1.CreateBuildResponse_Tag{Tag: s.reference(b, tag), Push: push})
	}
	return nil
}

// Cancel requests that the client cancels a build: answers to its health reports contain a time in the past. The
// machines remain usable until the client releases them.
func (s *Server) Cancel(buildID string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.builds[buildID].cancelsAt = time.Now().Add(-time.Second)
}

// LoseMachines breaks the connections to a build's machines, which accept no others. The build remains.
func (s *Server) LoseMachines(buildID string) error {
	s.mutex.Lock()
	connections := slices.Collect(maps.Values(s.builds[buildID].connections))
	s.mutex.Unlock()
	var err error
	for _, c := range connections {
		err = errors.Join(err, c.Close())
	}
	return err
}

// FreezeMachines makes the connections to a build's machines drop all data, while they stay open.
func (s *Server) FreezeMachines(buildID string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, c := range s.builds[buildID].connections {
		c.Freeze()
	}
}

// GetBuildKitConnection returns a connection to a platform's machine: first pending, then active.
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
	build.requests[platform]++
	fault := faultOf(ctx).Machine
	if fault == NeverActive || build.requests[platform] <= s.options.Pending {
		callOf(ctx).State = "pending" // s.mutex is held
		return connect.NewResponse(&cliv1.GetBuildKitConnectionResponse{
			Connection: &cliv1.GetBuildKitConnectionResponse_Pending{
				Pending: &cliv1.GetBuildKitConnectionResponse_PendingConnection{WaitMs: int32(s.options.Wait.Milliseconds())},
			},
		}), nil
	}
	c := build.connections[platform]
	if c == nil || build.skew != fault.skew() || c.IsFrozen() {
		if c != nil {
			go c.Close() // waits for its clients
		}
		build.skew = fault.skew()
		if build.finished || s.stopped {
			return nil, apiError(connect.CodeFailedPrecondition, "build %s has finished", build.id)
		}
		c, err = s.options.Machines.OpenWithClock(platform, s.options.Lifetime, fault.skew())
		if errors.Is(err, builders.ErrNoMachine) {
			return nil, apiError(connect.CodeInvalidArgument, "%w", err)
		} else if err != nil {
			return nil, apiError(connect.CodeInternal, "open a machine: %w", err)
		}
		build.connections[platform] = c
	}
	active := &cliv1.GetBuildKitConnectionResponse_ActiveConnection{
		Endpoint:   c.Endpoint,
		ServerName: c.ServerName,
		CaCert:     &cliv1.Cert{Cert: c.CACert},
		Cert:       &cliv1.Cert{Cert: c.Cert, Key: c.Key},
	}
	if err := s.applyMachineFault(active, fault, platform); err != nil {
		return nil, err
	}
	callOf(ctx).State = "active"
	return connect.NewResponse(&cliv1.GetBuildKitConnectionResponse{
		Connection: &cliv1.GetBuildKitConnectionResponse_Active{Active: active},
	}), nil
}

// ReportBuildHealth accepts a health report and returns the time at which the build will be canceled.
func (b *buildService) ReportBuildHealth(
	ctx context.Context,
	request *connect.Request[cliv1.ReportBuildHealthRequest],
) (*connect.Response[cliv1.ReportBuildHealthResponse], error) {
	build, _, err := b.running(ctx, request, request.Msg.BuildId, request.Msg.Platform)
	if err != nil {
		return nil, err
	}
	response := &cliv1.ReportBuildHealthResponse{}
	b.server.mutex.Lock()
	defer b.server.mutex.Unlock()
	if !build.cancelsAt.IsZero() {
		response.CancelsAt = timestamppb.New(build.cancelsAt)
	}
	return connect.NewResponse(response), nil
}

// FinishBuild ends a build and closes its connections to machines.
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
	build, err := b.authenticated(ctx, request, request.Msg.BuildId)
	if err != nil {
		return nil, err
	}
	if !s.end(build) {
		return nil, apiError(connect.CodeFailedPrecondition, "build %s has finished", build.id)
	}
	return connect.NewResponse(&cliv1.FinishBuildResponse{}), nil
}

// end ends a build and closes its connections. It reports whether the build was running.
func (s *Server) end(b *build) bool {
	s.mutex.Lock()
	wasRunning := !b.finished
	b.finished = true
	connections := b.takeConnections()
	s.mutex.Unlock()
	for _, c := range connections {
		_ = c.Close()
	}
	return wasRunning
}

// authenticated returns the build with the ID if the request has that build's token.
func (b *buildService) authenticated(ctx context.Context, request connect.AnyRequest, id string) (*build, error) {
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
		return nil, apiError(connect.CodeNotFound, "build %s not found", id)
	}
	if who.build != build {
		return nil, apiError(connect.CodePermissionDenied, "this token may not use build %s", id)
	}
	s.note(ctx, func(c *Call) { c.Project = build.project })
	return build, nil
}

// running is like authenticated but returns an error if the build has finished. It also returns the platform's name.
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
	build, err := b.authenticated(ctx, request, id)
	if err != nil {
		return nil, "", err
	}
	b.server.mutex.Lock()
	defer b.server.mutex.Unlock()
	if build.finished {
		return nil, "", apiError(connect.CodeFailedPrecondition, "build %s has finished", id)
	}
	if platform == "" {
		return nil, "", apiError(connect.CodeInvalidArgument, "unknown platform %s", p)
	}
	return build, platform, nil
}

// buildURL returns the URL of a build's page.
func (s *Server) buildURL(b *build) string {
	return s.URL() + "/projects/" + b.project + "/builds/" + b.id
}

// reference returns the reference of a build's image in Depot's registry.
func (s *Server) reference(b *build, tag string) string {
	return s.options.Registry.Host + "/" + b.project + ":" + tag
}

// saveTags returns the additional tags of a saved image. They are in field 9 of BuildOptions, which depot-go v0.5.1
// does not declare.
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

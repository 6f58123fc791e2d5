package depotapi

import (
	"context"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
	cliv1 "github.com/depot/depot-go/proto/depot/cli/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// handlePull adds methods that the CLI calls but depot-go v0.5.1 does not declare: they return builds and credentials
// for saved images.
func (s *Server) handlePull(mux *http.ServeMux) {
	for name, answer := range map[string]func(ctx context.Context, header http.Header, request fields) (fields, error){
		"GetPullToken": s.getPullToken,
		"GetPullInfo":  s.getPullInfo,
		"GetBuild":     s.getBuild,
	} {
		method := pullMethods.ByName(protoreflect.Name(name))
		procedure := fmt.Sprintf("/%s/%s", method.Parent().FullName(), name)
		mux.Handle(procedure, connect.NewUnaryHandler(
			procedure,
			func(
				ctx context.Context, request *connect.Request[dynamicpb.Message],
			) (*connect.Response[dynamicpb.Message], error) {
				response, err := answer(ctx, request.Header(), read(request.Msg))
				if err != nil {
					return nil, err
				}
				return connect.NewResponse(write(method.Output(), response)), nil
			},
			connect.WithSchema(method),
			connect.WithRequestInitializer(func(_ connect.Spec, message any) error {
				*message.(*dynamicpb.Message) = *dynamicpb.NewMessage(method.Input())
				return nil
			}),
		))
	}
}

// getPullToken returns a password with which the user x-token can pull the project's saved images.
func (s *Server) getPullToken(ctx context.Context, header http.Header, request fields) (fields, error) {
	project, _, err := s.pullable(ctx, header, request.text("project_id"), request.text("build_id"))
	if err != nil {
		return nil, err
	}
	token, err := s.credential(project, false)
	if err != nil {
		return nil, err
	}
	return fields{"token": token}, nil
}

// getPullInfo returns the reference of a build's image, a credential to pull it, and the build's options, by which the
// client recognizes a build that saved nothing: depot/cli b57f518, pkg/cmd/pull/options.go.
func (s *Server) getPullInfo(ctx context.Context, header http.Header, request fields) (fields, error) {
	project, build, err := s.pullable(ctx, header, "", request.text("build_id"))
	if err != nil {
		return nil, err
	}
	if build == nil {
		return nil, apiError(connect.CodeInvalidArgument, "build_id is required")
	}
	password, err := s.credential(project, false)
	if err != nil {
		return nil, err
	}
	return fields{
		"reference": s.reference(build, build.id), "username": "x-token", "password": password, "options": build.options,
	}, nil
}

func (s *Server) getBuild(ctx context.Context, header http.Header, request fields) (fields, error) {
	project, build, err := s.pullable(ctx, header, "", request.text("build_id"))
	if err != nil {
		return nil, err
	}
	if build == nil {
		return nil, apiError(connect.CodeInvalidArgument, "build_id is required")
	}
	return fields{"build_id": build.id, "project_id": project, "build_url": s.buildURL(build)}, nil
}

// pullable returns the project if the caller can read it, and the build if buildID is not "".
func (s *Server) pullable(ctx context.Context, header http.Header, projectID, buildID string) (string, *build, error) {
	s.note(ctx, func(c *Call) { c.Project, c.BuildID = projectID, buildID })
	who, err := s.identify(ctx, header)
	if err != nil {
		return "", nil, err
	}
	var build *build
	if buildID != "" {
		s.mutex.Lock()
		build = s.builds[buildID]
		s.mutex.Unlock()
		if build == nil || projectID != "" && projectID != build.project {
			return "", nil, apiError(connect.CodeNotFound, "build %s not found", buildID)
		}
		projectID = build.project
		if who.kind == BuildToken && who.build != build {
			return "", nil, apiError(connect.CodePermissionDenied, "this token may not use build %s", buildID)
		}
	}
	project, err := s.authorize(who, projectID)
	if err != nil {
		return "", nil, err
	}
	s.note(ctx, func(c *Call) { c.Project = project.ID })
	return project.ID, build, nil
}

// fields holds the fields of a message by name: strings, or a list of build options.
type fields map[string]any

func (f fields) text(name string) string {
	text, _ := f[name].(string)
	return text
}

func read(m *dynamicpb.Message) fields {
	f := fields{}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		f[string(field.Name())] = value.Interface()
		return true
	})
	return f
}

func write(of protoreflect.MessageDescriptor, f fields) *dynamicpb.Message {
	m := dynamicpb.NewMessage(of)
	for name, value := range f {
		field := of.Fields().ByName(protoreflect.Name(name))
		list, ok := value.([]*cliv1.BuildOptions)
		if !ok {
			m.Set(field, protoreflect.ValueOf(value))
			continue
		}
		for _, options := range list {
			m.Mutable(field).List().Append(protoreflect.ValueOfMessage(options.ProtoReflect()))
		}
	}
	return m
}

// pullMethods describes the methods that depot-go does not declare. Their fields are strings, numbered in this order,
// except GetPullInfoResponse.options. Source: depot/cli b57f518, proto/depot/cli/v1/build.proto.
var pullMethods = func() protoreflect.MethodDescriptors {
	file := &descriptorpb.FileDescriptorProto{
		Name:       proto.String("depotapi/pull.proto"),
		Package:    proto.String("depot.cli.v1"),
		Syntax:     proto.String("proto3"),
		Dependency: []string{cliv1.File_depot_cli_v1_build_proto.Path()},
		Service:    []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("BuildService")}},
	}
	message := func(name string, fields ...string) *string {
		m := &descriptorpb.DescriptorProto{Name: &name}
		for i, field := range fields {
			m.Field = append(m.Field, stringField(field, i+1))
		}
		file.MessageType = append(file.MessageType, m)
		return proto.String(".depot.cli.v1." + name)
	}
	method := func(name string, input, output *string) {
		service := file.Service[0]
		service.Method = append(service.Method,
			&descriptorpb.MethodDescriptorProto{Name: &name, InputType: input, OutputType: output})
	}
	method("GetPullToken",
		message("GetPullTokenRequest", "project_id", "build_id"),
		message("GetPullTokenResponse", "token"))
	method("GetPullInfo",
		message("GetPullInfoRequest", "build_id"),
		message("GetPullInfoResponse", "reference", "username", "password"))
	info := file.MessageType[len(file.MessageType)-1]
	info.Field = append(info.Field, &descriptorpb.FieldDescriptorProto{
		Name: proto.String("options"), Number: proto.Int32(4),
		Type:     descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
		TypeName: proto.String(".depot.cli.v1.BuildOptions"),
		Label:    descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(),
	})
	method("GetBuild",
		message("GetBuildRequest", "build_id"),
		message("GetBuildResponse", "build_id", "project_id", "build_url"))
	descriptor, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic(err) // the declaration above is invalid
	}
	return descriptor.Services().Get(0).Methods()
}()

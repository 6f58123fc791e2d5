package depotapi

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// handleProjects adds depot.cli.v1beta1.ProjectsService/ListProjects, which the CLI calls when a project is unknown.
// Protocol: proto/depot/cli/v1beta1/projects.proto in github.com/depot/cli.
func (s *Server) handleProjects(mux *http.ServeMux) {
	const procedure = "/depot.cli.v1beta1.ProjectsService/ListProjects"
	mux.Handle(procedure, connect.NewUnaryHandler(procedure,
		func(ctx context.Context, request *connect.Request[emptypb.Empty]) (*connect.Response[dynamicpb.Message], error) {
			who, err := s.identify(ctx, request.Header())
			if err != nil {
				return nil, err
			}
			list := dynamicpb.NewMessage(listProjects)
			field := listProjects.Fields().ByName("projects")
			projects := list.Mutable(field).List()
			for _, p := range s.options.Projects {
				if _, err := s.authorize(who, p.ID); err == nil {
					values := fields{"id": p.ID, "name": p.ID, "org_id": "localcloud", "org_name": "Local cloud"}
					projects.Append(protoreflect.ValueOfMessage(write(field.Message(), values)))
				}
			}
			return connect.NewResponse(list), nil
		}))
}

// listProjects describes the message ListProjectsResponse.
var listProjects = func() protoreflect.MessageDescriptor {
	project := &descriptorpb.DescriptorProto{Name: proto.String("Project")}
	for i, name := range []string{"id", "name", "org_id", "org_name"} {
		project.Field = append(project.Field, stringField(name, i+1))
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("depotapi/projects.proto"),
		Package: proto.String("depot.cli.v1beta1"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:       proto.String("ListProjectsResponse"),
			NestedType: []*descriptorpb.DescriptorProto{project},
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name:     proto.String("projects"),
				Number:   proto.Int32(1),
				Type:     descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
				TypeName: proto.String(".depot.cli.v1beta1.ListProjectsResponse.Project"),
				Label:    descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(),
			}},
		}},
	}, nil)
	if err != nil {
		panic(err) // the declaration above is invalid
	}
	return file.Messages().Get(0)
}()

func stringField(name string, number int) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name:   proto.String(name),
		Number: proto.Int32(int32(number)),
		Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
}

package builders

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// fork is a proxy to a daemon that adds the features of Depot's fork of BuildKit (depot/buildkit ce9540e,
// exporter/containerimage/export.go, Resolve and Export; exporter/containerimage/writer.go; control/control.go,
// LeaseManager):
//   - with the attribute depot.export.lease, a lease protects the image, and the response contains its ID;
//   - with depot.export.image.version=2, the response contains the manifests and configs;
//   - the leases service has Delete;
//   - garbage is collected after each solve: without a lease, clients cannot read the manifest, the config and the
//     index of an image. Depot's builders collect later, at a time that a client cannot know.
type fork struct {
	daemon   *grpc.ClientConn
	server   *grpc.Server
	listener *bufconn.Listener
	calls    atomic.Int64

	mutex     sync.Mutex
	leases    map[string][]string // digests, by lease
	collected map[string]bool     // digests
	failures  []string            // errors of the next solves
}

const (
	solveMethod       = "/moby.buildkit.v1.Control/Solve"
	readMethod        = "/containerd.services.content.v1.Content/Read"
	infoMethod        = "/containerd.services.content.v1.Content/Info"
	deleteLeaseMethod = "/containerd.services.leases.v1.Leases/Delete"

	maxMessageSize = 16 << 20 // as in BuildKit
)

// startFork serves the connections of dial until stop, and forwards to the daemon at address.
func startFork(address string) (*fork, error) {
	daemon, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize), grpc.MaxCallSendMsgSize(maxMessageSize)))
	if err != nil {
		return nil, fmt.Errorf("builders: %w", err)
	}
	f := &fork{
		daemon: daemon, listener: bufconn.Listen(1 << 20), leases: map[string][]string{}, collected: map[string]bool{},
	}
	f.server = grpc.NewServer(grpc.UnknownServiceHandler(f.handle), grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(maxMessageSize), grpc.MaxSendMsgSize(maxMessageSize))
	go func() { _ = f.server.Serve(f.listener) }()
	return f, nil
}

// dial opens a connection of a client.
func (f *fork) dial() (net.Conn, error) { return f.listener.Dial() }

func (f *fork) stop() {
	f.server.Stop()
	_ = f.daemon.Close() // fails only if it is closed
}

// heldLeases returns the IDs of the leases that no client has deleted.
func (f *fork) heldLeases() []string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return slices.Sorted(maps.Keys(f.leases))
}

// handle serves a call of a client.
func (f *fork) handle(_ any, stream grpc.ServerStream) error {
	f.calls.Add(1)
	method, _ := grpc.MethodFromServerStream(stream)
	switch method {
	case solveMethod:
		return f.solve(stream)
	case deleteLeaseMethod:
		return f.deleteLease(stream)
	case readMethod, infoMethod:
		return f.read(stream, method)
	}
	return f.forward(stream, method)
}

// forward connects a client's call to the daemon. received are the messages that the client has already sent.
func (f *fork) forward(stream grpc.ServerStream, method string, received ...frame) error {
	ctx, cancel := context.WithCancel(outgoing(stream.Context()))
	defer cancel()
	call, err := f.daemon.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method,
		grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	go func() {
		defer call.CloseSend()
		for _, message := range received {
			if call.SendMsg(message) != nil {
				return
			}
		}
		for {
			var message frame
			if stream.RecvMsg(&message) != nil || call.SendMsg(message) != nil {
				return // the daemon's answer contains the reason
			}
		}
	}()
	header, err := call.Header()
	if err != nil {
		return err
	}
	if err := stream.SendHeader(header); err != nil {
		return err
	}
	for {
		var message frame
		if err := call.RecvMsg(&message); err != nil {
			stream.SetTrailer(call.Trailer())
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

// outgoing returns a context that sends the client's metadata to the daemon.
func outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, md)
}

// solve forwards a request to the daemon and extends the response.
func (f *fork) solve(stream grpc.ServerStream) error {
	var message frame
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	var request controlapi.SolveRequest
	if err := proto.Unmarshal(message, &request); err != nil {
		return err
	}
	var answer frame
	err := f.daemon.Invoke(outgoing(stream.Context()), solveMethod, message, &answer, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	if failure := f.nextFailure(); failure != "" {
		return status.Error(codes.Unknown, failure)
	}
	var response controlapi.SolveResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return err
	}
	if descriptor := response.ExporterResponse[exptypes.ExporterImageDescriptorKey]; descriptor != "" {
		if err := f.export(stream.Context(), imageAttrs(&request), descriptor, response.ExporterResponse); err != nil {
			return status.Errorf(codes.Internal, "export: %v", err)
		}
	}
	return send(stream, &response)
}

// nextFailure removes and returns the error of the next solve, or "".
func (f *fork) nextFailure() string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if len(f.failures) == 0 {
		return ""
	}
	failure := f.failures[0]
	f.failures = f.failures[1:]
	return failure
}

// imageAttrs returns the attributes of a request's image exporter, or nil.
func imageAttrs(request *controlapi.SolveRequest) map[string]string {
	for _, exporter := range slices.Backward(request.Exporters) {
		if exporter.Type == client.ExporterImage {
			return exporter.Attrs
		}
	}
	return nil
}

// export adds a lease and the manifests to the response, as the attributes request, and collects the garbage.
func (f *fork) export(
	ctx context.Context, attrs map[string]string, descriptor string, response map[string]string,
) error {
	data, err := base64.StdEncoding.DecodeString(descriptor)
	if err != nil {
		return err
	}
	var root ocispec.Descriptor
	if err := json.Unmarshal(data, &root); err != nil {
		return err
	}
	digests := []string{root.Digest.String()}
	manifests := []ocispec.Descriptor{root}
	if root.MediaType == ocispec.MediaTypeImageIndex {
		var index ocispec.Index
		if _, err := f.readJSON(ctx, root, &index); err != nil {
			return err
		}
		manifests = index.Manifests
	}
	type exportedImage struct {
		Manifest []byte `json:"manifest"`
		Config   []byte `json:"config"`
	}
	var images []exportedImage
	for _, m := range manifests {
		var manifest ocispec.Manifest
		var exported exportedImage
		if exported.Manifest, err = f.readJSON(ctx, m, &manifest); err != nil {
			return err
		}
		if exported.Config, err = f.readJSON(ctx, manifest.Config, &struct{}{}); err != nil {
			return err
		}
		digests = append(digests, m.Digest.String(), manifest.Config.Digest.String())
		if m.Annotations["vnd.docker.reference.type"] == "" { // an image, not attestations
			images = append(images, exported)
		}
	}
	if attrs["depot.export.image.version"] == "2" {
		data, err := json.Marshal(images)
		if err != nil {
			return err
		}
		response["depot/images.exported"] = base64.StdEncoding.EncodeToString(data)
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if _, ok := attrs["depot.export.lease"]; ok { // with any value
		id := identity.NewID()
		f.leases[id] = digests
		response["depot/session.id"] = id
	}
	f.collect(digests)
	return nil
}

// collect updates which of the digests are available. The caller holds the mutex.
func (f *fork) collect(digests []string) {
	for _, digest := range digests {
		f.collected[digest] = true
		for _, held := range f.leases {
			if slices.Contains(held, digest) {
				delete(f.collected, digest)
			}
		}
	}
}

// readJSON reads and parses a blob of the daemon's content store.
func (f *fork) readJSON(ctx context.Context, d ocispec.Descriptor, value any) ([]byte, error) {
	stream, err := contentapi.NewContentClient(f.daemon).Read(
		ctx, &contentapi.ReadContentRequest{Digest: d.Digest.String()},
	)
	if err != nil {
		return nil, err
	}
	var data []byte
	for {
		answer, err := stream.Recv()
		if err == io.EOF {
			return data, json.Unmarshal(data, value)
		}
		if err != nil {
			return nil, err
		}
		data = append(data, answer.Data...)
	}
}

// read serves a blob, unless it has been collected.
func (f *fork) read(stream grpc.ServerStream, method string) error {
	var message frame
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	var read contentapi.ReadContentRequest
	var info contentapi.InfoRequest
	if err := cmp.Or(proto.Unmarshal(message, &read), proto.Unmarshal(message, &info)); err != nil {
		return err
	}
	f.mutex.Lock()
	digest := cmp.Or(read.Digest, info.Digest)
	collected := f.collected[digest]
	f.mutex.Unlock()
	if collected {
		return status.Errorf(codes.NotFound, "content %s: not found", digest)
	}
	return f.forward(stream, method, message)
}

func (f *fork) deleteLease(stream grpc.ServerStream) error {
	var message frame
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	var request leasesapi.DeleteRequest
	if err := proto.Unmarshal(message, &request); err != nil {
		return err
	}
	f.mutex.Lock()
	digests, ok := f.leases[request.ID]
	delete(f.leases, request.ID)
	f.collect(digests)
	f.mutex.Unlock()
	if !ok {
		return status.Errorf(codes.Unknown, "lease %q: not found", request.ID)
	}
	return send(stream, &emptypb.Empty{})
}

func send(stream grpc.ServerStream, message proto.Message) error {
	data, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	return stream.SendMsg(frame(data))
}

// frame is an encoded message.
type frame []byte

// rawCodec passes messages on without decoding them.
type rawCodec struct{}

// Marshal implements encoding.CodecV2.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(frame))}, nil
}

// Unmarshal implements encoding.CodecV2.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*frame) = data.Materialize()
	return nil
}

// Name implements encoding.CodecV2.
func (rawCodec) Name() string { return "proto" }

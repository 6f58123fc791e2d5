package image

import (
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

func init() { encoding.RegisterCodecV2(codec{encoding.GetCodecV2(proto.Name)}) }

// codec is gRPC's own, which refuses text that is not UTF-8, but for the messages that hold names of files or words of a Dockerfile, or move
// what a build reads and writes: these write and read themselves, as they do at BuildKit's end. BuildKit's codec
// (util/grpcutil/encoding/proto) has all messages do so, and would keep half a megabyte in the program for those that are never sent.
type codec struct{ encoding.CodecV2 }

// methods are those with which a message writes and reads itself; no interface, for which the linker would keep those of all messages.
type methods struct {
	size  func() int
	write func([]byte) (int, error)
	read  func([]byte) error
}

func methodsOf(message any) (methods, bool) {
	switch m := message.(type) {
	case *types.Packet:
		return methods{m.SizeVT, m.MarshalToSizedBufferVT, m.UnmarshalVT}, true
	case *filesync.BytesMessage:
		return methods{m.SizeVT, m.MarshalToSizedBufferVT, m.UnmarshalVT}, true
	case *control.BytesMessage:
		return methods{m.SizeVT, m.MarshalToSizedBufferVT, m.UnmarshalVT}, true
	case *control.SolveRequest:
		return methods{m.SizeVT, m.MarshalToSizedBufferVT, m.UnmarshalVT}, true
	case *control.SolveResponse:
		return methods{m.SizeVT, m.MarshalToSizedBufferVT, m.UnmarshalVT}, true
	case *control.StatusResponse:
		return methods{m.SizeVT, m.MarshalToSizedBufferVT, m.UnmarshalVT}, true
	}
	return methods{}, false
}

func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	m, ok := methodsOf(message)
	if !ok {
		return c.CodecV2.Marshal(message)
	}
	pool, size := mem.DefaultBufferPool(), m.size()
	buffer := pool.Get(size)
	if _, err := m.write((*buffer)[:size]); err != nil {
		pool.Put(buffer)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	m, ok := methodsOf(message)
	if !ok {
		return c.CodecV2.Unmarshal(data, message)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return m.read(buffer.ReadOnlyData())
}

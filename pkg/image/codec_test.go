package image

import (
	"bytes"
	"testing"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/tonistiigi/fsutil/types"
)

// Names of files, and with them what a build is asked for and what it tells of its steps, may be bytes of any kind.
func TestNamesNeedNotBeUTF8(t *testing.T) {
	type message interface{ MarshalVT() ([]byte, error) } // as BuildKit writes it
	const name = "latin-\xe9"
	for _, test := range []struct {
		name           string
		sent, received message
	}{
		{"a file", &types.Packet{Stat: &types.Stat{Path: name}, Data: []byte(name)}, &types.Packet{}},
		{"a build argument", &control.SolveRequest{FrontendAttrs: map[string]string{"build-arg:A": name}}, &control.SolveRequest{}},
		{"a step", &control.StatusResponse{Vertexes: []*control.Vertex{{Name: "COPY " + name}}}, &control.StatusResponse{}},
		{"what was built", &control.SolveResponse{ExporterResponse: map[string]string{"image.name": name}}, &control.SolveResponse{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			want, err := test.sent.MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			wire := codec{} // without gRPC's own
			data, err := wire.Marshal(test.sent)
			if err != nil || !bytes.Equal(data.Materialize(), want) {
				t.Fatalf("sent %q, %v; want %q", data.Materialize(), err, want)
			}
			if err := wire.Unmarshal(data, test.received); err != nil {
				t.Fatal(err)
			}
			if got, err := test.received.MarshalVT(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("received %q, %v; want %q", got, err, want)
			}
		})
	}
}

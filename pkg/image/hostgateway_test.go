package image

import (
	"testing"

	"github.com/moby/buildkit/client"
)

func TestHostAddress(t *testing.T) {
	for _, test := range []struct {
		labels map[string]string
		want   string
	}{
		{nil, ""},
		{map[string]string{networkLabel: "cni"}, ""},
		{map[string]string{networkLabel: "host"}, "127.0.0.1"},
		{map[string]string{networkLabel: "host", hostGatewayLabel: "172.17.0.1"}, "172.17.0.1"},
	} {
		workers := []*client.WorkerInfo{{Labels: test.labels}}
		if got := hostAddress(workers); got != test.want {
			t.Errorf("%v: %q, want %q", test.labels, got, test.want)
		}
	}
}

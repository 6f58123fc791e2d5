package dockerengine

import (
	"strings"
	"testing"

	"github.com/org/sandbox-actions/internal/faultproxy"
)

// A container is created once and removed, even if the engine handles a request of which the answer is lost.
func TestLostAnswers(t *testing.T) {
	reset, gateway := faultproxy.ResetAfterHeaders(), faultproxy.Status(502)
	for _, test := range []struct {
		name  string
		rule  faultproxy.Rule
		fails bool // whether Create fails
	}{
		{"one of create", faultproxy.Rule{Path: "/containers/create", Times: 1, Late: true, Fault: reset}, false},
		{"one of create at a gateway", faultproxy.Rule{Path: "/create", Times: 1, Late: true, Fault: gateway}, false},
		{"all of create", faultproxy.Rule{Path: "/containers/create", Late: true, Fault: gateway}, true},
		{"two requests to remove", faultproxy.Rule{Method: "DELETE", Times: 2, Fault: reset}, false},
		{"two of remove", faultproxy.Rule{Method: "DELETE", Times: 2, Late: true, Fault: gateway}, false},
		{"one list", faultproxy.Rule{Path: "/containers/json", Times: 1, Fault: reset}, false},
		{"one inspection", faultproxy.Rule{Method: "GET", Path: "/json", Skip: 1, Times: 1, Fault: gateway}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, _ string, direct *Engine) {
				image := loadProbe(t, direct)
				proxy, err := faultproxy.Start(t.Context(), direct.Host)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = proxy.Close() })
				e := openHost(t, strings.Replace(proxy.URL, "http", "tcp", 1))
				proxy.Fail(test.rule)
				spec := ContainerSpec{Image: image, Cmd: []string{"wait"}, Labels: map[string]string{"test": t.Name()}}
				c, err := e.Create(t.Context(), spec)
				if (err != nil) != test.fails {
					t.Fatalf("error %v, want one: %t", err, test.fails)
				}
				if err == nil {
					if found, err := e.Containers(t.Context(), "test="+t.Name()); err != nil || len(found) != 1 {
						t.Errorf("containers %q (%v), want one", found, err)
					}
					if _, err := c.Inspect(t.Context()); err != nil {
						t.Error(err)
					}
					if err := c.Remove(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if left, err := direct.Containers(t.Context(), "test="+t.Name()); err != nil || len(left) > 0 {
					t.Errorf("containers %q are left (%v)", left, err)
				}
			})
		})
	}
}

// A load that fails leaves nothing behind, even if another load has given the same image a name.
func TestFailedLoadOfNamedImage(t *testing.T) {
	onEachEngine(t, func(t *testing.T, _ string, e *Engine) {
		img := newImage(t, "named", randomLayer(t))
		before := countImages(t, e)
		first, second := must(newArchive(img, true)), must(newArchive(img, true))
		_, id, err := e.loadMissing(t.Context(), first, nil)
		if err == nil {
			err = e.tagImage(t.Context(), id, "named:1")
		}
		if err == nil {
			err = e.streamArchive(t.Context(), second, second.layers)
		}
		if err != nil {
			t.Fatal(err)
		}
		e.removeTemporary(t.Context(), second.name)
		e.removeTemporary(t.Context(), first.name)
		if e.completeImage(t.Context(), first) == "" {
			t.Error("the image is gone, although it has another name")
		}
		if err := e.removeName(t.Context(), "named:1"); err != nil {
			t.Error(err)
		}
		if after := countImages(t, e); after != before {
			t.Errorf("the number of images went from %d to %d", before, after)
		}
	})
}

package dockerengine

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
)

var concurrentLoads = flag.Int("loads", 8, "number of loads at once in TestConcurrentLoads")

// Several jobs may load into one engine at once, also under one name: the last load wins.
func TestConcurrentLoads(t *testing.T) {
	loads := *concurrentLoads
	for _, test := range []struct {
		name          string
		images, names int // distinct ones of all loads
	}{
		{"one image under many names", 1, loads},
		{"many images under one name", loads, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			withEachMethod(t, func(t *testing.T, _ string, e *Engine) {
				base := randomLayer(t)
				images := make([]v1.Image, test.images)
				for i := range images {
					images[i] = newImage(t, "concurrent", base)
				}
				loaded := make([]string, loads)
				name := func(i int) string { return fmt.Sprintf("concurrent:%d", i%test.names) }
				var group sync.WaitGroup
				for i := range loads {
					removeImage(t, e, name(i))
					other := openHost(t, e.Host)
					other.pullMinimum = e.pullMinimum
					group.Go(func() {
						result, err := other.Load(t.Context(), name(i), images[i%test.images])
						if err != nil {
							t.Error(err)
						}
						loaded[i] = result.ID
					})
				}
				group.Wait()
				for i := range test.names {
					if id, err := e.ImageID(t.Context(), name(i)); err != nil || !slices.Contains(loaded, id) {
						t.Errorf("%s is %q, want one of the loaded images (%v)", name(i), id, err)
					}
				}
				if got := outputOf(t, e, name(0)); got != "hello concurrent" {
					t.Errorf("the container prints %q", got)
				}
				list := must(e.client.ImageList(t.Context(), client.ImageListOptions{All: true}))
				for _, image := range list.Items {
					if names := fmt.Sprint(image.RepoTags, image.RepoDigests); strings.Contains(names, "127.0.0.1") {
						t.Errorf("temporary names are left: %s", names)
					}
				}
			})
		})
	}
}

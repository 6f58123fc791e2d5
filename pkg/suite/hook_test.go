package suite

import (
	"context"
	"sync"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

var hookMutex sync.Mutex

// createHook is an engine that tells of each container, and how many there were, before it makes it.
type createHook struct {
	Engine
	tell  func(n int)
	count *int
}

func (e createHook) Create(ctx context.Context, spec dockerengine.ContainerSpec) (*dockerengine.Container, error) {
	hookMutex.Lock()
	*e.count++
	e.tell(*e.count)
	hookMutex.Unlock()
	return e.Engine.Create(ctx, spec)
}

package daytona

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// This file follows daytonaio/daytona v0.190.0, apps/runner/pkg/docker/container_configs.go, which makes the daemon the
// first process of a sandbox, and apps/daemon/cmd/daemon/main.go, which runs the entry point.

// container is the container of a sandbox.
type container struct {
	*dockerengine.Container
	session *session // of the entry point; nil: none
}

// session is a process that the daemon runs.
type session struct {
	command string // quoted for a shell

	mu   sync.Mutex
	log  bytes.Buffer
	exit *int // nil while it runs
}

func (p *session) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(data)
}

// startContainer starts a container that runs an entry point without CMD. The container continues after the entry point
// has ended. The daemon of the stand-in is a shell.
func (s *Server) startContainer(image string, entrypoint []string) (*container, error) {
	created, err := s.engine.Create(s.ctx, dockerengine.ContainerSpec{
		Image: image, Entrypoint: []string{"/bin/sh", "-c", "while read -r _; do :; done"}, Stdin: true,
	})
	if err != nil {
		return nil, err
	}
	box := &container{Container: created}
	if err := box.Start(s.ctx); err != nil {
		s.removeContainer(box)
		return nil, err
	}
	if len(entrypoint) > 0 {
		words := []string{}
		for _, word := range entrypoint {
			words = append(words, "'"+strings.ReplaceAll(word, "'", `'"'"'`)+"'")
		}
		box.session = &session{command: strings.Join(words, " ")}
		s.running.Go(func() { s.runSession(box) })
	}
	return box, nil
}

func (s *Server) runSession(box *container) {
	exit, err := box.Exec(s.ctx, dockerengine.ExecSpec{
		Cmd:     []string{"/bin/sh", "-c", box.session.command},
		Streams: dockerengine.Streams{Out: box.session, Err: box.session},
	})
	box.session.mu.Lock()
	defer box.session.mu.Unlock()
	if err == nil {
		box.session.exit = &exit
	}
}

// removeContainer removes a container, also when the server is closing.
func (s *Server) removeContainer(box *container) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 20*time.Second)
	defer cancel()
	_ = box.Remove(ctx) // the engine's owner labels let a later process remove it
}

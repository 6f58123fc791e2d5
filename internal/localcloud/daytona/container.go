package daytona

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"

	"github.com/org/sandbox-actions/pkg/dockerengine"
)

// This file follows daytonaio/daytona v0.190.0, apps/runner/pkg/docker/container_configs.go, which makes the daemon the
// first process of a sandbox, and apps/daemon/cmd/daemon/main.go, which runs the entry point. Unlike those of the
// service, the containers are not privileged.

// container is the container of a sandbox.
type container struct {
	*dockerengine.Container
	inHome  bool     // commands start in the user's home directory, because the image has no WORKDIR
	session *session // of the entry point; nil: none
}

// session is a process that the daemon runs.
type session struct {
	command string // quoted for a shell

	mu   sync.Mutex
	log  bytes.Buffer
	exit *int // nil while it runs
}

// marks precede each line of a log (libs/common-go/pkg/log/read_multiplex_log.go).
const (
	stdoutMark = "\x01\x01\x01"
	stderrMark = "\x02\x02\x02"
)

// lineWriter writes complete lines of a stream to the log of a session, as cmdWrapperFormat of
// apps/daemon/pkg/session/execute.go does.
type lineWriter struct {
	session *session
	mark    string
	partial []byte
}

func (w *lineWriter) Write(data []byte) (int, error) {
	w.partial = append(w.partial, data...)
	for {
		line, rest, found := bytes.Cut(w.partial, []byte("\n"))
		if !found {
			return len(data), nil
		}
		w.partial = rest
		w.session.append(w.mark, line)
	}
}

// flush writes an incomplete last line.
func (w *lineWriter) flush() {
	if len(w.partial) > 0 {
		w.session.append(w.mark, w.partial)
	}
}

func (p *session) append(mark string, line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.WriteString(mark)
	p.log.Write(line)
	p.log.WriteByte('\n')
}

// findShell sets the variable shell as apps/daemon/pkg/common/get_shell.go does.
const findShell = `
list=$(grep '^[^#]' /etc/shells 2>/dev/null) || list=
case $list in
"") shell=sh ;;
*/usr/bin/zsh*) shell=/usr/bin/zsh ;;
*/bin/zsh*) shell=/bin/zsh ;;
*/usr/bin/bash*) shell=/usr/bin/bash ;;
*/bin/bash*) shell=/bin/bash ;;
*) shell=${SHELL-sh} ;;
esac
`

// startContainer starts a container that runs an entry point without CMD. The container continues after the entry point
// has ended. The daemon of the stand-in is a shell. Like the real one, it needs a home directory that the image's user
// can write.
func (s *Server) startContainer(image string, config v1.Config, env, entrypoint []string) (*container, error) {
	created, err := s.engine.Create(s.ctx, dockerengine.ContainerSpec{
		Image: image, Entrypoint: []string{"/bin/sh", "-c", "while read -r _; do :; done"}, Stdin: true, Network: "bridge",
		Env: env,
	})
	if err != nil {
		return nil, err
	}
	box := &container{Container: created, inHome: config.WorkingDir == ""}
	err = box.Start(s.ctx)
	if err == nil {
		var exit int
		exit, err = box.Exec(s.ctx, dockerengine.ExecSpec{Cmd: []string{"/bin/sh", "-c", `mkdir -p "$HOME/.daytona"`}})
		if exit != 0 {
			err = errNoDaemon
		}
	}
	if err != nil {
		s.removeContainer(box)
		return nil, err
	}
	if len(entrypoint) > 0 {
		words := []string{}
		for _, word := range entrypoint {
			words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
		box.session = &session{command: strings.Join(words, " ")}
		s.running.Go(func() { s.runSession(box) })
	}
	return box, nil
}

// runSession runs the entry point with a standard input that stays open.
func (s *Server) runSession(box *container) {
	input, keepOpen := io.Pipe()
	defer keepOpen.Close()
	out, errs := &lineWriter{session: box.session, mark: stdoutMark}, &lineWriter{session: box.session, mark: stderrMark}
	exit, err := box.Exec(s.ctx, dockerengine.ExecSpec{
		Cmd:     []string{"/bin/sh", "-c", box.enter("") + `exec "$shell" -c "$1"`, "sh", box.session.command},
		Streams: dockerengine.Streams{In: input, Out: out, Err: errs},
	})
	out.flush()
	errs.flush()
	box.session.mu.Lock()
	defer box.session.mu.Unlock()
	if err == nil {
		box.session.exit = &exit
	}
}

// enter returns the beginning of a script: it finds the shell, and changes to the directory in which the daemon runs,
// unless the script has another one.
func (box *container) enter(dir string) string {
	if box.inHome && dir == "" {
		return findShell + "cd ~\n"
	}
	return findShell
}

// run runs a command in the shell of a container and returns both outputs together. The process of a command that
// exceeds ctx runs until the container is removed. A failure to start it has the exit code -1.
func (box *container) run(ctx context.Context, command, dir string, env []string) (exit int, output string, err error) {
	var out bytes.Buffer
	exit, err = box.Exec(ctx, dockerengine.ExecSpec{
		Cmd: []string{"/bin/sh", "-c", box.enter(dir) + `exec "$shell" 2>&1`}, Env: env, WorkDir: dir,
		Streams: dockerengine.Streams{In: strings.NewReader(command), Out: &out, Err: &out},
	})
	if errors.As(err, new(*dockerengine.StartError)) {
		return -1, "chdir " + dir + ": no such file or directory", nil
	}
	return exit, out.String(), err
}

// address returns the address of a port in the network of the runner.
func (s *Server) address(ctx context.Context, box *container, port uint16) (netip.AddrPort, error) {
	docker, err := client.New(client.WithHost(s.options.Engine))
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer docker.Close()
	inspected, err := docker.ContainerInspect(ctx, box.ID, client.ContainerInspectOptions{})
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, endpoint := range inspected.Container.NetworkSettings.Networks {
		return netip.AddrPortFrom(endpoint.IPAddress, port), nil
	}
	return netip.AddrPort{}, errors.New("the container has no network")
}

// removeContainer removes a container, also when the server is closing.
func (s *Server) removeContainer(box *container) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), 20*time.Second)
	defer cancel()
	_ = box.Remove(ctx) // the engine's owner labels let a later process remove it
}

//go:build linux

package soak

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"golang.org/x/sys/unix"
)

// usage is what the daemons and this process hold between runs. This process contains the stand-ins and the proxies.
type usage struct {
	images, containers string // of the engine, one per line
	engineFiles        int    // files and sockets that the engine has open
	heldRecords        int    // records of the builder's cache that a build or a lease holds
	files              int    // files and sockets that this process has open
	goroutines         int    // of this process
}

// checkUsage fails the test unless the usage returns to that of before, apart from a few idle connections, within a
// minute.
func (l *lab) checkUsage(t *testing.T, before usage) {
	t.Helper()
	const (
		idle  = 20
		ended = 2 * workers // goroutines of stopped registries (distribution v3.1.2, registry/handlers/app.go, NewApp)
	)
	deadline := time.Now().Add(time.Minute)
	for {
		now := l.usage(t)
		if now.images == before.images && now.containers == before.containers && now.heldRecords <= before.heldRecords &&
			now.engineFiles <= before.engineFiles+idle && now.files <= before.files+idle &&
			now.goroutines <= before.goroutines+idle+ended {
			return
		}
		if time.Now().After(deadline) {
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Errorf("before:\n%+v\nafter:\n%+v\n%s", before, now, &stacks)
			return
		}
		time.Sleep(time.Second)
	}
}

func (l *lab) usage(t *testing.T) (u usage) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	var err error
	u.images, err = l.docker(t.Context(), "image", "ls", "--all", "--digests", "--format",
		"{{.Repository}}:{{.Tag}} {{.Digest}}")
	if err != nil {
		t.Fatal(err)
	}
	u.containers, err = l.docker(t.Context(), "container", "ls", "--all", "--format", "{{.Names}} {{.Image}}")
	if err != nil {
		t.Fatal(err)
	}
	daemon, err := listener(strings.TrimPrefix(l.Engine.Host, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	for process, count := range map[int]*int{daemon: &u.engineFiles, os.Getpid(): &u.files} {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", process))
		if err != nil {
			t.Fatal(err)
		}
		*count = len(open)
	}
	u.goroutines = runtime.NumGoroutine()
	if !*full { // other packages use the builder
		return u
	}
	if u.heldRecords, err = heldRecords(t.Context(), l.Builders.Address("linux/amd64")); err != nil {
		t.Fatal(err)
	}
	return u
}

// processes returns the names of the running processes of a session.
func processes(session int) (names []string) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		stat, _ := os.ReadFile("/proc/" + entry.Name() + "/stat") // PID (NAME) STATE PARENT GROUP SESSION …
		end := bytes.LastIndexByte(stat, ')')
		if end < 0 {
			continue
		}
		fields := strings.Fields(string(stat[end+1:]))
		if len(fields) > 3 && fields[0] != "Z" && fields[3] == strconv.Itoa(session) {
			names = append(names, string(stat[:end+1]))
		}
	}
	return names
}

// listener returns the process ID of the daemon that listens on a Unix socket.
func listener(socket string) (pid int, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if controlErr != nil {
		return 0, controlErr
	}
	if err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// heldRecords counts the records of a builder's cache that are in use.
func heldRecords(ctx context.Context, address string) (n int, err error) {
	c, err := client.New(ctx, address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	records, err := c.DiskUsage(ctx)
	for _, record := range records {
		if record.InUse {
			n++
		}
	}
	return n, err
}

//go:build linux

package soak

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/org/sandbox-actions/internal/faultproxy"
	"github.com/org/sandbox-actions/internal/localcloud/testdaemons"
)

var fullDisk = class{"Full disks", `A disk has no space left: that of the runner's temporary directory, of the Docker
Engine or of the builder. A run must succeed, or fail with one error that says what to free.`, "disk"}

// noSpace is the error of the kernel, as services report it.
const noSpace = "write /var/lib/data/x: no space left on device"

// Disks are full.
func TestFullDisk(t *testing.T) {
	type fullRun struct {
		disk   string
		flow   flow
		fill   func(l *lab)
		remedy string // of the error
	}
	l := newLab(t)
	var cases []fullRun
	for _, f := range []flow{push, load, snapshot, testFlow} {
		for _, size := range []string{"4k", "16k", "64k", "256k", "1m"} {
			cases = append(cases, fullRun{"RUNNER_TEMP with " + size, f, func(l *lab) {
				l.temp = testdaemons.SmallDisk(t, size)
			}, "free disk space"})
		}
		cases = append(cases,
			fullRun{"GITHUB_OUTPUT", f, func(l *lab) {
				l.env = map[string]string{"GITHUB_OUTPUT": "/dev/full"}
			}, "GITHUB_OUTPUT.*free disk space"})
	}
	message := fmt.Sprintf(`{"message":%q}`, noSpace)
	for _, f := range []flow{load, testFlow} {
		for _, path := range []string{"/images/load", "/images/create", "/containers/create"} {
			fault := faultproxy.Respond("full", 500, message, "Content-Type", "application/json")
			if path == "/images/load" || path == "/images/create" {
				fault = faultproxy.Respond("full", 200, fmt.Sprintf(`{"errorDetail":%s,"error":%q}`, message, noSpace),
					"Content-Type", "application/json")
			}
			cases = append(cases, fullRun{"Docker Engine, POST " + path, f, func(l *lab) {
				l.proxies[docker].Fail(faultproxy.Rule{Method: "POST", Path: path, Fault: fault})
			}, "free disk space"})
		}
	}
	inSomeLabs(t, l, func(yield func(func(*lab)) bool) {
		for n, c := range cases {
			if isSelected(n, 8) && !yield(func(l *lab) { l.tryFullDisk(t, c.disk, c.flow, c.fill, c.remedy) }) {
				return
			}
		}
	})
	// All labs share the builders.
	for _, f := range []flow{push, load, snapshot} {
		l.tryFullDisk(t, "builder", f, func(l *lab) { l.Builders.FailSolves("linux/amd64", noSpace) }, "free disk space")
	}
}

func (l *lab) tryFullDisk(t *testing.T, disk string, f flow, fill func(*lab), remedy string) {
	temp := l.temp
	fill(l)
	run := l.try(t.Context(), f.withLongTimeout(), nil)
	l.temp, l.env = temp, nil
	l.proxies[docker].Clear()
	run.name = fmt.Sprintf("%s: %s full", f.name, disk)
	message := run.message
	if f.name == testFlow.name { // which names the causes with each test
		message += run.Stdout
	}
	if run.ExitCode != 0 && !regexp.MustCompile(remedy).MatchString(message) {
		run.fail("the error does not say what to free")
	}
	l.record(t, f, run, row{fullDisk, disk})
}

package dockerengine

import (
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

func TestContainerSpecOptions(t *testing.T) {
	options, err := ContainerSpec{Image: "app:1"}.options()
	if err != nil {
		t.Fatal(err)
	}
	host := options.HostConfig
	if host.NetworkMode != network.NetworkNone || host.Privileged || host.PidsLimit != nil || host.SecurityOpt != nil ||
		host.Mounts != nil || options.Config.OpenStdin || options.Config.Healthcheck != nil {
		t.Errorf("the zero spec has options %+v, %+v", options.Config, host)
	}
	if host.LogConfig.Type != "json-file" || host.LogConfig.Config["max-file"] != "2" {
		t.Errorf("log %+v", host.LogConfig)
	}

	spec := ContainerSpec{
		Image: "app:1", Network: "", Publish: []int{80, 65535}, Mounts: []Mount{{"/from", "/to"}},
		Memory: 1 << 20, CPUs: 1.5, Pids: 7, NoNewPrivileges: true, ReadOnly: true, Privileged: true, Stdin: true,
		HealthInterval: time.Second, Size: Size{Width: 80, Height: 24}, Labels: map[string]string{"a": "b"},
		CapDrop: []string{"ALL"}, Tmpfs: map[string]string{"/tmp": "size=1m"}, TTY: true,
	}
	if options, err = spec.options(); err != nil {
		t.Fatal(err)
	}
	config, host := options.Config, options.HostConfig
	if host.NetworkMode != network.NetworkBridge || len(host.PortBindings) != 2 || len(config.ExposedPorts) != 2 {
		t.Errorf("network %s, ports %v", host.NetworkMode, host.PortBindings)
	}
	for port, bindings := range host.PortBindings {
		if len(bindings) != 1 || bindings[0].HostIP.String() != "127.0.0.1" || bindings[0].HostPort != "" {
			t.Errorf("port %s is bound to %v", port, bindings)
		}
	}
	want := []mount.Mount{{Type: mount.TypeBind, Source: "/from", Target: "/to", ReadOnly: true}}
	if !reflect.DeepEqual(host.Mounts, want) {
		t.Errorf("mounts %+v, want %+v", host.Mounts, want)
	}
	resources := container.Resources{
		Memory: 1 << 20, MemorySwap: 1 << 20, NanoCPUs: 1_500_000_000, PidsLimit: &spec.Pids,
	}
	if !reflect.DeepEqual(host.Resources, resources) {
		t.Errorf("resources %+v, want %+v", host.Resources, resources)
	}
	if !host.Privileged || !host.ReadonlyRootfs || host.ConsoleSize != [2]uint{24, 80} ||
		!reflect.DeepEqual(host.SecurityOpt, []string{"no-new-privileges"}) || host.Tmpfs["/tmp"] != "size=1m" ||
		len(host.CapDrop) != 1 {
		t.Errorf("host config %+v", host)
	}
	if !config.OpenStdin || !config.StdinOnce || !config.AttachStdin || !config.Tty || config.Labels["a"] != "b" ||
		config.Healthcheck.Interval != time.Second {
		t.Errorf("config %+v", config)
	}

	if options, err = (ContainerSpec{Network: "host", Publish: []int{80}}).options(); err != nil ||
		options.HostConfig.NetworkMode != "host" {
		t.Errorf("network %s, want host (%v)", options.HostConfig.NetworkMode, err)
	}
	for _, port := range []int{-1, 0, 65536, 65536 + 80} {
		if _, err := (ContainerSpec{Publish: []int{port}}).options(); err == nil {
			t.Errorf("port %d was accepted", port)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{
		0: 0, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, time.Minute: 60,
	} {
		if got := *seconds(d); got != want {
			t.Errorf("%s: %d, want %d", d, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for text, want := range map[string]time.Time{
		at.Format(time.RFC3339Nano): at, "0001-01-01T00:00:00Z": {}, "": {}, "yesterday": {},
	} {
		if got := parseTime(text); !got.Equal(want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

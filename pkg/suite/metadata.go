package suite

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// check compares an image's metadata with c. It calls size only if c limits the size.
func (c *ImageCheck) check(config *v1.ConfigFile, size func() (int64, error)) []Failure {
	m := &metadataResult{check: c}
	set := config.Config
	m.compareMap("environment variable", c.Env, environMap(set.Env))
	m.compareMap("label", c.Labels, set.Labels)
	m.compareList("entry point", c.Entrypoint, set.Entrypoint)
	m.compareList("default command", c.Cmd, set.Cmd)
	m.compare("user", c.User, set.User)
	m.compare("working directory", c.Workdir, set.WorkingDir)
	m.compare("stop signal", c.StopSignal, set.StopSignal)
	m.comparePorts(set.ExposedPorts)
	m.compareVolumes(set.Volumes)
	m.compareHealthcheck(set.Healthcheck)
	m.comparePlatform(config)
	if layers := len(config.RootFS.DiffIDs); c.MaxLayers > 0 && layers > c.MaxLayers {
		m.addf(c.Line, "image has %d layers, want at most %d", layers, c.MaxLayers)
	}
	if c.MaxSize > 0 {
		if n, err := size(); isUnsupported(err) {
			if len(m.failures) == 0 {
				m.failures = executionFailure(context.Background(), c.Line, err)
			}
		} else if err != nil {
			m.addf(c.Line, "cannot determine the size of the image: %v", err)
		} else if n > int64(c.MaxSize) {
			m.addf(c.Line, "layers of the image have %d bytes, want at most %d", n, c.MaxSize)
		}
	}
	return m.failures
}

// environMap returns NAME=VALUE pairs by name.
func environMap(pairs []string) map[string]string {
	env := map[string]string{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	return env
}

// metadataResult collects the failures of a metadata check.
type metadataResult struct {
	check    *ImageCheck
	failures []Failure
}

func (m *metadataResult) addf(line int, format string, args ...any) {
	m.failures = append(m.failures, Failure{Line: line, Message: fmt.Sprintf(format, args...)})
}

// compare checks a value of the config, where "" means unset.
func (m *metadataResult) compare(name string, want *ValueCheck, have string) {
	if want == nil {
		return
	}
	if difference := want.compare(have, have != ""); difference != "" {
		m.addf(want.Line, "%s %s", name, difference)
	}
}

func (m *metadataResult) compareMap(name string, want map[string]ValueCheck, have map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		check := want[key]
		value, present := have[key]
		if difference := check.compare(value, present); difference != "" {
			m.addf(check.Line, "%s %s %s", name, key, difference)
		}
	}
}

func (m *metadataResult) compareList(name string, want *[]string, have []string) {
	if want != nil && !slices.Equal(*want, have) {
		m.addf(m.check.Line, "%s is %q, want %q", name, have, *want)
	}
}

func (m *metadataResult) comparePorts(have map[string]struct{}) {
	exposed, anyProtocol := map[string]bool{}, map[string]bool{}
	for port := range have {
		number, _, _ := strings.Cut(port, "/")
		exposed[withProtocol(port)], anyProtocol[number+"/any"] = true, true
	}
	for _, want := range m.check.Ports {
		if port := withProtocol(string(want)); !exposed[port] && !anyProtocol[port] {
			m.addf(m.check.Line, "port %s is not exposed; exposed ports: %q", port, slices.Sorted(maps.Keys(exposed)))
		}
	}
	for _, unwanted := range m.check.PortsAbsent {
		if port := withProtocol(string(unwanted)); exposed[port] || anyProtocol[port] {
			m.addf(m.check.Line, "port %s must not be exposed", port)
		}
	}
}

func (m *metadataResult) compareVolumes(have map[string]struct{}) {
	declared := map[string]bool{}
	for volume := range have {
		declared[path.Clean(volume)] = true // a Dockerfile may contain /data/
	}
	for _, volume := range m.check.Volumes {
		if !declared[path.Clean(volume)] {
			m.addf(m.check.Line, "volume %s is not declared; declared volumes: %q", volume, slices.Sorted(maps.Keys(have)))
		}
	}
	for _, volume := range m.check.VolumesAbsent {
		if declared[path.Clean(volume)] {
			m.addf(m.check.Line, "volume %s must not be declared", volume)
		}
	}
}

func (m *metadataResult) compareHealthcheck(have *v1.HealthConfig) {
	want := m.check.Healthcheck
	if want == nil {
		return
	}
	var test []string
	if have != nil && !slices.Equal(have.Test, []string{"NONE"}) {
		test = have.Test
	}
	switch present := len(test) > 0; {
	case want.present && !present:
		m.addf(want.Line, "HEALTHCHECK is missing")
	case !want.present && present:
		m.addf(want.Line, "HEALTHCHECK must not be set")
	case want.test != nil && !slices.Equal(want.test, test):
		m.addf(want.Line, "HEALTHCHECK is %q, want %q", test, want.test)
	}
}

// comparePlatform compares the platform. It compares the variant only if the check has one.
func (m *metadataResult) comparePlatform(config *v1.ConfigFile) {
	want := m.check.Platform
	if want == "" {
		return
	}
	have := config.OS + "/" + config.Architecture
	if config.Variant != "" && strings.Count(want, "/") == 2 {
		have += "/" + config.Variant
	}
	if have != want {
		m.addf(m.check.Line, "platform is %s, want %s", strconv.Quote(have), want)
	}
}

func withProtocol(port string) string {
	if strings.Contains(port, "/") {
		return port
	}
	return port + "/tcp"
}

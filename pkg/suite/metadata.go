package suite

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// check holds an image's config against c. Size is asked for only when c bounds it.
func (c *imageCheck) check(config *v1.ConfigFile, layers int, size func() (int64, error)) (failures []Failure) {
	fail := func(line int, format string, args ...any) {
		failures = append(failures, Failure{Line: line, Message: fmt.Sprintf(format, args...)})
	}
	same := func(v *value, name, have string) {
		if v == nil {
			return
		}
		if wrong := v.compare(have, have != ""); wrong != "" {
			fail(v.Line, "%s %s", name, wrong)
		}
	}
	each := func(name string, want map[string]value, have map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(want)) {
			v := want[key]
			seen, there := have[key]
			if wrong := v.compare(seen, there); wrong != "" {
				fail(v.Line, "%s %s %s", name, key, wrong)
			}
		}
	}
	whole := func(name string, want *[]string, have []string) {
		if want != nil && !slices.Equal(*want, have) {
			fail(c.Line, "%s is %q, want %q", name, have, *want)
		}
	}
	set := config.Config

	env := map[string]string{}
	for _, pair := range set.Env {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	each("environment variable", c.Env, env)
	each("label", c.Labels, set.Labels)
	whole("the entry point", c.Entrypoint, set.Entrypoint)
	whole("the default command", c.Cmd, set.Cmd)
	same(c.User, "the user", set.User)
	same(c.Workdir, "the working folder", set.WorkingDir)
	same(c.StopSignal, "the stop signal", set.StopSignal)

	ports := map[string]bool{}
	for port := range set.ExposedPorts {
		ports[withProtocol(port)] = true
	}
	for _, port := range c.Ports {
		if !ports[withProtocol(string(port))] {
			fail(c.Line, "port %s is not exposed; exposed are %q", withProtocol(string(port)), slices.Sorted(maps.Keys(ports)))
		}
	}
	for _, port := range c.PortsAbsent {
		if ports[withProtocol(string(port))] {
			fail(c.Line, "port %s is exposed, and must not be", withProtocol(string(port)))
		}
	}
	for _, volume := range c.Volumes {
		if _, ok := set.Volumes[volume]; !ok {
			fail(c.Line, "there is no volume %s; there are %q", volume, slices.Sorted(maps.Keys(set.Volumes)))
		}
	}
	for _, volume := range c.VolumesAbsent {
		if _, ok := set.Volumes[volume]; ok {
			fail(c.Line, "%s is a volume, and must not be", volume)
		}
	}
	if h := c.Healthcheck; h != nil {
		var test []string
		if set.Healthcheck != nil && !slices.Equal(set.Healthcheck.Test, []string{"NONE"}) {
			test = set.Healthcheck.Test
		}
		switch {
		case h.present != (len(test) > 0):
			fail(h.Line, "a HEALTHCHECK is there: %v, want %v", len(test) > 0, h.present)
		case h.test != nil && !slices.Equal(h.test, test):
			fail(h.Line, "the HEALTHCHECK is %q, want %q", test, h.test)
		}
	}
	if platform := config.OS + "/" + config.Architecture; c.Platform != "" {
		if config.Variant != "" && strings.Count(c.Platform, "/") == 2 {
			platform += "/" + config.Variant
		}
		if platform != c.Platform {
			fail(c.Line, "the platform is %s, want %s", strconv.Quote(platform), c.Platform)
		}
	}
	if c.MaxLayers > 0 && layers > c.MaxLayers {
		fail(c.Line, "the image has %d layers, more than %d", layers, c.MaxLayers)
	}
	if c.MaxSize > 0 {
		if n, err := size(); err != nil {
			fail(c.Line, "the image's size can not be told: %v", err)
		} else if n > int64(c.MaxSize) {
			fail(c.Line, "the image's layers have %d bytes, more than %d", n, c.MaxSize)
		}
	}
	return failures
}

func withProtocol(port string) string {
	if strings.Contains(port, "/") {
		return port
	}
	return port + "/tcp"
}

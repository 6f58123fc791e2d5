package suite

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
)

// imageChecks returns the metadata test as one check, or as several if it has several conditions for one variable or
// label.
func (c *converter) imageChecks(m *metadataTest) (checks []*ImageCheck) {
	here := location{"metadataTest"}
	position := Position{c.line(here)}
	first := ImageCheck{
		Position: position, Entrypoint: m.Entrypoint, Cmd: m.Cmd, User: equalsIfSet(m.User), Workdir: equalsIfSet(m.Workdir),
		Volumes: append([]string(nil), m.Volumes...), VolumesAbsent: append([]string(nil), m.UnmountedVolumes...),
	}
	if slices.Contains(m.Volumes, "") {
		c.addf(c.line(here.child("volumes")), "volume is empty")
	}
	c.ports(m, &first)
	checks = []*ImageCheck{&first}
	add := func(l location, key string, check ValueCheck, valuesOf func(*ImageCheck) *map[string]ValueCheck) {
		if key == "" {
			if !check.absent {
				c.addf(c.line(l), "%s has no key", l)
			}
			return
		}
		at := slices.IndexFunc(checks, func(c *ImageCheck) bool {
			_, set := (*valuesOf(c))[key]
			return !set
		})
		if at < 0 {
			at, checks = len(checks), append(checks, &ImageCheck{Position: position})
		}
		values := valuesOf(checks[at])
		if *values == nil {
			*values = map[string]ValueCheck{}
		}
		(*values)[key] = check
	}
	env := func(check *ImageCheck) *map[string]ValueCheck { return &check.Env }
	labels := func(check *ImageCheck) *map[string]ValueCheck { return &check.Labels }
	for i, pair := range m.EnvVars {
		l := here.child("envVars", strconv.Itoa(i))
		add(l, pair.Key, c.valueCheck(l, pair), env)
	}
	for _, pair := range m.UnboundEnvVars {
		add(nil, pair.Key, ValueCheck{absent: true}, env)
	}
	for i, pair := range m.Labels {
		l := here.child("labels", strconv.Itoa(i))
		add(l, pair.Key, c.valueCheck(l, pair), labels)
	}
	if reflect.DeepEqual(first, ImageCheck{Position: position}) {
		return nil
	}
	return checks
}

var portNumber = regexp.MustCompile(`^[0-9]{1,5}$`)

// ports converts ports. container-structure-test compares their numbers only, so others never match.
func (c *converter) ports(m *metadataTest, check *ImageCheck) {
	for i, port := range m.ExposedPorts {
		if portNumber.MatchString(port) {
			check.Ports = append(check.Ports, Port(port+"/any"))
		} else {
			line := c.line(location{"metadataTest", "exposedPorts", strconv.Itoa(i)})
			c.addf(line, "port %q never matches; write the number, for example 8080", port)
		}
	}
	for i, port := range m.UnexposedPorts {
		if portNumber.MatchString(port) {
			check.PortsAbsent = append(check.PortsAbsent, Port(port+"/any"))
		} else {
			line := c.line(location{"metadataTest", "unexposedPorts", strconv.Itoa(i)})
			c.warnf(line, "unexposed port %q is left out, because it never matches in container-structure-test; write the "+
				"number, for example 8080", port)
		}
	}
}

func equalsIfSet(value string) *ValueCheck {
	if value == "" {
		return nil
	}
	return &ValueCheck{equals: value}
}

func (c *converter) valueCheck(l location, pair envVar) ValueCheck {
	if !pair.IsRegex {
		return ValueCheck{equals: pair.Value}
	}
	return ValueCheck{matches: c.pattern(l, pair.Value).Regexp}
}

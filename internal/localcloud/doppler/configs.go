package doppler

import (
	"cmp"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// created is the creation time of all objects.
const created = "2024-01-01T00:00:00.000Z"

type project struct {
	name    string // the slug
	title   string
	configs []*config
}

type config struct {
	project    *project
	name       string
	secrets    map[string]string // raw values, without inherited ones
	visibility map[string]Visibility
	fetched    bool // a client has read the secrets
}

func newProject(p Project) *project {
	created := &project{name: p.Name, title: cmp.Or(p.Title, p.Name)}
	for _, c := range p.Configs {
		config := &config{
			project: created, name: c.Name, secrets: map[string]string{}, visibility: map[string]Visibility{},
		}
		maps.Copy(config.secrets, c.Secrets)
		maps.Copy(config.visibility, c.Visibility)
		created.configs = append(created.configs, config)
	}
	return created
}

// environment returns the first part of the config's name.
func (c *config) environment() string {
	name, _, _ := strings.Cut(c.name, "_")
	return name
}

func (p *project) config(name string) *config {
	for _, c := range p.configs {
		if c.name == name {
			return c
		}
	}
	return nil
}

// raw returns the raw values of the config's secrets, including inherited and managed ones.
func (c *config) raw() map[string]string {
	all := map[string]string{}
	if root := c.project.config(c.environment()); root != nil {
		maps.Copy(all, root.secrets)
	}
	maps.Copy(all, c.secrets)
	maps.Copy(all, c.managed())
	return all
}

func (c *config) managed() map[string]string {
	return map[string]string{
		"DOPPLER_PROJECT": c.project.name, "DOPPLER_ENVIRONMENT": c.environment(), "DOPPLER_CONFIG": c.name,
	}
}

var reference = regexp.MustCompile(`\$\{([A-Za-z0-9_.-]+)\}`)

// compute resolves the references in a raw value: ${NAME}, ${config.NAME}, ${project.config.NAME}. It leaves
// unresolvable and circular references unchanged.
func (s *Server) compute(c *config, raw string, through ...string) string {
	return reference.ReplaceAllStringFunc(raw, func(text string) string {
		target, name, value := s.referenced(c, text)
		if target == nil || slices.Contains(through, target.path(name)) {
			return text
		}
		return s.compute(target, value, append(slices.Clone(through), target.path(name))...)
	})
}

// referenced returns the secret that a reference names, or nil if it does not exist.
func (s *Server) referenced(c *config, reference string) (target *config, name, raw string) {
	parts := strings.Split(reference[2:len(reference)-1], ".")
	name = parts[len(parts)-1]
	switch len(parts) {
	case 1:
		target = c
	case 2:
		target = c.project.config(parts[0])
	case 3:
		if p := s.project(parts[0]); p != nil {
			target = p.config(parts[1])
		}
	}
	if target == nil {
		return nil, "", ""
	}
	raw, ok := target.raw()[name]
	if !ok {
		return nil, "", ""
	}
	return target, name, raw
}

func (c *config) path(name string) string { return c.project.name + "." + c.name + "." + name }

// visibilityOf returns the visibility of a secret: its own, or that of the root config from which it is inherited.
func (c *config) visibilityOf(name string) Visibility {
	for _, from := range []*config{c, c.project.config(c.environment())} {
		if from != nil && from.visibility[name] != "" {
			return from.visibility[name]
		}
	}
	return Masked
}

// computedVisibility returns the strictest visibility of a secret and those that it refers to. Doppler does not
// document this rule; it is an assumption.
func (s *Server) computedVisibility(c *config, name string, through ...string) Visibility {
	strictest := c.visibilityOf(name)
	through = append(slices.Clone(through), c.path(name))
	for _, text := range reference.FindAllString(c.raw()[name], -1) {
		target, other, _ := s.referenced(c, text)
		if target == nil || slices.Contains(through, target.path(other)) {
			continue
		}
		v := s.computedVisibility(target, other, through...)
		if slices.Index(strictness, v) > slices.Index(strictness, strictest) {
			strictest = v
		}
	}
	return strictest
}

func (s *Server) project(name string) *project {
	for _, p := range s.projects {
		if p.name == name {
			return p
		}
	}
	return nil
}

// lookUp returns the config of a request. For a service token, any other project or config is a permission error,
// whether it exists or not. For other tokens, it is not found if they cannot read it.
func (s *Server) lookUp(t Token, projectName, configName string) (*config, error) {
	if t.Kind() == Service {
		own := t.Access[0]
		switch {
		case projectName != "" && projectName != own.Project:
			return nil, errorf(http.StatusBadRequest, "This token does not have access to requested project '%s'", projectName)
		case configName != "" && configName != own.Config:
			return nil, errorf(http.StatusBadRequest, "This token does not have access to requested config '%s'", configName)
		}
		projectName, configName = own.Project, own.Config
	}
	p, err := s.lookUpProject(t, projectName)
	if err != nil {
		return nil, err
	}
	if configName == "" {
		return nil, errorf(http.StatusBadRequest, "You must specify a config")
	}
	c := p.config(configName)
	if c == nil || !t.canAccess(p.name, configName, false) {
		return nil, errorf(http.StatusNotFound, "Could not find requested config '%s'", configName)
	}
	return c, nil
}

func (s *Server) lookUpProject(t Token, name string) (*project, error) {
	if name == "" && t.Kind() == Service {
		name = t.Access[0].Project
	}
	if name == "" {
		return nil, errorf(http.StatusBadRequest, "You must specify a project")
	}
	p := s.project(name)
	if p == nil || !t.canAccess(name, "", false) {
		if t.Kind() == Service {
			return nil, errorf(http.StatusBadRequest, "This token does not have access to requested project '%s'", name)
		}
		return nil, errorf(http.StatusNotFound, "Could not find requested project '%s'", name)
	}
	return p, nil
}

// handleConfigs serves projects, environments and configs.
func (s *Server) handleConfigs(mux *http.ServeMux) {
	s.locked(mux, "GET /v3/projects", func(r *http.Request, t Token) (map[string]any, error) {
		var list []map[string]any
		for _, p := range s.projects {
			if t.canAccess(p.name, "", false) {
				list = append(list, p.info())
			}
		}
		return paged(r, "projects", list)
	})
	s.locked(mux, "GET /v3/projects/project", func(r *http.Request, t Token) (map[string]any, error) {
		p, err := s.lookUpProject(t, r.FormValue("project"))
		if err != nil {
			return nil, err
		}
		return map[string]any{"project": p.info()}, nil
	})
	s.locked(mux, "GET /v3/environments", func(r *http.Request, t Token) (map[string]any, error) {
		p, err := s.lookUpProject(t, r.FormValue("project"))
		if err != nil {
			return nil, err
		}
		var list []map[string]any
		for _, c := range p.configs {
			if name := c.environment(); name == c.name {
				list = append(list, map[string]any{
					"id": name, "slug": name, "name": name, "project": p.name,
					"created_at": created, "initial_fetch_at": nil,
				})
			}
		}
		return paged(r, "environments", list)
	})
	s.locked(mux, "GET /v3/configs", func(r *http.Request, t Token) (map[string]any, error) {
		p, err := s.lookUpProject(t, r.FormValue("project"))
		if err != nil {
			return nil, err
		}
		var list []map[string]any
		for _, c := range p.configs {
			environment := r.FormValue("environment")
			if t.canAccess(p.name, c.name, false) && (environment == "" || environment == c.environment()) {
				list = append(list, c.info())
			}
		}
		return paged(r, "configs", list)
	})
	s.locked(mux, "GET /v3/configs/config", func(r *http.Request, t Token) (map[string]any, error) {
		c, err := s.lookUp(t, r.FormValue("project"), r.FormValue("config"))
		if err != nil {
			return nil, err
		}
		return map[string]any{"config": c.info()}, nil
	})
}

// locked is like handle, but calls f with s.mu held.
func (s *Server) locked(
	mux *http.ServeMux, pattern string, f func(*http.Request, Token) (map[string]any, error),
) {
	s.handle(mux, pattern, func(r *http.Request, t Token) (map[string]any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f(r, t)
	})
}

func (p *project) info() map[string]any {
	return map[string]any{"id": p.name, "slug": p.name, "name": p.title, "description": "", "created_at": created}
}

func (c *config) info() map[string]any {
	var fetched any
	if c.fetched {
		fetched = created
	}
	return map[string]any{
		"name": c.name, "slug": c.name, "root": c.name == c.environment(), "locked": false, "environment": c.environment(),
		"project":    c.project.name,
		"created_at": created, "initial_fetch_at": fetched, "last_fetch_at": fetched, "inheritable": false,
		"inheriting": false, "inherits": []any{}, "inheritedBy": []any{},
	}
}

// paged returns the requested page of a list. The default page size is 20.
func paged(r *http.Request, name string, list []map[string]any) (map[string]any, error) {
	page, size := 1, 20
	for field, number := range map[string]*int{"page": &page, "per_page": &size} {
		text := r.FormValue(field)
		if text == "" || text == "0" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, errorf(http.StatusBadRequest, "Please provide a valid %s", field)
		}
		*number = n
	}
	size = min(size, 100)
	from := min((page-1)*size, len(list))
	part := list[from:min(from+size, len(list))]
	if part == nil {
		part = []map[string]any{}
	}
	return map[string]any{name: part, "page": page}, nil
}

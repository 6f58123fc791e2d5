package doppler

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Write is a recorded call that changed secrets.
type Write struct {
	Project, Config string
	Token           Kind
	Set             map[string]string // new raw values of changed secrets, by name
	Deleted         []string
}

// Writes returns the calls that changed secrets, in order. Calls without an effect are in Requests only.
func (s *Server) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Secret returns the raw value of a secret, or "" if it does not exist.
func (s *Server) Secret(project, config, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.project(project); p != nil && p.config(config) != nil {
		return p.config(config).raw()[name]
	}
	return ""
}

// SetSecret sets the raw value of a secret without recording a write. The config must exist.
func (s *Server) SetSecret(project, config, name, raw string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.project(project).config(config).secrets[name] = raw
}

// handleSecrets serves reads and writes of secrets.
func (s *Server) handleSecrets(mux *http.ServeMux) {
	const path = "/v3/configs/config/secrets"
	s.locked(mux, "GET "+path, func(r *http.Request, t Token) (map[string]any, error) {
		c, err := s.lookUp(t, r.FormValue("project"), r.FormValue("config"))
		if err != nil {
			return nil, err
		}
		return map[string]any{"secrets": s.show(c, t, r)}, nil
	})
	s.locked(mux, "GET "+path+"/names", func(r *http.Request, t Token) (map[string]any, error) {
		c, err := s.lookUp(t, r.FormValue("project"), r.FormValue("config"))
		if err != nil {
			return nil, err
		}
		return map[string]any{"names": slices.Sorted(maps.Keys(c.raw()))}, nil
	})
	s.locked(mux, "GET /v3/configs/config/secret", func(r *http.Request, t Token) (map[string]any, error) {
		c, err := s.lookUp(t, r.FormValue("project"), r.FormValue("config"))
		if err != nil {
			return nil, err
		}
		name := r.FormValue("name")
		if _, ok := c.raw()[name]; !ok {
			return nil, errorf(http.StatusNotFound, "Could not find requested secret '%s'", name)
		}
		return map[string]any{"name": name, "value": s.value(c, t, name)}, nil
	})
	s.locked(mux, "POST "+path, func(r *http.Request, t Token) (map[string]any, error) {
		var body change
		if json.NewDecoder(r.Body).Decode(&body) != nil {
			return nil, errorf(http.StatusBadRequest, "Please provide a valid JSON body")
		}
		for name, field := range map[string]*string{"project": &body.Project, "config": &body.Config} {
			if *field == "" {
				*field = r.FormValue(name)
			}
		}
		c, err := s.lookUp(t, body.Project, body.Config)
		if err != nil {
			return nil, err
		}
		if !t.canAccess(c.project.name, c.name, true) {
			return nil, errorf(http.StatusForbidden, "You do not have write access to this config's secrets.")
		}
		if err := s.write(c, t, body); err != nil {
			return nil, err
		}
		return map[string]any{"secrets": s.show(c, t, r)}, nil
	})
	s.locked(mux, "GET /v3/configs/config/logs", func(r *http.Request, t Token) (map[string]any, error) {
		c, err := s.lookUp(t, r.FormValue("project"), r.FormValue("config"))
		if err != nil {
			return nil, err
		}
		var list []map[string]any
		for i, w := range slices.Backward(s.writes) {
			if w.Project == c.project.name && w.Config == c.name {
				text := "Changed " + strings.Join(slices.Sorted(maps.Keys(w.Set)), ", ")
				list = append(list, map[string]any{
					"id": strconv.Itoa(i), "text": text, "html": text, "created_at": created, "config": c.name,
					"environment": c.environment(), "project": c.project.name,
					"user": map[string]string{"name": string(w.Token)},
				})
			}
		}
		return paged(r, "logs", list)
	})
	mux.HandleFunc("GET "+path+"/download", s.download)
}

// show returns the secrets that the request selects. Without a selection, it returns all secrets of the config.
func (s *Server) show(c *config, t Token, r *http.Request) map[string]any {
	secrets := map[string]any{}
	for name := range c.raw() {
		if wanted(r, name) && (r.FormValue("include_managed_secrets") != "false" || c.managed()[name] == "") {
			secrets[name] = s.value(c, t, name)
		}
	}
	c.fetched = true
	return secrets
}

func wanted(r *http.Request, name string) bool {
	list := r.FormValue("secrets")
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

// value returns a secret as the token can read it. Doppler sends null for a value that it withholds.
func (s *Server) value(c *config, t Token, name string) map[string]any {
	raw, own, computed := c.raw()[name], c.visibilityOf(name), s.computedVisibility(c, name)
	value := map[string]any{
		"raw": nil, "computed": nil, "note": "", "rawVisibility": own, "computedVisibility": computed,
		"rawValueType": map[string]string{"type": "string"}, "computedValueType": map[string]string{"type": "string"},
	}
	if t.canRead(own) {
		value["raw"] = raw
	}
	if t.canRead(computed) {
		value["computed"] = s.compute(c, raw)
	}
	return value
}

// change is the body of a write: either secrets by name, where null deletes one, or change requests, which can contain
// the expected current value.
type change struct {
	Project  string             `json:"project"`
	Config   string             `json:"config"`
	Secrets  map[string]*string `json:"secrets"`
	Requests []struct {
		Name          string      `json:"name"`
		OriginalName  *string     `json:"originalName"`
		Value         *string     `json:"value"` // null: unchanged
		OriginalValue *string     `json:"originalValue"`
		Visibility    *Visibility `json:"visibility"`
		ShouldDelete  bool        `json:"shouldDelete"`
	} `json:"change_requests"`
}

var secretName = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// write applies a change atomically. Doppler documents that an unexpected original value is a conflict; the status and
// the message are guesses.
func (s *Server) write(c *config, t Token, body change) error {
	if (body.Secrets == nil) == (body.Requests == nil) {
		return errorf(http.StatusBadRequest, "Please provide either secrets or change_requests")
	}
	now, secrets := c.raw(), maps.Clone(body.Secrets)
	if secrets == nil {
		secrets = map[string]*string{}
	}
	for _, r := range body.Requests {
		current, exists := now[r.Name]
		switch {
		case r.OriginalName != nil && *r.OriginalName != r.Name:
			return errorf(http.StatusBadRequest, "The stand-in does not rename secrets")
		case r.OriginalName != nil && !exists:
			return errorf(http.StatusBadRequest, "Could not find requested secret '%s'", r.Name)
		case r.OriginalValue != nil && current != *r.OriginalValue:
			return errorf(http.StatusConflict, "The original value of '%s' does not match", r.Name)
		case r.Visibility != nil && !slices.Contains(strictness, *r.Visibility):
			return errorf(http.StatusBadRequest, "The visibility of '%s' is invalid", r.Name)
		case r.ShouldDelete:
			secrets[r.Name] = nil
		case r.Value != nil:
			secrets[r.Name] = r.Value
		case !exists:
			return errorf(http.StatusBadRequest, "Please provide a value for '%s'", r.Name)
		}
	}
	done := Write{Project: c.project.name, Config: c.name, Token: t.Kind(), Set: map[string]string{}}
	for name, value := range secrets {
		switch current, exists := c.secrets[name]; {
		case c.managed()[name] != "":
			return errorf(http.StatusBadRequest, "The secret '%s' is reserved", name)
		case !secretName.MatchString(name):
			return errorf(http.StatusBadRequest,
				"Secret names must only contain uppercase letters, numbers, and underscores: '%s'", name)
		case value == nil && exists:
			done.Deleted = append(done.Deleted, name)
		case value != nil && (!exists || current != *value):
			done.Set[name] = *value
		}
	}
	for _, r := range body.Requests {
		if r.Visibility != nil {
			c.visibility[r.Name] = *r.Visibility
		}
	}
	if len(done.Set)+len(done.Deleted) == 0 {
		return nil
	}
	maps.Copy(c.secrets, done.Set)
	for _, name := range done.Deleted {
		delete(c.secrets, name)
	}
	slices.Sort(done.Deleted)
	s.writes = append(s.writes, done)
	return nil
}

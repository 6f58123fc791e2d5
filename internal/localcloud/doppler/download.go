package doppler

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// download serves the secrets of a config as a file. The CLI caches the file and revalidates it with the ETag.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	t, ok := s.token(r)
	if !ok {
		errorf(http.StatusUnauthorized, "Invalid Auth token").send(w)
		return
	}
	secrets, err := s.computed(r, t)
	if err != nil {
		sendError(w, err)
		return
	}
	data, err := format(r.FormValue("format"), secrets)
	if err != nil {
		sendError(w, err)
		return
	}
	etag := fmt.Sprintf(`"%x"`, sha256.Sum256(data))
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if f := r.FormValue("format"); f == "" || f == "json" {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data) // the client may have disconnected
}

func (s *Server) computed(r *http.Request, t Token) (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.lookUp(t, r.FormValue("project"), r.FormValue("config"))
	if err != nil {
		return nil, err
	}
	c.fetched = true
	secrets := map[string]string{}
	for name, raw := range c.raw() {
		if wanted(r, name) && t.canRead(s.computedVisibility(c, name)) {
			secrets[name] = s.compute(c, raw)
		}
	}
	return secrets, nil
}

func format(name string, secrets map[string]string) ([]byte, error) {
	line := func(pattern string, escape func(string) string) []byte {
		var b bytes.Buffer
		for _, name := range slices.Sorted(maps.Keys(secrets)) {
			fmt.Fprintf(&b, pattern, name, escape(secrets[name]))
		}
		return b.Bytes()
	}
	switch name {
	case "", "json":
		return json.Marshal(secrets)
	case "env":
		return line("%s=\"%s\"\n", strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "$", `\$`, "`", "\\`").Replace), nil
	case "env-no-quotes":
		return line("%s=%s\n", func(value string) string { return value }), nil
	case "docker":
		return line("%s=%s\n", strings.NewReplacer("\n", `\n`).Replace), nil
	case "yaml":
		return yaml.Marshal(secrets)
	}
	return nil, errorf(http.StatusBadRequest, "Please provide a valid format")
}

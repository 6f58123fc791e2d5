package daytona

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tokens selects the kinds of credentials that an endpoint accepts.
type tokens int

const (
	anyToken  tokens = iota
	keysOnly         // API keys only
	usersOnly        // tokens of users (JWT) only
)

// caller is an authenticated client.
type caller struct {
	*Organization
	key *Key // nil for a user
}

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

var (
	errCredentials = apiError{http.StatusUnauthorized, "Invalid credentials"} // also for an expired key
	errContext     = apiError{http.StatusForbidden, "Invalid authentication context"}
	errPermission  = apiError{http.StatusForbidden, "Access denied"}
)

// authorize returns the organization that a request is for: the organization of the API key, or the one that a user
// names in the path or the X-Daytona-Organization-ID header.
func (s *Server) authorize(r *http.Request, c call) (caller, error) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	isUser := jwt.MatchString(token)
	if token == "" || isUser && c.tokens == keysOnly || !isUser && c.tokens == usersOnly {
		return caller{}, errCredentials
	}
	who, known := caller{}, false
	wanted := r.PathValue("organization")
	for i := range s.options.Organizations {
		o := &s.options.Organizations[i]
		if slices.Contains(o.UserTokens, token) {
			known = true
			if named := r.Header.Get("X-Daytona-Organization-ID"); o.ID == wanted || (wanted == "" && o.ID == named) {
				who.Organization = o
			}
		}
		for k := range o.Keys {
			if key := &o.Keys[k]; key.Value == token && (key.Expires.IsZero() || time.Now().Before(key.Expires)) {
				who, known = caller{o, key}, true
			}
		}
	}
	switch {
	case !known:
		return caller{}, errCredentials
	case who.Organization == nil:
		return caller{}, errContext
	case who.key != nil && len(c.any) > 0 && !slices.ContainsFunc(c.any, who.key.has):
		return caller{}, errPermission
	}
	return who, nil
}

func (k *Key) has(permission string) bool { return slices.Contains(k.Permissions, permission) }

func (s *Server) currentKey(who caller, _ *http.Request) (any, error) {
	k := who.key
	var expires any
	if !k.Expires.IsZero() {
		expires = formatTime(k.Expires)
	}
	permissions := k.Permissions
	if permissions == nil {
		permissions = []string{}
	}
	masked := strings.Repeat("*", 20)
	if len(k.Value) > 8 {
		masked = k.Value[:3] + masked + k.Value[len(k.Value)-3:]
	}
	return map[string]any{
		"name": k.Name, "value": masked, "createdAt": formatTime(creationTime), "permissions": permissions,
		"lastUsedAt": formatTime(time.Now()), "expiresAt": expires, "userId": "user-1",
	}, nil
}

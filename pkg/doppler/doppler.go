// Package doppler reads and writes the secrets of one Doppler config: https://docs.doppler.com/reference (API v3).
package doppler

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Client reads and writes one config. However Doppler answers, every call ends: after four tries of 15 s at most, and waits that Doppler asks for,
// of a minute at most each.
type Client struct {
	Host    string // "" for https://api.doppler.com
	Token   string // a service token, which is bound to one project and config, or a token of an account
	Project string // "" where the token is bound
	Config  string // likewise

	// Renew makes another token when Doppler takes this one no longer, as those of Login, which may not outlive a build; nil where there
	// is no other.
	Renew func(context.Context) (string, error)
}

// Secrets are all names and values of the config, references between them resolved. DOPPLER_PROJECT, DOPPLER_ENVIRONMENT and DOPPLER_CONFIG
// are among them.
func (c Client) Secrets(ctx context.Context) (map[string]string, error) {
	read := c.call("read "+c.name(), http.MethodGet, "/v3/configs/config/secrets/download", url.Values{"format": {"json"}})
	var secrets map[string]string
	if err := c.do(ctx, read, &secrets); err != nil {
		return nil, err
	}
	return secrets, nil
}

// Raw are those of the named secrets that exist, as they were written: with references unresolved.
func (c Client) Raw(ctx context.Context, names ...string) (map[string]string, error) {
	values, err := c.values(ctx, names...)
	if err != nil {
		return nil, err
	}
	raw := map[string]string{}
	for name, value := range values {
		if value.Raw == nil {
			return nil, c.restricted(name)
		}
		raw[name] = *value.Raw
	}
	return raw, nil
}

// CheckWrite finds out whether the token may write, and changes nothing: an error says why not. names are what will be written.
//
// No call tells: /v3/me and the config's own description do not say what a token may do. So a write is made that leaves a secret as it is: a
// change request whose value is null, which is documented to do so ("Use null to leave the existing secret value unchanged"). It needs a
// secret that exists. In a config without any, and where Doppler objects to anything but the token, nothing is known, and the write itself
// will tell.
func (c Client) CheckWrite(ctx context.Context, names ...string) error {
	doing := "find out whether " + c.name() + " can be written"
	var there struct {
		Names []string `json:"names"`
	}
	if err := c.do(ctx, c.call(doing, http.MethodGet, "/v3/configs/config/secrets/names", nil), &there); err != nil {
		return err
	}
	there.Names = slices.DeleteFunc(there.Names, func(name string) bool { return strings.HasPrefix(name, "DOPPLER_") })
	if len(there.Names) == 0 {
		return nil
	}
	name := there.Names[0]
	for _, wanted := range names {
		if slices.Contains(there.Names, wanted) {
			name = wanted
			break
		}
	}
	err := c.write(ctx, doing, []change{{Name: name, OriginalName: &name}})
	if failed := new(statusError); errors.As(err, &failed) && failed.isObjection() {
		return nil
	}
	return err
}

// Set makes secrets have these raw values, all in one call, and says whether they were others before: no call is made when they are not. Before it
// writes, allow is asked (it may be nil) with what they are now, those that exist; its error is Set's. A write holds only for what allow has
// seen: when somebody else writes in between, Doppler refuses it, and all begins anew. That makes it safe to repeat, too. (Of a secret that does
// not exist yet nothing can be expected: whoever makes it last has it.)
func (c Client) Set(ctx context.Context, want map[string]string, allow func(current map[string]string) error) (bool, error) {
	const tries = 3
	names := slices.Sorted(maps.Keys(want))
	doing := "write " + strings.Join(names, ", ") + " to " + c.name()
	failed := new(statusError)
	var refused error
	var before map[string]string
	for range tries {
		current, err := c.Raw(ctx, names...)
		switch {
		case err != nil:
			return false, err
		case maps.Equal(current, want):
			return refused != nil, nil // a write whose answer was lost has been refused the second time
		case refused != nil && maps.Equal(current, before):
			return false, refused
		}
		if allow != nil {
			if err := allow(maps.Clone(current)); err != nil {
				return false, err
			}
		}
		var changes []change
		for _, name := range names {
			value := want[name]
			asked := change{Name: name, Value: &value}
			if is, ok := current[name]; ok {
				asked.OriginalName, asked.OriginalValue = &name, &is
			}
			changes = append(changes, asked)
		}
		err = c.write(ctx, doing, changes)
		if err == nil || !errors.As(err, &failed) || !failed.isObjection() {
			return err == nil, err
		}
		refused, before = err, current
	}
	return false, failed.sentence(doing, "somebody else writes to it at the same time: run this again")
}

// Everywhere is what a secret is in each config that the token can read, references resolved; configs without it, and those that the token may not
// read, are left out. The key is "project.config", as in Doppler's references. A service token can read its own config only.
func (c Client) Everywhere(ctx context.Context, name string) (map[string]string, error) {
	own, err := c.values(ctx, name, "DOPPLER_PROJECT", "DOPPLER_CONFIG")
	if err != nil {
		return nil, err
	}
	c.Project, c.Config = own["DOPPLER_PROJECT"].computed(c.Project), own["DOPPLER_CONFIG"].computed(c.Config)
	places, err := c.places(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]secret, len(places))
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, place := range places {
		if place.name() == c.name() {
			found[i] = own[name]
			continue
		}
		group.Go(func() error {
			values, err := place.values(limited, name)
			if isDenial(err) {
				return nil
			}
			found[i] = values[name]
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	everywhere := map[string]string{}
	for i, value := range found {
		switch {
		case value.Computed != nil:
			everywhere[places[i].Project+"."+places[i].Config] = *value.Computed
		case value.exists:
			return nil, places[i].restricted(name)
		}
	}
	return everywhere, nil
}

// places are all configs that the token sees, its own first.
func (c Client) places(ctx context.Context) ([]Client, error) {
	places := []Client{c}
	projects, err := c.list(ctx, "projects", url.Values{})
	if err != nil && !isDenial(err) {
		return nil, err
	}
	for _, project := range projects {
		configs, err := c.list(ctx, "configs", url.Values{"project": {project}})
		if err != nil && !isDenial(err) {
			return nil, err
		}
		for _, config := range configs {
			place := c
			if place.Project, place.Config = project, config; place.name() != c.name() {
				places = append(places, place)
			}
		}
	}
	return places, nil
}

// Login trades a GitHub OIDC token for a token of the service account that identity belongs to. How long it lives is the identity's affair,
// minutes perhaps: see Client.Renew.
func Login(ctx context.Context, apiHost, identity, idToken string) (string, error) {
	enter := call{
		doing: fmt.Sprintf("enter Doppler as the identity %q", identity), method: http.MethodPost, path: "/v3/auth/oidc",
		body: map[string]string{"identity": identity, "token": idToken}, hidden: idToken,
	}
	data, err := enter.send(ctx, apiHost)
	if failed := new(statusError); errors.As(err, &failed) && failed.isDoppler && failed.status < 500 && failed.status != http.StatusTooManyRequests {
		return "", failed.sentence(enter.doing, "check doppler_identity, and let that identity trust "+subject(idToken))
	}
	if err != nil {
		return "", explain(ctx, enter.doing, apiHost, err, "")
	}
	var answer struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(data, &answer) != nil || answer.Token == "" {
		return "", notDoppler(enter.doing, apiHost)
	}
	return answer.Token, nil
}

// subject is what a token says of itself: no secret, and what its reader has to trust.
func subject(idToken string) string {
	var claims struct {
		Audience any    `json:"aud"`
		Subject  string `json:"sub"`
	}
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return "this workflow"
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &claims) != nil || claims.Subject == "" {
		return "this workflow"
	}
	return fmt.Sprintf("the subject %q with the audience %q", claims.Subject, fmt.Sprint(claims.Audience))
}

// secret is a value as Doppler has it; null where it may not be seen.
type secret struct {
	Raw      *string `json:"raw"`
	Computed *string `json:"computed"`
	exists   bool
}

func (s secret) computed(otherwise string) string {
	if s.Computed == nil {
		return otherwise
	}
	return *s.Computed
}

func (c Client) restricted(name string) error {
	return fmt.Errorf("read %s: the secret %s is restricted, its value can not be read: set its visibility to masked", c.name(), name)
}

// values are those of the named secrets that exist.
func (c Client) values(ctx context.Context, names ...string) (map[string]secret, error) {
	var answer struct {
		Secrets map[string]secret `json:"secrets"`
	}
	query := url.Values{"secrets": {strings.Join(names, ",")}}
	if err := c.do(ctx, c.call("read "+c.name(), http.MethodGet, "/v3/configs/config/secrets", query), &answer); err != nil {
		return nil, err
	}
	values := map[string]secret{}
	for _, name := range names {
		if value, ok := answer.Secrets[name]; ok {
			value.exists = true
			values[name] = value
		}
	}
	return values, nil
}

// change is a change request: what is to be, and what is expected to be there. "If specified, the request will only be processed if the
// provided value matches what's found in Doppler."
type change struct {
	Name          string  `json:"name"`
	OriginalName  *string `json:"originalName"` // null for a new secret
	Value         *string `json:"value"`        // null to leave it as it is
	OriginalValue *string `json:"originalValue,omitempty"`
}

func (c Client) write(ctx context.Context, doing string, changes []change) error {
	write := c.call(doing, http.MethodPost, "/v3/configs/config/secrets", nil)
	write.body = map[string]any{"change_requests": changes}
	return c.do(ctx, write, &struct{}{})
}

// list reads all pages of a list: the names of configs, or the slugs of projects, by which they are asked for.
func (c Client) list(ctx context.Context, what string, query url.Values) ([]string, error) {
	const size, maxPages = 100, 50
	var names []string
	query.Set("per_page", strconv.Itoa(size))
	for page := range maxPages {
		query.Set("page", strconv.Itoa(page+1))
		var answer map[string]json.RawMessage
		var entries []struct{ Name, Slug string }
		ask := call{doing: "list Doppler's " + what, method: http.MethodGet, path: "/v3/" + what + "?" + query.Encode()}
		if err := c.do(ctx, ask, &answer); err != nil {
			return nil, err
		}
		if json.Unmarshal(answer[what], &entries) != nil {
			return nil, notDoppler(ask.doing, c.Host)
		}
		before := len(names)
		for _, entry := range entries {
			name := entry.Name
			if what == "projects" && entry.Slug != "" {
				name = entry.Slug
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		if len(names) == before { // how long a page may be is Doppler's affair: the last is the one with nothing new
			break
		}
	}
	return names, nil
}

// name is the config in a sentence.
func (c Client) name() string {
	switch {
	case c.Config == "":
		return "Doppler's config"
	case c.Project == "":
		return fmt.Sprintf("Doppler's config %q", c.Config)
	}
	return fmt.Sprintf("Doppler's config %q of the project %q", c.Config, c.Project)
}

// call is one of the config's.
func (c Client) call(doing, method, path string, query url.Values) call {
	if query == nil {
		query = url.Values{}
	}
	for name, value := range map[string]string{"project": c.Project, "config": c.Config} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return call{doing: doing, method: method, path: path}
}

// do makes a call, with another token when the one at hand has lived out, and reads the answer.
func (c Client) do(ctx context.Context, ask call, answer any) error {
	ask.token = c.Token
	data, err := ask.send(ctx, c.Host)
	if failed := new(statusError); errors.As(err, &failed) && failed.status == http.StatusUnauthorized && c.Renew != nil {
		if ask.token, err = c.Renew(ctx); err != nil {
			return err
		}
		data, err = ask.send(ctx, c.Host)
	}
	if err != nil {
		return explain(ctx, ask.doing, c.Host, err, c.cure(ctx, ask, err))
	}
	if json.Unmarshal(data, answer) != nil {
		return notDoppler(ask.doing, c.Host)
	}
	return nil
}

// cure is what helps when Doppler refuses a call.
func (c Client) cure(ctx context.Context, ask call, err error) string {
	failed := new(statusError)
	if !errors.As(err, &failed) || !failed.isDoppler {
		return ""
	}
	bound, isService := strings.CutPrefix(ask.token, "dp.st.")
	switch {
	case failed.status == http.StatusUnauthorized:
		return "give a doppler_token that is valid and has not expired"
	case failed.forbidsWrite(), failed.status == http.StatusForbidden && ask.method == http.MethodPost:
		return "the token may only read: give one with read/write access to that config, or turn update_doppler off (--no-update-doppler)"
	case failed.status == http.StatusForbidden:
		return "the token may not read that config: let the service account in, or name another config"
	case !failed.isDenial():
		return "check doppler_project and doppler_config"
	case isService:
		config := ""
		if name, _, ok := strings.Cut(bound, "."); ok {
			config = fmt.Sprintf(", %q,", name)
		}
		return "a service token opens only the config" + config + " that it was made for: name that one or none in doppler_project and doppler_config, or give a token of the other"
	case c.Project == "":
		return "only service tokens know their project and config: give doppler_project and doppler_config"
	}
	return c.instead(ctx, ask)
}

// instead names what there is, where something that was asked for is not.
func (c Client) instead(ctx context.Context, ask call) string {
	c.Token, c.Renew = ask.token, nil
	for _, level := range []struct {
		what, input string
		query       url.Values
	}{
		{"configs", "doppler_config", url.Values{"project": {c.Project}}},
		{"projects", "doppler_project", url.Values{}},
	} {
		if strings.HasPrefix(ask.path, "/v3/"+level.what+"?") {
			break // that very question has failed
		}
		names, err := c.list(ctx, level.what, level.query)
		if err == nil && len(names) > 0 {
			slices.Sort(names)
			return fmt.Sprintf("check %s: the token sees the %s %s", level.input, level.what, quoted(names))
		}
	}
	return "check doppler_project and doppler_config, and that the token may see them"
}

func quoted(names []string) string {
	const most = 12
	var list []string
	for _, name := range names[:min(len(names), most)] {
		list = append(list, strconv.Quote(name))
	}
	if len(names) > most {
		list = append(list, "…")
	}
	return strings.Join(list, ", ")
}

// Package doppler reads and writes the secrets of one Doppler config: https://docs.doppler.com/reference (API v3).
package doppler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Client reads and writes the secrets of one config. API errors are *[httpclient.APIError].
type Client struct {
	Host    string // "" means DefaultHost
	Token   string // a service token, which implies project and config, or an account's token
	Project string // slug; "" with a service token
	Config  string // "" with a service token

	TokenSource string // where the token is set, for errors; may be ""

	HTTP httpclient.Config

	// Renew returns a new token after Doppler has rejected the current one, because tokens from Login may expire during a
	// build. nil means that the token cannot be renewed.
	Renew func(context.Context) (string, error)
}

// Visibility is who may see the value of a secret: https://docs.doppler.com/docs/secret-visibility
type Visibility string

// The visibilities of secrets. Doppler's default is Masked.
const (
	Unmasked   Visibility = "unmasked"   // not sensitive, always shown
	Masked     Visibility = "masked"     // hidden in the dashboard until a user reveals it
	Restricted Visibility = "restricted" // returned only to tokens that do not belong to a user
)

// Secret is the value of a secret, with references resolved.
type Secret struct {
	Value      string
	Withheld   bool // the value is restricted, and Doppler does not return it to the token
	Visibility Visibility
}

// Secrets returns secrets by name: the named ones that exist or, without names, all. All include DOPPLER_PROJECT,
// DOPPLER_ENVIRONMENT and DOPPLER_CONFIG.
func (c Client) Secrets(ctx context.Context, names ...string) (map[string]Secret, error) {
	var query url.Values
	if len(names) > 0 {
		query = url.Values{"secrets": {strings.Join(names, ",")}}
	}
	answer, err := c.read(ctx, query)
	if err != nil {
		return nil, err
	}
	secrets := map[string]Secret{}
	for name, value := range answer {
		secrets[name] = Secret{value.computedOr(""), value.Computed == nil, cmp.Or(value.Visibility, Masked)}
	}
	return secrets, nil
}

// Raw returns the values of the named secrets that exist, with references unresolved.
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

// CheckWrite returns an error if the token cannot write the named secrets. It changes nothing.
//
// The API does not report a token's permissions, neither in /v3/me nor in the config. CheckWrite therefore sends a
// change request with the value null ("Use null to leave the existing secret value unchanged"), which requires an
// existing secret. If the config has no secrets, or Doppler rejects the request for a reason other than the token,
// CheckWrite returns nil, and only the write itself can fail.
func (c Client) CheckWrite(ctx context.Context, names ...string) error {
	op := "check write access to " + c.Name()
	var answer struct {
		Names []string `json:"names"`
	}
	call := c.call(op, http.MethodGet, "/v3/configs/config/secrets/names", nil)
	err := c.do(ctx, call, &answer)
	if err == nil && answer.Names == nil {
		err = formatError(op, "the response has no names")
	}
	if err != nil {
		return err
	}
	existing := slices.DeleteFunc(answer.Names, func(name string) bool { return strings.HasPrefix(name, "DOPPLER_") })
	if len(existing) == 0 {
		return nil
	}
	name := existing[0]
	if i := slices.IndexFunc(names, func(wanted string) bool { return slices.Contains(existing, wanted) }); i >= 0 {
		name = names[i]
	}
	err = c.write(ctx, op, []change{{Name: name, OriginalName: &name}})
	if isRejected(err) {
		return nil
	}
	return err
}

// Set writes raw values of secrets in one call, unless they are already current, and reports whether it changed any.
// See [Client.Update] for allow, which may be nil.
func (c Client) Set(
	ctx context.Context, want map[string]string, allow func(current map[string]string) error,
) (changed bool, err error) {
	return c.Update(ctx, slices.Collect(maps.Keys(want)), func(values map[string]string) error {
		if allow != nil && !maps.Equal(values, want) {
			if err := allow(maps.Clone(values)); err != nil {
				return err
			}
		}
		maps.Copy(values, want)
		return nil
	})
}

// Update changes raw values of the named secrets in one call and reports whether it changed any. It calls change with
// the current values of those that exist, writes what change leaves in the map, and returns an error from change. After
// a write without a response, it reads the values, also if ctx has ended. Doppler rejects the write if another client
// has changed a value that change has seen. Update then starts again, so that retries are safe. Doppler cannot compare
// a secret that does not exist, so of several writers that create it the last one wins.
func (c Client) Update(
	ctx context.Context, names []string, change func(values map[string]string) error,
) (changed bool, err error) {
	const tries = 3
	names = slices.Sorted(slices.Values(names))
	op := "write " + strings.Join(names, ", ") + " to " + c.Name()
	var rejected error
	var before, want map[string]string
	for range tries {
		current, err := c.Raw(ctx, names...)
		switch {
		case err != nil:
			return false, err
		case rejected != nil && maps.Equal(current, want):
			return true, nil // the first write succeeded, but its response was lost
		case rejected != nil && maps.Equal(current, before):
			return false, rejected
		}
		want = maps.Clone(current)
		if err := change(want); err != nil {
			return false, err
		}
		if maps.Equal(current, want) {
			return rejected != nil, nil // if rejected: another client wrote the same values
		}
		err = c.write(ctx, op, changes(names, current, want))
		switch {
		case err == nil:
			return true, nil
		case !isRejected(err):
			return c.confirmWrite(ctx, want, err)
		}
		rejected, before = err, current
	}
	if failed, ok := errors.AsType[*httpclient.APIError](rejected); ok {
		failed.Hint = "another client is writing to this config: run again"
	}
	return false, rejected
}

// confirmLimit is how long a canceled Set takes to find out whether its write had an effect.
const confirmLimit = 3 * time.Second

// confirmWrite reports whether the secrets have the wanted values after a write that failed with cause. It returns
// cause if they do not, or an [*UnconfirmedError] if it cannot read them.
func (c Client) confirmWrite(ctx context.Context, want map[string]string, cause error) (bool, error) {
	if failed, ok := errors.AsType[*httpclient.APIError](cause); ok && (!failed.MayHaveArrived() || isAnswer(failed)) {
		return false, cause
	}
	if ctx.Err() != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmLimit)
		defer cancel()
		ctx = limited
	}
	switch current, err := c.Raw(ctx, slices.Collect(maps.Keys(want))...); {
	case err != nil:
		return false, &UnconfirmedError{cause}
	case maps.Equal(current, want):
		return true, nil
	}
	return false, cause
}

// isAnswer reports whether Doppler itself refused a request.
func isAnswer(failed *httpclient.APIError) bool {
	return failed.Status/100 == 4 && !errors.Is(failed, httpclient.ErrFormat)
}

// UnconfirmedError reports a write whose effect is unknown.
type UnconfirmedError struct{ Err error }

func (e *UnconfirmedError) Error() string {
	return e.Err.Error() + "; the config may have the new value"
}

func (e *UnconfirmedError) Unwrap() error { return e.Err }

func changes(names []string, current, want map[string]string) []change {
	var list []change
	for _, name := range names {
		value, ok := want[name]
		if !ok {
			continue
		}
		requested := change{Name: name, Value: &value}
		if old, ok := current[name]; ok {
			requested.OriginalName, requested.OriginalValue = &name, &old
		}
		list = append(list, requested)
	}
	return list
}

// ValuesByConfig returns the values of secrets by name, with references resolved, for each config that has one of them
// and that the token can read. Keys have the form "project.config", as in Doppler's references. unreadable describes
// the configs of c's project that the token cannot read: for a service token, all but its own.
func (c Client) ValuesByConfig(
	ctx context.Context, names ...string,
) (values map[string]map[string]string, unreadable []string, err error) {
	own, err := c.values(ctx, append([]string{"DOPPLER_PROJECT", "DOPPLER_CONFIG"}, names...)...)
	if err != nil {
		return nil, nil, err
	}
	c.Project, c.Config = own["DOPPLER_PROJECT"].computedOr(c.Project), own["DOPPLER_CONFIG"].computedOr(c.Config)
	configs, isComplete, err := c.visibleConfigs(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !isComplete {
		unreadable = append(unreadable, fmt.Sprintf("the other configs of project %q", c.Project))
	}
	found, denied := make([]map[string]secret, len(configs)), make([]bool, len(configs))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i, config := range configs {
		if config.Name() == c.Name() {
			found[i] = own
			continue
		}
		group.Go(func() (err error) {
			found[i], err = config.values(groupCtx, names...)
			if denied[i] = isDenied(err); denied[i] {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	values = map[string]map[string]string{}
	for i, config := range configs {
		if denied[i] && config.Project == c.Project {
			unreadable = append(unreadable, fmt.Sprintf("config %q", config.Config))
		}
		for _, name := range names {
			switch value, ok := found[i][name]; {
			case !ok:
				continue
			case value.Computed == nil:
				return nil, nil, config.restricted(name)
			default:
				key := config.Project + "." + config.Config
				if values[key] == nil {
					values[key] = map[string]string{}
				}
				values[key][name] = *value.Computed
			}
		}
	}
	return values, unreadable, nil
}

// visibleConfigs returns a client for each config that is visible to the token, starting with c. isComplete reports
// whether these are all configs of c's project.
func (c Client) visibleConfigs(ctx context.Context) (visible []Client, isComplete bool, err error) {
	visible = []Client{c}
	projects, err := c.list(ctx, "projects", url.Values{})
	if err != nil && !isDenied(err) {
		return nil, false, err
	}
	for _, project := range projects {
		configs, err := c.list(ctx, "configs", url.Values{"project": {project}})
		if err != nil && !isDenied(err) {
			return nil, false, err
		}
		isComplete = isComplete || project == c.Project && err == nil && !IsServiceToken(c.Token)
		for _, config := range configs {
			other := c
			if other.Project, other.Config = project, config; other.Name() != c.Name() {
				visible = append(visible, other)
			}
		}
	}
	return visible, isComplete, nil
}

// secret is a secret in the API's format. Values are null if they are restricted. A value that refers to other secrets
// has the strictest visibility of them.
type secret struct {
	Raw        *string    `json:"raw"`
	Computed   *string    `json:"computed"`
	Visibility Visibility `json:"computedVisibility"`
}

func (s secret) computedOr(fallback string) string {
	if s.Computed == nil {
		return fallback
	}
	return *s.Computed
}

func (c Client) restricted(name string) error {
	return fmt.Errorf("read %s: the value of %s is restricted (set the secret's visibility to masked)", c.Name(), name)
}

// values returns the named secrets that exist.
func (c Client) values(ctx context.Context, names ...string) (map[string]secret, error) {
	answer, err := c.read(ctx, url.Values{"secrets": {strings.Join(names, ",")}})
	if err != nil {
		return nil, err
	}
	values := map[string]secret{}
	for _, name := range names {
		if value, ok := answer[name]; ok {
			values[name] = value
		}
	}
	return values, nil
}

// read returns the secrets that the query selects.
func (c Client) read(ctx context.Context, query url.Values) (map[string]secret, error) {
	var answer struct {
		Secrets map[string]secret `json:"secrets"`
	}
	call := c.call("read "+c.Name(), http.MethodGet, "/v3/configs/config/secrets", query)
	err := c.do(ctx, call, &answer)
	if err == nil && answer.Secrets == nil {
		err = formatError(call.Op, "the response has no secrets")
	}
	return answer.Secrets, err
}

// change is a change request: the new value, and the expected current value. Doppler documents the latter: "If
// specified, the request will only be processed if the provided value matches what's found in Doppler."
type change struct {
	Name          string  `json:"name"`
	OriginalName  *string `json:"originalName"` // null for a new secret
	Value         *string `json:"value"`        // null to keep the value
	OriginalValue *string `json:"originalValue,omitempty"`
}

func (c Client) write(ctx context.Context, op string, changes []change) error {
	call := c.call(op, http.MethodPost, "/v3/configs/config/secrets", nil)
	call.Body = map[string]any{"change_requests": changes}
	call.Hints = []httpclient.Hint{{On: http.StatusForbidden, Text: writeHint}}
	return c.do(ctx, call, &struct{}{})
}

// list returns the identifiers in all pages of a list: names for "configs", slugs for "projects".
func (c Client) list(ctx context.Context, kind string, query url.Values) ([]string, error) {
	const size, maxPages = 100, 50
	op := "list Doppler " + kind
	var ids []string
	query.Set("per_page", strconv.Itoa(size))
	for page := range maxPages {
		query.Set("page", strconv.Itoa(page+1))
		var answer struct {
			Configs  []struct{ Name string }
			Projects []struct{ Slug, Name string }
		}
		call := httpclient.JSONCall{Op: op, Path: "/v3/" + kind + "?" + query.Encode()}
		if err := c.do(ctx, call, &answer); err != nil {
			return nil, err
		}
		if answer.Configs == nil && answer.Projects == nil {
			return nil, formatError(op, "the response has no "+kind)
		}
		var found []string
		for _, config := range answer.Configs {
			found = append(found, config.Name)
		}
		for _, project := range answer.Projects {
			found = append(found, cmp.Or(project.Slug, project.Name))
		}
		found = slices.DeleteFunc(found, func(id string) bool { return slices.Contains(ids, id) })
		if len(found) == 0 { // past the last page; Doppler may return fewer items per page than requested
			break
		}
		ids = append(ids, found...)
	}
	return ids, nil
}

// Name returns a description of the config for messages.
func (c Client) Name() string {
	switch {
	case c.Config == "":
		return "the Doppler config"
	case c.Project == "":
		return fmt.Sprintf("Doppler config %q", c.Config)
	}
	return fmt.Sprintf("Doppler config %q of project %q", c.Config, c.Project)
}

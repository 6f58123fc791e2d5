// Package daytona manages Daytona snapshots: it creates, finds and deletes them, and requests access to the registry.
//
// It wraps Daytona's client for https://www.daytona.io/docs/en/tools/api. Undocumented behavior refers to the source of
// server v0.190.0 (https://github.com/daytonaio/daytona, apps/api/src); comments name the file.
package daytona

import (
	"cmp"
	"regexp"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// DefaultURL is the base URL of Daytona's API.
const DefaultURL = "https://app.daytona.io/api"

// Permissions of an API key. WriteSnapshots allows pushing an image and creating a snapshot of it.
const (
	WriteSnapshots  = "write:snapshots"
	DeleteSnapshots = "delete:snapshots"
)

// Client calls the API on behalf of one organization. Each call has a deadline and is retried if that is safe.
type Client struct {
	URL          string       // "" means DefaultURL
	Key          string       // an API key, or a user's token (a JWT)
	KeySource    string       // where the key is set, for errors; may be ""
	Organization string       // ID; required with a user's token, optional with a key, which belongs to one organization
	Mask         func(string) // called with each secret before its first use; may be nil

	Logf func(format string, args ...any) // logs failures that a wait tolerates; may be nil

	HTTP   httpclient.Config
	Timing Timing
}

// Timing configures operations that make several calls. Zero fields mean the defaults.
type Timing struct {
	MinPoll       time.Duration // first polling interval; default 200 ms
	MaxPoll       time.Duration // maximum polling interval; default 5 s
	Outage        time.Duration // how long polling tolerates failing requests; default 2 min
	Missing       time.Duration // how long polling tolerates that a snapshot is not found; default 10 s
	ImageVisible  time.Duration // how long to wait for a pushed image in the registry; default 2 min
	Removal       time.Duration // how long to wait until a deleted snapshot is gone; default 90 s
	ResponseGrace time.Duration // how long a canceled Create waits for the response; default 2 s
	CleanupGrace  time.Duration // how long Remove continues after its context has ended; default 4 s
}

func (t Timing) withDefaults() Timing {
	t.MinPoll = cmp.Or(t.MinPoll, 200*time.Millisecond)
	t.MaxPoll = cmp.Or(t.MaxPoll, 5*time.Second)
	t.Outage = cmp.Or(t.Outage, 2*time.Minute)
	t.Missing = cmp.Or(t.Missing, 10*time.Second)
	t.ImageVisible = cmp.Or(t.ImageVisible, 2*time.Minute)
	t.Removal = cmp.Or(t.Removal, 90*time.Second)
	t.ResponseGrace = cmp.Or(t.ResponseGrace, 2*time.Second)
	t.CleanupGrace = cmp.Or(t.CleanupGrace, 4*time.Second)
	return t
}

var jwt = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// isUser reports whether the key is a user's token. The API accepts the organization header only with such a token.
func (c *Client) isUser() bool { return jwt.MatchString(c.Key) }

// intervals returns the increasing polling intervals.
func (c *Client) intervals() *backoff.ExponentialBackOff {
	timing := c.Timing.withDefaults()
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = timing.MinPoll, timing.MaxPoll
	return b
}

package daytona

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	api "github.com/daytonaio/daytona/libs/api-client-go"

	"github.com/org/sandbox-actions/pkg/grace"
	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// Permissions of an API key for sandboxes. Any key can read them.
const (
	WriteSandboxes  = "write:sandboxes"
	DeleteSandboxes = "delete:sandboxes"
)

// SandboxState is the state of a sandbox. Newer servers may return states that are not listed here.
type SandboxState string

// The states of a sandbox that decide whether it is usable. All others are transitions.
const (
	SandboxStarted     SandboxState = "started"
	SandboxStopped     SandboxState = "stopped"
	SandboxFailed      SandboxState = "error"
	SandboxBuildFailed SandboxState = "build_failed"
	SandboxArchived    SandboxState = "archived"
	SandboxDestroying  SandboxState = "destroying"
	SandboxDestroyed   SandboxState = "destroyed"
)

// Sandbox is a container that runs a snapshot.
type Sandbox struct {
	ID, Name string
	Snapshot string // name
	State    SandboxState
	Reason   string // why it failed
	Labels   map[string]string
	Created  time.Time
	toolbox  string // base URL of the toolbox API, without the ID
}

// SandboxRequest describes a sandbox to create. It has the resources of its snapshot.
type SandboxRequest struct {
	Snapshot string // name or ID
	Region   string // ID; "" means the organization's default
	Labels   map[string]string

	// AutoStop is after how many minutes without a request Daytona stops the sandbox, and deletes it.
	AutoStop int
}

// SandboxError reports a sandbox that does not start.
type SandboxError struct{ Sandbox Sandbox }

func (e *SandboxError) Error() string {
	hint := "check the image with `docker run`; if it starts there, try again"
	if known, ok := findMessage(0, e.Sandbox.Reason); ok {
		hint = known.hint
	}
	return fmt.Sprintf("sandbox %s of snapshot %s is in state %s: %s (%s)", e.Sandbox.ID, e.Sandbox.Snapshot,
		e.Sandbox.State, cmp.Or(safetext.Line(e.Sandbox.Reason, maxReason), "Daytona reported no reason"), hint)
}

// Is implements the interface of [errors.Is] for the errors in [messages].
func (e *SandboxError) Is(target error) bool { return isReason(e.Sandbox.Reason, target) }

// sandboxDTO is a sandbox in a response.
type sandboxDTO struct {
	ID              string            `json:"id"`
	Name            string            `json:"name"`
	Snapshot        string            `json:"snapshot"`
	State           SandboxState      `json:"state"`
	ErrorReason     string            `json:"errorReason"`
	Labels          map[string]string `json:"labels"`
	CreatedAt       time.Time         `json:"createdAt"`
	ToolboxProxyURL string            `json:"toolboxProxyUrl"`
}

func (s sandboxDTO) check() error { return require(field{"id", s.ID}, field{"state", string(s.State)}) }

func (s sandboxDTO) sandbox() Sandbox {
	return Sandbox{
		ID: s.ID, Name: s.Name, Snapshot: s.Snapshot, State: s.State, Reason: s.ErrorReason, Labels: s.Labels,
		Created: s.CreatedAt, toolbox: strings.TrimRight(s.ToolboxProxyURL, "/"),
	}
}

// CreateSandbox creates an ephemeral sandbox: Daytona deletes it when it stops. [Client.WaitUntilStarted] waits until
// it is started. The caller deletes it. If a request fails after it may have created the sandbox, CreateSandbox looks
// for the sandbox, and retries a request without a response. If ctx ends, it deletes the sandbox and returns the cause,
// wrapped in a [LeftoverError] if the sandbox may be left.
func (c *Client) CreateSandbox(ctx context.Context, r SandboxRequest) (Sandbox, error) {
	name := "sandbox-actions-" + strings.ToLower(rand.Text()) // identifies the sandbox of a lost response
	for try := 1; ; try++ {
		box, err := c.postSandbox(ctx, name, r)
		if cause := context.Cause(ctx); cause != nil {
			return Sandbox{}, WithLeftovers(cause, c.DeleteSandbox(ctx, name))
		}
		if err == nil || !mayHaveCreatedSandbox(err) {
			return box, err
		}
		box, findErr := c.GetSandbox(ctx, name)
		switch {
		case findErr == nil:
			return box, nil
		case context.Cause(ctx) != nil:
			return Sandbox{}, WithLeftovers(context.Cause(ctx), c.DeleteSandbox(ctx, name))
		case !isNotFound(findErr):
			return Sandbox{}, WithLeftovers(err, c.DeleteSandbox(ctx, name))
		case try == maxCreates || !IsTransient(err):
			return Sandbox{}, err
		}
		_ = c.clock().Sleep(ctx, time.Second) // if ctx ends, the next iteration returns
	}
}

// mayHaveCreatedSandbox reports whether the request that failed with err may have created a sandbox. Daytona responds
// with 400 both to an invalid request and for a sandbox that fails within the 30 seconds that it waits
// (waitForSandboxStarted in apps/api/src/sandbox/controllers/sandbox.controller.ts). It responds with 409 if a request
// without a response has created the sandbox.
func mayHaveCreatedSandbox(err error) bool {
	switch httpclient.Status(err) {
	case http.StatusBadRequest, http.StatusConflict:
		return true
	}
	return mayHaveCreated(err)
}

func (c *Client) postSandbox(ctx context.Context, name string, r SandboxRequest) (Sandbox, error) {
	request := api.NewCreateSandbox()
	request.SetName(name)
	request.SetSnapshot(r.Snapshot)
	request.SetLabels(r.Labels)
	request.SetAutoStopInterval(int32(r.AutoStop))
	request.SetAutoDeleteInterval(0)
	if r.Region != "" {
		request.SetTarget(r.Region)
	}
	spec := call{
		op: "create a sandbox of snapshot " + r.Snapshot, permission: WriteSandboxes,
		timeout: 45 * time.Second, // Daytona waits up to 30 s for the sandbox
	}
	dto, err := do[sandboxDTO](ctx, c, spec, func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
		return response(a.SandboxAPI.CreateSandbox(ctx).CreateSandbox(*request).Execute())
	})
	return dto.sandbox(), err
}

// GetSandbox returns the sandbox with the given ID or name.
func (c *Client) GetSandbox(ctx context.Context, id string) (Sandbox, error) {
	dto, err := do[sandboxDTO](ctx, c, call{op: "read sandbox " + id},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.SandboxAPI.GetSandbox(ctx, id).Execute())
		})
	return dto.sandbox(), err
}

// WaitUntilStarted polls a sandbox until it is started. It keeps polling during unknown states, short outages and
// unusable responses. It returns a *[SandboxError] if the sandbox does not start, an error that wraps the cause of ctx
// if ctx ends, and otherwise the error of the last poll.
func (c *Client) WaitUntilStarted(ctx context.Context, id string) (Sandbox, error) {
	clock, timing := c.clock(), c.Timing.withDefaults()
	var box Sandbox
	start := clock.Now()
	lastResponse := start
	for intervals := c.intervals(); ; {
		now, err := c.GetSandbox(ctx, id)
		unread := clock.Now().Sub(lastResponse)
		switch {
		case context.Cause(ctx) != nil: // Sleep returns it
		case isNotFound(err) && unread <= timing.Missing: // a replica of Daytona's database may lag behind
		case err != nil && (!isInconclusive(err) || unread > timing.Outage):
			return box, err
		case err == nil:
			box, lastResponse = now, clock.Now()
			switch box.State {
			case SandboxStarted:
				return box, nil
			case SandboxFailed, SandboxBuildFailed, SandboxStopped, SandboxArchived, SandboxDestroying, SandboxDestroyed:
				return box, &SandboxError{box}
			}
		}
		if err := clock.Sleep(ctx, intervals.NextBackOff()); err != nil {
			return box, fmt.Errorf("%w; sandbox %s has been in state %s for %s", err, id, cmp.Or(box.State, "unknown"),
				clock.Now().Sub(start).Round(time.Second))
		}
	}
}

// DeleteSandbox deletes the sandbox with the given ID or name. It returns nil if the sandbox does not exist. If ctx has
// ended or ends, it continues for [Timing.CleanupGrace].
//
// Daytona refuses to delete a sandbox that it is starting (destroy in apps/api/src/sandbox/services/
// sandbox.service.ts), so DeleteSandbox tries again for [Timing.Removal]. Once accepted, a deletion is final.
func (c *Client) DeleteSandbox(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	timing := c.Timing.withDefaults()
	ctx, stop := grace.Extend(ctx, timing.CleanupGrace, errNoTime)
	defer stop()
	start := c.clock().Now()
	for intervals := c.intervals(); ; {
		_, err := c.send(ctx, call{op: "delete sandbox " + id, permission: DeleteSandboxes},
			func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
				return response(a.SandboxAPI.DeleteSandbox(ctx, id).Execute())
			})
		isBusy := httpclient.Status(err) == http.StatusConflict
		switch {
		case err == nil, isNotFound(err):
			return nil
		case isBusy && c.isDestroying(ctx, id):
			return nil
		case !isBusy && !isInconclusive(err) || c.clock().Now().Sub(start) > timing.Removal:
			return &SandboxRemovalError{id, err}
		}
		if cause := c.clock().Sleep(ctx, intervals.NextBackOff()); cause != nil {
			return &SandboxRemovalError{id, cmp.Or(context.Cause(ctx), cause)}
		}
	}
}

// isDestroying reports whether a sandbox is being deleted already.
func (c *Client) isDestroying(ctx context.Context, id string) bool {
	box, err := c.GetSandbox(ctx, id)
	return isNotFound(err) || err == nil && (box.State == SandboxDestroying || box.State == SandboxDestroyed)
}

// SandboxRemovalError reports a sandbox that may be left. Daytona deletes it when it stops.
type SandboxRemovalError struct {
	ID  string
	Err error
}

func (e *SandboxRemovalError) Error() string {
	return fmt.Sprintf("sandbox %s may still exist: %v (Daytona deletes it after its auto-stop interval; "+
		"or run `daytona delete %[1]s`)", e.ID, e.Err)
}

func (e *SandboxRemovalError) Unwrap() error { return e.Err }

// ListSandboxes lists the organization's sandboxes with all the labels, in any state except destroyed.
func (c *Client) ListSandboxes(ctx context.Context, labels map[string]string) ([]Sandbox, error) {
	filter, err := json.Marshal(labels)
	if err != nil {
		return nil, err
	}
	list := []Sandbox{}
	seen := map[string]bool{} // cursors; guards against an endless list
	for cursor := ""; ; {
		page, err := do[sandboxDTOs](ctx, c, call{op: "list sandboxes"},
			func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
				request := a.SandboxAPI.ListSandboxes(ctx).Labels(string(filter)).Limit(pageSize)
				if cursor != "" {
					request = request.Cursor(cursor)
				}
				return response(request.Execute())
			})
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			if box := item.sandbox(); hasLabels(box, labels) { // a server may ignore the filter
				list = append(list, box)
			}
		}
		if cursor = page.NextCursor; cursor == "" {
			return list, nil
		}
		if seen[cursor] {
			return nil, errors.New("list sandboxes: Daytona returned the same page twice (try again)")
		}
		seen[cursor] = true
	}
}

func hasLabels(box Sandbox, labels map[string]string) bool {
	for name, value := range labels {
		if box.Labels[name] != value {
			return false
		}
	}
	return true
}

// sandboxDTOs is a page of sandboxes.
type sandboxDTOs struct {
	Items      []sandboxDTO `json:"items"`
	NextCursor string       `json:"nextCursor"` // null on the last page
}

func (p sandboxDTOs) check() error {
	if p.Items == nil {
		return errors.New("items are missing")
	}
	for _, item := range p.Items {
		if err := item.check(); err != nil {
			return err
		}
	}
	return nil
}

// Preview is the address of a port of a sandbox. Its String method omits the token.
type Preview struct {
	URL   string
	Token string // expires with the sandbox; see [Preview.Authorize]
}

// String implements [fmt.Stringer].
func (p Preview) String() string { return p.URL }

// GoString implements [fmt.GoStringer].
func (p Preview) GoString() string { return p.URL }

// Authorize adds the token to a request to the preview (SANDBOX_AUTH_KEY_HEADER in apps/proxy/pkg/proxy/proxy.go).
// Without it, the proxy redirects to a login page.
func (p Preview) Authorize(request *http.Request) {
	request.Header.Set("X-Daytona-Preview-Token", p.Token)
}

// previewDTO is the response to a request for the address of a port.
type previewDTO struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

func (p previewDTO) check() error { return require(field{"url", p.URL}, field{"token", p.Token}) }

// PreviewURL returns the address of an HTTP server on a port of a sandbox. Its token is masked.
func (c *Client) PreviewURL(ctx context.Context, box Sandbox, port int) (Preview, error) {
	op := fmt.Sprintf("read the preview URL of port %d of sandbox %s", port, box.ID)
	dto, err := do[previewDTO](ctx, c, call{op: op},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			return response(a.SandboxAPI.GetPortPreviewUrl(ctx, box.ID, float32(port)).Execute())
		})
	if c.Mask != nil && dto.Token != "" {
		c.Mask(dto.Token)
	}
	return Preview(dto), err
}

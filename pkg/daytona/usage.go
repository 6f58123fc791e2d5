package daytona

import (
	"context"
	"errors"
	"net/http"
	"slices"

	api "github.com/daytonaio/daytona/libs/api-client-go"
)

// Usage counts what depends on a snapshot. Daytona deletes a snapshot that is in use without an error.
type Usage struct {
	Sandboxes int // in any state except destroyed
	WarmPools int
}

// Usage returns the usage of the named snapshots; names without usage are absent. Any key may read it. An error means
// that the usage is unknown. The hosted service's list of sandboxes can lag behind by seconds.
//
// Server v0.190.0 does not show warm pools, and their unclaimed sandboxes belong to another organization
// (apps/api/src/sandbox/services/sandbox-warm-pool.service.ts), so they are not counted. Newer servers show both.
func (c *Client) Usage(ctx context.Context, names ...string) (map[string]Usage, error) {
	if len(names) == 0 {
		return nil, nil
	}
	usage := map[string]Usage{}
	pools, err := c.warmPools(ctx)
	if err != nil {
		return nil, err
	}
	for _, pool := range pools {
		if slices.Contains(names, pool.Snapshot) {
			usage[pool.Snapshot] = Usage{WarmPools: usage[pool.Snapshot].WarmPools + 1}
		}
	}
	for chunk := range slices.Chunk(names, maxNames) {
		seen := map[string]bool{} // cursors; guards against an endless list
		for cursor := ""; ; {
			page, err := c.sandboxPage(ctx, chunk, cursor)
			if err != nil {
				return nil, err
			}
			for _, sandbox := range page.Items {
				used := usage[sandbox.Snapshot]
				used.Sandboxes++
				usage[sandbox.Snapshot] = used
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
			if seen[cursor] {
				return nil, errors.New("list the sandboxes of snapshots: Daytona returned the same page twice (try again)")
			}
			seen[cursor] = true
		}
	}
	return usage, nil
}

// maxNames bounds the URL of a request that filters by names.
const maxNames = 50

// sandboxPage is a page of sandboxes.
type sandboxPage struct {
	Items []struct {
		Snapshot string `json:"snapshot"` // name
	} `json:"items"`
	NextCursor string `json:"nextCursor"` // null on the last page
}

func (p sandboxPage) check() error {
	if p.Items == nil {
		return errors.New("items are missing")
	}
	return nil
}

func (c *Client) sandboxPage(ctx context.Context, names []string, cursor string) (sandboxPage, error) {
	return do[sandboxPage](ctx, c, call{op: "list the sandboxes of snapshots"},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			request := a.SandboxAPI.ListSandboxes(ctx).Snapshots(names).Limit(pageSize)
			if cursor != "" {
				request = request.Cursor(cursor)
			}
			return response(request.Execute())
		})
}

type warmPoolList []struct {
	Snapshot string `json:"snapshot"` // name
}

func (warmPoolList) check() error { return nil }

// warmPools lists the warm pools of the organization, or none if the server does not show them. The generated client is
// older than the servers that do (`warmPools` in @daytonaio/api-client 0.205.0).
func (c *Client) warmPools(ctx context.Context) (warmPoolList, error) {
	pools, err := do[warmPoolList](ctx, c, call{op: "list warm pools"},
		func(ctx context.Context, a *api.APIClient) (*http.Response, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url()+"/warm-pools", http.NoBody)
			if err != nil {
				return nil, err
			}
			for name, value := range a.GetConfig().DefaultHeader {
				request.Header.Set(name, value)
			}
			return a.GetConfig().HTTPClient.Do(request)
		})
	if isNotFound(err) {
		return nil, nil
	}
	return pools, err
}

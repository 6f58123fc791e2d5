package daytona

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/org/sandbox-actions/internal/fakeclock"
	cloud "github.com/org/sandbox-actions/internal/localcloud/daytona"
	"github.com/org/sandbox-actions/pkg/httpclient"
)

func TestWaitUntilRemoved(t *testing.T) {
	s := startCloud(t, func(o *cloud.Options) { o.ReadsPerState = 2 })
	c, ctx := newClient(s, "dtn_all"), t.Context()
	id := s.Put(cloud.Snapshot{Organization: "org-1", Name: "kept", State: "error"})
	checkError(t, c.WaitUntilRemoved(ctx, id), "snapshot kept was deleted, but is now error")
	checkError(t, c.requestRemoval(ctx, Snapshot{ID: id, Name: "kept"}), "")
	ended, cancel := context.WithCancelCause(ctx)
	interrupted := errors.New("interrupted")
	c.HTTP.Clock = &fakeclock.Clock{OnSleep: func() { cancel(interrupted) }}
	err := c.WaitUntilRemoved(ended, id)
	if checkError(t, err, "still removing snapshot kept"); !errors.Is(err, interrupted) {
		t.Error(err)
	}
	checkError(t, c.WaitUntilRemoved(ctx, id), "")
	s.Fail(cloud.Fault{Status: 401, Message: "no"})
	if err := c.WaitUntilRemoved(ctx, id); httpclient.Status(err) != http.StatusUnauthorized {
		t.Error(err)
	}
}

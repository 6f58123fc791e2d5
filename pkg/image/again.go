package image

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/client"
)

// cached is the same build, taken from what the builder has of it.
func (r Request) cached() Request {
	r.NoCache, r.NoCacheFilters, r.Pull, r.Attestations = false, nil, false, nil
	return r
}

// PushBuilt pushes the image that r built on c, and not its attestations, straight from the builder to references: a second solve, in which
// everything is cached. It fails when the builder would make another image by now. An error that is [ErrUnauthorized] asks for a fresh login
// in auth: with it, the same call goes on with what is still missing.
func PushBuilt(ctx context.Context, c *client.Client, r Request, built *Result, auth Auth, references ...string) error {
	again := r.cached()
	again.Push, again.ByDigest, again.Outputs, again.Auth = references, false, nil, auth
	status := make(chan *client.SolveStatus)
	go func() { // ends when Solve closes it
		for range status {
		}
	}()
	result, err := Solve(ctx, c, again, status)
	if err != nil {
		return err
	}
	want, err := built.Image.Digest()
	if err != nil {
		return err
	}
	if result.Digest != want {
		return fmt.Errorf("push %v: the builder has forgotten %s and built %s instead: run it again", references, want, result.Digest)
	}
	return nil
}

package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/buildkit/client"
)

// cached is the same build, taken from what the builder has of it.
func (r Request) cached() Request {
	r.NoCache, r.NoCacheFilters, r.Pull, r.Attestations = false, nil, false, nil
	return r
}

// PushFromBuilder pushes the image that r built on c, and not its attestations, straight from the builder to references: everything is cached by
// then. It fails, and pushes nothing, when the builder would make another image by now. An error that is [ErrUnauthorized] asks for a fresh
// login in auth: with it, the same call goes on with what is still missing.
func PushFromBuilder(ctx context.Context, c *client.Client, r Request, built *Result, auth Auth, references ...string) error {
	want, err := built.Image.Digest()
	if err != nil {
		return err
	}
	again := r.cached()
	again.PushByDigest, again.Outputs, again.Auth, again.LayerDir = false, nil, auth, ""
	for _, again.Push = range [][]string{nil, references} { // what it would be, and then there
		status := make(chan *client.SolveStatus)
		go func() { // ends when Solve closes it
			for range status {
			}
		}()
		result, err := Solve(ctx, c, again, status)
		if err != nil {
			return err
		}
		if result.Digest != want {
			return fmt.Errorf("push %s: the builder has forgotten %s and built %s instead: run it again", strings.Join(references, ", "), want, result.Digest)
		}
	}
	return nil
}

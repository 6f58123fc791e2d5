package builder

import (
	"context"
	"fmt"
	"strings"
)

// PullCredential opens an image that a build has saved in Depot's registry, for whoever may build in its project: another job, or a
// person. reference is HOST/PROJECT:BUILD, with a digest or without, as [Build.Tags] has it. Depot says of which registry the password is, and
// for any other one there is none: nothing of Depot's is sent to a stranger.
func (d Depot) PullCredential(ctx context.Context, reference string) (Credential, error) {
	doing := "get a password to pull " + reference
	saved, _, _ := strings.Cut(reference, "@")
	colon := strings.LastIndex(saved, ":")
	if colon < strings.LastIndex(saved, "/") || strings.Count(saved, "/") != 1 {
		return Credential{}, fmt.Errorf("%s: Depot's registry has no such name: write HOST/PROJECT:BUILD, the output image_ref of a build with save: true", doing)
	}
	token, err := d.Token(ctx)
	if err != nil {
		return Credential{}, err
	}
	d.mask(token)
	answer, err := call(ctx, doing, token, &pullInfoRequest{saved[colon+1:]}, newService().pullInfo.CallUnary, again)
	if err != nil {
		return Credential{}, err
	}
	if answer.Password == "" {
		return Credential{}, fmt.Errorf("%s: the answer of %s holds none: check DEPOT_API_URL", doing, apiURL())
	}
	d.mask(answer.Password)
	host, _, _ := strings.Cut(saved, "/")
	if of, _, _ := strings.Cut(answer.Reference, "/"); of != host {
		return Credential{}, fmt.Errorf("%s: Depot keeps that build as %s: write that", doing, answer.Reference)
	}
	return Credential{Host: host, Username: answer.Username, Password: answer.Password}, nil
}

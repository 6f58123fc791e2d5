package builder

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// PullCredential returns a credential for pulling an image that a build saved in Depot's registry. reference has the
// form HOST/PROJECT:BUILD, with or without a digest, as in [Lease.Tags]. PullCredential fails if Depot's password is
// for a registry other than HOST, so that the password is never sent to another host.
func (d Depot) PullCredential(ctx context.Context, reference string) (Credential, error) {
	op := "get a password to pull " + reference
	saved, _, _ := strings.Cut(reference, "@")
	colon := strings.LastIndex(saved, ":")
	if colon < strings.LastIndex(saved, "/") || strings.Count(saved, "/") != 1 {
		return Credential{}, fmt.Errorf("%s: not a reference in Depot's registry (use HOST/PROJECT:BUILD, the output "+
			"image_ref of a build with `save: true`)", op)
	}
	token, err := d.Token(ctx)
	if err != nil {
		return Credential{}, err
	}
	d.mask(token)
	api := d.api()
	answer, err := call(
		httpclient.Idempotent(ctx),
		api,
		op,
		token,
		&pullInfoRequest{saved[colon+1:]},
		api.pullInfo.CallUnary,
	)
	if err != nil {
		return Credential{}, err
	}
	if answer.Password == "" {
		return Credential{}, api.incomplete(op, "no password")
	}
	d.mask(answer.Password)
	host, _, _ := strings.Cut(saved, "/")
	if actual, _, _ := strings.Cut(answer.Reference, "/"); actual != host {
		return Credential{}, fmt.Errorf("%s: registry mismatch: the image is at %s", op, safetext.Line(answer.Reference, 200))
	}
	return Credential{Host: host, Username: answer.Username, Password: answer.Password}, nil
}

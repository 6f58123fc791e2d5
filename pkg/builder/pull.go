package builder

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/org/sandbox-actions/pkg/httpclient"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// registryUser is the user name for every password of Depot's registry.
const registryUser = "x-token"

// savedReference is a reference in Depot's registry, HOST/PROJECT:TAG@DIGEST without the tag or the digest.
type savedReference struct {
	host, project, tag string
}

func parseReference(reference string) (savedReference, bool) {
	name, digest, hasDigest := strings.Cut(reference, "@")
	repository, tag, hasTag := splitTag(name)
	host, project, _ := strings.Cut(repository, "/")
	valid := host != "" && project != "" && !strings.Contains(project, "/") && (hasTag || hasDigest) &&
		hasTag == (tag != "") && hasDigest == (digest != "")
	return savedReference{host, project, tag}, valid
}

// splitTag returns the repository and the tag of a reference without a digest.
func splitTag(reference string) (repository, tag string, ok bool) {
	if i := strings.LastIndex(reference, ":"); i > strings.LastIndex(reference, "/") {
		return reference[:i], reference[i+1:], true
	}
	return reference, "", false
}

// PullCredential returns a credential for pulling an image that a build saved in Depot's registry. reference has the
// form HOST/PROJECT:TAG, HOST/PROJECT@DIGEST or both; the tag is a build ID or a tag of [Request.SaveTags].
// PullCredential fails if HOST is not Depot's registry, so that the password is never sent to another host.
func (d Depot) PullCredential(ctx context.Context, reference string) (Credential, error) {
	op := "get a password to pull " + reference
	saved, ok := parseReference(reference)
	if !ok {
		return Credential{}, fmt.Errorf("%s: not a reference in Depot's registry (use HOST/PROJECT:BUILD, the output "+
			"image_ref of a build with `save: true`)", op)
	}
	token, err := d.Token(ctx)
	if err != nil {
		return Credential{}, err
	}
	d.mask(token)
	api := d.api()
	if saved.tag != "" {
		credential, err := d.pullByBuild(ctx, api, op, token, saved)
		if !isUnknownBuild(err) {
			return credential, err
		}
	}
	return d.pullByProject(ctx, api, op, token, saved) // the tag is not a build ID
}

// isUnknownBuild reports whether Depot refused a build ID, and not the token. Depot CLI tries the project's password
// after any error: depot/cli b57f518, pkg/cmd/pull/pull.go.
func isUnknownBuild(err error) bool {
	status := httpclient.Status(err)
	return status == http.StatusNotFound || status == http.StatusBadRequest || status == http.StatusForbidden
}

// pullByBuild returns a credential for the image of the build that the tag identifies.
func (d Depot) pullByBuild(
	ctx context.Context, api *apiClient, op, token string, saved savedReference,
) (Credential, error) {
	info, err := d.pullInfo(ctx, api, op, token, saved.tag)
	if err != nil {
		return Credential{}, err
	}
	if !info.isSaved() {
		return Credential{}, fmt.Errorf("%s: build %s was not saved (set `save: true` in the build)", op, saved.tag)
	}
	if actual, _, _ := strings.Cut(info.Reference, "/"); actual != saved.host {
		return Credential{}, fmt.Errorf("%s: registry mismatch: the image is at %s", op, safetext.Line(info.Reference, 200))
	}
	return Credential{Host: saved.host, Username: info.Username, Password: info.Password}, nil
}

// isSaved reports whether the build saved its image. Depot answers for every build: depot/cli b57f518,
// pkg/cmd/pull/options.go.
func (i pullInfo) isSaved() bool {
	saved := len(i.Options) == 0 || i.SaveForLoad
	for _, options := range i.Options {
		saved = saved || options.Save
	}
	return saved
}

// pullInfo returns the location of a build's image in Depot's registry and a password to pull it.
func (d Depot) pullInfo(ctx context.Context, api *apiClient, op, token, build string) (*pullInfo, error) {
	info, err := call(
		httpclient.Idempotent(ctx), api, op, token, &pullInfoRequest{build}, api.getPullInfo.CallUnary,
	)
	switch {
	case err != nil:
		return nil, err
	case info.Password == "":
		return nil, api.incomplete(op, "no password")
	}
	d.mask(info.Password)
	return info, nil
}

// pullByProject returns a credential for all images of the project.
func (d Depot) pullByProject(
	ctx context.Context, api *apiClient, op, token string, saved savedReference,
) (Credential, error) {
	if !d.isRegistry(saved.host) {
		return Credential{}, fmt.Errorf("%s: %s is not Depot's registry (use registry.depot.dev, or the host that the "+
			"build's output image_ref names)", op, safetext.Line(saved.host, 200))
	}
	answer, err := call(
		httpclient.Idempotent(ctx), api, op, token, &pullTokenRequest{saved.project}, api.getPullToken.CallUnary,
	)
	switch {
	case err != nil:
		return Credential{}, err
	case answer.Token == "":
		return Credential{}, api.incomplete(op, "no password")
	}
	d.mask(answer.Token)
	return Credential{Host: saved.host, Username: registryUser, Password: answer.Token}, nil
}

// isRegistry reports whether a registry belongs to Depot: it is in Depot's domain, which has a host per organization,
// or on the machine of the API.
// https://depot.dev/docs/registry/quickstart
func (d Depot) isRegistry(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	const domain = "registry.depot.dev"
	api, err := url.Parse(cmp.Or(d.APIURL, DefaultAPIURL))
	return host == domain || strings.HasSuffix(host, "."+domain) || err == nil && name == api.Hostname()
}

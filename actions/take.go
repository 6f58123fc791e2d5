package actions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/org/sandbox-actions/pkg/dockerengine"
	"github.com/org/sandbox-actions/pkg/image"
)

// taken is an image that was there already.
type taken struct {
	v1.Image
	inEngine bool
}

// take finds an image that nobody builds here: in the engine, in the folder of an OCI layout, or in a registry. platform is what it must be
// for; "" takes the one there is. It can be read as long as ctx lasts.
func (b *build) take(ctx context.Context, name, platform string) (taken, error) {
	defer b.phases.begin("the image %s", name)()
	fail := func(err error) (taken, error) { return taken{}, fmt.Errorf("input image: %w", err) }
	auth := image.Auth{Mask: b.Runner.Mask}
	if folder, ok := layoutFolder(name); ok {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(b.Dir, folder)
		}
		found, err := image.Open(ctx, "oci-layout://"+folder, platform, auth)
		if err != nil {
			return fail(err)
		}
		return taken{Image: found}, nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return taken{}, refuse("image", name, "is no image ("+err.Error()+"): write a name in the engine, a registry reference, or ./FOLDER of an OCI layout")
	}
	var missing error // why the engine has it not
	if b.engine == nil {
		b.engine, missing = dockerengine.Open(ctx, b.Getenv)
	}
	if b.engine != nil {
		id, err := b.engine.ImageID(ctx, name)
		if err != nil {
			return fail(err)
		}
		if id != "" {
			found, err := b.engine.Image(ctx, name, platform)
			if err != nil {
				return fail(err)
			}
			return taken{found, true}, nil
		}
		missing = notInEngine(name)
	}
	if reference.Domain(named) == "docker.io" && !strings.HasPrefix(name, "docker.io/") { // a name, but of no registry
		return taken{}, missing
	}
	found, err := image.Open(ctx, name, platform, auth)
	if denied(err) && !strings.Contains(reference.Path(named), "/") {
		// Such are the references of Depot's registry, where an earlier job may have saved it.
		credential, refused := b.depot("").PullCredential(ctx, name)
		if refused != nil {
			return fail(fmt.Errorf("%w; if Depot keeps it: %w", err, refused))
		}
		auth.Credentials = append(auth.Credentials, image.Credential(credential))
		found, err = image.Open(ctx, name, platform, auth)
	}
	if err != nil {
		return fail(err)
	}
	return taken{Image: found}, nil
}

// denied says that a registry does not let us in.
func denied(err error) bool {
	answer := new(transport.Error)
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden)
}

// layoutFolder is the folder of an OCI layout that a name means, with its tag or digest.
func layoutFolder(name string) (string, bool) {
	if folder, ok := strings.CutPrefix(name, "oci-layout://"); ok {
		return folder, true
	}
	return name, strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../")
}

func notInEngine(name string) error {
	return refuse("image", name, "is not in the Docker Engine: build it (go run ./action-build, or the build action), or write a registry in front of its name")
}

package actions

import (
	"context"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/org/sandbox-actions/pkg/dockerengine"
)

func engineImage(context.Context, *dockerengine.Engine, string) (v1.Image, error) {
	return nil, errors.New("not yet")
}

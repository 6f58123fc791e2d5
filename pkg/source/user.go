package source

import (
	"context"
	"strings"
)

// UserName is the name that git gives to who commits in a folder; "" when it knows none.
func UserName(ctx context.Context, dir string) string {
	name, err := git{dir: dir}.run(ctx, nil, "config", "--get", "user.name")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

package image

import (
	"fmt"
	"maps"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/org/sandbox-actions/pkg/safetext"
)

// AddProxies returns build arguments together with the proxies of Docker's configuration, as docker build sends them:
// HTTP_PROXY and http_proxy, and so on. Arguments take precedence, in upper or lower case. A builder's address selects
// its entry of the configuration; others use the entry default. mask is called with each password.
func AddProxies(args map[string]string, builder string, mask func(secret string)) (map[string]string, error) {
	file, err := config.Load(config.Dir())
	if err != nil {
		return nil, fmt.Errorf("read Docker's configuration: %w", err)
	}
	given := map[string]bool{}
	for name := range args {
		given[strings.ToLower(name)] = true
	}
	all := map[string]string{}
	maps.Copy(all, args)
	for name, value := range file.ParseProxyConfig(builder, nil) {
		if given[strings.ToLower(name)] {
			continue
		}
		location := *value
		if !strings.Contains(location, "://") { // clients add the scheme
			location = "http://" + location
		}
		for _, secret := range safetext.URLSecrets(location) {
			mask(secret)
		}
		all[name] = *value
	}
	return all, nil
}

package image

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/docker/cli/cli/config"
)

// Docker's configuration supplies proxies in upper and lower case. Build arguments take precedence in either case.
func TestAddProxies(t *testing.T) {
	dir := t.TempDir()
	before := config.Dir()
	config.SetDir(dir)
	t.Cleanup(func() { config.SetDir(before) })
	const content = `{"proxies": {
		"default": {"httpProxy": "http://user:secret@proxy.example", "noProxy": "localhost"},
		"tcp://builder.example:1234": {"httpsProxy": "http://other.example"},
		"unix:///run/other.sock": {"ftpProxy": "user:p%2Fw@proxy.example:3128", "allProxy": "socks5://proxy.example"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	const proxy = "http://user:secret@proxy.example"
	for _, test := range []struct {
		name, builder string
		args, want    map[string]string
		masked        []string
	}{
		{
			"default", "depot", map[string]string{"A": "b"}, map[string]string{
				"A": "b", "HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "localhost", "no_proxy": "localhost",
			}, []string{"secret", "secret"},
		},
		{
			"build arguments", "depot", map[string]string{"http_proxy": "mine", "No_Proxy": ""},
			map[string]string{"http_proxy": "mine", "No_Proxy": ""}, nil,
		},
		{
			"address", "tcp://builder.example:1234", nil,
			map[string]string{"HTTPS_PROXY": "http://other.example", "https_proxy": "http://other.example"}, nil,
		},
		{
			"other proxies, without a scheme", "unix:///run/other.sock", map[string]string{"all_proxy": ""}, map[string]string{
				"FTP_PROXY": "user:p%2Fw@proxy.example:3128", "ftp_proxy": "user:p%2Fw@proxy.example:3128", "all_proxy": "",
			}, []string{"p%2Fw", "p/w", "p%2Fw", "p/w"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var masked []string
			args := maps.Clone(test.args)
			got, err := AddProxies(args, test.builder, func(secret string) { masked = append(masked, secret) })
			if err != nil || !maps.Equal(got, test.want) || !slices.Equal(masked, test.masked) {
				t.Errorf("%v, masked %q, %v; want %v, masked %q", got, masked, err, test.want, test.masked)
			}
			if !maps.Equal(args, test.args) {
				t.Errorf("the arguments became %v", args)
			}
		})
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AddProxies(nil, "depot", nil); err == nil {
		t.Error("invalid configuration: no error")
	}
}

package image

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/buildkit/session/auth"
	"golang.org/x/crypto/nacl/sign"
)

func TestAuthResolve(t *testing.T) {
	writeDockerConfig(t, `{"auths": {
		"https://index.docker.io/v1/": {"username": "hub", "password": "hub-password"},
		"both.example": {"username": "docker", "password": "docker-password"},
		"token.example": {"identitytoken": "an-identity-token"}
	}}`)
	for _, test := range []struct {
		image  string
		want   authn.AuthConfig
		masked []string
	}{
		{"debian", authn.AuthConfig{Username: "hub", Password: "hub-password"}, []string{"hub-password"}},
		{"both.example/a", authn.AuthConfig{Username: "given", Password: "given-password"}, nil},
		{"token.example/a", authn.AuthConfig{IdentityToken: "an-identity-token"}, []string{"an-identity-token"}},
		{"unknown.example/a", authn.AuthConfig{}, nil},
	} {
		var masked []string
		a := Auth{
			Credentials: []Credential{{Host: "both.example", Username: "given", Password: "given-password"}},
			Mask:        func(secret string) { masked = append(masked, secret) },
		}
		ref, err := name.ParseReference(test.image)
		if err != nil {
			t.Fatal(err)
		}
		found, err := a.Resolve(ref.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := found.Authorization()
		if err != nil || got.Username != test.want.Username || got.Password != test.want.Password ||
			got.IdentityToken != test.want.IdentityToken {
			t.Errorf("%s: %+v (%v), want %+v", test.image, got, err, test.want)
		}
		if !slices.Equal(masked, test.masked) {
			t.Errorf("%s: masked %q, want %q", test.image, masked, test.masked)
		}
	}
}

func TestTokenAuthority(t *testing.T) {
	one, other := &builderAuth{seed: []byte("one")}, &builderAuth{seed: []byte("other")}
	public := func(b *builderAuth, host, salt string) *[32]byte { return (*[32]byte)(b.key(host, []byte(salt))[32:]) }
	payload := []byte("payload")
	signed, err := one.VerifyTokenAuthority(t.Context(), &auth.VerifyTokenAuthorityRequest{
		Host: "a b", Salt: []byte("c"), Payload: payload,
	})
	if err != nil {
		t.Fatal(err)
	}
	opened, ok := sign.Open(nil, signed.Signed, public(one, "a b", "c"))
	if !ok || !bytes.Equal(opened, payload) {
		t.Errorf("the signature does not match its own key: %q", opened)
	}
	for what, key := range map[string]*[32]byte{
		"seed": public(other, "a b", "c"), "salt": public(one, "a b", "d"), "host": public(one, "a", "c"),
		"split of host and salt": public(one, "a", "b c"),
	} {
		if _, ok := sign.Open(nil, signed.Signed, key); ok {
			t.Errorf("the signature matches the key of another %s", what)
		}
	}
}

package registry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func status(err error) int {
	answer := new(transport.Error)
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	return 0
}

func TestAccounts(t *testing.T) {
	r, err := Start(t.Context(), t.TempDir(),
		Account{User: "robot", Password: "pw", Prefix: "team/", Push: true},
		Account{User: "reader", Password: "pr"},
		Account{User: "expired", Password: "pl", Push: true, Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	image, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	push := func(repository string, auth authn.Authenticator) error {
		ref, err := name.ParseReference(r.Addr + "/" + repository)
		if err != nil {
			t.Fatal(err)
		}
		return remote.Write(ref, image, remote.WithAuth(auth))
	}
	pull := func(repository string, auth authn.Authenticator) error {
		ref, err := name.ParseReference(r.Addr + "/" + repository)
		if err != nil {
			t.Fatal(err)
		}
		got, err := remote.Image(ref, remote.WithAuth(auth))
		if err != nil {
			return err
		}
		return validate.Image(got)
	}
	robot, reader := &authn.Basic{Username: "robot", Password: "pw"}, &authn.Basic{Username: "reader", Password: "pr"}
	if err := push("team/app:1", robot); err != nil {
		t.Fatal(err)
	}
	if err := pull("team/app:1", reader); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"anonymous pull":  pull("team/app:1", authn.Anonymous),
		"wrong password":  pull("team/app:1", &authn.Basic{Username: "robot", Password: "no"}),
		"expired account": push("team/app:2", &authn.Basic{Username: "expired", Password: "pl"}),
		"pull only":       push("team/app:2", reader),
		"other prefix":    push("other/app:1", robot),
	} {
		if status(err) != http.StatusUnauthorized {
			t.Errorf("%s: %v, want 401", what, err)
		}
	}
	r.AddAccount(Account{User: "new", Password: "pn", Push: true})
	if err := push("other/app:1", &authn.Basic{Username: "new", Password: "pn"}); err != nil {
		t.Error(err)
	}
}

func TestMirror(t *testing.T) {
	file := filepath.Join(t.TempDir(), "base.tar")
	if _, err := StartMirror(t.Context(), file); err == nil {
		t.Fatal("StartMirror succeeded without a base image")
	}
	var content, compressed bytes.Buffer
	w := tar.NewWriter(&content)
	header := &tar.Header{Name: "./etc/", Typeflag: tar.TypeDir, Mode: 0o755}
	if err := errors.Join(w.WriteHeader(header), w.Close()); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(content.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%x  base.tar\n%x  base.tar.gz\n",
		sha256.Sum256(content.Bytes()), sha256.Sum256(compressed.Bytes()))
	files := map[string][]byte{"": content.Bytes(), ".gz": compressed.Bytes(), ".sums": []byte(sums)}
	for suffix, data := range files {
		if err := os.WriteFile(file+suffix, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var digests []string
	for range 2 {
		m, err := StartMirror(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := name.ParseReference(m.Addr + "/library/debian:bookworm-slim")
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Error(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
		image, err := random.Image(10, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, image); err == nil {
			t.Error("a push to the mirror succeeded")
		}
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("the digest of the base image changed: %v", digests)
	}
}

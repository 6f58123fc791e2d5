package github

import (
	"encoding/base64"
	"fmt"
	"testing"
)

func TestAttestations(t *testing.T) {
	s, _, _, _, _ := startPublisher(t)
	digest := "sha256:" + sum("program")
	bundle := func(mediaType, statement string) string {
		return fmt.Sprintf(`{"bundle":{"mediaType":%q,"verificationMaterial":{},"dsseEnvelope":`+
			`{"payload":%q,"payloadType":"application/vnd.in-toto+json","signatures":[]}}}`,
			mediaType, base64.StdEncoding.EncodeToString([]byte(statement)))
	}
	const v03 = "application/vnd.dev.sigstore.bundle.v0.3+json"
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1",`+
		`"predicateType":"https://slsa.dev/provenance/v1",`+
		`"subject":[{"name":"other","digest":{"sha256":%q}},{"name":"program","digest":{"sha256":%q}}]}`,
		sum("other"), sum("program"))
	for _, test := range []struct {
		name, method, path, token, body string
		status                          int
		want                            string
	}{
		{"not found", "GET", "octo/app/attestations/" + digest, "app", "", 404, "Not Found"},
		{"store", "POST", "octo/app/attestations", "app", bundle(v03, statement), 201, `{"id":1}`},
		{"by digest", "GET", "octo/app/attestations/" + digest, "app", "", 200,
			`{"attestations":[{"bundle":{"mediaType":"` + v03},
		{"by the digest of another subject", "GET", "octo/app/attestations/sha256:" + sum("other"), "app", "", 200, v03},
		{"in another repository", "GET", "octo/lib/attestations/" + digest, "", "", 404, "Not Found"},
		{"without attestations: read", "GET", "octo/app/attestations/" + digest, "app-reads", "", 403,
			"Resource not accessible by integration"},
		{"without attestations: write", "POST", "octo/app/attestations", "app-reads", bundle(v03, statement), 403,
			"Resource not accessible by integration"},
		{"invalid bundle", "POST", "octo/app/attestations", "app", bundle("application/json", statement), 422,
			"Invalid bundle"},
		{"invalid statement", "POST", "octo/app/attestations", "app", bundle(v03, "{}"), 422, "Invalid bundle"},
		{"no subject", "POST", "octo/app/attestations", "app",
			bundle(v03, `{"_type":"https://in-toto.io/Statement/v1"}`), 422, "Invalid bundle"},
		{"empty object", "POST", "octo/app/attestations", "app", "{}", 422, "Invalid bundle"},
		{"invalid JSON", "POST", "octo/app/attestations", "app", "<", 400, "Problems parsing JSON"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkResponse(t, test.status, test.want, test.method, s.APIURL()+"/repos/"+test.path, test.token, test.body)
		})
	}
}

package github

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// https://docs.github.com/en/rest/repos/attestations
var attestationEndpoints = []endpoint{
	{"POST /attestations", writeAttestations, withBody((*call).createAttestation),
		"repos/attestations#create-an-attestation"},
	{"GET /attestations/{digest}", readAttestations, (*call).listAttestations, "repos/attestations#list-attestations"},
}

// attestation is a stored Sigstore bundle. Like GitHub, the stand-in does not verify it.
type attestation struct {
	id      int64
	bundle  json.RawMessage
	digests []string // digests of its subjects
}

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

type createAttestationBody struct{ Bundle json.RawMessage }

func (c *call) createAttestation(body createAttestationBody) (any, error) {
	digests := bundleSubjects(body.Bundle)
	if !slices.ContainsFunc(digests, sha256Digest.MatchString) {
		return nil, unprocessable("Invalid bundle")
	}
	store := c.store()
	a := attestation{id: c.newID(), bundle: body.Bundle, digests: digests}
	store.attestations = append(store.attestations, a)
	return map[string]any{"id": a.id}, nil
}

// bundleSubjects returns the digests of the subjects in a Sigstore bundle, or nil if the bundle is invalid.
func bundleSubjects(data json.RawMessage) (digests []string) {
	var bundle struct {
		MediaType    string
		DSSEEnvelope struct{ Payload []byte }
	}
	err := json.Unmarshal(data, &bundle)
	if err != nil || !strings.HasPrefix(bundle.MediaType, "application/vnd.dev.sigstore.bundle") {
		return nil
	}
	var statement struct {
		Type    string `json:"_type"`
		Subject []struct{ Digest map[string]string }
	}
	err = json.Unmarshal(bundle.DSSEEnvelope.Payload, &statement)
	if err != nil || !strings.HasPrefix(statement.Type, "https://in-toto.io/Statement/") {
		return nil
	}
	for _, subject := range statement.Subject {
		digests = append(digests, "sha256:"+subject.Digest["sha256"])
	}
	return digests
}

func (c *call) listAttestations() (any, error) {
	list := []any{}
	for _, a := range slices.Backward(c.store().attestations) {
		if slices.Contains(a.digests, c.request.PathValue("digest")) {
			list = append(list, map[string]any{"bundle": a.bundle, "repository_id": 1, "initiator": "github-actions[bot]"})
		}
	}
	if len(list) == 0 {
		return nil, errNotFound
	}
	return map[string]any{"attestations": list}, nil
}

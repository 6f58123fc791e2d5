package github

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// https://docs.github.com/en/rest/repos/attestations
func (s *Server) attestationEndpoints() []endpoint {
	return []endpoint{
		{"POST /attestations", writeAttestations, s.attest, "repos/attestations#create-an-attestation"},
		{"GET /attestations/{digest}", readAttestations, s.attested, "repos/attestations#list-attestations"},
	}
}

// attestation is a Sigstore bundle, as it came. GitHub stores what it gets: to verify it is for who reads it.
type attestation struct {
	id      int64
	bundle  json.RawMessage
	digests []string // of its subjects
}

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func (s *Server) attest(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	var wanted struct{ Bundle json.RawMessage }
	if refused := decode(request, &wanted); refused != nil {
		return nil, refused
	}
	var bundle struct {
		MediaType    string
		DSSEEnvelope struct{ Payload []byte }
	}
	var statement struct {
		Type    string `json:"_type"`
		Subject []struct{ Digest map[string]string }
	}
	if err := json.Unmarshal(wanted.Bundle, &bundle); err != nil || !strings.HasPrefix(bundle.MediaType, "application/vnd.dev.sigstore.bundle") {
		return nil, unprocessable("Invalid bundle")
	}
	if err := json.Unmarshal(bundle.DSSEEnvelope.Payload, &statement); err != nil || !strings.HasPrefix(statement.Type, "https://in-toto.io/Statement/") {
		return nil, unprocessable("Invalid bundle")
	}
	a := attestation{bundle: wanted.Bundle}
	for _, subject := range statement.Subject {
		a.digests = append(a.digests, "sha256:"+subject.Digest["sha256"])
	}
	if !slices.ContainsFunc(a.digests, sha256Digest.MatchString) {
		return nil, unprocessable("Invalid bundle")
	}
	m, done := s.open(ctx, r)
	defer done()
	a.id = s.nextID()
	m.attestations = append(m.attestations, a)
	return map[string]any{"id": a.id}, nil
}

func (s *Server) attested(ctx context.Context, r Repository, request *http.Request) (any, *refusal) {
	m, done := s.open(ctx, r)
	defer done()
	list := []any{}
	for _, a := range slices.Backward(m.attestations) {
		if slices.Contains(a.digests, request.PathValue("digest")) {
			list = append(list, map[string]any{"bundle": a.bundle, "repository_id": 1, "initiator": "github-actions[bot]"})
		}
	}
	if len(list) == 0 {
		return nil, notFound
	}
	return map[string]any{"attestations": list}, nil
}

package doppler

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/org/sandbox-actions/pkg/httpclient"
)

// Login exchanges a GitHub OIDC token for a token of the identity's service account. It uses only c.Host and c.HTTP.
// The identity determines the token's lifetime, which may be a few minutes: see Client.Renew.
func (c Client) Login(ctx context.Context, identity, idToken string) (string, error) {
	op := fmt.Sprintf("authenticate to Doppler as identity %q", identity)
	var answer struct {
		Token string `json:"token"`
	}
	const clockHint = "the OIDC token is new: check the clock of the server that issued it"
	hints := append(slices.Clone(outageHints), httpclient.Hint{
		On: httpclient.Any, Message: "expired", Text: clockHint,
	}, httpclient.Hint{
		On: httpclient.Any, Message: "not before", Text: clockHint,
	}, httpclient.Hint{
		On:   httpclient.Any,
		Text: "check doppler_identity, and configure that identity to trust " + describeSubject(idToken),
	})
	err := c.api(hints).Do(ctx, httpclient.JSONCall{
		Op: op, Method: http.MethodPost, Path: "/v3/auth/oidc", Idempotent: true,
		Body: map[string]string{"identity": identity, "token": idToken}, Secrets: []string{idToken},
	}, &answer)
	switch {
	case err != nil:
		return "", err
	case answer.Token == "":
		return "", formatError(op, "the response has no token")
	}
	return answer.Token, nil
}

// describeSubject describes the claims of a token that an identity matches. They are not secret.
func describeSubject(idToken string) string {
	var claims struct {
		Audience any    `json:"aud"`
		Subject  string `json:"sub"`
	}
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return "this workflow"
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(data, &claims) != nil || claims.Subject == "" {
		return "this workflow"
	}
	return fmt.Sprintf("the subject %q with the audience %q", claims.Subject, fmt.Sprint(claims.Audience))
}

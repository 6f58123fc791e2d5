package image

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

// secretStore implements BuildKit's secrets.SecretStore. It reads a secret when a step uses it.
type secretStore map[string]func() ([]byte, error)

func secretProvider(values map[string]func() ([]byte, error)) session.Attachable {
	return secretsprovider.NewSecretProvider(secretStore(values))
}

// GetSecret implements secrets.SecretStore.
func (s secretStore) GetSecret(_ context.Context, id string) ([]byte, error) {
	read, ok := s[id]
	if !ok {
		return nil, fmt.Errorf("secret %s: %w", id, secrets.ErrNotFound)
	}
	return read()
}

func sshAgents(list []SSH) ([]session.Attachable, error) {
	if len(list) == 0 {
		return nil, nil
	}
	var configs []sshprovider.AgentConfig
	for _, s := range list {
		configs = append(configs, sshprovider.AgentConfig{ID: s.ID, Paths: s.Paths})
	}
	provider, err := sshprovider.NewSSHAgentProvider(configs)
	if err != nil {
		return nil, fmt.Errorf("open SSH agent: %w (start an agent, or set an existing socket or key)", err)
	}
	return []session.Attachable{provider}, nil
}

package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"golang.org/x/crypto/ssh/agent"
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
		config := sshprovider.AgentConfig{ID: s.ID, Paths: s.Paths}
		if _, err := sshprovider.NewSSHAgentProvider([]sshprovider.AgentConfig{config}); err != nil {
			const wrapped = "failed to convert agent config"
			for next := err; next != nil && strings.HasPrefix(err.Error(), wrapped); next = errors.Unwrap(next) {
				err = next
			}
			return nil, fmt.Errorf("open the SSH agent %s: %w (set the input ssh to the socket of a running agent, or to a key "+
				"without a passphrase)", s.ID, err)
		}
		configs = append(configs, config)
	}
	provider, err := sshprovider.NewSSHAgentProvider(configs)
	if err != nil {
		return nil, fmt.Errorf("open the SSH agents: %w", err)
	}
	return []session.Attachable{provider}, nil
}

const agentTimeout = 2 * time.Second // for the answer of an SSH agent on this machine

// hasNoKeys reports whether this is an agent that answers and has no keys.
func (s SSH) hasNoKeys() bool {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if len(s.Paths) > 0 {
		socket = s.Paths[0]
	}
	conn, err := net.DialTimeout("unix", socket, agentTimeout) // fails for a key
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(agentTimeout)) // fails for a closed connection, as List does
	keys, err := agent.NewClient(conn).List()
	return err == nil && len(keys) == 0
}

// Package credentials finds the credentials for GitHub, Depot, Doppler, Daytona and registries: it defines the
// precedence of their sources, masks secrets, and requests GitHub OIDC tokens. No other package reads the environment
// variables for tokens.
package credentials

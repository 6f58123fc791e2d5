// Package credentials decides how a run authenticates to GitHub, Depot, Doppler, Daytona and registries: which
// source takes precedence, what is masked, and when a GitHub OIDC token is requested. It is the only reader of
// token variables.
package credentials

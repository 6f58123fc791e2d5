// Package e2e tests the programs, actions, workflows, examples and documents as a user sees them, against the local
// cloud.
package e2e

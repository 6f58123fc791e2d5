// Package e2e tests the programs, actions, workflows, examples and docs end to end against the local cloud.
package e2e

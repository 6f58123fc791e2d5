// Package e2e tests the three programs, their actions and workflows, and the documentation from outside, against the local cloud.
package e2e

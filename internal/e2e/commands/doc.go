// Package commands runs the commands of the documents. It is separate from package e2e, so that both run at the same
// time: the tests of e2e share a local cloud, and run one after another.
package commands

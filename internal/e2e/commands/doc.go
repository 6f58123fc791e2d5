// Package commands runs the commands of the documents. It is apart from package e2e, whose tests share a local cloud, so
// that both can run at the same time.
package commands

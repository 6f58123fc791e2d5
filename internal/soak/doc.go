// Package soak runs the programs under faults and judges each outcome: a run must succeed, or end before its deadline
// with a message that names the service, and leave nothing behind that its outputs do not name.
//
//	make soak  # all cases; writes docs/reliability.md
//
// A test run without -full runs a fixed selection of the cases. The package has only tests, because only tests may
// import the local cloud.
package soak

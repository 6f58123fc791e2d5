#!/usr/bin/env bash
# Runs commands as at a prompt, for the recording of scripts/demo.sh.
set -u

# show COMMAND ARGUMENT… prints a prompt and the command, and runs it.
show() {
	printf '\e[1;32m$\e[0m %s\n' "$*"
	"$@"
	sleep 1 # of the recording
}

show action-build
show action-test --run '^(git|node)'
show action-snapshot
show action-snapshot list
show action-build --target nosuch

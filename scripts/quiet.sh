#!/usr/bin/env bash
# Runs a command, and shows the end of its output if it fails: scripts/quiet.sh NAME COMMAND…
set -euo pipefail
name=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$@" >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "$name: command failed: $*" >&2
	exit 1
fi

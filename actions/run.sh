#!/usr/bin/env bash
# Finds the program of an action and becomes it: actions/run.sh build. Inputs are in INPUT_* variables; nothing is evaluated.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=action-${1:?the name of an action}
shift

if ! command -v go >/dev/null; then
	echo "::error::The action builds its program with Go, and this runner has none: add a step with actions/setup-go before it."
	exit 1
fi
# The caller's own Go settings and workspaces are none of ours; versions are those of go.sum.
folder=$(mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/sandbox-actions-XXXXXX")
if ! (cd "$root" && env -u GOFLAGS GOWORK=off CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags='-s -w' -o "$folder/$name" "./$name"); then
	rm -rf "$folder"
	echo "::error::$name could not be built from its source: what Go said is above."
	exit 1
fi
if [[ ! -d /proc/self/fd ]]; then
	exec "$folder/$name" "$@" # RUNNER_TEMP is emptied after the job
fi
# An open file can be run without its name: nothing is left, however the program ends.
exec {program}<"$folder/$name"
rm -rf "$folder"
exec -a "$name" "/proc/self/fd/$program" "$@"

#!/usr/bin/env bash
# Installs or builds what `make lint`, `make test` and `make demo` need: scripts/setup.sh lint|test|demo. Says what it does;
# says nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v go >/dev/null || {
	echo "setup: Go is missing: install Go $(sed -n 's/^go //p' go.mod) or newer from https://go.dev/dl" >&2
	exit 1
}
scripts/packages.sh
scripts/quiet.sh setup go mod download
scripts/tools.sh
[[ ${1:?lint, test or demo} == lint ]] && exit 0
# The base image waits for the network, the engine for the processor.
scripts/base-image.sh &
base=$!
scripts/engine-build.sh
wait "$base"
[[ $1 == demo ]] || scripts/depot-cli.sh

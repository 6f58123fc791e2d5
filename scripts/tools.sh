#!/usr/bin/env bash
# Builds the programs that tests, lint and the demo use (BuildKit's daemon, act, the Doppler CLI, linters) at the versions that
# the modules under internal/tools pin, into .cache/bin. Does nothing when they are there and no version has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

bin="$PWD/.cache/bin"
modules=(internal/tools internal/tools/act internal/tools/doppler)
want=$(cat "${modules[@]/%//go.mod}" "${modules[@]/%//go.sum}" | sha256sum)
if [[ "$(cat "$bin/.tools" 2>/dev/null)" == "$want" ]]; then
	exit 0
fi
echo "tools: building BuildKit, act, the Doppler CLI and the linters (about 4 minutes on 2 cores, once)"
mkdir -p "$bin"
for module in "${modules[@]}"; do
	CGO_ENABLED=0 GOBIN="$bin" scripts/quiet.sh tools go -C "$module" install -trimpath -ldflags='-s -w' tool
done
mv "$bin/cli" "$bin/doppler" # DopplerHQ/cli
echo "$want" >"$bin/.tools"

#!/usr/bin/env bash
# Builds the current Docker Engine (dockerd, docker-proxy, containerd, its shim, runc) at the versions that
# internal/tools/engine/go.mod pins, into .cache/engine. Does nothing when it is there and no version has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

bin="$PWD/.cache/engine"
want=$(cat internal/tools/engine/go.* | sha256sum)
if [[ "$(cat "$bin/.built" 2>/dev/null)" == "$want" ]]; then
	exit 0
fi
echo "engine: building the current Docker Engine from its modules (about 5 minutes on 2 cores, once)"
mkdir -p "$bin"
install=(scripts/quiet.sh engine go -C internal/tools/engine install -trimpath)
# runc needs C for its seccomp filters; the others are plain Go.
CGO_ENABLED=1 GOBIN="$bin" "${install[@]}" -tags seccomp -ldflags='-s -w' github.com/opencontainers/runc
CGO_ENABLED=0 GOBIN="$bin" "${install[@]}" -ldflags='-s -w' \
	github.com/containerd/containerd/v2/cmd/containerd \
	github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
	github.com/moby/moby/v2/cmd/docker-proxy \
	github.com/moby/moby/v2/cmd/dockerd
echo "$want" >"$bin/.built"

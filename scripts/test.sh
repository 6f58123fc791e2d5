#!/usr/bin/env bash
# Every test, with the race detector, and then every fuzz target for a while. Arguments go to `go test`, and nothing is fuzzed:
# scripts/test.sh ./pkg/image -run Parity
set -euo pipefail
cd "$(dirname "$0")/.."
GOFLAGS="$(go env GOFLAGS) -mod=readonly"
export GOFLAGS
all=
(($# > 0)) || {
	all=yes
	set -- ./...
}
echo "test: go test -race $*"
# Much of it waits for daemons: three packages at a time keep two cores busy.
.cache/bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -race -p 3 -timeout 25m "$@"
[[ -z $all ]] || scripts/fuzz.sh

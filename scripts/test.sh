#!/usr/bin/env bash
# Every test, with the race detector. Arguments go to `go test`: scripts/test.sh ./pkg/image -run Parity
set -euo pipefail
cd "$(dirname "$0")/.."
(($# > 0)) || set -- ./...
echo "test: go test -race $*"
# Much of it waits for daemons: three packages at a time keep two cores busy.
exec .cache/bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -race -p 3 -timeout 25m "$@"

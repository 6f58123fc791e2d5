#!/usr/bin/env bash
# Runs tests. Arguments are passed to go test; the default is all packages.
#
#   scripts/test.sh                           all tests, with shared daemons
#   scripts/test.sh ./pkg/image -run Parity   one package, which starts its own daemons
#   scripts/test.sh -race ./pkg/...           with the race detector
set -euo pipefail
cd "$(dirname "$0")/.."

# Use the settings of a release, so that tests, programs and releases share packages in Go's build cache.
# shellcheck source=actions/buildenv.sh
. actions/buildenv.sh

run=()
if (($# == 0)); then
	set -- ./...
fi
if [[ " $* " == *'... '* ]]; then
	run=(go run ./internal/localcloud/cmd/testdaemons)
fi
if [[ " $* " == *' -race '* ]]; then
	export CGO_ENABLED=1
fi
echo "test: go test $*"
# Many tests wait for daemons, so running three packages at a time keeps two cores busy. The timeout ends a test that
# hangs: on a machine with a load of 8, internal/e2e takes 40 minutes.
"${run[@]}" .cache/bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -p 3 -timeout 75m "$@"

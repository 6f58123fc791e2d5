#!/usr/bin/env bash
# Runs tests. Arguments go to go test; the default is every package.
#
#   scripts/test.sh                           all tests, with one set of daemons for all packages
#   scripts/test.sh ./pkg/image -run Parity   one package, which starts the daemons that it needs
#   scripts/test.sh -race ./pkg/...           with the race detector
set -euo pipefail
cd "$(dirname "$0")/.."

# The settings of a release: tests, programs and releases then share the packages in Go's build cache.
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
# Many tests wait for daemons: three packages at a time keep two cores busy.
"${run[@]}" .cache/bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -p 3 -timeout 25m "$@"

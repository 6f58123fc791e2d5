#!/usr/bin/env bash
# Measures with the tests of internal/bench, and writes bench and docs/benchmarks.md. Arguments are passed to go test.
#
#   scripts/bench.sh -run Peers           compare with the Depot CLI, docker and buildctl
#   scripts/bench.sh -run Peers/cached    some of the rows
#   scripts/bench.sh -run Growth -large   measure the growth, also with several GB
set -euo pipefail
cd "$(dirname "$0")/.."

# Measure programs with the settings of a release.
# shellcheck source=actions/buildenv.sh
. actions/buildenv.sh

# The large cases fill the builders with up to 30 GB.
root=$PWD
trap 'rm -rf "$root/.cache/test/daemons/internal/bench"' EXIT

# In the directory of the package, go test prints each row when it is measured.
cd internal/bench
go test -count=1 -timeout 2h "$@" -full

#!/usr/bin/env bash
# Fuzzes every fuzz target of every package for a time, two at once: scripts/fuzz.sh [TIME] [NAME…]
#
#   scripts/fuzz.sh                  all, 20 s each, as `make test` does after the tests
#   scripts/fuzz.sh 10m FuzzParse    one, longer
#
# An input that fails is written to the package's testdata/fuzz, where `go test` runs it from then on: commit it with what mends it. Inputs that
# lead to new code are kept in Go's build cache, so that the next run begins where this one ended.
set -euo pipefail
cd "$(dirname "$0")/.."
GOFLAGS="$(go env GOFLAGS) -mod=readonly"
export GOFLAGS

time=${1:-20s}
(($# == 0)) || shift
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

targets=$(git ls-files -co --exclude-standard '*_test.go' | xargs grep -Ho '^func Fuzz[A-Za-z0-9_]*' | sed -E 's|^(.*)/[^/]*:func (.*)|\2 ./\1|' | sort -u)
if (($# > 0)); then
	targets=$(grep -E "^($(tr ' ' '|' <<<"$*")) " <<<"$targets") || {
		echo "fuzz: there is no target $*: git grep 'func Fuzz' shows which there are" >&2
		exit 1
	}
fi

# Built one after the other, with both cores, so that the time goes to fuzzing.
awk '{ print $2 }' <<<"$targets" | sort -u | while read -r package; do
	scripts/quiet.sh "fuzz $package" go test -run '^$' -fuzz '^$' "$package"
done

# one NAME PACKAGE fuzzes one target. A worker has one core; what is new is made smaller only a little, for that can take all of the time.
one() {
	local log=$logs/$1
	if ! go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 20x -parallel 1 "$2" >"$log" 2>&1; then
		grep -v '^fuzz: elapsed' "$log" >&2
		echo "fuzz: $1 in $2 failed: see above" >&2
		return 1
	fi
	sed -nE "s/^fuzz: elapsed: .*execs: ([0-9]+).*\(total: ([0-9]+)\)/fuzz: $1: \1 executions, \2 inputs/p" "$log" | tail -n 1
}
export -f one
export logs time
xargs -L 1 -P 2 bash -c 'one "$@"' one <<<"$targets"

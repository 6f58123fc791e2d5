#!/usr/bin/env bash
# Runs fuzz tests, two at a time: scripts/fuzz.sh [TIME] [NAME…]
#
#   scripts/fuzz.sh                  every fuzz test for 20 s
#   scripts/fuzz.sh 10m FuzzParse    one fuzz test for 10 minutes
#
# A failing input is written to testdata/fuzz in its package, and go test runs it from then on: commit it with the fix.
# Inputs that increase coverage stay in Go's build cache, and the next run starts from them.
set -euo pipefail
cd "$(dirname "$0")/.."
GOFLAGS="$(go env GOFLAGS) -mod=readonly"
export GOFLAGS

fuzz_time=${1:-20s}
(($# == 0)) || shift
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Lines of "NAME PACKAGE".
targets=$(git ls-files -co --exclude-standard '*_test.go' | xargs grep -Ho '^func Fuzz[A-Za-z0-9_]*' |
	sed -E 's|^(.*)/[^/]*:func (.*)|\2 ./\1|' | sort -u)
if (($# > 0)); then
	targets=$(grep -E "^($(tr ' ' '|' <<<"$*")) " <<<"$targets") || {
		echo "fuzz: unknown fuzz test in \"$*\": list them with git grep 'func Fuzz'" >&2
		exit 1
	}
fi

# Compile first, with all cores, so that compiling does not use up the fuzzing time.
awk '{ print $2 }' <<<"$targets" | sort -u | while read -r package; do
	scripts/quiet.sh "fuzz $package" go test -run '^$' -fuzz '^$' "$package"
done

# fuzz_target NAME PACKAGE runs one fuzz test on one core. It limits minimization, which could use up the fuzzing time.
fuzz_target() {
	local log=$logs/$1
	if ! go test -run '^$' -fuzz "^$1\$" -fuzztime "$fuzz_time" -fuzzminimizetime 20x -parallel 1 "$2" >"$log" 2>&1; then
		grep -v '^fuzz: elapsed' "$log" >&2
		echo "fuzz: $1 in $2 failed: see the output above" >&2
		return 1
	fi
	sed -nE "s/^fuzz: elapsed: .*execs: ([0-9]+).*\(total: ([0-9]+)\)/fuzz: $1: \1 executions, \2 inputs/p" "$log" |
		tail -n 1
}
export -f fuzz_target
export logs fuzz_time
xargs -L 1 -P 2 bash -c 'fuzz_target "$@"' fuzz_target <<<"$targets"

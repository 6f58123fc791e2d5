#!/usr/bin/env bash
# Every test, with the race detector. Arguments go to `go test`: scripts/test.sh ./pkg/image -run Parity
set -euo pipefail
cd "$(dirname "$0")/.."
run=(.cache/bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -timeout 25m)
if (($# > 0)); then
	echo "test: go test -race $*"
	exec "${run[@]}" -race "$@"
fi
echo "test: go test -race, of every package; the sandbox image is read without the detector, which makes that many times slower"
mapfile -t packages < <(go list ./... | grep -v /sandbox$)
# Much of it waits for daemons: three packages at a time keep two cores busy.
"${run[@]}" ./sandbox &
sandbox=$!
status=0
"${run[@]}" -race -p 3 "${packages[@]}" || status=1
wait "$sandbox" || status=1
exit "$status"

#!/usr/bin/env bash
# gofmt, vet, staticcheck, actionlint and shellcheck. Prints what is wrong, and one line when nothing is.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
if [[ -n $unformatted ]]; then
	echo "gofmt: run gofmt -w on: $unformatted" >&2
	status=1
fi
go vet ./... || status=1
.cache/bin/staticcheck ./... || status=1
.cache/bin/actionlint -shellcheck "$(command -v shellcheck)" || status=1
git ls-files -co --exclude-standard '*.sh' .ci/run | xargs shellcheck || status=1
((status)) || echo "lint: nothing to mend"
exit "$status"

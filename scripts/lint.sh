#!/usr/bin/env bash
# gofmt, vet, staticcheck, actionlint, shellcheck; what is downloaded is what go.sum says, go.mod is tidy, and nothing in the programs is known to
# be vulnerable. Prints what is wrong, and one line when nothing is.
set -euo pipefail
cd "$(dirname "$0")/.."
GOFLAGS="$(go env GOFLAGS) -mod=readonly"
export GOFLAGS
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
while read -r module; do
	scripts/quiet.sh "$module" go -C "$(dirname "$module")" mod verify || status=1
	scripts/quiet.sh "$module" go -C "$(dirname "$module")" mod tidy -diff || status=1
done < <(git ls-files -co --exclude-standard go.mod '**/go.mod')
scripts/vuln.sh || status=1
((status)) || echo "lint: nothing to mend"
exit "$status"

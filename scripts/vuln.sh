#!/usr/bin/env bash
# Looks for known vulnerabilities in what the three programs call (govulncheck), in the Go that go.mod has them released with, and ends with
# 1 when there are any. The Go team's database is a Go module: a pinned copy of it works where only a module proxy is in reach.
#
#   scripts/vuln.sh          the pinned copy; a newer one: write another version and its sum below
#   scripts/vuln.sh latest   https://vuln.go.dev as it is now, for CI on GitHub (.github/workflows/ci.yml, every week)
set -euo pipefail
cd "$(dirname "$0")/.."

copy=golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018
sum=h1:mfngRv0Yoh0VApsXKEN82CjD99kl7mtparN3bs3JnqI=

fail() {
	echo "vuln: $*" >&2
	exit 1
}

if [[ ${1:-} == latest ]]; then
	database=https://vuln.go.dev
else
	answer=$(go mod download -json "$copy") || fail "$copy can not be fetched, so nothing was checked: is the Go module proxy in reach?"
	[[ $answer == *"\"Sum\": \"$sum\""* ]] || fail "$copy has another sum than the one that is pinned in scripts/vuln.sh"
	database=file://$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$answer")/data/osv
fi

# The vulnerabilities of the standard library are those of the Go that is released with, not of who runs this.
mkdir -p .cache/vuln
GOBIN=$PWD/.cache/vuln scripts/quiet.sh vuln go -C internal/tools/vuln install -trimpath tool
# shellcheck source=actions/buildenv.sh
released=$(. actions/buildenv.sh && echo "$go_toolchain")
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if ! GOTOOLCHAIN=$released .cache/vuln/govulncheck -db "$database" ./action-build ./action-snapshot ./action-test >"$report" 2>&1; then
	grep -v '^      #[0-9][0-9]' "$report" >&2
	fail "see above: raise the module to the version that mends it (go get MODULE@VERSION), or Go itself (go mod edit -toolchain=goN.N.N)"
fi

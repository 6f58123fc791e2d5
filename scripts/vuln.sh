#!/usr/bin/env bash
# Checks the three programs for known vulnerabilities with govulncheck and the Go version that releases use. Exits with
# 1 if it finds any.
#
#   scripts/vuln.sh          uses a pinned copy of the database, which is a Go module: no other network access is needed
#   scripts/vuln.sh latest   uses https://vuln.go.dev, as CI on GitHub does every week
set -euo pipefail
cd "$(dirname "$0")/.."

# To update the database, change the version and its checksum.
database_module=golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018
database_sum=h1:mfngRv0Yoh0VApsXKEN82CjD99kl7mtparN3bs3JnqI=

fail() {
	echo "vuln: $*" >&2
	exit 1
}

if [[ ${1:-} == latest ]]; then
	database=https://vuln.go.dev
else
	download=$(go mod download -json "$database_module") ||
		fail "cannot download $database_module: check the connection to the Go module proxy"
	[[ $download == *"\"Sum\": \"$database_sum\""* ]] ||
		fail "checksum mismatch for $database_module: want $database_sum, which scripts/vuln.sh pins"
	database=file://$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$download")/data/osv
fi

mkdir -p .cache/vuln
GOBIN=$PWD/.cache/vuln scripts/quiet.sh vuln go -C internal/tools/vuln install -trimpath tool
# Check the standard library of the Go version that releases use, not of the installed Go.
# shellcheck source=actions/buildenv.sh
release_toolchain=$(. actions/buildenv.sh && echo "$go_toolchain")
report=$(mktemp)
trap 'rm -f "$report"' EXIT
if ! GOTOOLCHAIN=$release_toolchain .cache/vuln/govulncheck -db "$database" \
	./action-build ./action-snapshot ./action-test >"$report" 2>&1; then
	grep -v '^      #[0-9][0-9]' "$report" >&2
	fail "found vulnerabilities, see above: run go get MODULE@VERSION, or go mod edit -toolchain=goN.N.N for Go itself"
fi
